//! Which source address the backend sees.

use std::net::IpAddr;

use crate::client::{crowd, crowd6, who_each};
use crate::topology::{CLIENT4, CLIENT6, WAN4, WAN6};
use crate::traffic::{Server, tcp_works, udp_works};
use crate::{Engine, Portway, Topology};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// By default the backend sees the gateway's address on the way to it.
pub fn masquerade(engine: Engine) {
    let net = Topology::new();
    let v4 = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let v6 = Server::tcp_echo(net.server(), "[fd02::10]:7000");
    let udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let rules = engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("[::]:8000", "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    tcp_works(net.client(), "10.1.0.1:8000");
    tcp_works(net.client(), "[fd01::1]:8000");
    udp_works(net.client(), "10.1.0.1:8000");
    assert_eq!(v4.peers(), [address(WAN4)]);
    assert_eq!(v6.peers(), [address(WAN6)]);
    assert_eq!(udp.peers()[0], address(WAN4));
}

/// An address pool: the backend sees its addresses only, and each of them is used.
pub fn pool(engine: Engine) {
    let net = Topology::new();
    net.gateway.ip(
        "address add 10.2.0.5/24 dev wan\naddress add 10.2.0.6/24 dev wan\naddress add 10.2.0.7/24 dev wan",
    );
    let pool = [address("10.2.0.5"), address("10.2.0.7")];
    let tcp = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let rule = engine.rule(
        "listen = 'tcp+udp/0.0.0.0:8000'\nforward = '10.2.0.10:7000'\nsource = ['10.2.0.5', '10.2.0.7']",
    );
    let _portway = Portway::start(&net.gateway, &rule);
    // An engine may choose by the client's address, so forty clients: by chance alone one of the two pool
    // addresses is left out once in 10^11 runs.
    for i in 0..40 {
        let own = format!("10.1.0.{}", 100 + i);
        net.client()
            .ip(&format!("address add {own}/24 dev eth0\nroute replace 10.1.0.1/32 dev eth0 src {own}"));
        tcp_works(net.client(), "10.1.0.1:8000");
        udp_works(net.client(), "10.1.0.1:8000");
    }
    for (peers, name) in [(tcp.peers(), "tcp"), (udp.peers(), "udp")] {
        assert!(peers.iter().all(|peer| pool.contains(peer)), "{name}: only the pool: {peers:?}");
        assert!(pool.iter().all(|one| peers.contains(one)), "{name}: all of the pool: {peers:?}");
    }
}

/// The same over IPv6.
pub fn pool_v6(engine: Engine) {
    let net = Topology::new();
    for last in 5..8 {
        net.gateway.ip(&format!("address add fd02::{last}/64 dev wan nodad"));
    }
    let pool = [address("fd02::5"), address("fd02::7")];
    let tcp = Server::tcp_named(net.server(), "[fd02::10]:7000", "a");
    let udp = Server::udp_echo(net.server(), "[fd02::10]:7000");
    let rule = engine
        .rule("listen = 'tcp+udp/[::]:8000'\nforward = '[fd02::10]:7000'\nsource = ['fd02::5', 'fd02::7']");
    let _portway = Portway::start(&net.gateway, &rule);
    net.crowd();
    for client in crowd(40, crowd6) {
        assert_eq!(who_each(net.client(), &[client], "[fd01::1]:8000"), ["a"]);
        let socket = net.client().bind(&client.to_string());
        net.client().enter(|| socket.connect("[fd01::1]:8000")).expect("a socket address");
        socket.send(b"?").expect("sent");
        socket.recv(&mut [0; 8]).unwrap_or_else(|e| panic!("a datagram of {client}: {e}"));
    }
    for (peers, name) in [(tcp.peers(), "tcp"), (udp.peers(), "udp")] {
        assert!(peers.iter().all(|peer| pool.contains(peer)), "{name}: only the pool: {peers:?}");
        assert!(pool.iter().all(|one| peers.contains(one)), "{name}: all of the pool: {peers:?}");
    }
}

/// `preserve`: the backend sees the client, and answers through the gateway.
pub fn preserve(engine: Engine) {
    let net = Topology::new();
    net.route_servers_back();
    let v4 = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let v6 = Server::tcp_echo(net.server(), "[fd02::10]:7000");
    let udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let rules = engine
        .rule("listen = 'tcp+udp/0.0.0.0:8000'\nforward = '10.2.0.10:7000'\nsource = 'preserve'")
        + &engine.rule("listen = '[::]:8000'\nforward = '[fd02::10]:7000'\nsource = 'preserve'");
    let _portway = Portway::start(&net.gateway, &rules);
    tcp_works(net.client(), "10.1.0.1:8000");
    tcp_works(net.client(), "[fd01::1]:8000");
    udp_works(net.client(), "10.1.0.1:8000");
    assert_eq!(v4.peers(), [address(CLIENT4)]);
    assert_eq!(v6.peers(), [address(CLIENT6)]);
    assert_eq!(udp.peers()[0], address(CLIENT4));
}
