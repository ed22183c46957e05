//! Listener and backend of different families: the proxy's work, which `auto` knows.

use crate::traffic::{Server, tcp_works, udp_works};
use crate::{Engine, Portway, Topology};

/// IPv6 in, IPv4 out.
pub fn v6_to_v4(engine: Engine) {
    crossing(&engine.forward("tcp+udp/[::]:8000", "10.2.0.10:7000"), "10.2.0.10:7000", "[fd01::1]:8000");
}

/// IPv4 in, IPv6 out.
pub fn v4_to_v6(engine: Engine) {
    crossing(&engine.forward("tcp+udp/0.0.0.0:8000", "[fd02::10]:7000"), "[fd02::10]:7000", "10.1.0.1:8000");
}

/// `auto` takes the proxy by itself, also beside a rule that nftables serves.
pub fn auto_takes_the_proxy(_: Engine) {
    let net = Topology::new();
    let _crossing = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let file = "[[rule]]\nname = 'crossing'\nlisten = '[::]:8000'\nforward = '10.2.0.10:7000'\n\
                [[rule]]\nname = 'straight'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'\n";
    let portway = Portway::start(&net.gateway, file);
    tcp_works(net.client(), "[fd01::1]:8000");
    tcp_works(net.client(), "10.1.0.1:8000");
    assert_eq!(portway.word("crossing", "engine"), "proxy");
    assert_eq!(portway.word("straight", "engine"), "nftables");
}

fn crossing(rule: &str, backend: &str, listener: &str) {
    let net = Topology::new();
    let _tcp = Server::tcp_echo(net.server(), backend);
    let _udp = Server::udp_echo(net.server(), backend);
    let _portway = Portway::start(&net.gateway, rule);
    tcp_works(net.client(), listener);
    udp_works(net.client(), listener);
}
