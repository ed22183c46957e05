//! Source ports of the gateway towards its servers: which are taken, and what a run has added to them.
//!
//! Who forwards says where they are to be found. The kernel's translation has them in the table of conntrack, where they stay for
//! minutes after a connection has ended, so one look after a run sees them all. The `ebpf` engine says how many it has given out
//! towards each backend.
//! Relays have sockets, whose ports are free again when they are closed, and every way to list sockets walks the kernel's one
//! table of all namespaces: with those that wait for their end after other runs, tens of milliseconds that the forwarder would
//! feel. So they are looked for where that is no matter ([`Held`]), and nothing is said of other loads.
//!
//! Lanes live through all loads, and not all that they remember is forgotten before a run, so only what was not there then is the
//! run's. Deliberately absent: IPv6, which no lane has.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;

use portway_lab::{Engine, Namespace};

use super::network::read;
use crate::lane::Scheme;
use crate::lane::setup::Lane;
use crate::load::Held;
use crate::record::Kind;

/// The network of all servers (its first three bytes).
const SERVERS: [u8; 3] = [10, 2, 0];
/// Numbers of protocols, as conntrack has them.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The ports themselves: by the protocol's number and the address that they are of, or lead to.
type Ports = BTreeMap<(u8, Ipv4Addr), HashSet<u16>>;

/// Source ports that are taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// These.
    Ports(Ports),
    /// So many, by what they lead from and to.
    Counts(BTreeMap<String, u64>),
}

impl Taken {
    /// Now, in a lane under a load, also by connections that have ended and wait; nothing where no port is chosen, or nobody says
    /// it.
    pub fn now(lane: &Lane, held: Held) -> Option<Self> {
        let gateway = &lane.net.gateway;
        match &lane.scheme {
            Scheme::Portway(Engine::Ebpf | Engine::Xdp | Engine::Clsact) => {
                chosen(&lane.portway()?.command("status --json").ok()?).map(Self::Counts)
            }
            Scheme::Portway(Engine::Nftables) => Some(Self::Ports(tracked(gateway))),
            scheme => match (scheme.kind(), held) {
                (Kind::Routing, _) => None,
                (Kind::Kernel, _) => Some(Self::Ports(tracked(gateway))),
                (_, Held::Connections) => Some(Self::Ports(connected(TCP, &read(gateway, "tcp")))),
                (_, Held::Flows) => Some(Self::Ports(connected(UDP, &read(gateway, "udp")))),
                (_, Held::Nothing) => None,
            },
        }
    }

    /// How many there are that were not there before, of the address that has most of them.
    pub fn since(&self, before: &Self) -> Option<u64> {
        match (self, before) {
            (Self::Counts(now), Self::Counts(before)) => {
                let new = |(of, count): (&String, &u64)| count.saturating_sub(*before.get(of).unwrap_or(&0));
                Some(now.iter().map(new).max().unwrap_or(0))
            }
            (Self::Ports(now), Self::Ports(before)) => {
                let new = |(of, ports): (&(u8, Ipv4Addr), &HashSet<u16>)| match before.get(of) {
                    Some(known) => ports.difference(known).count(),
                    None => ports.len(),
                };
                Some(now.iter().map(new).max().unwrap_or(0) as u64)
            }
            _ => None,
        }
    }
}

/// How many source ports are taken by the status of the engine that chooses them itself, by protocol, source and backend.
fn chosen(status: &str) -> Option<BTreeMap<String, u64>> {
    let status: serde_json::Value = serde_json::from_str(status).ok()?;
    let count = |pair: &serde_json::Value| {
        let [protocol, source, backend] = ["protocol", "source", "backend"].map(|of| &pair[of]);
        Some((format!("{protocol} {source} {backend}"), pair["fill"]["used"].as_u64()?))
    };
    status["source_ports"].as_array()?.iter().map(count).collect()
}

/// The ports that answers of servers come to, in a table of conntrack, by the gateway's address: each entry has the addresses
/// of both directions, and where the second one goes is where the gateway sends from. A table may have a million entries, so that
/// it is not kept.
fn translated(table: impl BufRead) -> Ports {
    let pair = |line: &str| {
        // `ipv4 2 tcp 6`: the protocol's number is the fourth word.
        let protocol = line.split_whitespace().nth(3)?.parse().ok()?;
        let answers = line.split(" src=").nth(2)?;
        let field = |name| answers.split_whitespace().find_map(|word| word.strip_prefix(name));
        Some((protocol, field("dst=")?.parse().ok()?, field("dport=")?.parse().ok()?))
    };
    let mut used = Ports::new();
    for (protocol, address, port) in table.lines().map_while(Result::ok).filter_map(|line| pair(&line)) {
        used.entry((protocol, address)).or_default().insert(port);
    }
    used
}

/// The table of conntrack of a host; nothing without conntrack in the kernel.
fn tracked(host: &Namespace) -> Ports {
    host.enter(|| {
        File::open("/proc/thread-self/net/nf_conntrack")
            .map_or_else(|_| Ports::new(), |table| translated(BufReader::new(table)))
    })
}

