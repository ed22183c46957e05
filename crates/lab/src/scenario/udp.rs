//! UDP: echo, DNS, sizes, many clients, refusals, iperf3.

use std::io;
use std::time::{Duration, Instant};

use crate::topology::{LAN4, LAN6};
use crate::traffic::{Server, udp_works};
use crate::{Engine, Portway, Topology, peer};

/// A datagram comes back, IPv4 and IPv6.
pub fn echo(engine: Engine) {
    let net = Topology::new();
    let _v4 = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _v6 = Server::udp_echo(net.server(), "[fd02::10]:7000");
    let rules = engine.forward("udp/0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("udp/[::]:8000", "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    udp_works(net.client(), &format!("{LAN4}:8000"));
    udp_works(net.client(), &format!("[{LAN6}]:8000"));
}

/// Empty, small, full-frame and fragmented datagrams keep their bounds and their bytes.
pub fn sizes(engine: Engine) {
    let net = Topology::new();
    let _server = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("udp/0.0.0.0:8000", "10.2.0.10:7000"));
    let socket = net.client().dial("10.1.0.1:8000");
    let mut answer = vec![0; 65_536];
    for size in [1, 0, 2, 1472, 1473, 9000, 60_000] {
        let message: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        socket.send(&message).expect("sent");
        let length = socket.recv(&mut answer).unwrap_or_else(|e| panic!("a datagram of {size} bytes: {e}"));
        assert_eq!(&answer[..length], message, "a datagram of {size} bytes");
    }
}

/// A hundred clients at a time, each gets its own answers.
pub fn many_clients(engine: Engine) {
    let net = Topology::new();
    let _server = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("udp/0.0.0.0:8000", "10.2.0.10:7000"));
    let sockets: Vec<_> = (0..100).map(|_| net.client().dial("10.1.0.1:8000")).collect();
    for round in 0..3 {
        for (i, socket) in sockets.iter().enumerate() {
            socket.send(format!("{round} {i}").as_bytes()).expect("sent");
        }
        let mut answer = [0; 64];
        for (i, socket) in sockets.iter().enumerate() {
            let length =
                socket.recv(&mut answer).unwrap_or_else(|e| panic!("round {round}, client {i}: {e}"));
            assert_eq!(&answer[..length], format!("{round} {i}").as_bytes());
        }
    }
}

/// dig asks dnsmasq, over UDP and over TCP, by one rule for both.
pub fn dns(engine: Engine) {
    let net = Topology::new();
    let _v4 = peer::dnsmasq(net.server(), 53, "192.0.2.7", "2001:db8::7");
    let rules = engine.forward("tcp+udp/0.0.0.0:5300", "10.2.0.10:53")
        + &engine.forward("tcp+udp/[::]:5300", "[fd02::10]:53");
    let _portway = Portway::start(&net.gateway, &rules);
    for server in [LAN4, LAN6] {
        for transport in ["+notcp", "+tcp"] {
            let ask = format!("dig @{server} -p 5300 {transport} +short +tries=3 +time=2 portway.test");
            assert_eq!(net.client().run(&ask).trim(), "192.0.2.7", "{ask}");
            assert_eq!(net.client().run(&format!("{ask} AAAA")).trim(), "2001:db8::7", "{ask} AAAA");
        }
    }
}

/// A closed backend port comes back as ICMP port unreachable, at once.
pub fn refused(engine: Engine) {
    let net = Topology::new();
    let _portway = Portway::start(&net.gateway, &engine.forward("udp/0.0.0.0:8000", "10.2.0.10:7000"));
    let socket = net.client().dial("10.1.0.1:8000");
    let start = Instant::now();
    socket.send(b"anybody?").expect("sent");
    let error = socket.recv(&mut [0; 8]).expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(start.elapsed() < Duration::from_secs(1));
}

/// The answer comes from the address that was asked, although the gateway has several (the client's
/// connected socket would drop any other).
pub fn answers_from_the_address_asked(engine: Engine) {
    let net = Topology::new();
    net.gateway.ip("address add 10.1.0.2/24 dev lan\naddress add fd01::2/64 dev lan nodad");
    let _v4 = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _v6 = Server::udp_echo(net.server(), "[fd02::10]:7000");
    let rules = engine.forward("udp/0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("udp/[::]:8000", "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    for address in ["10.1.0.1:8000", "10.1.0.2:8000", "[fd01::1]:8000", "[fd01::2]:8000"] {
        udp_works(net.client(), address);
    }
}

/// iperf3 over UDP: the control connection and the datagrams by one rule, hardly any lost.
pub fn iperf3(engine: Engine) {
    let net = Topology::new();
    let _iperf = peer::iperf3(net.server(), 5201);
    let _portway = Portway::start(&net.gateway, &engine.forward("tcp+udp/0.0.0.0:5201", "10.2.0.10:5201"));
    let report = net.client().run(&format!("iperf3 -c {LAN4} -p 5201 -u -b 50M -l 1400 -t 1 -J"));
    let report: serde_json::Value = serde_json::from_str(&report).expect("iperf3 -J prints JSON");
    let sum = &report["end"]["sum"];
    let (packets, lost) =
        (sum["packets"].as_u64().expect("a number"), sum["lost_packets"].as_u64().expect("a number"));
    // What has come as far as the server's socket and found it full was not lost on the way: the server was late.
    let late = net.server().counter("RcvbufErrors");
    assert!(
        packets > 3000 && lost.saturating_sub(late) * 20 < packets,
        "{packets} packets, {lost} lost, {late} of them at the server"
    );
}
