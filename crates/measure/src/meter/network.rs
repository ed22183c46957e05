//! Figures of network namespaces: packets, segments sent again, tracked flows. Source ports are [`super::ports`]'.

use std::fs;

use portway_lab::Namespace;

use crate::lane::setup::Lane;

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Packets that entered or left the gateway.
    pub packets: u64,
    /// TCP segments that client, gateway and server sent again.
    pub retransmits: u64,
}

impl Counters {
    /// Until now.
    pub fn of(lane: &Lane) -> Self {
        let hosts = [lane.net.client(), &lane.net.gateway, lane.net.server()];
        Self {
            packets: packets(&read(&lane.net.gateway, "dev")),
            retransmits: hosts.map(|host| resent(&read(host, "snmp"))).iter().sum(),
        }
    }
}

/// A file of /proc/net of a host; nothing of one that is not there.
pub fn read(host: &Namespace, file: &str) -> String {
    host.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default())
}

/// Packets of all interfaces but the loopback, received and sent: the second and tenth figure of /proc/net/dev.
fn packets(text: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    let both = |figures: &str| {
        let figures: Vec<u64> = figures.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        figures.get(1).unwrap_or(&0) + figures.get(9).unwrap_or(&0)
    };
    lines.map(|(_, figures)| both(figures)).sum()
}

/// `Tcp: RetransSegs` of /proc/net/snmp, which has a line of names and one of figures.
fn resent(text: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (Some(names), Some(figures)) = (lines.next(), lines.next()) else { return 0 };
    let mut both = names.split_whitespace().zip(figures.split_whitespace());
    both.find(|(name, _)| *name == "RetransSegs").and_then(|(_, figure)| figure.parse().ok()).unwrap_or(0)
}

/// Entries in the conntrack table of the thread's namespace; none without conntrack in the kernel.
pub fn conntrack() -> Option<u64> {
    fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_both_directions_count_and_the_loopback_does_not() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n   lan: 1000 5 0 0 0 0 0 0 900 7 0 0 0 0 0 0\n";
        assert_eq!(packets(text), 12);
    }

    #[test]
    fn segments_sent_again_are_found_by_name() {
        assert_eq!(resent("Ip: A B\nIp: 1 2\nTcp: OutSegs RetransSegs InErrs\nTcp: 7 3 1\n"), 3);
    }
}
