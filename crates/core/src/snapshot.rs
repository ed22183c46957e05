//! Snapshots: what an engine saw, as plain data that comes back up. Rates are computed here from two
//! snapshots and the time between them, which is an argument; and what an operator should be warned of before it hurts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Protocol;

/// Counters of one rule on one engine. All totals count from the start of the engine's state, which on
/// nftables may be older than the daemon. What an engine does not count is nothing, not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounters {
    /// Flows alive now (TCP connections and UDP flows).
    pub live: u64,
    /// Flows begun.
    pub flows: u64,
    /// Packets from clients to the backend; nothing on the proxy, which meets none.
    pub packets_in: Option<u64>,
    /// Packets from the backend to clients.
    pub packets_out: Option<u64>,
    /// Bytes from clients to the backend (with IP headers, on the proxy without).
    pub bytes_in: u64,
    /// Bytes from the backend to clients.
    pub bytes_out: u64,
    /// Flows that could not be carried (backend refused or timed out, a limit refused the flow); nothing on nftables.
    pub failed: Option<u64>,
}

/// Counters of one member of a rule's pool. What an engine does not count is nothing, not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCounters {
    /// Flows alive now.
    pub live: u64,
    /// Flows begun.
    pub flows: u64,
    /// Packets to it; of an engine that meets packets and counts them for each member.
    pub packets_in: Option<u64>,
    /// Packets from it.
    pub packets_out: Option<u64>,
    /// Bytes to it, as in [`RuleCounters`].
    pub bytes_in: Option<u64>,
    /// Bytes from it.
    pub bytes_out: Option<u64>,
    /// Flows that it did not take (on the proxy: refused, timed out, reset before the first byte), or that could not be
    /// carried when it had been chosen.
    pub failed: Option<u64>,
    /// Whether passive checks leave it out now.
    pub ejected: bool,
    /// Packets that were not carried when it had been chosen, by reason, as in [`EngineSnapshot::drops`] and part of those.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
}

/// What one engine saw. Rules are keyed by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSnapshot {
    /// Counters by rule name.
    pub rules: BTreeMap<String, RuleCounters>,
    /// Counters by rule name and by target as it is displayed ("10.0.0.1:80"). Of a rule with one member they may be missing:
    /// then they are the rule's.
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

/// From how full on an operator is warned, in percent: time enough to change a file, not so early that it is always said.
const NEARLY_FULL: u64 = 80;

/// The most pairs of addresses that are named in a warning each.
const NAMED: usize = 5;

/// What is nearly exhausted on `engine`, a sentence each.
pub fn warnings(engine: &str, snapshot: &EngineSnapshot) -> Vec<String> {
    let full = |fill: Fill| fill.of > 0 && fill.percent() >= NEARLY_FULL;
    let mut found = Vec::new();
    if let Some(table) = snapshot.table.filter(|table| full(*table)) {
        found.push(format!(
            "{engine}: the flow table is {} % full ({} of {}); new flows are dropped when it is full: raise max-flows \
             in [{engine}]",
            table.percent(),
            table.used,
            table.of
        ));
    }
    let mut pairs: Vec<&SourcePorts> = snapshot.source_ports.iter().filter(|pair| full(pair.fill)).collect();
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.fill.percent()));
    found.extend(pairs.iter().take(NAMED).map(|pair| {
        let SourcePorts { protocol, source, backend, fill } = pair;
        let protocol = if *protocol == Protocol::Udp.number() { Protocol::Udp } else { Protocol::Tcp };
        format!(
            "{engine}: the {protocol} source ports of {source} to {backend} are {} % taken ({} of {}); new flows are \
             dropped when none is left: give the rule more addresses in `source`, or widen source-ports in [{engine}]",
            fill.percent(),
            fill.used,
            fill.of
        )
    }));
    if pairs.len() > NAMED {
        found.push(format!("{engine}: and so are those of {} more pairs of addresses", pairs.len() - NAMED));
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(last: u8, used: u64) -> SourcePorts {
        SourcePorts {
            protocol: 6,
            source: [192, 0, 2, 1].into(),
            backend: SocketAddr::from(([10, 0, 0, last], 80)),
            fill: Fill { used, of: 1000 },
        }
    }

    #[test]
    fn what_is_nearly_full_is_told_and_nothing_else() {
        let mut snapshot = EngineSnapshot::default();
        assert_eq!(warnings("ebpf", &snapshot), [""; 0]);
        snapshot.table = Some(Fill { used: 799, of: 1000 });
        snapshot.source_ports = vec![pair(1, 799), pair(2, 800)];
        let found = warnings("ebpf", &snapshot);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with(
                "ebpf: the tcp source ports of 192.0.2.1 to 10.0.0.2:80 are 80 % taken (800 of 1000)"
            ),
            "{found:?}"
        );
        snapshot.table = Some(Fill { used: 1000, of: 1000 });
        assert!(warnings("ebpf", &snapshot)[0].contains("flow table is 100 % full (1000 of 1000)"));
    }

    /// A thousand backends are not a thousand lines, and the fullest are named.
    #[test]
    fn many_pairs_are_counted() {
        let snapshot = EngineSnapshot {
            source_ports: (0..9).map(|n| pair(n, 900 + u64::from(n) * 10)).collect(),
            ..EngineSnapshot::default()
        };
        let found = warnings("ebpf", &snapshot);
        assert_eq!(found.len(), NAMED + 1);
        assert!(found[0].contains("10.0.0.8:80") && found[NAMED].contains("4 more"), "{found:?}");
    }

    #[test]
    fn fill_is_in_percent() {
        assert_eq!(Fill { used: 999, of: 1000 }.percent(), 99);
        assert_eq!(Fill { used: u64::MAX, of: u64::MAX }.percent(), 100);
        assert_eq!(Fill::default().percent(), 100);
    }

    #[test]
    fn a_total_that_went_back_counts_from_zero() {
        let second = Duration::from_secs(1);
        assert_eq!(flows_per_second(10, 15, second), 5.0);
        assert_eq!(flows_per_second(10, 3, second), 3.0);
        assert_eq!(flows_per_second(10, 15, Duration::ZERO), 0.0);
    }
}
