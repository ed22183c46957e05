//! Snapshots: what an engine saw, as plain data that comes back up. Rates are computed here from two
//! snapshots and the time between them, which is an argument.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counters of one rule on one engine. All totals count from the start of the engine's state, which on
/// nftables may be older than the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounters {
    /// Flows alive now (TCP connections and UDP flows).
    pub live: u64,
    /// Flows begun.
    pub flows: u64,
    /// Bytes from clients to the backend (on nftables with IP headers, on the proxy without).
    pub bytes_in: u64,
    /// Bytes from the backend to clients.
    pub bytes_out: u64,
    /// Flows that could not be carried (backend refused or timed out, a limit refused the flow).
    pub failed: u64,
}

/// Counters of one member of a rule's pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCounters {
    /// Flows alive now.
    pub live: u64,
    /// Flows begun.
    pub flows: u64,
    /// Flows that it did not take (refused, timed out, reset before the first byte); the proxy's only.
    pub failed: u64,
    /// Whether passive checks leave it out now.
    pub ejected: bool,
}

/// What one engine saw. Rules are keyed by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSnapshot {
    /// Counters by rule name.
    pub rules: BTreeMap<String, RuleCounters>,
    /// Counters by rule name and by target as it is displayed ("10.0.0.1:80"); of rules with more than one member.
    pub members: BTreeMap<String, BTreeMap<String, MemberCounters>>,
    /// Engine-wide figures by name ("accept_paused", "open_pipes"), for the operator.
    pub gauges: BTreeMap<String, u64>,
    /// Packets that were not carried, by rule name and reason in words ("table full"); of an engine that meets packets
    /// itself. Reasons that never happened are left out.
    #[serde(default)]
    pub drops: BTreeMap<String, BTreeMap<String, u64>>,
    /// How full the flow table is, of an engine that has one of its own.
    #[serde(default)]
    pub table: Option<Fill>,
    /// How full the source ports are, for each address of this host and backend; of an engine that chooses them itself.
    #[serde(default)]
    pub source_ports: Vec<SourcePorts>,
}

/// How much of something bounded is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// How many are taken.
    pub used: u64,
    /// How many there are.
    pub of: u64,
}

impl Fill {
    /// In percent, rounded down; nothing of nothing is full.
    pub fn percent(self) -> u64 {
        (u128::from(self.used) * 100)
            .checked_div(u128::from(self.of))
            .map_or(100, |percent| u64::try_from(percent).unwrap_or(u64::MAX))
    }
}

/// The source ports that flows to one backend have on one address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePorts {
    /// The protocol's number (6, 17).
    pub protocol: u8,
    /// The address of this host that the backend sees.
    pub source: IpAddr,
    /// The backend.
    pub backend: SocketAddr,
    /// How full they are: those of the configured range.
    pub fill: Fill,
}

/// New flows per second of one rule, from two totals and the time between them. A total that went backwards
/// (a counter that was reset) counts from zero.
pub fn flows_per_second(before: u64, now: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds <= 0.0 {
        return 0.0;
    }
    let new = if now >= before { now - before } else { now };
    // Totals stay far below 2^52, so the conversion is exact.
    new as f64 / seconds
}
