//! The proxy's bounds: many held connections, full tables, clocks, memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::netns::{PATIENCE, wait_for};
use crate::traffic::{Server, echo};
use crate::{Engine, Portway, Scratch, Topology, peer, process};

/// Asks for a page on an open connection; true when all of the answer comes.
fn asks(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.write_all(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while !answer.ends_with(b"the page\n") {
        match stream.read(&mut chunk)? {
            0 => return Ok(false),
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(true)
}

/// CPU time that the daemon uses in a second in which nothing should happen.
fn idle_cpu(portway: &Portway) -> Duration {
    let before = portway.process().cpu_time();
    thread::sleep(Duration::from_secs(1));
    portway.process().cpu_time() - before
}

/// 9,000 connections held through one process: memory per idle connection at most 4 KiB; the next ones wait
/// at the limit without a spin, the held ones still work, and the waiting ones are served when there is room.
pub fn nine_thousand(engine: Engine) {
    const HELD: usize = 9000;
    process::raise_descriptor_limit();
    let net = Topology::new();
    let files = Scratch::new();
    files.write("page", "the page\n");
    let _nginx = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let file = format!("[proxy]\nmax-connections = {HELD}\n")
        + &engine.rule("name = 'web'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:80'");
    let portway = Portway::start(&net.gateway, &file);
    let connect = |count: usize| -> Vec<TcpStream> {
        let connected = net.client().enter(|| {
            (0..count)
                .map(|i| TcpStream::connect("10.1.0.1:8000").unwrap_or_else(|e| panic!("number {i}: {e}")))
                .collect()
        });
        let connected: Vec<TcpStream> = connected;
        connected.iter().for_each(|stream| stream.set_read_timeout(Some(PATIENCE)).expect("a positive time"));
        connected
    };
    // The first connections pay for what is there once.
    let warm = connect(100);
    wait_for("100 connections", || portway.figure("web", "live") == 100);
    let empty = portway.process().status_kib("RssAnon");
    let mut held = connect(HELD - 100);
    wait_for("9,000 connections", || portway.figure("web", "live") == HELD as u64);
    let each = (portway.process().status_kib("RssAnon") - empty) as f64 / (HELD - 100) as f64;
    eprintln!("memory per idle connection: {each:.2} KiB");
    assert!(each <= 4.0, "{each:.2} KiB per idle connection");
    let mut waiting = connect(50);
    assert!(idle_cpu(&portway) < Duration::from_millis(150), "at the limit the daemon sleeps");
    assert!(asks(&mut held[0]).expect("a held connection works"), "a held connection works");
    assert_eq!(portway.figure("web", "live"), HELD as u64);
    drop(warm);
    for stream in &mut waiting {
        assert!(asks(stream).expect("served when there is room"));
    }
    assert!(asks(&mut held[5000]).expect("a held connection works"));
}

/// At a low open-file limit the daemon takes fewer connections by itself.
pub fn few_descriptors(engine: Engine) {
    crowd(&engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
}

/// When the file promises more than the open-file limit holds, the limit is met: accept pauses, nothing else
/// happens.
pub fn out_of_descriptors(engine: Engine) {
    crowd(
        &("[proxy]\nmax-connections = 9000\n".to_owned() + &engine.forward("0.0.0.0:8000", "10.2.0.10:7000")),
    );
}

/// 200 clients at a daemon with 160 descriptors: no crash, no spin, the served ones work, the others follow.
fn crowd(file: &str) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let mut portway = Portway::start_under(&net.gateway, &["prlimit", "--nofile=160"], file)
        .unwrap_or_else(|log| panic!("portway did not start:\n{log}"));
    let mut first = net.client().connect("10.1.0.1:8000").expect("connects");
    echo(&mut first, b"first").expect("the first is served");
    let mut waiting: Vec<_> =
        (0..200).map(|_| net.client().connect("10.1.0.1:8000").expect("connects")).collect();
    assert!(idle_cpu(&portway) < Duration::from_millis(150), "at the limit the daemon sleeps");
    echo(&mut first, b"still").expect("the first lives on");
    for stream in &mut waiting {
        stream.write_all(b"?").expect("the kernel's queue takes it");
        stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a positive time");
    }
    // Each that is served gives its place to one that waits; in which order is the workers' affair.
    let start = Instant::now();
    while !waiting.is_empty() {
        waiting.retain_mut(|stream| match stream.read(&mut [0; 1]) {
            Ok(1) => false,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => true,
            other => panic!("a waiting connection ended: {other:?}"),
        });
        assert!(start.elapsed() < 2 * PATIENCE, "{} of 200 were never served", waiting.len());
    }
    echo(&mut first, b"still").expect("the first lives on");
    assert!(portway.stop().success());
}

/// A rule's own bound: what is beyond it is not carried until one ends.
pub fn rule_limit(engine: Engine) {
    let net = Topology::new();
    let server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let file = engine
        .rule("name = 'small'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'\nmax-connections = 3")
        + &engine.forward("0.0.0.0:8001", "10.2.0.10:7000");
    let portway = Portway::start(&net.gateway, &file);
    let mut streams: Vec<_> =
        (0..3).map(|_| net.client().connect("10.1.0.1:8000").expect("connects")).collect();
    for stream in &mut streams {
        echo(stream, b"one of three").expect("echoes");
    }
    let mut fourth = net.client().connect("10.1.0.1:8000").expect("the kernel's queue takes it");
    fourth.set_read_timeout(Some(Duration::from_millis(300))).expect("a positive time");
    assert!(echo(&mut fourth, b"me too").is_err(), "the fourth is not carried");
    assert_eq!(server.peers().len(), 3);
    crate::traffic::tcp_works(net.client(), "10.1.0.1:8001");
    assert!(idle_cpu(&portway) < Duration::from_millis(150), "at the limit the daemon sleeps");
    drop(streams);
    wait_for("room", || {
        net.client().connect("10.1.0.1:8000").and_then(|mut stream| echo(&mut stream, b"now")).is_ok()
    });
}

/// The rule's clocks: idle, and half-closed.
pub fn timeouts(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let file = engine.rule(
        "listen = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'\ntimeouts = { idle = '1s', half-closed = '1s' }",
    );
    let _portway = Portway::start(&net.gateway, &file);
    let mut stream = net.client().connect("10.1.0.1:8000").expect("connects");
    for _ in 0..4 {
        echo(&mut stream, b"busy").expect("traffic keeps it alive");
        thread::sleep(Duration::from_millis(500));
    }
    echo(&mut stream, b"last").expect("echoes");
    let start = Instant::now();
    let end = stream.read(&mut [0; 1]);
    let took = start.elapsed();
    assert!(!matches!(end, Ok(1)), "nothing more comes");
    assert!((900..3000).contains(&took.as_millis()), "idle for a second, ended after {took:?}");
}

/// A backend that does not answer is given up after the connect timeout, and the client is told.
pub fn connect_timeout(engine: Engine) {
    let net = Topology::new();
    net.server().nft(
        "table ip filter { chain input { type filter hook input priority 0; tcp dport 7000 drop; }\n}\n",
    );
    let file =
        engine.rule("listen = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'\ntimeouts = { connect = '1s' }");
    let _portway = Portway::start(&net.gateway, &file);
    let took = crate::traffic::refusal(net.client(), "10.1.0.1:8000");
    assert!((900..3000).contains(&took.as_millis()), "ended after {took:?}");
}

/// UDP flows are bounded, and an idle one makes room for the next.
pub fn udp_flows(engine: Engine) {
    let net = Topology::new();
    let _server = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let file = "[proxy]\nmax-flows = 10\n".to_owned()
        + &engine.rule(
            "name = 'u'\nlisten = 'udp/0.0.0.0:8000'\nforward = '10.2.0.10:7000'\ntimeouts = { udp-idle = '1s' }",
        );
    let portway = Portway::start(&net.gateway, &file);
    let sockets: Vec<_> = (0..30).map(|_| net.client().dial("10.1.0.1:8000")).collect();
    let answered = sockets.iter().filter(|socket| {
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a positive time");
        socket.send(b"?").expect("sent");
        socket.recv(&mut [0; 8]).is_ok()
    });
    assert_eq!(answered.count(), 10, "as many flows as allowed");
    wait_for("the flows to end", || portway.figure("u", "live") == 0);
    crate::traffic::udp_works(net.client(), "10.1.0.1:8000");
}
