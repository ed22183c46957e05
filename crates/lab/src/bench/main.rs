//! The benchmark: every forwarder side by side in one run, rounds interleaved, medians and spread.
//!
//! `cargo build --release -p portway && sudo cargo run --release -p portway-lab --bin bench`
//!
//! Client, gateway and server are network namespaces of this machine, so "CPU" counts all three; what a
//! forwarder adds is the difference to plain routing in the same round. Deliberately absent: a judgement
//! by one number; every ratio is printed with the spread of its rounds.

mod lane;
mod load;
mod report;
mod sample;
mod stats;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;

use lane::{Kind, Lane};
use sample::Sample;

/// Compares Portway with plain routing, iptables, nft, HAProxy and nginx stream. Needs root.
#[derive(Debug, Parser)]
struct Options {
    /// Rounds; each runs every lane once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per lane and load in a round.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Only these lanes (comma-separated names as in the table), besides plain routing.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Write every sample to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report to this file as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

fn main() {
    let options = Options::parse();
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| wanted(*kind, &options.only)).collect();
    for name in &options.only {
        assert!(Kind::ALL.iter().any(|kind| kind.name() == name), "no lane is called {name:?}");
    }
    let start = Instant::now();
    eprintln!("setting up {} lanes", kinds.len());
    let lanes: Vec<Lane> = kinds.iter().map(|kind| Lane::set_up(*kind)).collect();
    let (mut samples, mut background) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        eprintln!("round {round} of {} ({:.0} s)", options.rounds, start.elapsed().as_secs_f64());
        background.push(load::background());
        for lane in &lanes {
            if lane.kind.takes_connections() {
                samples.push(Sample::connections(round, lane.kind, load::connections(lane, options.seconds)));
            }
            if lane.kind.takes_bulk() {
                samples.push(Sample::bulk(round, lane.kind, load::bulk(lane, options.seconds)));
            }
        }
    }
    let report = report::render(&samples, &background, &options.only);
    println!("{report}");
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&samples).expect("samples are plain data");
        fs::write(path, text + "\n").unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
    if let Some(path) = &options.markdown {
        fs::write(path, format!("{report}\n")).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
}

fn wanted(kind: Kind, only: &[String]) -> bool {
    // What a lane adds is told by its base.
    let named = |kind: &Kind| only.iter().any(|name| name == kind.name());
    only.is_empty() || named(&kind) || Kind::ALL.iter().any(|other| named(other) && other.base() == kind)
}
