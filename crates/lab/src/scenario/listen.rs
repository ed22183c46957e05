//! What a listener answers for: an address, an interface, any; ports and ranges; the most specific wins.

use std::time::{Duration, Instant};

use crate::netns::wait_for;
use crate::topology::{LAN4, LAN6, WAN4};
use crate::traffic::{Server, tcp_works, udp_works};
use crate::{Engine, Namespace, Portway, Topology, client};

/// The name of whoever answers, or `None` when the connection is refused.
fn who(ns: &Namespace, to: &str) -> Option<String> {
    client::who(ns, to).ok()
}

/// A listener on one address leaves the host's other addresses alone.
pub fn address(engine: Engine) {
    let net = Topology::new();
    net.gateway.ip("address add 10.1.0.2/24 dev lan");
    let _server = Server::tcp_named(net.server(), "10.2.0.10:7000", "s");
    let _portway = Portway::start(&net.gateway, &engine.forward("10.1.0.1:8000", "10.2.0.10:7000"));
    assert_eq!(who(net.client(), "10.1.0.1:8000").as_deref(), Some("s"));
    assert_eq!(who(net.client(), "10.1.0.2:8000"), None);
}

/// An any-listener answers on every address of the host, one added later included.
pub fn any(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000"));
    net.gateway.ip("address add 10.1.0.2/24 dev lan");
    if engine.is_ebpf() {
        // It is told of addresses, a few milliseconds after they are there.
        let start = Instant::now();
        wait_for("the new address", || net.client().connect("10.1.0.2:8000").is_ok());
        assert!(start.elapsed() < Duration::from_secs(1), "served after {:?}", start.elapsed());
    }
    for address in [LAN4, "10.1.0.2"] {
        tcp_works(net.client(), &format!("{address}:8000"));
        udp_works(net.client(), &format!("{address}:8000"));
    }
}

