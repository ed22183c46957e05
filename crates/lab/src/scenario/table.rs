//! Bounds of the `ebpf` engine: a full flow table, source ports that run out, and what the operator is told.

use std::net::UdpSocket;
use std::time::Duration;

use crate::client::{Tally, tally};
use crate::farm::{CHECKED, Farm, Kind, POOL};
use crate::netns::wait_for;
use crate::traffic::Server;
use crate::{Engine, Namespace, Portway, Topology, process};

/// So many UDP flows from a client: the sockets that got an answer. One that got none tries twice.
fn flows(client: &Namespace, to: &str, count: usize) -> Vec<UdpSocket> {
    let sockets: Vec<UdpSocket> = (0..count).map(|_| client.dial(to)).collect();
    let answered = |socket: &UdpSocket| {
        // Nothing is waited for that could still come: the way there and back takes microseconds.
        socket.set_read_timeout(Some(Duration::from_millis(10))).expect("a positive time");
        (0..2).any(|_| socket.send(b"?").is_ok() && socket.recv(&mut [0; 8]).is_ok())
    };
    sockets.into_iter().filter(answered).collect()
}

/// Insists that each of these flows still gets its answers.
fn live(sockets: &[UdpSocket], when: &str) {
    for (nth, socket) in sockets.iter().enumerate() {
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a positive time");
        socket.send(b"?").expect("sent");
        socket.recv(&mut [0; 8]).unwrap_or_else(|e| panic!("flow {nth} of {}, {when}: {e}", sockets.len()));
    }
}

/// Whether the operator is warned, in these words.
fn warns(portway: &Portway, words: &str) -> bool {
    let status = portway.status();
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().filter_map(|warning| warning.as_str()).any(|warning| warning.contains(words))
}

/// A table of 1,024 flows takes 1,024; new ones are refused by silence and counted, the old ones work on; when some have
/// ended there is room again.
pub fn full(engine: Engine) {
    process::raise_descriptor_limit();
    let net = Topology::new();
    let _server = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _tcp = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let table = "[ebpf]\nmax-flows = 1024\n".to_owned();
    let rules = String::new()
        + &engine.rule("name = 'u'\nlisten = 'udp/0.0.0.0:8000'\nforward = '10.2.0.10:7000'")
        + &engine.rule("name = 't'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'");
    let portway = Portway::start(&net.gateway, &(table.clone() + &rules));
    let mut held = crate::client::Held::open(net.client(), "10.1.0.1:8000");
    let taken = flows(net.client(), "10.1.0.1:8000", 1200);
    // The index places a flow in one of two buckets, so by chance a few of the last find both full.
    assert!((1000..1024).contains(&taken.len()), "{} of 1,024 records are used", taken.len());
    held.lives("when the table is full");
    live(&taken, "when the table is full");
    assert!(
        portway.drops("u", "flow table full") >= 100,
        "the refused flows are counted: {:#}",
        portway.status()
    );
    assert!(warns(&portway, "the flow table is"), "{:#}", portway.status());
    assert_eq!(portway.status()["flow_table"]["of"], 1024);
    let refused = net.client().enter(|| {
        let to = "10.1.0.1:8000".parse().expect("a socket address");
        std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300))
    });
    assert!(refused.is_err(), "a SYN finds no room either");
    assert!(portway.drops("t", "flow table full") >= 1, "{:#}", portway.status());
    drop(taken);
    // Shorter clocks hold for the flows that are there too.
    portway.reload(&(table + "timeouts = { udp-stream = '1s' }\n" + &rules));
    wait_for("room", || flows(net.client(), "10.1.0.1:8000", 10).len() == 10);
    held.lives("when others have expired");
}

/// Source ports run out with 64 of them and one address, and twice as many flows fit with two. `status` warns before, and counts
/// what found none.
pub fn source_pool_multiplies_the_room(engine: Engine) {
    let net = Topology::new();
    net.gateway.ip("address add 10.2.0.5/24 dev wan\naddress add 10.2.0.6/24 dev wan");
    let _server = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let file = |port: u16, source: &str| {
        engine.rule(&format!(
            "name = 'r{port}'\nlisten = 'udp/0.0.0.0:{port}'\nforward = '10.2.0.10:7000'\nsource = [{source}]"
        ))
    };
    let file = "[ebpf]\nsource-ports = '40000-40063'\n".to_owned()
        + &file(8000, "'10.2.0.5'")
        + &file(8001, "'10.2.0.5', '10.2.0.6'");
    let portway = Portway::start(&net.gateway, &file);
    // Clients in the host's ephemeral range, so that none keeps its port outside of the 64.
    net.client().sysctl("net.ipv4.ip_local_port_range", "41000 60000");
    let one = flows(net.client(), "10.1.0.1:8000", 300);
    assert!((40..=64).contains(&one.len()), "{} flows with 64 ports", one.len());
    assert!(portway.drops("r8000", "no source port") >= 200, "{:#}", portway.status());
    assert!(warns(&portway, "source ports of 10.2.0.5 to 10.2.0.10:7000"), "{:#}", portway.status());
    // The first address is nearly full, so nearly all of these are the second's.
    let two = flows(net.client(), "10.1.0.1:8001", 300);
    assert!(one.len() + two.len() > 64 + 30, "{} more flows with a second address", two.len());
    assert!(one.len() + two.len() <= 128, "no port is used twice");
    live(&one, "beside the others");
    live(&two, "beside the others");
}

/// What was carried is counted by rule and by backend, and what was not by its reason: a pool that is empty here.
pub fn counters(engine: Engine) {
    let mut farm = Farm::new(Kind::Sign, 2);
    let settings = format!("when-empty = 'drop'\n{CHECKED}");
    let portway = Portway::start(&farm.net.gateway, &Farm::pool(engine, &["weight = 3", ""], &settings));
    portway.until("b", "up");
    assert_eq!(tally(farm.net.client(), POOL, 40), Tally::from([("a".into(), 30), ("b".into(), 10)]));
    for (backend, flows) in [("a", 30), ("b", 10)] {
        let row = portway.backend("pool", backend);
        assert_eq!(row["flows"], flows, "{row:#}");
    }
    assert_eq!(portway.figure("pool", "flows"), 40);
    // At least a handshake, a name and an end each, with their IP headers.
    assert!(portway.figure("pool", "bytes_in") >= 40 * 4 * 40, "{:#}", portway.status());
    assert!(portway.figure("pool", "bytes_out") >= 40 * (3 * 40 + 2), "{:#}", portway.status());
    assert_eq!(portway.drops("pool", "no backend"), 0);
    for (nth, backend) in [(0, "a"), (1, "b")] {
        farm.ail(nth);
        portway.until(backend, "down");
    }
    let socket = farm.net.client().dial(POOL);
    for _ in 0..5 {
        socket.send(b"anybody?").expect("sent");
    }
    wait_for("the drops", || portway.drops("pool", "no backend") == 5);
    assert_eq!(portway.figure("pool", "flows"), 40, "what is not carried is no flow");
}
