//! TCP as applications use it: echo, ends of streams, refusals, ssh, redis, iperf3.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::client::Held;
use crate::netns::PATIENCE;
use crate::raw::{Raw, Segment, flags};
use crate::topology::{LAN4, LAN6};
use crate::traffic::{Server, refusal, tcp_works};
use crate::{Engine, Portway, Scratch, Topology, peer};

/// Bytes come back, on several connections at a time.
pub fn echo(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let mut streams: Vec<_> =
        (0..20).map(|_| net.client().connect("10.1.0.1:8000").expect("connects")).collect();
    for stream in &mut streams {
        crate::traffic::echo(stream, b"twenty at a time").expect("echoes");
    }
}

/// The same over IPv6.
pub fn echo_v6(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("[::]:8000", "[fd02::10]:7000"));
    tcp_works(net.client(), &format!("[{LAN6}]:8000"));
}

/// A server that speaks first is heard at once, although the client has sent nothing: an engine that saves
/// the last packet of a handshake to ride on the first data must not wait for a delayed acknowledgement
/// (40 ms).
pub fn server_speaks_first(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_greeting(net.server(), "10.2.0.10:7000", "220 hello\r\n");
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let mut waits: Vec<Duration> = (0..11)
        .map(|_| {
            let start = Instant::now();
            let mut greeting = [0; 11];
            let mut stream = net.client().connect("10.1.0.1:8000").expect("connects");
            stream.read_exact(&mut greeting).expect("the server speaks first");
            assert_eq!(&greeting, b"220 hello\r\n");
            start.elapsed()
        })
        .collect();
    waits.sort();
    assert!(waits[5] < Duration::from_millis(20), "the greeting took {waits:?}");
}

/// A closed backend port is a refusal, at once.
pub fn refused(engine: Engine) {
    let net = Topology::new();
    let rules =
        engine.forward("0.0.0.0:8000", "10.2.0.10:7000") + &engine.forward("[::]:8000", "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    for to in [format!("{LAN4}:8000"), format!("[{LAN6}]:8000")] {
        net.none_waits(&format!("the refusal of {to}"), || refusal(net.client(), &to));
    }
}

/// The client ends its direction first (socat's end of input); the server then answers with a megabyte.
pub fn half_close_by_client(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    let asked = peer::blob(&files.join("asked"), 300_000);
    let (heard, hears) = mpsc::channel();
    let _server = Server::tcp(net.server(), "10.2.0.10:7000", move |mut stream| {
        let mut request = Vec::new();
        let end = stream.read_to_end(&mut request);
        // The other direction is idle for a moment, as when a server thinks.
        thread::sleep(Duration::from_millis(300));
        let answered = end.and_then(|_| stream.write_all(&vec![b'x'; 1 << 20]));
        let _ = heard.send(answered.map(|()| request));
    });
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let dir = files.path().display();
    net.client().shell(&format!("timeout 20 socat -t 15 - TCP:{LAN4}:8000 < {dir}/asked > {dir}/answer"));
    let request =
        hears.recv_timeout(PATIENCE).expect("the server saw the end").expect("all bytes and a clean end");
    fs::write(files.join("request"), request).expect("our own directory");
    assert_eq!(peer::sha256(&files.join("request")), asked, "the request arrived as sent");
    assert_eq!(fs::read(files.join("answer")).expect("socat wrote it"), vec![b'x'; 1 << 20]);
}

/// The server ends its direction first; the client then sends a megabyte.
pub fn half_close_by_server(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    let sent = peer::blob(&files.join("sent"), 1 << 20);
    let (heard, hears) = mpsc::channel();
    let _server = Server::tcp(net.server(), "10.2.0.10:7000", move |mut stream| {
        let mut upload = Vec::new();
        let ended = stream.write_all(b"that is all from me").and_then(|()| stream.shutdown(Shutdown::Write));
        let _ = heard.send(ended.and_then(|()| stream.read_to_end(&mut upload)).map(|_| upload));
    });
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let dir = files.path().display();
    let said = net
        .client()
        .shell(&format!("(sleep 0.4; cat {dir}/sent) | timeout 20 socat -t 15 - TCP:{LAN4}:8000"));
    assert_eq!(said, "that is all from me");
    let upload =
        hears.recv_timeout(PATIENCE).expect("the server saw the end").expect("all bytes and a clean end");
    fs::write(files.join("upload"), upload).expect("our own directory");
    assert_eq!(peer::sha256(&files.join("upload")), sent, "the upload arrived as sent");
}

/// A reset by the server reaches the client as a reset, not as a clean end that looks like success.
pub fn reset(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp(net.server(), "10.2.0.10:7000", |mut stream| {
        let _ = stream.read(&mut [0; 1]);
        // Closing with unread data resets (RFC 2525, section 2.17).
        thread::sleep(Duration::from_millis(50));
    });
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let mut stream = net.client().connect("10.1.0.1:8000").expect("connects");
    stream.write_all(b"more than one byte").expect("the connection is open");
    let end = stream.read_to_end(&mut Vec::new()).map_err(|e| e.kind());
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
}

