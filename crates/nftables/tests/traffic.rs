//! Packets through the table: a client, a gateway with the table, a server. The client has no route to the
//! server's network, so only the forwarding can answer.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};

use portway_core::engine::Engine;
use portway_core::ruleset::{Rule, SourceMode};
use portway_nftables::NftablesEngine;
use support::lab::{self, Lab, PATIENCE};
use support::{Namespace, apply, plan, rule, run, within};

/// Answers every line with the address it came from, on TCP and UDP.
fn serve(namespace: &Namespace, address: &str) {
    let conversation = |mut stream: TcpStream, _| {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let mut asked = Vec::new();
        if stream.read_to_end(&mut asked).is_ok() {
            let _ = write!(stream, "{}", stream.peer_addr().unwrap());
        }
    };
    lab::serve(namespace, address.parse().unwrap(), conversation, |_, from| from);
}

/// What a server says of who asks it: the address that it sees.
fn tcp(from: &Namespace, to: &str) -> io::Result<SocketAddr> {
    let to: SocketAddr = to.parse().unwrap();
    within(from, move || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"who am I?")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.parse().unwrap())
    })
}

fn udp(from: &Namespace, to: &str) -> io::Result<SocketAddr> {
    let to: SocketAddr = to.parse().unwrap();
    within(from, move || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        ask(&socket)
    })
}

fn ask(socket: &UdpSocket) -> io::Result<SocketAddr> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"who am I?")?;
    let mut answer = [0; 100];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).parse().unwrap())
}

fn seen(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|error| error.kind().to_string(), |address| address.ip().to_string())
}

fn forward(rules: &[Rule]) -> NftablesEngine {
    let mut engine = NftablesEngine::open().unwrap();
    let plan = plan(&mut engine, rules);
    apply(&mut engine, &plan).unwrap();
    engine
}

#[test]
fn from_outside_from_the_host_itself_and_back() {
    let lab = Lab::new();
    serve(&lab.server, "10.2.0.2:80");
    serve(&lab.server, "[fd02::2]:80");
    serve(&lab.client, "10.1.0.2:81");
    serve(&lab.gateway, "127.0.0.1:82");
    serve(&lab.gateway, "10.2.0.1:83");
    serve(&lab.server, "10.2.0.2:9003");
    let mut engine = forward(&[
        rule("any", &["tcp/0.0.0.0:8888", "udp/0.0.0.0:8888"], "10.2.0.2:80"),
        rule("address", &["tcp/10.1.0.1:8889", "udp/10.1.0.1:8889"], "10.2.0.2:80"),
        rule("six", &["tcp/[::]:8888", "udp/[::]:8888"], "[fd02::2]:80"),
        rule("hairpin", &["tcp/0.0.0.0:8890", "udp/0.0.0.0:8890"], "10.1.0.2:81"),
        rule("loopback", &["tcp/0.0.0.0:8891", "udp/0.0.0.0:8891"], "127.0.0.1:82"),
        rule("own", &["tcp/0.0.0.0:8892", "udp/0.0.0.0:8892"], "10.2.0.1:83"),
        rule("interface", &["tcp/toclient:8893", "udp/toclient:8893"], "10.2.0.2:80"),
        rule("shifted", &["tcp/0.0.0.0:8000-8009", "udp/0.0.0.0:8000-8009"], "10.2.0.2:9000-9009"),
    ]);
    // From, to, and the client that the backend sees.
    let (client, gateway) = (&lab.client, &lab.gateway);
    for (from, to, source) in [
        (client, "10.1.0.1:8888", "10.2.0.1"),
        (client, "10.1.0.1:8889", "10.2.0.1"),
        (client, "[fd01::1]:8888", "fd02::1"),
        (client, "10.1.0.1:8890", "10.1.0.1"),
        (client, "10.1.0.1:8891", "10.1.0.2"),
        (client, "10.1.0.1:8892", "10.1.0.2"),
        (client, "10.1.0.1:8893", "10.2.0.1"),
        (client, "10.1.0.1:8003", "10.2.0.1"),
        (gateway, "127.0.0.1:8888", "10.2.0.1"),
        (gateway, "10.1.0.1:8888", "10.2.0.1"),
        (gateway, "10.1.0.1:8889", "10.2.0.1"),
        (gateway, "[fd01::1]:8888", "fd02::1"),
        (gateway, "127.0.0.1:8890", "10.1.0.1"),
        (gateway, "127.0.0.1:8891", "127.0.0.1"),
        (gateway, "127.0.0.1:8892", "127.0.0.1"),
        (gateway, "10.1.0.1:8892", "10.1.0.1"),
        (gateway, "127.0.0.1:8003", "10.2.0.1"),
        (gateway, "10.1.0.1:8893", "connection refused"),
        (client, "10.1.0.1:8004", "connection refused"),
    ] {
        let name = if std::ptr::eq(from, client) { "client" } else { "gateway" };
        assert_eq!(seen(tcp(from, to)), source, "TCP from {name} to {to}");
        assert_eq!(seen(udp(from, to)), source, "UDP from {name} to {to}");
    }
    let snapshot = engine.observer().unwrap().observe().unwrap();
    let any = snapshot.rules["any"];
    assert_eq!((any.flows, any.failed), (6, None), "{snapshot:?}");
    // Three UDP flows; the TCP connections have ended.
    assert_eq!(any.live, 3);
    assert!(any.bytes_in > 6 * 37 && any.bytes_out > 6 * 37, "{any:?}");
}

