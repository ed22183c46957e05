//! Figures of pools: how soon a verdict is in force, what Maglev's table moves, how exact the shares are; each beside the
//! bound that it has to keep.
//!
//! `cargo build --release -p portway && sudo cargo run --release -p portway-lab --bin facts`
//!
//! Everything is measured from the outside, through the engines, but for the time of an apply, which the daemon takes
//! itself: from a verdict to the last system call that puts it in force. Deliberately absent: rates and CPU time, which
//! are those of `portway lab`.

mod disruption;
mod row;
mod share;
mod verdict;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use portway_lab::{Engine, machine};

use row::Row;

/// Measures what pools promise. Needs root.
#[derive(Debug, Parser)]
struct Options {
    /// A look at whether everything runs: few rules, few clients, and no judgement.
    #[arg(long)]
    quick: bool,
    /// Write the report to this file as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

fn main() {
    let options = Options::parse();
    let load = fs::read_to_string("/proc/loadavg").expect("/proc is mounted");
    let load = load.split_whitespace().next().unwrap_or_default().to_owned();
    let start = Instant::now();
    let mut sections = Vec::new();
    for (title, measure) in [
        ("From a verdict to the data path", verdict::measure as fn(Engine, bool) -> Vec<Row>),
        ("One of N backends removed, consistent-hash", disruption::measure),
        ("Shares against weights", share::measure),
    ] {
        let mut rows = Vec::new();
        for engine in [Engine::Nftables, Engine::Proxy] {
            eprintln!("{title}: {engine} ({:.0} s)", start.elapsed().as_secs_f64());
            rows.extend(measure(engine, options.quick));
        }
        sections.push(format!("## {title}\n\n{}", row::table(&rows)));
    }
    let machine = machine::describe(&[("nft", "-v")]);
    let head = format!("# Pools: figures\n\n{machine} Load average before: {load}; times suffer from it.");
    let report = format!("{head}\n\n{}", sections.join("\n"));
    println!("{report}");
    if let Some(path) = &options.markdown {
        fs::write(path, &report).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
    assert!(options.quick || !report.contains(row::MISSED), "a bound was missed");
}
