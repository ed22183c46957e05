//! The gateway's own traffic on the addresses that it forwards by: services, connections of its own to the same backends,
//! segments of connections that nobody knows.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use crate::client::{Held, who_each};
use crate::raw::{Raw, Segment, flags};
use crate::raw_v6::is_reset;
use crate::topology::{LAN4, LAN6, WAN4};
use crate::traffic::{Server, echo, refusal, tcp_works, udp_works};
use crate::{Engine, Portway, Topology, peer};

/// Services of the host's own on the addresses and beside the ports that are forwarded: ssh, a web server, UDP. Ports that
/// nobody has are refused by the host.
pub fn services(engine: Engine) {
    let net = Topology::new();
    let _backend = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _datagrams = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let sshd = peer::Sshd::start(&net.gateway, 2222);
    let _own4 = Server::tcp_echo(&net.gateway, "10.1.0.1:8001");
    let _own6 = Server::tcp_echo(&net.gateway, "[fd01::1]:8000");
    let _udp = Server::udp_echo(&net.gateway, "10.1.0.1:8002");
    let rules = engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    let options = sshd.options();
    let said = net.client().run(&format!("ssh {options} -p 2222 root@{LAN4} echo at home"));
    assert_eq!(said.trim(), "at home");
    tcp_works(net.client(), &format!("{LAN4}:8001"));
    tcp_works(net.client(), &format!("[{LAN6}]:8000"));
    udp_works(net.client(), &format!("{LAN4}:8002"));
    tcp_works(net.client(), &format!("{LAN4}:8000"));
    udp_works(net.client(), &format!("{LAN4}:8000"));
    tcp_works(net.server(), &format!("{WAN4}:8000"));
    refusal(net.client(), &format!("{LAN4}:8003"));
}

/// The host's own connections to a backend, and forwarded ones with the same ports to the same backend: their ends on the wire
/// would be the same, so one of them must get another port, and it is not the host's.
pub fn same_ports_as_the_host(engine: Engine) {
    const PORTS: std::ops::Range<u16> = 20_000..20_100;
    let net = Topology::new();
    net.gateway.ip("address add 10.2.0.5/24 dev wan");
    let _backend = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let from = |ns: &crate::Namespace, address: &str, to: &str| -> Vec<Held> {
        let address: std::net::IpAddr = address.parse().expect("an address");
        PORTS.map(|port| Held::open_from(ns, SocketAddr::new(address, port), to)).collect()
    };
    let mut own = from(&net.gateway, WAN4, "10.2.0.10:7000");
    let mut forwarded = from(net.client(), "10.1.0.10", "10.1.0.1:8000");
    own.iter_mut().for_each(|held| held.lives("the host's own, beside a forwarded one of the same port"));
    forwarded.iter_mut().for_each(|held| held.lives("forwarded, beside the host's own of the same port"));
    drop(forwarded);
    own.iter_mut().for_each(|held| held.lives("the host's own, when the forwarded ones have gone"));
}

/// Connections that the host opens while others are forwarded to the same backend, the ports of both chosen as usual: the
/// host's range of ports is small here, and the clients want just these.
pub fn client_beside_flows(engine: Engine) {
    beside_flows(engine, "10.1.0.10", "10.1.0.1:8000", "10.2.0.10:7000");
}

/// The same over IPv6.
pub fn client_beside_flows_v6(engine: Engine) {
    beside_flows(engine, "fd01::10", "[fd01::1]:8000", "[fd02::10]:7000");
}

/// The same with clients of IPv4 and a backend of IPv6.
pub fn client_beside_flows_across_families(engine: Engine) {
    beside_flows(engine, "10.1.0.10", "10.1.0.1:8000", "[fd02::10]:7000");
}