/// An any-listener does not take traffic that is only routed through the host to others.
pub fn any_leaves_routed_traffic(engine: Engine) {
    let net = Topology::with(1, 2);
    net.route_clients();
    net.route_servers_back();
    net.gateway.sysctl("net.ipv4.ip_forward", "1");
    let _backend = Server::tcp_named(net.server(), "10.2.0.10:7000", "b");
    let _other = Server::tcp_named(&net.servers[1], "10.2.0.11:8000", "o");
    let _udp = Server::udp_echo(&net.servers[1], "10.2.0.11:8000");
    let _portway = Portway::start(&net.gateway, &engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000"));
    assert_eq!(who(net.client(), "10.1.0.1:8000").as_deref(), Some("b"));
    assert_eq!(who(net.client(), "10.2.0.11:8000").as_deref(), Some("o"));
    udp_works(net.client(), "10.2.0.11:8000");
    // The host's own connections to others on that port are no traffic for the listener either.
    assert_eq!(who(&net.gateway, "10.2.0.11:8000").as_deref(), Some("o"));
}

/// An interface listener answers for what arrives on that interface, to any address of the host.
pub fn interface(engine: Engine) {
    let net = Topology::with(1, 2);
    let _server = Server::tcp_named(net.server(), "10.2.0.10:7000", "s");
    let _portway = Portway::start(&net.gateway, &engine.forward("lan:8000", "10.2.0.10:7000"));
    assert_eq!(who(net.client(), "10.1.0.1:8000").as_deref(), Some("s"));
    assert_eq!(who(&net.servers[1], "10.2.0.1:8000"), None, "arrives on wan");
    assert_eq!(who(&net.gateway, "127.0.0.1:8000"), None, "arrives on lo");
}

/// Address before interface before any, a range or a single port alike.
pub fn most_specific(engine: Engine) {
    let net = Topology::with(1, 2);
    net.gateway.ip("address add 10.1.0.2/24 dev lan");
    let greetings = [(7001, "1"), (7002, "2"), (7003, "3"), (7004, "4")];
    let _servers =
        greetings.map(|(port, word)| Server::tcp_named(net.server(), &format!("10.2.0.10:{port}"), word));
    let rules = engine.forward("0.0.0.0:8000-8009", "10.2.0.10:7001")
        + &engine.forward("lan:8000", "10.2.0.10:7002")
        + &engine.forward("10.1.0.2:8000-8001", "10.2.0.10:7003")
        + &engine.forward("lan:8001-8002", "10.2.0.10:7004");
    let _portway = Portway::start(&net.gateway, &rules);
    assert_eq!(
        who(net.client(), "10.1.0.2:8000").as_deref(),
        Some("3"),
        "address (range) before interface (port)"
    );
    assert_eq!(who(net.client(), "10.1.0.1:8000").as_deref(), Some("2"), "interface before any");
    assert_eq!(who(&net.servers[1], "10.2.0.1:8000").as_deref(), Some("1"), "any, elsewhere");
    assert_eq!(
        who(net.client(), "10.1.0.2:8002").as_deref(),
        Some("4"),
        "interface (range) before any (range)"
    );
    assert_eq!(who(net.client(), "10.1.0.1:8003").as_deref(), Some("1"), "any, a port of no other rule");
}

/// A range leads to the same ports, another range to shifted ones, port by port; its ends included, its
/// neighbours not.
pub fn ranges(engine: Engine) {
    let net = Topology::new();
    let _same = [8000, 8050, 8099].map(|port| Server::tcp_echo(net.server(), &format!("10.2.0.10:{port}")));
    let _first = Server::tcp_named(net.server(), "10.2.0.10:9100", "f");
    let _last = Server::tcp_named(net.server(), "10.2.0.10:9199", "l");
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:9150");
    let _beyond =
        [7999, 8100, 9099, 9200].map(|port| Server::tcp_echo(net.server(), &format!("10.2.0.10:{port}")));
    let rules = engine.forward("0.0.0.0:8000-8099", "10.2.0.10")
        + &engine.forward("tcp+udp/0.0.0.0:8200-8299", "10.2.0.10:9100-9199");
    let _portway = Portway::start(&net.gateway, &rules);
    for port in [8000, 8050, 8099] {
        tcp_works(net.client(), &format!("{LAN4}:{port}"));
    }
    assert_eq!(who(net.client(), "10.1.0.1:8200").as_deref(), Some("f"));
    assert_eq!(who(net.client(), "10.1.0.1:8299").as_deref(), Some("l"));
    udp_works(net.client(), "10.1.0.1:8250");
    for port in [7999, 8100, 8199, 8300] {
        assert!(net.client().connect(&format!("{LAN4}:{port}")).is_err(), "{port} is in no range");
    }
}

/// 60,000 ports by one rule, over IPv4 and IPv6, the same and shifted.
pub fn sixty_thousand_ports(engine: Engine) {
    let net = Topology::new();
    let _servers = [1025, 30_000, 61_024].map(|port| Server::tcp_echo(net.server(), &format!("[::]:{port}")));
    let rules = engine.forward("10.1.0.1:1025-61024", "10.2.0.10")
        + &engine.forward("[fd01::1]:2025-62024", "[fd02::10]:1025-61024");
    let _portway = Portway::start(&net.gateway, &rules);
    for port in [1025, 30_000, 61_024] {
        tcp_works(net.client(), &format!("{LAN4}:{port}"));
        tcp_works(net.client(), &format!("[{LAN6}]:{}", port + 1000));
    }
}

/// A list of listeners for one rule, TCP and UDP, IPv4 addresses and an interface.
pub fn list(engine: Engine) {
    let net = Topology::with(1, 2);
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let rule = engine
        .rule("listen = ['10.1.0.1:8000', 'tcp+udp/10.1.0.1:8001', 'wan:8002']\nforward = '10.2.0.10:7000'");
    let _portway = Portway::start(&net.gateway, &rule);
    tcp_works(net.client(), "10.1.0.1:8000");
    tcp_works(net.client(), "10.1.0.1:8001");
    udp_works(net.client(), "10.1.0.1:8001");
    tcp_works(&net.servers[1], &format!("{WAN4}:8002"));
}