/// Local ports of the sockets of a protocol that are connected to a server, by the server's address (/proc/net/tcp and udp:
/// addresses and ports in hexadecimal, the address in the host's byte order).
fn connected(protocol: u8, table: &str) -> Ports {
    let ends = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let [local, remote] = [words.next()?.split_once(':')?, words.next()?.split_once(':')?];
        let server = u32::from_str_radix(remote.0, 16).ok()?.to_ne_bytes();
        let port = u16::from_str_radix(local.1, 16).ok()?;
        server.starts_with(&SERVERS).then(|| (Ipv4Addr::from(server), port))
    };
    let mut used = Ports::new();
    for (server, port) in table.lines().skip(1).filter_map(ends) {
        used.entry((protocol, server)).or_default().insert(port);
    }
    used
}

#[cfg(test)]
mod tests {
    use portway_lab::topology::SERVER4;

    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);

    fn ports(of: &[(u8, Ipv4Addr, &[u16])]) -> Taken {
        Taken::Ports(
            of.iter()
                .map(|(kind, address, ports)| ((*kind, *address), ports.iter().copied().collect()))
                .collect(),
        )
    }

    #[test]
    fn what_was_there_before_is_not_the_run_s() {
        let other = Ipv4Addr::new(10, 2, 0, 11);
        let before = ports(&[(6, SERVER, &[1, 2, 3]), (17, SERVER, &[7])]);
        // Two have come, of which one where nothing was; three have gone. A port of another protocol is another port.
        assert_eq!(ports(&[(6, SERVER, &[3, 4]), (6, other, &[9])]).since(&before), Some(1));
        assert_eq!(ports(&[(6, SERVER, &[1, 4, 5])]).since(&before), Some(2));
        assert_eq!(ports(&[(6, SERVER, &[7])]).since(&before), Some(1));
        assert_eq!(ports(&[]).since(&before), Some(0));
        assert_eq!(before.since(&before), Some(0));
        assert_eq!(Taken::Counts(BTreeMap::new()).since(&before), None);
    }

    #[test]
    fn source_ports_of_the_status_are_counted_for_each_backend() {
        let pair = |protocol: u8, used: u64| {
            format!(
                r#"{{"protocol": {protocol}, "source": "10.2.0.1", "backend": "10.2.0.10:80", "fill": {{"used": {used}, "of": 9000}}}}"#
            )
        };
        let taken = |pairs: &[String]| {
            Taken::Counts(chosen(&format!(r#"{{"source_ports": [{}]}}"#, pairs.join(","))).unwrap())
        };
        // Few datagrams after many connections, some of which run out meanwhile.
        let (before, now) = (taken(&[pair(6, 8000)]), taken(&[pair(6, 7900), pair(17, 64)]));
        assert_eq!(now.since(&before), Some(64));
        assert_eq!(before.since(&now), Some(100));
        assert_eq!(taken(&[pair(17, 7)]).since(&before), Some(7));
        assert_eq!(taken(&[]).since(&before), Some(0));
        assert_eq!(chosen(r#"{"source_ports": [{"fill": 3}]}"#), None);
        assert_eq!(chosen("{}"), None);
    }

    #[test]
    fn a_source_port_is_where_answers_go() {
        let entry = "ipv4 2 tcp 6 117 TIME_WAIT src=10.1.0.10 dst=10.1.0.1 sport=40000 dport=8888 src=10.2.0.10 dst=10.2.0.1 sport=80 dport=40001 [ASSURED] mark=0 use=1\n";
        let own = Ipv4Addr::new(10, 2, 0, 1);
        let taken = |table: &str| Taken::Ports(translated(table.as_bytes()));
        assert_eq!(taken(&(entry.to_owned() + entry)), ports(&[(6, own, &[40001])]));
        let second = entry.replace("dst=10.2.0.1 ", "dst=10.2.0.2 ");
        let third = entry.replace("dport=40001", "dport=40002").replace("tcp 6", "udp 17");
        assert_eq!(
            taken(&(entry.to_owned() + &second + &third)),
            ports(&[(6, own, &[40001]), (6, Ipv4Addr::new(10, 2, 0, 2), &[40001]), (17, own, &[40002])])
        );
        assert_eq!(taken("nothing of this\n\n"), ports(&[]));
    }

    #[test]
    fn a_relay_s_source_ports_are_those_of_sockets_towards_servers() {
        let word = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let (own, client, server, second) =
            (word([10, 2, 0, 1]), word([10, 1, 0, 10]), word([10, 2, 0, 10]), word([10, 2, 0, 11]));
        let table = format!(
            "  sl  local_address rem_address   st\n   0: {own}:22B8 00000000:0000 0A\n   1: {own}:9C41 {server}:0050 06\n\
             \x20  2: {own}:9C42 {server}:0050 01\n   3: {own}:9C42 {second}:0051 01\n   4: {own}:22B8 {client}:9C43 01\n   5: \n"
        );
        let found = Taken::Ports(connected(TCP, &table));
        assert_eq!(found, ports(&[(6, SERVER, &[40001, 40002]), (6, Ipv4Addr::new(10, 2, 0, 11), &[40002])]));
    }

    /// The network that is looked for is that of every lane's servers, those of a pool included.
    #[test]
    fn the_servers_are_in_their_network() {
        let server: Ipv4Addr = SERVER4.parse().unwrap();
        assert!(server.octets().starts_with(&SERVERS) && server.octets()[3] < 100);
    }
}
