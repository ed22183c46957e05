//! Snapshots: what an engine saw, as plain data that comes back up. Rates are computed here from two
//! snapshots and the time between them, which is an argument.

use std::collections::BTreeMap;
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