#[test]
fn traffic_to_others_and_from_outside_to_loopback_is_not_caught() {
    let lab = Lab::new();
    serve(&lab.server, "10.2.0.2:8888");
    serve(&lab.server, "10.2.0.2:80");
    serve(&lab.gateway, "127.0.0.1:70");
    run("ip", &["-n", lab.client.name(), "route", "add", "10.2.0.0/24", "via", "10.1.0.1"]);
    run("ip", &["-n", lab.server.name(), "route", "add", "10.1.0.0/24", "via", "10.2.0.1"]);
    let mut engine = forward(&[rule("any", &["tcp/0.0.0.0:8888", "udp/0.0.0.0:8888"], "10.2.0.2:80")]);
    assert_eq!(seen(tcp(&lab.client, "10.2.0.2:8888")), "10.1.0.2");
    assert_eq!(seen(udp(&lab.client, "10.2.0.2:8888")), "10.1.0.2");
    assert_eq!(engine.observer().unwrap().observe().unwrap().rules["any"].flows, 0);
    // route_localnet is set, and still nobody outside reaches 127.0.0.0/8.
    run("ip", &["-n", lab.client.name(), "address", "del", "127.0.0.1/8", "dev", "lo"]);
    run(
        "ip",
        &["-n", lab.client.name(), "route", "add", "127.0.0.1/32", "via", "10.1.0.1", "src", "10.1.0.2"],
    );
    run("ip", &["netns", "exec", lab.client.name(), "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"]);
    assert_eq!(seen(tcp(&lab.client, "127.0.0.1:70")), io::ErrorKind::TimedOut.to_string());
    engine.clear().unwrap();
    assert_eq!(seen(tcp(&lab.client, "127.0.0.1:70")), "10.1.0.2", "the attack works without the guard");
}

#[test]
fn the_source_is_the_pools_or_the_clients() {
    let lab = Lab::new();
    serve(&lab.server, "10.2.0.2:80");
    run("ip", &["address", "add", "10.2.0.10/24", "dev", "toserver"]);
    run("ip", &["address", "add", "10.2.0.11/24", "dev", "toserver"]);
    run("ip", &["-n", lab.server.name(), "route", "add", "10.1.0.0/24", "via", "10.2.0.1"]);
    let mut pool = rule("pool", &["tcp/0.0.0.0:8888"], "10.2.0.2:80");
    pool.source = SourceMode::Snat(vec!["10.2.0.10".parse().unwrap(), "10.2.0.11".parse().unwrap()]);
    let mut preserve = rule("preserve", &["tcp/0.0.0.0:8889"], "10.2.0.2:80");
    preserve.source = SourceMode::Preserve;
    let _engine = forward(&[pool, preserve, rule("masquerade", &["udp/0.0.0.0:8888"], "10.2.0.2:80")]);
    let sources: std::collections::BTreeSet<String> =
        (0..40).map(|_| seen(tcp(&lab.client, "10.1.0.1:8888"))).collect();
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), ["10.2.0.10", "10.2.0.11"]);
    assert_eq!(seen(tcp(&lab.client, "10.1.0.1:8889")), "10.1.0.2");
    // A masqueraded client keeps its port where that is free.
    let (port, seen) = within(&lab.client, || {
        let socket = UdpSocket::bind("10.1.0.2:34567").unwrap();
        socket.connect("10.1.0.1:8888").unwrap();
        (34567, ask(&socket).unwrap())
    });
    assert_eq!(seen, SocketAddr::new([10, 2, 0, 1].into(), port));
}

