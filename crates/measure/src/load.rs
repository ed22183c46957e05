//! The loads: what is asked of every lane, and for how long.
//!
//! Here is which there are. Deliberately absent: what runs meanwhile beside the load ([`crate::meter`]).

use std::collections::BTreeMap;
use std::fs;

use portway_lab::{Scratch, process};
use serde_json::Value;

use crate::lane::Scheme;
use crate::lane::setup::{BULK, Lane, WEB};
use crate::options::Scale;
use crate::record::Latency;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A new connection for every request, 64 at a time.
    Connections,
    /// One stream from the client.
    BulkUp,
    /// One stream to the client.
    BulkDown,
}

/// What became of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long it ran, in seconds.
    pub seconds: f64,
    /// What succeeded.
    pub done: u64,
    /// Payload that arrived, in bytes.
    pub bytes: u64,
    /// What failed, by kind.
    pub errors: BTreeMap<String, u64>,
    /// How long one took.
    pub latency: Option<Latency>,
}

impl Load {
    /// All, in the order in which they run.
    pub const ALL: [Self; 3] = [Self::Connections, Self::BulkUp, Self::BulkDown];

    /// The name by which it is known.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::BulkUp => "bulk-up",
            Self::BulkDown => "bulk-down",
        }
    }

    /// What it is, in a few words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Connections => "a new connection for every request, 64 at a time",
            Self::BulkUp => "one stream from the client",
            Self::BulkDown => "one stream to the client",
        }
    }

    /// Whether it runs when nothing is said but how much time there is.
    pub fn is_in(self, scale: Scale) -> bool {
        scale != Scale::Quick || self != Self::BulkDown
    }

    /// Whether it can be asked of a lane.
    ///
    /// # Errors
    /// Why not, as a sentence without a full stop.
    pub fn suits(self, scheme: &Scheme) -> Result<(), String> {
        match (self, scheme) {
            (Self::Connections, Scheme::HaproxySplice) => Err("splicing matters to streams only".to_owned()),
            _ => Ok(()),
        }
    }

    /// How many seconds a run takes.
    pub fn seconds(self, scale: Scale) -> f64 {
        match scale {
            Scale::Quick => 1.0,
            Scale::Usual => 1.0,
            Scale::Long => 3.0,
        }
    }

    /// Runs it.
    ///
    /// # Panics
    /// When the generator fails.
    pub fn run(self, lane: &Lane, seconds: f64) -> Outcome {
        match self {
            Self::Connections => connections(lane, seconds),
            Self::BulkUp => bulk(lane, seconds, &[]),
            Self::BulkDown => bulk(lane, seconds, &["-R"]),
        }
    }
}

/// By ab.
fn connections(lane: &Lane, seconds: f64) -> Outcome {
    let files = Scratch::new();
    let percentiles = files.join("percentiles");
    let (address, port) = lane.address(WEB);
    let mut ab = lane.net.client().command("ab");
    // The bound on requests is never reached; ab wants one, and after -t.
    ab.args(["-q", "-t", &seconds.ceil().to_string(), "-n", "500000", "-c", "64", "-s", "10", "-e"]);
    let report = process::run(ab.arg(&percentiles).arg(format!("http://{address}:{port}/page")));
    let table = fs::read_to_string(&percentiles).unwrap_or_default();
    let percentile = |of: &str| {
        let line = table.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(','));
        line.and_then(|ms| ms.parse::<f64>().ok()).unwrap_or_default() * 1e3
    };
    let failed = field(&report, "Failed requests:") as u64;
    Outcome {
        seconds: field(&report, "Time taken for tests:"),
        done: field(&report, "Complete requests:") as u64 - failed,
        bytes: field(&report, "Total transferred:") as u64,
        errors: if failed > 0 { BTreeMap::from([("failed".to_owned(), failed)]) } else { BTreeMap::new() },
        latency: Some(Latency {
            p50: percentile("50"),
            p90: percentile("90"),
            p99: percentile("99"),
            ..Latency::default()
        }),
    }
}

/// By iperf3.
fn bulk(lane: &Lane, seconds: f64, more: &[&str]) -> Outcome {
    let (address, port) = lane.address(BULK);
    let mut iperf = lane.net.client().command("iperf3");
    iperf.args(["-c", address, "-p", &port.to_string(), "-J", "-t", &seconds.ceil().to_string()]).args(more);
    let report = process::run(&mut iperf);
    let report: Value = serde_json::from_str(&report).unwrap_or_default();
    let received = &report["end"]["sum_received"];
    Outcome {
        seconds: received["seconds"].as_f64().unwrap_or_default(),
        done: 1,
        bytes: received["bytes"].as_f64().unwrap_or_default() as u64,
        ..Outcome::default()
    }
}

fn field(report: &str, name: &str) -> f64 {
    let line = report.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("ab printed no {name:?}:\n{report}"))
}
