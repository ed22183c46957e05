//! Bounds of the `ebpf` engine: a full flow table, source ports that run out, and what the operator is told. What is counted
//! is in [`super::counted`].

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::json;

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
    for rule in ["u", "t"] {
        let (drops, backend) = (portway.drops(rule, "flow table full"), &portway.backends(rule)[0]);
        assert_eq!(
            backend["drops"],
            json!({ "flow table full": drops }),
            "whom they would have met: {backend:#}"
        );
    }
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

/// 16 ports to one backend: `status` shows how many are taken, warns when 13 are and nobody has been refused yet, and then
/// 16 flows have a port each. Only the next is refused, and counted for the backend as for the rule.
pub fn source_ports_are_told_before_they_run_out(engine: Engine) {
    let net = Topology::new();
    let _server = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let file = "[ebpf]\nsource-ports = '40000-40015'\n".to_owned()
        + &engine.rule("name = 'narrow'\nlisten = 'udp/0.0.0.0:8000'\nforward = '10.2.0.10:7000'");
    let portway = Portway::start(&net.gateway, &file);
    // As above. Of so few ports every one is tried.
    net.client().sysctl("net.ipv4.ip_local_port_range", "41000 60000");
    let taken = |used: usize| json!([{ "protocol": 17, "source": "10.2.0.1", "backend": "10.2.0.10:7000", "fill": { "used": used, "of": 16 } }]);
    let mut held = flows(net.client(), "10.1.0.1:8000", 12);
    assert_eq!(portway.status()["source_ports"], taken(12));
    assert!(!warns(&portway, "source ports"), "at three quarters: {:#}", portway.status());
    held.extend(flows(net.client(), "10.1.0.1:8000", 1));
    assert_eq!((held.len(), portway.status()["source_ports"].clone()), (13, taken(13)));
    let warning = "the udp source ports of 10.2.0.1 to 10.2.0.10:7000 are 81 % taken (13 of 16)";
    assert!(warns(&portway, warning), "{:#}", portway.status());
    let shown = portway.command("status").unwrap_or_else(|complaint| panic!("{complaint}"));
    assert!(shown.contains(&format!("warning: ebpf: {warning}")), "{shown}");
    assert_eq!(portway.drops("narrow", "no source port"), 0, "nobody was refused yet");
    held.extend(flows(net.client(), "10.1.0.1:8000", 3));
    assert_eq!((held.len(), portway.drops("narrow", "no source port")), (16, 0));
    // It tries twice.
    assert!(flows(net.client(), "10.1.0.1:8000", 1).is_empty());
    let backend = portway.backend("narrow", "10.2.0.10:7000");
    assert_eq!(portway.drops("narrow", "no source port"), 2);
    assert_eq!((&backend["drops"], &backend["failed"]), (&json!({ "no source port": 2 }), &json!(2)));
    assert_eq!(portway.figure("narrow", "failed"), 2);
    live(&held, "when all ports are taken");
}
