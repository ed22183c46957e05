//! The soak: mixed traffic through the ebpf engine for a long time, while everything is done to it that happens in years:
//! reloads, backends that die and return, a daemon that is killed, programs that are replaced.
//!
//! `cargo build --release -p portway && sudo cargo run --release -p portway-lab --bin soak -- --minutes 60`
//!
//! It ends with an error when a byte is wrong, when a connection or a datagram is lost that nothing was done to, or when
//! something has grown that should not. Deliberately absent: rates. The traffic is light, so that a busy machine tells
//! nothing.

mod lane;
mod leak;
mod log;
mod report;
mod traffic;
mod trouble;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use portway_lab::{Engine, machine};

use lane::Lane;

/// Soaks the ebpf engine. Needs root.
#[derive(Debug, Parser)]
struct Options {
    /// How long.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Seconds from one trouble to the next.
    #[arg(long, default_value_t = 3.0)]
    pause: f64,
    /// At the XDP hook as well.
    #[arg(long)]
    xdp: bool,
    /// Write the report to this file as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// A run that is shorter has flows time out sooner, or it would end with them.
const SHORT: Duration = Duration::from_secs(180);

fn main() {
    let options = Options::parse();
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let pause = Duration::from_secs_f64(options.pause);
    let engine = if options.xdp { Engine::Xdp } else { Engine::Ebpf };
    let before = leak::Machine::now();
    let start = Instant::now();
    // One daemon is killed over and over, the other lives from the first minute to the last: only it can be seen to grow.
    let mut lanes = [true, false].map(|killed| Lane::start(engine, killed, length < SHORT));
    let mut next = start;
    let mut said = Duration::ZERO;
    while start.elapsed() < length {
        lanes.iter_mut().for_each(Lane::trouble);
        next += pause;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if start.elapsed() >= said {
            said = start.elapsed() + Duration::from_secs(60);
            let words: Vec<String> = lanes.iter().map(Lane::words).collect();
            eprintln!("{:5.0} s: {}", start.elapsed().as_secs_f64(), words.join("; "));
        }
    }
    let took = start.elapsed();
    let ends: Vec<lane::End> = lanes.into_iter().map(Lane::end).collect();
    let machine = machine::describe(&[]);
    let report = report::render(&machine, took, pause, engine, &ends, [before, leak::Machine::now()]);
    println!("{report}");
    if let Some(path) = &options.markdown {
        fs::write(path, &report).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
    assert!(!report.contains(report::FAULT), "the soak found a fault");
}
