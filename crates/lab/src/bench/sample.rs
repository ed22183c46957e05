//! Samples: what one lane did under one load in one round.

use serde::Serialize;

use crate::lane::Kind;

/// New connections by ab.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Connections {
    /// Requests, each on its own connection, per second.
    pub requests_per_second: f64,
    /// 99th percentile of the time of a request, in milliseconds.
    pub p99_ms: f64,
    /// CPU time of the lab (see [`crate::load`]) per connection, in microseconds.
    pub lab_us: f64,
    /// CPU time of the whole machine per connection, in microseconds.
    pub machine_us: f64,
    /// CPU time of the forwarder's processes per connection, in microseconds.
    pub forwarder_us: Option<f64>,
}

/// One bulk TCP stream by iperf3.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bulk {
    /// Payload received, in 10^9 bit/s.
    pub gbit_per_second: f64,
    /// CPU time of the lab per 10^9 bytes, in milliseconds.
    pub lab_ms_per_gb: f64,
    /// CPU time of the whole machine per 10^9 bytes, in milliseconds.
    pub machine_ms_per_gb: f64,
    /// CPU time of the forwarder's processes per 10^9 bytes, in milliseconds.
    pub forwarder_ms_per_gb: Option<f64>,
}

/// One lane in one round under one load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    pub round: usize,
    pub lane: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulk: Option<Bulk>,
}

impl Sample {
    pub fn connections(round: usize, kind: Kind, connections: Connections) -> Self {
        Self { round, lane: kind.name(), connections: Some(connections), bulk: None }
    }

    pub fn bulk(round: usize, kind: Kind, bulk: Bulk) -> Self {
        Self { round, lane: kind.name(), connections: None, bulk: Some(bulk) }
    }
}
