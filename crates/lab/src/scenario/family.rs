//! Listener and backend of different families: the work of the proxy, which `auto` takes, and of `ebpf`.

use crate::client::{Tally, tally};
use crate::farm::{Farm, Kind, POOL, POOL6};
use crate::traffic::{Server, tcp_works, udp_works};
use crate::{Engine, Portway, Topology};

use super::http::there_and_back;

/// IPv6 in, IPv4 out.
pub fn v6_to_v4(engine: Engine) {
    crossing(&engine.forward("tcp+udp/[::]:8000", "10.2.0.10:7000"), "10.2.0.10:7000", "[fd01::1]:8000");
}

/// IPv4 in, IPv6 out.
pub fn v4_to_v6(engine: Engine) {
    crossing(&engine.forward("tcp+udp/0.0.0.0:8000", "[fd02::10]:7000"), "[fd02::10]:7000", "10.1.0.1:8000");
}

/// A pool with backends of both families, met by clients of both.
pub fn both_in_one_pool(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 2);
    let _twins = farm.with_v6();
    let backends = [Farm::backend(0, ""), Farm::backend_v6(1, "")];
    let rules = engine.pool("0.0.0.0:8000", &backends, "")
        + &engine.pool("[::]:8000", &backends, "").replace("'pool'", "'v6'");
    let _portway = Portway::start(&farm.net.gateway, &rules);
    for to in [POOL, POOL6] {
        assert_eq!(
            tally(farm.net.client(), to, 20),
            Tally::from([("a".into(), 10), ("b".into(), 10)]),
            "{to}"
        );
    }
}

/// Three megabytes each way, between a client of one family and a server of the other.
pub fn transfers(engine: Engine) {
    let net = Topology::new();
    let rules =
        engine.forward("0.0.0.0:8888", "[fd02::10]:81") + &engine.forward("[::]:8888", "10.2.0.10:80");
    there_and_back(&net, net.client(), net.server(), ["10.2.0.10:80", "[fd02::10]:81"], &rules, 3_000_000);
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