fn beside_flows(engine: Engine, client: &str, listener: &str, backend: &str) {
    let net = Topology::new();
    net.gateway.sysctl("net.ipv4.ip_local_port_range", "33000 33499");
    let _backend = Server::tcp_named(net.server(), backend, "a");
    let _datagrams = Server::udp_echo(net.server(), backend);
    let _portway = Portway::start(&net.gateway, &engine.forward(&format!("tcp+udp/{listener}"), backend));
    let client: std::net::IpAddr = client.parse().expect("an address");
    // Every other port of the range is wanted by a client, before and after the host's own choice.
    let clients = || (0..100_u16).map(|nth| SocketAddr::new(client, 33_000 + 2 * nth));
    let mut held = Vec::new();
    for client in clients() {
        held.push(Held::open_from(net.client(), client, listener));
        held.push(Held::open(&net.gateway, backend));
    }
    held.iter_mut().for_each(|held| held.lives("beside a hundred of the other kind"));
    let sockets: Vec<_> = clients()
        .flat_map(|client| {
            let client = net.client().bind(&client.to_string());
            net.client().enter(|| client.connect(listener)).expect("a socket address");
            client.send(b"client").expect("sent");
            let own = net.gateway.dial(backend);
            own.send(b"host").expect("sent");
            [client, own]
        })
        .collect();
    for (nth, socket) in sockets.iter().enumerate() {
        let wanted: &[u8] = if nth % 2 == 0 { b"client" } else { b"host" };
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer).unwrap_or_else(|e| panic!("datagram {nth}: {e}"));
        assert_eq!(&answer[..length], wanted, "datagram {nth} met the other kind's socket");
    }
}

/// A segment out of the middle of a connection that nobody knows is not swallowed: the host answers by a reset, as it would
/// without Portway, to the client's side and to the server's. A sender that is told gives up at once.
pub fn unknown_flows_are_reset(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let sides = [
        (net.client(), "10.1.0.10:20000", "10.1.0.1:8000"),
        (net.server(), "10.2.0.10:7000", "10.2.0.1:45678"),
        (net.server(), "10.2.0.10:7000", "10.2.0.1:20000"),
    ];
    for (host, source, destination) in sides {
        let [source, destination]: [SocketAddrV4; 2] =
            [source, destination].map(|end| end.parse().expect("a socket address"));
        let raw = Raw::tcp(host);
        raw.send(&Segment::ack(source, destination)).expect("sent");
        let reset = |segment: &Segment| {
            segment.source == destination && segment.destination == source && segment.flags & flags::RST != 0
        };
        let answer = raw.segment(Duration::from_secs(2), reset);
        assert!(answer.is_some(), "silence for a segment from {source} to {destination}");
    }
    tcp_works(net.client(), "10.1.0.1:8000");
}

/// The same over IPv6.
pub fn unknown_flows_are_reset_v6(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("[::]:8000", "[fd02::10]:7000"));
    let sides = [
        (net.client(), "[fd01::10]:20000", "[fd01::1]:8000"),
        (net.server(), "[fd02::10]:7000", "[fd02::1]:45678"),
        (net.server(), "[fd02::10]:7000", "[fd02::1]:20000"),
    ];
    for (host, source, destination) in sides {
        let [from, to] = [source, destination].map(|end| end.parse().expect("a socket address"));
        assert!(is_reset(host, from, to), "silence for a segment from {source} to {destination}");
    }
    tcp_works(net.client(), "[fd01::1]:8000");
}

/// A client that lost its memory opens a connection with the port of one that the server still holds open: the server answers
/// with what it knows, the client resets that, and the next SYN opens a new connection (RFC 9293, figure 9).
pub fn half_open(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let client = SocketAddr::from(([10, 1, 0, 10], 20_000));
    let mut lost = Held::open_from(net.client(), client, "10.1.0.1:8000");
    lost.lives("at first");
    // The client's host forgets it, and its reset does not get through.
    net.client()
        .nft("table ip forget { chain out { type filter hook output priority 0; tcp flags rst drop; }\n}\n");
    drop(lost);
    net.client().nft("delete table ip forget\n");
    assert_eq!(who_each(net.client(), &[client], "10.1.0.1:8000"), ["a"]);
    let mut stream = net.client().connect("10.1.0.1:8000").expect("connects");
    assert_eq!(crate::client::name_from(&mut stream).expect("a name"), "a");
    echo(&mut stream, b"others too").expect("echoes");
}