#[test]
fn a_restarted_daemon_adopts_the_table_and_its_counters() {
    let lab = Lab::new();
    serve(&lab.server, "10.2.0.2:80");
    let web = || rule("web", &["tcp/0.0.0.0:8888"], "10.2.0.2:80");
    let first = forward(&[web()]);
    (0..3).for_each(|_| assert_eq!(seen(tcp(&lab.client, "10.1.0.1:8888")), "10.2.0.1"));
    drop(first);
    assert_eq!(seen(tcp(&lab.client, "10.1.0.1:8888")), "10.2.0.1");
    let mut second = NftablesEngine::open().unwrap();
    let plan = plan(&mut second, &[rule("before", &["tcp/0.0.0.0:1"], "10.2.0.2:80"), web()]);
    let changed = apply(&mut second, &plan).unwrap();
    assert!(changed.adopted);
    assert_eq!((changed.added, changed.removed), (5, 0));
    let before = second.observer().unwrap().observe().unwrap().rules["web"];
    assert_eq!(before.flows, 4);
    assert_eq!(seen(tcp(&lab.client, "10.1.0.1:8888")), "10.2.0.1");
    let after = second.observer().unwrap().observe().unwrap().rules["web"];
    assert!(after.flows == 5 && after.bytes_in > before.bytes_in && after.bytes_out > before.bytes_out);
}

#[test]
fn established_flows_outlive_a_change_and_end_with_clear() {
    let lab = Lab::new();
    serve(&lab.server, "10.2.0.2:80");
    serve(&lab.server, "10.2.0.2:81");
    let web = |backend| rule("web", &["tcp/0.0.0.0:8888"], backend);
    let mut engine = forward(&[web("10.2.0.2:80")]);
    let mut stream = within(&lab.client, || TcpStream::connect("10.1.0.1:8888").unwrap());
    let changed = plan(&mut engine, &[web("10.2.0.2:81")]);
    apply(&mut engine, &changed).unwrap();
    assert_eq!(engine.observer().unwrap().observe().unwrap().rules["web"].live, 1);
    let without = plan(&mut engine, &[]);
    apply(&mut engine, &without).unwrap();
    stream.write_all(b"still here?").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("10.2.0.1:"), "{answer}");
    assert_ne!(run("conntrack", &["-L", "-m", "0x50000000/0xff000000"]), "");
    engine.clear().unwrap();
    assert_eq!(run("conntrack", &["-L", "-m", "0x50000000/0xff000000"]), "");
}

#[test]
fn a_talking_udp_client_reaches_a_new_rule() {
    let lab = Lab::new();
    serve(&lab.server, "10.2.0.2:53");
    serve(&lab.gateway, "10.1.0.1:5353");
    let mut engine = forward(&[rule("other", &["udp/0.0.0.0:1"], "10.2.0.2:53")]);
    let socket = within(&lab.client, || {
        let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
        socket.connect("10.1.0.1:5353").unwrap();
        socket
    });
    assert_eq!(seen(ask(&socket)), "10.1.0.2", "answered by the gateway's own server");
    let rules =
        [rule("other", &["udp/0.0.0.0:1"], "10.2.0.2:53"), rule("dns", &["udp/0.0.0.0:5353"], "10.2.0.2:53")];
    let dns = plan(&mut engine, &rules);
    apply(&mut engine, &dns).unwrap();
    assert_eq!(seen(ask(&socket)), "10.2.0.1", "the same socket, now forwarded");
}

/// Why `assign` keeps ::1 away from this engine: the kernel neither routes a packet from ::1 to another host
/// nor one from another host to ::1, whatever NAT says. (IPv4 has `route_localnet` for this.)
#[test]
fn ipv6_loopback_cannot_be_translated() {
    let lab = Lab::new();
    serve(&lab.server, "[fd02::2]:80");
    serve(&lab.gateway, "[::1]:82");
    let _engine = forward(&[
        rule("any", &["tcp/[::]:8888"], "[fd02::2]:80"),
        rule("loopback", &["tcp/[::]:8889"], "[::1]:82"),
    ]);
    // Not caught, so refused at once rather than left hanging.
    assert_eq!(seen(tcp(&lab.gateway, "[::1]:8888")), "connection refused");
    assert_eq!(seen(tcp(&lab.gateway, "[fd01::1]:8888")), "fd02::1");
    // Should the kernel ever learn this, assign may offer it.
    assert_eq!(seen(tcp(&lab.client, "[fd01::1]:8889")), "network unreachable");
}
