//! ICMP about forwarded flows is told to the true other end; ICMP to the host itself stays the host's.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use crate::hops::FAR_SERVER4;
use crate::raw::{IcmpError, Raw};
use crate::topology::{LAN4, LAN6};
use crate::traffic::{Server, hang_up, tcp_works};
use crate::{Engine, Portway, Topology};

const PATIENCE: Duration = Duration::from_secs(2);

/// A closed port is told to whoever sent there: by the server's host to the client, and by the client's host, when its program
/// has gone, to the server.
pub fn unreachable_both_ways(engine: Engine) {
    unreachable(engine, [("10.1.0.1:8000", "10.2.0.10:7000"), ("[fd01::1]:8000", "[fd02::10]:7000")]);
}

/// The same between a client of one family and a server of the other, to each in its own words.
pub fn unreachable_across_families(engine: Engine) {
    unreachable(engine, [("10.1.0.1:8000", "[fd02::10]:7000"), ("[fd01::1]:8000", "10.2.0.10:7000")]);
}

fn unreachable(engine: Engine, rules: [(&str, &str); 2]) {
    let net = Topology::new();
    let file = rules.map(|(to, backend)| engine.forward(&format!("udp/{to}"), backend)).concat();
    let _portway = Portway::start(&net.gateway, &file);
    let refused = |socket: &UdpSocket, what: &str| {
        socket.send(b"anybody?").expect("sent");
        let error = socket.recv(&mut [0; 8]).expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{what}");
    };
    for (to, backend) in rules {
        refused(&net.client().dial(to), &format!("the client of {to} is told"));
        let server = net.server().bind(backend);
        let client = net.client().dial(to);
        client.send(b"hello").expect("sent");
        let (_, peer) = server.recv_from(&mut [0; 8]).expect("it arrives");
        net.server().enter(|| server.connect(peer)).expect("a socket address");
        hang_up(&client);
        refused(&server, &format!("the server {backend} is told"));
    }
}

/// A datagram with this time to live from the client to the listener, and the error that comes back.
fn probe(net: &Topology, ttl: u32) -> Option<IcmpError> {
    let raw = Raw::icmp(net.client());
    let socket = net.client().dial(&format!("{LAN4}:8000"));
    let port = socket.local_addr().expect("it is bound").port();
    socket.set_ttl(ttl).expect("a small number");
    socket.send(b"how far?").expect("sent");
    raw.icmp_error(PATIENCE, |error| error.source.port() == port)
}

/// traceroute sees the way: the gateway where the time to live ends there, and behind it the routers' errors about the
/// datagram that the client sent, with its own addresses in it, from the address that it called.
pub fn time_exceeded(engine: Engine) {
    let net = Topology::new();
    let far = net.far_server(1500);
    let _server = Server::udp_echo(&far.host, &format!("{FAR_SERVER4}:7000"));
    let _portway = Portway::start(&net.gateway, &engine.forward("udp/0.0.0.0:8000", "10.3.0.10:7000"));
    let listener: Ipv4Addr = LAN4.parse().expect("an address");
    for ttl in [1, 2, 3] {
        let error = probe(&net, ttl).unwrap_or_else(|| panic!("a time to live of {ttl} ends in silence"));
        assert_eq!((error.kind, error.code), (11, 0), "time exceeded: {error:?}");
        assert_eq!(error.from, listener, "ttl {ttl}: {error:?}");
        assert_eq!(*error.source.ip(), Ipv4Addr::new(10, 1, 0, 10), "ttl {ttl}: {error:?}");
        assert_eq!(error.destination, SocketAddrV4::new(listener, 8000), "ttl {ttl}: {error:?}");
    }
    let last = net.client().dial(&format!("{LAN4}:8000"));
    last.set_ttl(4).expect("a small number");
    last.send(b"far enough").expect("sent");
    last.recv(&mut [0; 16]).expect("the server answers");
}

/// Echo to the listener's address is answered by the host as always, small and large, whatever is forwarded there.
pub fn echo_is_the_hosts(engine: Engine) {
    let net = Topology::new();
    let _v4 = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _v6 = Server::tcp_echo(net.server(), "[fd02::10]:7000");
    let rules = engine.forward("10.1.0.1:8000", "10.2.0.10:7000")
        + &engine.forward("[fd01::1]:8000", "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    for host in [LAN4, LAN6] {
        net.client().run(&format!("ping -c 2 -i 0.2 -W 2 {host}"));
        net.client().run(&format!("ping -c 1 -W 2 -s 4000 {host}"));
    }
    tcp_works(net.client(), "10.1.0.1:8000");
    tcp_works(net.client(), "[fd01::1]:8000");
    for host in [LAN4, LAN6] {
        net.client().run(&format!("ping -c 1 -W 2 {host}"));
    }
}
