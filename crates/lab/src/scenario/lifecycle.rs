//! Reloads while traffic flows, counters, moving between engines, many rules.

use std::io::Read;
use std::time::Duration;

use crate::load::Load;
use crate::netns::wait_for;
use crate::traffic::{Server, echo, refusal, tcp_works, udp_works};
use crate::{Engine, Portway, Topology};

/// A reload adds, removes and changes rules; the connections of a kept and of a changed rule live on, new
/// ones meet the new file.
pub fn reload(engine: Engine) {
    let net = Topology::new();
    let _old = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _new = Server::tcp_greeting(net.server(), "10.2.0.10:7001", "new");
    let before = engine.forward("0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("0.0.0.0:8001", "10.2.0.10:7000")
        + &engine.forward("0.0.0.0:8002", "10.2.0.10:7000");
    let portway = Portway::start(&net.gateway, &before);
    let mut kept = net.client().connect("10.1.0.1:8000").expect("connects");
    let mut changed = net.client().connect("10.1.0.1:8001").expect("connects");
    for stream in [&mut kept, &mut changed] {
        echo(stream, b"before").expect("echoes");
    }
    tcp_works(net.client(), "10.1.0.1:8002");
    let after = engine.forward("0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("0.0.0.0:8001", "10.2.0.10:7001")
        + &engine.forward("0.0.0.0:8003", "10.2.0.10:7000");
    portway.reload(&after);
    for stream in [&mut kept, &mut changed] {
        echo(stream, b"after").expect("an established connection lives on");
    }
    let mut greeting = [0; 3];
    net.client()
        .connect("10.1.0.1:8001")
        .and_then(|mut s| s.read_exact(&mut greeting))
        .expect("the new backend");
    assert_eq!(&greeting, b"new");
    tcp_works(net.client(), "10.1.0.1:8003");
    refusal(net.client(), "10.1.0.1:8002");
}

/// UDP: a flow of a changed rule lives on, and a new flow meets the new target.
pub fn reload_udp(engine: Engine) {
    let net = Topology::new();
    let old = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let new = Server::udp_echo(net.server(), "10.2.0.10:7001");
    let portway = Portway::start(&net.gateway, &engine.forward("udp/0.0.0.0:8000", "10.2.0.10:7000"));
    let flow = net.client().dial("10.1.0.1:8000");
    let ask = |socket: &std::net::UdpSocket| {
        socket.send(b"?").expect("sent");
        socket.recv(&mut [0; 8]).expect("answered");
    };
    ask(&flow);
    portway.reload(&engine.forward("udp/0.0.0.0:8000", "10.2.0.10:7001"));
    ask(&flow);
    assert_eq!((old.peers().len(), new.peers().len()), (2, 0), "the open flow keeps its target");
    ask(&net.client().dial("10.1.0.1:8000"));
    assert_eq!((old.peers().len(), new.peers().len()), (2, 1), "a new flow meets the new one");
}

/// SIGHUP does the same as the command.
pub fn reload_by_signal(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    portway.write(&engine.forward("0.0.0.0:8001", "10.2.0.10:7000"));
    portway.process().signal(rustix::process::Signal::HUP);
    wait_for("the new rule", || {
        net.client().connect("10.1.0.1:8001").and_then(|mut stream| echo(&mut stream, b"?")).is_ok()
    });
    // The ebpf engine serves a new rule before it lets go of an old one, and a signal does not wait for either.
    wait_for("the end of the old rule", || net.client().connect("10.1.0.1:8000").is_err());
    refusal(net.client(), "10.1.0.1:8000");
}

/// A bad file changes nothing and says why, with every mistake and its place.
pub fn bad_reload(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let good = engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    let portway = Portway::start(&net.gateway, &good);
    let held = net.client().connect("10.1.0.1:8000").expect("connects");
    let bad = engine.forward("0.0.0.0:8000", "10.2.0.10:70000") + "[[rule]]\nlistn = '0.0.0.0:1'\n";
    let complaint = portway.try_reload(&bad).expect_err("a bad file");
    assert!(
        complaint.contains("70000") && complaint.contains("listn"),
        "every mistake is named: {complaint}"
    );
    let mut held = held;
    echo(&mut held, b"still").expect("the old connection lives on");
    tcp_works(net.client(), "10.1.0.1:8000");
    portway.reload(&good);
}

/// A port that another program holds is refused on reload, and the old rules stay.
pub fn port_in_use(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _taken = net.gateway.listen("0.0.0.0:8001");
    let good = engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    let portway = Portway::start(&net.gateway, &good);
    let both = good + &engine.forward("0.0.0.0:8001", "10.2.0.10:7000");
    let complaint = portway.try_reload(&both).expect_err("the port is in use");
    assert!(complaint.contains("8001") && complaint.contains("in use"), "{complaint}");
    tcp_works(net.client(), "10.1.0.1:8000");
}

/// The counters say what was sent: flows exactly, bytes at least the payload (nftables counts headers too).
pub fn counters(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let file = engine.rule("name = 'counted'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'")
        + &engine.rule("name = 'datagrams'\nlisten = 'udp/0.0.0.0:8000'\nforward = '10.2.0.10:7000'");
    let portway = Portway::start(&net.gateway, &file);
    let message = vec![b'c'; 10_000];
    for _ in 0..7 {
        let mut stream = net.client().connect("10.1.0.1:8000").expect("connects");
        echo(&mut stream, &message).expect("echoes");
    }
    let mut held = net.client().connect("10.1.0.1:8000").expect("connects");
    echo(&mut held, &message).expect("echoes");
    for _ in 0..3 {
        udp_works(net.client(), "10.1.0.1:8000");
    }
    wait_for("the counters", || {
        portway.figure("counted", "flows") == 8 && portway.figure("counted", "live") == 1
    });
    for direction in ["bytes_in", "bytes_out"] {
        let bytes = portway.figure("counted", direction);
        assert!((80_000..96_000).contains(&bytes), "{direction}: {bytes} for 80,000 bytes of payload");
    }
    assert_eq!(portway.figure("datagrams", "flows"), 3);
    assert!((30..=400).contains(&portway.figure("datagrams", "bytes_in")));
}

/// Changing a rule's target keeps its counters, as it is the same rule.
pub fn counters_survive_reload(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _other = Server::tcp_echo(net.server(), "10.2.0.10:7001");
    let file = |port| {
        engine.rule(&format!("name = 'a'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:{port}'"))
            + &engine.rule("name = 'b'\nlisten = '0.0.0.0:8001'\nforward = '10.2.0.10:7000'")
    };
    let portway = Portway::start(&net.gateway, &file(7000));
    tcp_works(net.client(), "10.1.0.1:8000");
    tcp_works(net.client(), "10.1.0.1:8001");
    portway.reload(&file(7001));
    tcp_works(net.client(), "10.1.0.1:8000");
    assert_eq!(portway.figure("a", "flows"), 2);
    assert_eq!(portway.figure("b", "flows"), 1);
}

/// A rule moves to another engine and back while a client connects without pause: no attempt is lost.
pub fn move_between_engines(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let rule = |engine: Engine| engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    let portway = Portway::start(&net.gateway, &rule(engine));
    let load = Load::start(net.client(), "10.1.0.1:8000");
    for _ in 0..3 {
        for to in engine.others().iter().flat_map(|other| [*other, engine]) {
            load.pass(100);
            portway.reload(&rule(to));
        }
    }
    load.pass(100);
    load.stop_without_loss();
}

/// A connection that is open while its rule moves to another engine and back lives on, through every move.
pub fn held_through_moves(engine: Engine) {
    engine.others().iter().for_each(|other| held_through_moves_to(engine, *other));
}

fn held_through_moves_to(engine: Engine, other: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let rule = |engine: Engine| engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    let portway = Portway::start(&net.gateway, &rule(engine));
    let mut held = vec![net.client().connect("10.1.0.1:8000").expect("connects")];
    for to in [other, engine, other] {
        portway.reload(&rule(to));
        for (i, stream) in held.iter_mut().enumerate() {
            echo(stream, b"still").unwrap_or_else(|e| panic!("connection {i} after the move to {to}: {e}"));
        }
        held.push(net.client().connect("10.1.0.1:8000").expect("connects"));
    }
    for (i, stream) in held.iter_mut().enumerate() {
        echo(stream, b"at the end").unwrap_or_else(|e| panic!("connection {i} at the end: {e}"));
    }
}

/// Reloads of other rules under load lose nothing either.
pub fn reload_under_load(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let steady = engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    let portway = Portway::start(&net.gateway, &steady);
    let load = Load::start(net.client(), "10.1.0.1:8000");
    for i in 0..10 {
        load.pass(20);
        portway
            .reload(&(steady.clone() + &engine.forward(&format!("0.0.0.0:{}", 9000 + i), "10.2.0.10:7000")));
    }
    load.pass(50);
    load.stop_without_loss();
}

/// 10,000 rules load; a change of one is quick and resets no counter.
pub fn ten_thousand_rules(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _other = Server::tcp_greeting(net.server(), "10.2.0.10:7001", "n");
    let file = |changed: u16| -> String {
        (10_000..20_000_u16)
            .map(|port| {
                let target = if port == 15_000 { changed } else { 7000 };
                engine.rule(&format!(
                    "name = 'r{port}'\nlisten = '0.0.0.0:{port}'\nforward = '10.2.0.10:{target}'"
                ))
            })
            .collect()
    };
    let portway = Portway::start(&net.gateway, &file(7000));
    for port in [10_000, 15_000, 19_999] {
        tcp_works(net.client(), &format!("10.1.0.1:{port}"));
    }
    let before = portway.process().cpu_time();
    portway.reload(&file(7001));
    let took = portway.process().cpu_time() - before;
    eprintln!("changing 1 rule of 10,000 took {took:?} of a processor, reading the file included");
    assert!(took < Duration::from_secs(3), "changing 1 rule of 10,000 took {took:?} of a processor");
    let mut greeting = [0; 1];
    net.client()
        .connect("10.1.0.1:15000")
        .and_then(|mut s| s.read_exact(&mut greeting))
        .expect("the new target");
    assert_eq!(portway.figure("r10000", "flows"), 1);
    assert_eq!(portway.figure("r15000", "flows"), 2);
}
