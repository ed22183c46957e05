//! Clients told to servers: the gateway writes TCP option 254, `portway toa` beside the server reads it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::gateway::{Call, Gateway, option};
use crate::netns::wait_for;
use crate::toa::{Toa, nginx};
use crate::topology::{LAN4, WAN4, WAN6};
use crate::traffic::Server;
use crate::{Cgroup, Engine, Portway, Topology, client};

use super::http::there_and_back;

/// What an HTTP/1.0 client asks.
const GET: &str = "GET / HTTP/1.0\r\n\r\n";

/// A rule that tells.
fn rule(engine: Engine, listen: &str, backend: &str) -> String {
    engine.rule(&format!("listen = '{listen}'\nforward = '{backend}'\nclient-address = 'toa'"))
}

/// A network whose server is in a control group.
fn network() -> (Topology, Cgroup) {
    let net = Topology::new();
    let cgroup = Cgroup::new();
    net.server().put_into(&cgroup);
    (net, cgroup)
}

/// What the server answers, and what the client is: "ADDRESS PORT" both.
fn asked(mut stream: TcpStream) -> (String, String) {
    let own = stream.local_addr().expect("a connected socket");
    stream.write_all(GET.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let seen = answer.rsplit_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.to_owned());
    (seen, format!("{} {}", own.ip(), own.port()))
}

/// An nginx that knows of nothing logs the clients, by IPv4 and IPv6; before and after it, the gateway.
pub fn nginx_logs_the_client(engine: Engine) {
    let (net, cgroup) = network();
    let (_nginx, logs) = nginx(net.server(), &["10.2.0.10:80", "[fd02::10]:80"]);
    let rules = rule(engine, "0.0.0.0:8888", "10.2.0.10:80") + &rule(engine, "[::]:8888", "[fd02::10]:80");
    let _portway = Portway::start(&net.gateway, &rules);
    let asks = |to: &str| asked(net.client().connect(to).expect("connected"));
    let gateway = |seen: &str, address: &str| assert_eq!(seen.split(' ').next(), Some(address));
    gateway(&asks("10.1.0.1:8888").0, WAN4);
    let toa = Toa::start(&cgroup, &[WAN4, WAN6]);
    let mut expected = Vec::new();
    for _ in 0..10 {
        for to in ["10.1.0.1:8888", "[fd01::1]:8888"] {
            let (seen, own) = asks(to);
            assert_eq!(seen, own);
            expected.push(own);
        }
    }
    let log = || fs::read_to_string(logs.join("access.log")).unwrap_or_default();
    wait_for("the log", || log().lines().count() == 21);
    assert_eq!(log().lines().skip(1).collect::<Vec<_>>(), expected);
    drop(toa);
    gateway(&asks("[fd01::1]:8888").0, WAN6);
}

/// Listener and backend of different families: an IPv6 socket names clients of both.
pub fn across_families(engine: Engine) {
    let (net, cgroup) = network();
    let _toa = Toa::start(&cgroup, &[WAN4, WAN6]);
    // Dual-stack, as an IPv4 socket has no room for an IPv6 client.
    let (_nginx, _logs) = nginx(net.server(), &["[::]:80 ipv6only=off"]);
    let rules = rule(engine, "0.0.0.0:8888", "[fd02::10]:80") + &rule(engine, "[::]:8888", "10.2.0.10:80");
    let _portway = Portway::start(&net.gateway, &rules);
    let (seen, own) = asked(net.client().connect("10.1.0.1:8888").expect("connected"));
    assert_eq!(seen, format!("::ffff:{own}"));
    let (seen, own) = asked(net.client().connect("[fd01::1]:8888").expect("connected"));
    assert_eq!(seen, own);
}

/// Connections that a SYN cookie opens: the SYN that the backend sees is the gateway's own, and tells the client all the same;
/// within a family and from one to the other.
pub fn behind_cookies(engine: Engine) {
    let (net, cgroup) = network();
    let _toa = Toa::start(&cgroup, &[WAN4, WAN6]);
    let (_nginx, _logs) =
        nginx(net.server(), &["10.2.0.10:80", "[::]:80 ipv6only=on", "[::]:81 ipv6only=off"]);
    let cookies = |listen: &str, backend: &str| rule(engine, listen, backend) + "syn-cookies = 0\n";
    let rules = cookies("0.0.0.0:8888", "10.2.0.10:80")
        + &cookies("[::]:8888", "[fd02::10]:80")
        + &cookies("0.0.0.0:8889", "[fd02::10]:81")
        + &cookies("[::]:8889", "10.2.0.10:81");
    let portway = Portway::start(&net.gateway, &rules);
    for (to, mapped) in
        [("10.1.0.1:8888", ""), ("[fd01::1]:8888", ""), ("10.1.0.1:8889", "::ffff:"), ("[fd01::1]:8889", "")]
    {
        for _ in 0..5 {
            let (seen, own) = asked(net.client().connect(to).unwrap_or_else(|e| panic!("{to}: {e}")));
            assert_eq!(seen, format!("{mapped}{own}"), "by {to}");
        }
    }
    assert_eq!(portway.status()["engines"]["ebpf"]["syn_cookies"], 20);
}

