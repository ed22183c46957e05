//! Connections that a server closes first stay in its TIME_WAIT for a minute (RFC 9293, section 3.6.1). A forwarder that gives
//! their ports to other clients meets servers that do not answer, for timestamps and sequence numbers go back.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::client::{Held, crowd4, who_until_the_end};
use crate::counter::SECOND_SYN;
use crate::traffic::Server;
use crate::{Engine, Portway, Scratch, Topology, peer};

/// Thousands of short connections of three clients at a time, which nginx closes first: none fails, and none waits for a
/// second SYN (a second).
pub fn thousands(engine: Engine) {
    let net = Topology::with(3, 1);
    let files = Scratch::new();
    files.write("page", "short");
    let _nginx = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8888", "10.2.0.10:80"));
    let asked: Vec<_> = net
        .clients
        .iter()
        .cloned()
        .map(|client| {
            thread::spawn(move || client.run("ab -q -l -s 10 -n 4000 -c 15 http://10.1.0.1:8888/page"))
        })
        .collect();
    for report in asked {
        let report = report.join().expect("ab succeeds");
        assert!(report.contains("Complete requests:      4000"), "{report}");
        assert!(report.contains("Failed requests:        0"), "{report}");
        let longest = report.lines().find_map(|line| line.trim().strip_prefix("100%"));
        let longest = longest.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        let longest = Duration::from_millis(longest.expect("ab says how long the longest took"));
        let again = net.syns_sent_again();
        assert!(longest < SECOND_SYN || again == 0, "{again} SYNs were sent again: {report}");
    }
}

/// One client comes back with the same port at once, over and over: while the server has it in TIME_WAIT (the server closed
/// first), and while nobody has anything (the client reset).
pub fn same_port(engine: Engine) {
    let net = Topology::new();
    let _sign = Server::tcp_sign(net.server(), "10.2.0.10:7000", "a");
    let _echo = Server::tcp_named(net.server(), "10.2.0.10:7001", "b");
    let rules =
        engine.forward("0.0.0.0:8000", "10.2.0.10:7000") + &engine.forward("0.0.0.0:8001", "10.2.0.10:7001");
    let _portway = Portway::start(&net.gateway, &rules);
    // A port that an engine may keep, and one that it may have to replace.
    for port in [20_000, 35_000, 50_000] {
        let client = SocketAddr::from(([10, 1, 0, 10], port));
        for round in 0..30 {
            net.none_waits(&format!("round {round} with port {port}"), || {
                let met = who_until_the_end(net.client(), client, "10.1.0.1:8000");
                assert_eq!(met.unwrap_or_else(|e| panic!("round {round} with port {port}: {e}")), "a");
                Held::open_from(net.client(), client, "10.1.0.1:8001").lives("at once");
            });
        }
    }
}

/// The same port of two clients, one after the other: the second must not meet the first one's TIME_WAIT.
pub fn same_port_of_others(engine: Engine) {
    let net = Topology::new();
    net.crowd();
    let _sign = Server::tcp_sign(net.server(), "10.2.0.10:7000", "a");
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    for round in 0..3 {
        for nth in 0..200 {
            let client = SocketAddr::new(crowd4(nth), 20_000);
            let what = format!("round {round}, {client}");
            let met = net.none_waits(&what, || who_until_the_end(net.client(), client, "10.1.0.1:8000"));
            assert_eq!(met.unwrap_or_else(|e| panic!("{what}: {e}")), "a");
        }
    }
}