/// A reset by the client (a crash) reaches the server as a reset.
pub fn reset_by_client(engine: Engine) {
    let net = Topology::new();
    let (heard, hears) = mpsc::channel();
    let _server = Server::tcp(net.server(), "10.2.0.10:7000", move |mut stream| {
        let _ = stream.write_all(b"never read");
        let mut rest = Vec::new();
        let _ = heard.send(stream.read_to_end(&mut rest).map_err(|e| e.kind()));
    });
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let stream = net.client().connect("10.1.0.1:8000").expect("connects");
    stream.peek(&mut [0; 1]).expect("the server's word has arrived");
    // Closing with unread data resets (RFC 2525, section 2.17).
    drop(stream);
    let end = hears.recv_timeout(PATIENCE).expect("the server is told");
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
}

/// A remote command over ssh, and a file there and back by scp.
pub fn ssh(engine: Engine) {
    let net = Topology::new();
    let sshd = peer::Sshd::start(net.server(), 2222);
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8022", "10.2.0.10:2222"));
    let options = sshd.options();
    let said = net.client().run(&format!("ssh {options} -p 8022 root@{LAN4} echo through"));
    assert_eq!(said.trim(), "through");
    let files = Scratch::new();
    let sum = peer::blob(&files.join("file"), 20 << 20);
    let dir = files.path().display();
    net.client().run(&format!("scp {options} -q -P 8022 {dir}/file root@{LAN4}:{dir}/there"));
    net.client().run(&format!("scp {options} -q -P 8022 root@{LAN4}:{dir}/there {dir}/back"));
    assert_eq!(peer::sha256(&files.join("back")), sum);
}

/// redis-benchmark: many small requests on held connections, pipelined and not.
pub fn redis(engine: Engine) {
    let net = Topology::new();
    let _redis = peer::redis(net.server(), 6379);
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8379", "10.2.0.10:6379"));
    for pipeline in [1, 16] {
        let line = format!(
            "redis-benchmark -h {LAN4} -p 8379 -n 5000 -c 20 -P {pipeline} -t set,get,lrange_100 --csv"
        );
        let report = net.client().run(&line);
        assert!(report.contains("SET") && report.contains("LRANGE_100"), "{report}");
    }
}

/// A reset that somebody forged, who knows addresses and ports but no sequence number, does not end a connection that is silent
/// for long before and after.
pub fn forged_reset(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let mut held = Held::open(net.client(), "10.1.0.1:8000");
    thread::sleep(Duration::from_secs(3));
    let SocketAddr::V4(source) = held.client else { unreachable!("a client of IPv4") };
    let destination = "10.1.0.1:8000".parse().expect("a socket address");
    // One of the billions of numbers that the connection does not expect.
    let forged = Segment { flags: flags::RST, ..Segment::ack(source, destination) };
    Raw::tcp(net.client()).send(&forged).expect("sent");
    // Longer than any engine remembers a connection that has ended.
    thread::sleep(Duration::from_secs(13));
    held.lives("after a forged reset");
}

/// The servers' network has a smaller MTU than the clients': both directions still flow.
pub fn smaller_mtu(engine: Engine) {
    let net = Topology::new();
    net.gateway.ip("link set wan mtu 1280");
    net.server().ip("link set eth0 mtu 1280");
    let files = Scratch::new();
    files.dir("up");
    let sum = peer::blob(&files.join("blob"), 5_000_000);
    let _v4 = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let _v6 = peer::nginx(net.server(), "[fd02::10]:81", files.path());
    let rules =
        engine.forward("0.0.0.0:8888", "10.2.0.10:80") + &engine.forward("[::]:8888", "[fd02::10]:81");
    let _portway = Portway::start(&net.gateway, &rules);
    let dir = files.path().display();
    for host in [LAN4.to_owned(), format!("[{LAN6}]")] {
        net.client().run(&format!("curl -sSfg --max-time 20 -o {dir}/got http://{host}:8888/blob"));
        assert_eq!(peer::sha256(&files.join("got")), sum);
        net.client().run(&format!("curl -sSfg --max-time 20 -T {dir}/blob http://{host}:8888/up/put"));
        assert_eq!(peer::sha256(&files.join("up/put")), sum);
        fs::remove_file(files.join("up/put")).expect("just uploaded");
    }
}

/// iperf3 over TCP, up and then down, four streams each. (Not both at once: iperf3 tells its streams apart by
/// the order in which they arrive, which a relay with several workers does not keep.)
pub fn iperf3(engine: Engine) {
    let net = Topology::new();
    let _iperf = peer::iperf3(net.server(), 5201);
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8201", "10.2.0.10:5201"));
    for direction in ["", "-R"] {
        let report = net.client().run(&format!("iperf3 -c {LAN4} -p 8201 -t 1 -P 4 -J {direction}"));
        let report: serde_json::Value = serde_json::from_str(&report).expect("iperf3 -J prints JSON");
        let bytes = report["end"]["sum_received"]["bytes"].as_u64();
        assert!(bytes.is_some_and(|bytes| bytes > 1 << 20), "{direction}: {bytes:?}");
    }
}

/// A connection that is quiet for a while lives on, and each byte goes through by itself.
pub fn interactive(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let mut stream = net.client().connect("10.1.0.1:8000").expect("connects");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut waits: Vec<Duration> = (0..50_u8)
        .map(|byte| {
            let start = Instant::now();
            crate::traffic::echo(&mut stream, &[byte]).expect("echoes");
            start.elapsed()
        })
        .collect();
    waits.sort();
    assert!(waits[25] < Duration::from_millis(20), "one byte and back took {:?}", waits[25]);
    thread::sleep(Duration::from_secs(2));
    crate::traffic::echo(&mut stream, b"still here").expect("echoes after a pause");
}
