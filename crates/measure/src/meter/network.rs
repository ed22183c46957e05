//! Figures of network namespaces: packets, segments sent again, tracked flows, source ports.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;

use portway_lab::{Engine, Namespace};

use crate::lane::Scheme;
use crate::lane::setup::Lane;
use crate::record::Kind;

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

fn read(host: &Namespace, file: &str) -> String {
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

/// Source ports of the gateway that are in use towards the server now, also by connections that have ended and wait.
pub fn source_ports(lane: &Lane) -> Option<u64> {
    match &lane.scheme {
        Scheme::Portway(Engine::Ebpf | Engine::Xdp) => {
            chosen(&lane.portway()?.command("status --json").ok()?)
        }
        Scheme::Portway(Engine::Nftables) => Some(tracked(&lane.net.gateway)),
        scheme => match scheme.kind() {
            Kind::Routing => None,
            Kind::Kernel => Some(tracked(&lane.net.gateway)),
            Kind::Program | Kind::Portway => Some(connected(&read(&lane.net.gateway, "tcp"))),
        },
    }
}

/// Source ports by the status of the engine that chooses them itself: those of the backend that has most.
fn chosen(status: &str) -> Option<u64> {
    let status: serde_json::Value = serde_json::from_str(status).ok()?;
    status["source_ports"].as_array()?.iter().map(|pair| pair["fill"]["used"].as_u64()).max()?
}

/// Different ports that answers of the server come to, in a table of conntrack, of the address that has most: each entry has the
/// addresses of both directions, and where the second one goes is where the gateway sends from. A table may have a million
/// entries, so that it is not kept.
fn translated(table: impl BufRead) -> u64 {
    let pair = |line: &str| {
        let answers = line.split(" src=").nth(2)?;
        let field = |name| answers.split_whitespace().find_map(|word| word.strip_prefix(name));
        Some((field("dst=")?.parse().ok()?, field("dport=")?.parse().ok()?))
    };
    let mut used = BTreeMap::<Ipv4Addr, HashSet<u16>>::new();
    for (address, port) in table.lines().map_while(Result::ok).filter_map(|line| pair(&line)) {
        used.entry(address).or_default().insert(port);
    }
    used.values().map(HashSet::len).max().unwrap_or(0) as u64
}

/// The table of conntrack of a host; nothing without conntrack in the kernel.
fn tracked(host: &Namespace) -> u64 {
    host.enter(|| {
        File::open("/proc/thread-self/net/nf_conntrack").map_or(0, |table| translated(BufReader::new(table)))
    })
}

/// Different local ports of sockets that are connected to the server (/proc/net/tcp: addresses in hexadecimal, in the host's
/// byte order).
fn connected(table: &str) -> u64 {
    let server = format!("{:08X}:", u32::from_ne_bytes([10, 2, 0, 10]));
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote) = (words.next()?, words.next()?);
        remote.starts_with(&server).then(|| local.rsplit(':').next().map(str::to_owned))?
    };
    table.lines().skip(1).filter_map(port).collect::<BTreeSet<String>>().len() as u64
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

    #[test]
    fn source_ports_of_the_status() {
        let status = r#"{"source_ports": [{"fill": {"used": 3, "of": 9}}, {"fill": {"used": 7, "of": 9}}]}"#;
        assert_eq!(chosen(status), Some(7));
        assert_eq!(chosen(r#"{"source_ports": []}"#), None);
    }

    #[test]
    fn a_source_port_is_where_answers_go() {
        let table = "ipv4 2 tcp 6 117 TIME_WAIT src=10.1.0.10 dst=10.1.0.1 sport=40000 dport=8888 src=10.2.0.10 dst=10.2.0.1 sport=80 dport=40001 [ASSURED] mark=0 use=1\n";
        assert_eq!(translated((table.to_owned() + table).as_bytes()), 1);
        let other = table.replace("dst=10.2.0.1 ", "dst=10.2.0.2 ");
        let third = table.replace("dport=40001", "dport=40002");
        assert_eq!(translated((table.to_owned() + &other + &third).as_bytes()), 2);
        let table = "  sl  local_address rem_address   st\n   0: 0100010A:22B8 00000000:0000 0A\n   1: 0100020A:9C41 0A00020A:0050 06\n";
        assert_eq!(connected(table), 1);
    }
}
