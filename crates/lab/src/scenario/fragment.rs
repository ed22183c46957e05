//! Datagrams in parts: only the first part has ports, and all parts must meet the same rewriting.

use std::net::UdpSocket;
use std::time::Duration;

use crate::client::who_udp;
use crate::netns::{PATIENCE, wait_for};
use crate::traffic::Server;
use crate::{Engine, Portway, Topology};

use super::http::there_and_back;

/// The largest datagram of each family: 65,535 bytes of IPv4 with its header, and of IPv6 without.
const LARGEST: [(&str, usize); 2] = [("10.1.0.1:8000", 65_507), ("[fd01::1]:8000", 65_527)];

fn rules(engine: Engine) -> String {
    engine.forward("udp/0.0.0.0:8000", "10.2.0.10:7000") + &engine.forward("udp/[::]:8000", "[fd02::10]:7000")
}

fn message(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|i| ((i + seed) % 251) as u8).collect()
}

/// The largest datagrams there and back, and every size around the edges of the parts.
pub fn whole(engine: Engine) {
    let net = Topology::new();
    let _v4 = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _v6 = Server::udp_echo(net.server(), "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules(engine));
    let mut answer = vec![0; 65_536];
    for (to, largest) in LARGEST {
        let socket = net.client().dial(to);
        for size in [1452, 1453, 1472, 1473, 2900, 2960, 8000, largest - 1, largest] {
            let message = message(size, size);
            socket.send(&message).unwrap_or_else(|e| panic!("{size} bytes to {to}: {e}"));
            let length = socket.recv(&mut answer).unwrap_or_else(|e| panic!("{size} bytes by {to}: {e}"));
            assert!(answer[..length] == message, "{size} bytes by {to} came back as {length} others");
        }
    }
}

/// Datagrams in parts from many clients at a time, their parts among one another's.
pub fn interleaved(engine: Engine) {
    let net = Topology::with(3, 1);
    let _v4 = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _v6 = Server::udp_echo(net.server(), "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules(engine));
    for (to, _) in LARGEST {
        let sockets: Vec<UdpSocket> =
            net.clients.iter().flat_map(|client| (0..4).map(|_| client.dial(to))).collect();
        for round in 0..5 {
            let sent: Vec<Vec<u8>> = (0..sockets.len()).map(|i| message(9000 + i, round * 16 + i)).collect();
            for (socket, message) in sockets.iter().zip(&sent) {
                socket.send(message).expect("sent");
            }
            let mut answer = vec![0; 65_536];
            for (i, (socket, message)) in sockets.iter().zip(&sent).enumerate() {
                let length =
                    socket.recv(&mut answer).unwrap_or_else(|e| panic!("{to}, round {round}, {i}: {e}"));
                assert!(answer[..length] == *message, "{to}, round {round}, client {i}: other bytes");
            }
        }
    }
}

/// What goes to the host itself in parts stays the host's, on the same address.
pub fn host_keeps_its_own(engine: Engine) {
    let net = Topology::new();
    let _backend = Server::udp_named(net.server(), "10.2.0.10:7000", "backend");
    let _own = Server::udp_echo(&net.gateway, "10.1.0.1:9000");
    let _portway = Portway::start(&net.gateway, &rules(engine));
    let forwarded = net.client().dial("10.1.0.1:8000");
    let own = net.client().dial("10.1.0.1:9000");
    own.set_read_timeout(Some(PATIENCE.min(Duration::from_secs(2)))).expect("a positive time");
    let mut answer = vec![0; 65_536];
    for seed in 0..3 {
        assert_eq!(who_udp(&forwarded).expect("a datagram is answered"), "backend");
        let message = message(20_000, seed);
        own.send(&message).expect("sent");
        let length = own.recv(&mut answer).expect("the host's own service answers");
        assert!(answer[..length] == message, "other bytes came back");
    }
}

/// IPv4 that may be fragmented and is larger than the way out takes is fragmented there, as by any router: whole datagrams, and
/// parts that are too large themselves; to the server and to the client; with checksums that are done and that are left
/// to the device.
pub fn on_the_way_out(engine: Engine) {
    let net = Topology::new();
    let _portway = Portway::start(&net.gateway, &engine.forward("udp/0.0.0.0:8000", "10.2.0.10:7000"));
    for end in [net.client(), net.server()] {
        // What this host sends may be fragmented, here and on the way.
        end.sysctl("net.ipv4.ip_no_pmtu_disc", "1");
    }
    let server = net.server().bind("10.2.0.10:7000");
    let client = net.client().dial("10.1.0.1:8000");
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a positive time");
    }
    let mut buffer = vec![0; 65_536];
    // A datagram of so many bytes there, and one back.
    let mut asks = |there: usize, back: usize| {
        let (there, back) = (message(there, there), message(back, back));
        client.send(&there).expect("sent");
        let Ok((length, from)) = server.recv_from(&mut buffer) else { return false };
        assert!(buffer[..length] == there, "other bytes arrived");
        server.send_to(&back, from).expect("sent");
        let Ok(length) = client.recv(&mut buffer) else { return false };
        assert!(buffer[..length] == back, "other bytes came back");
        true
    };
    for (narrow, wide) in [("wan", "lan"), ("lan", "wan")] {
        net.gateway.ip(&format!("link set {narrow} mtu 1280\nlink set {wide} mtu 1500"));
        for checksums in ["on", "off"] {
            for host in [net.client(), net.server()] {
                // For XDP the ends always finish them.
                if engine != Engine::Xdp {
                    host.run(&format!("ethtool -K eth0 tx {checksums}"));
                }
            }
            for size in [1252, 1253, 1260, 1300, 1471, 1472, 1473, 3000, 9000, 30_000] {
                let (there, back) = if narrow == "wan" { (size, 100) } else { (100, size) };
                // The engine hears of a new MTU a moment later.
                wait_for(&format!("{size} bytes, {narrow} narrow, checksums {checksums}"), || {
                    asks(there, back)
                });
            }
        }
    }
}

/// Parts do not cross to the other family at `ebpf`, where nobody puts them together: they are counted, nothing of them arrives,
/// and the flow goes on. A relay has the whole datagram.
pub fn across_families(engine: Engine) {
    const SIZE: usize = 3000;
    // As many parts, over IPv4 and over IPv6.
    const PARTS: u64 = 3;
    let net = Topology::new();
    // Parts that fit through with the other family's header as well: what does not is told so, whatever it is.
    for end in [net.client(), net.server()].into_iter().filter(|_| engine.is_ebpf()) {
        end.ip("link set eth0 mtu 1400");
    }
    let crossing = [("46", "10.1.0.1:8000", "[fd02::10]:7000"), ("64", "[fd01::1]:8000", "10.2.0.10:7000")];
    let rule = |(name, to, at): (&str, &str, &str)| {
        engine.rule(&format!("name = '{name}'\nlisten = 'udp/{to}'\nforward = '{at}'"))
    };
    let portway = Portway::start(&net.gateway, &crossing.map(rule).concat());
    for (name, to, backend) in crossing {
        let (server, client) = (net.server().bind(backend), net.client().dial(to));
        let mut buffer = vec![0; 65_536];
        client.send(b"first").expect("sent");
        let (_, peer) = server.recv_from(&mut buffer).unwrap_or_else(|e| panic!("by {to}: {e}"));
        net.server().enter(|| server.connect(peer)).expect("a socket address");
        for (from, at, what) in [(&client, &server, "to the server"), (&server, &client, "to the client")] {
            let large = message(SIZE, 1);
            from.send(&large).expect("sent");
            from.send(b"small").expect("sent");
            let length = at.recv(&mut buffer).unwrap_or_else(|e| panic!("{what} by {to}: {e}"));
            if engine.is_ebpf() {
                assert_eq!(&buffer[..length], b"small", "{what} by {to}");
                continue;
            }
            let other = at.recv(&mut buffer[length..]).unwrap_or_else(|e| panic!("{what} by {to}: {e}"));
            let came = [&buffer[..length], &buffer[length..length + other]];
            assert!(came.contains(&&large[..]) && came.contains(&&b"small"[..]), "{what} by {to}");
        }
        if engine.is_ebpf() {
            assert_eq!(portway.drops(name, "fragment"), 2 * PARTS, "{:#}", portway.status());
        }
    }
}

/// TCP in parts, as senders without path MTU discovery have routers make of it, arrives as it was sent.
pub fn tcp(engine: Engine) {
    let net = Topology::new();
    let (server, client) = (net.far_server(1280), net.far_client(1280));
    for host in [&server.host, &client.host] {
        host.sysctl("net.ipv4.ip_no_pmtu_disc", "1");
    }
    let rules =
        engine.forward("0.0.0.0:8888", "10.3.0.10:80") + &engine.forward("[::]:8888", "[fd03::10]:81");
    there_and_back(&net, &client.host, &server.host, ["10.3.0.10:80", "[fd03::10]:81"], &rules, 3_000_000);
    // By the gateway, or by the ends behind it.
    let whole: u64 =
        [&net.gateway, &client.host, &server.host].map(|host| host.counter("ReasmOKs")).iter().sum();
    assert!(whole > 1000, "{whole} segments came in parts");
}