/// What clients write into the option themselves reaches no server, wherever they put it.
pub fn forged(engine: Engine) {
    let (net, cgroup) = network();
    // A listener from before: it has the word of the ACK only, so nothing of the SYN helps to see through a forgery.
    let (_before, _) = nginx(net.server(), &["10.2.0.10:80", "[fd02::10]:80"]);
    let _toa = Toa::start(&cgroup, &[WAN4, WAN6]);
    let rules = rule(engine, "0.0.0.0:8888", "10.2.0.10:80") + &rule(engine, "[::]:8888", "[fd02::10]:80");
    let _portway = Portway::start(&net.gateway, &rules);
    // Clients that write their own segments, behind the client's host.
    let mut wire = Gateway::to(net.client());
    net.client().sysctl("net.ipv4.ip_forward", "1");
    net.client().sysctl("net.ipv6.conf.all.forwarding", "1");
    net.gateway.ip("route add 10.3.0.0/16 via 10.1.0.10\nroute add fd03::/64 via fd01::10");
    let forged = option("198.51.100.7:5001");
    let forged6 = option("[2001:db8::7]:5001");
    let full = [&forged6[..], &forged, &forged, &[1; 4]].concat();
    let usual = [1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0];
    let client = |port: u16| format!("10.3.0.9:{port}");
    let mut asks = |call: &Call, data_options: &[u8]| {
        let mut connection = wire.connect(call).unwrap_or_else(|e| panic!("{call:?}: {e}"));
        connection.send_with(data_options, GET.as_bytes()).expect("sent");
        let answer = connection.rest().unwrap_or_else(|e| panic!("{call:?}: {e}"));
        answer.rsplit_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.to_owned())
    };
    let tells = [
        ("none", Call::new(&client(2000), "10.1.0.1:8888")),
        ("the usual", Call::new(&client(2001), "10.1.0.1:8888").with(&usual)),
        ("one", Call::new(&client(2002), "10.1.0.1:8888").with(&forged)),
        ("one of IPv6", Call::new(&client(2003), "10.1.0.1:8888").with(&forged6)),
        ("behind an end", Call::new(&client(2004), "10.1.0.1:8888").with(&[2, 4, 5, 180, 0, 0, 0, 0])),
        ("in the ACK", Call::new(&client(2005), "10.1.0.1:8888").ack(&forged)),
        // The gateway has seen an ACK then, and the server none.
        (
            "behind an ACK that the server throws away",
            Call::new(&client(2006), "10.1.0.1:8888").ack(&forged).after_a_broken_ack(),
        ),
    ];
    for (what, call) in &tells {
        assert_eq!(asks(call, &[]), call.from.to_string().replace(':', " "), "{what}");
    }
    let v6 = Call::new("[fd03::9]:2000", "[fd01::1]:8888").with(&forged6);
    assert_eq!(asks(&v6, &[]), "fd03::9 2000");
    // Without room the server sees the gateway, and not whom the client says.
    let hidden = |seen: String, what: &str| assert_eq!(seen.split(' ').next(), Some(WAN4), "{what}");
    hidden(asks(&Call::new(&client(3000), "10.1.0.1:8888").with(&full), &[]), "no room");
    // The ACK is lost, and a segment with payload completes the handshake.
    for options in [&forged[..], &[&usual[..], &forged].concat(), &full] {
        let port = 3001 + u16::try_from(options.len()).expect("few");
        let call = Call::new(&client(port), "10.1.0.1:8888").without_ack();
        hidden(asks(&call, options), "payload that completes the handshake");
    }
}

/// Three megabytes each way, with a server that reads the option and one that does not know it.
pub fn transfers(engine: Engine) {
    let (net, cgroup) = network();
    let rules = rule(engine, "0.0.0.0:8888", "10.2.0.10:80") + &rule(engine, "[::]:8888", "[fd02::10]:81");
    there_and_back(&net, net.client(), net.server(), ["10.2.0.10:80", "[fd02::10]:81"], &rules, 3_000_000);
    let _toa = Toa::start(&cgroup, &[WAN4]);
    there_and_back(&net, net.client(), net.server(), ["10.2.0.10:80", "[fd02::10]:81"], &rules, 3_000_000);
}

/// A server that speaks first, and others that know of nothing, have their connections as without.
pub fn nobody_reads(engine: Engine) {
    let net = Topology::new();
    let _speaks = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let _portway = Portway::start(&net.gateway, &rule(engine, "0.0.0.0:8000", "10.2.0.10:7000"));
    assert_eq!(client::tally(net.client(), "10.1.0.1:8000", 50), [("a".to_owned(), 50)].into());
    let mut held = client::Held::open(net.client(), &format!("{LAN4}:8000"));
    held.lives("with an option that nobody reads");
}
