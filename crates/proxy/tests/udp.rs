//! UDP through the engine, on loopback. The ICMP test needs CAP_NET_RAW and fails without it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use portway_core::address::{Family, Protocol};
use portway_core::plan::proxy::Socket;
use portway_core::ruleset::{Scope, Timeouts};
use support::*;

fn echo_server() -> SocketAddr {
    udp_server_on("127.0.0.1", <[u8]>::to_vec)
}

#[test]
fn many_clients_get_their_own_answers() {
    let (mut proxy, address) = Proxy::udp(echo_server());
    let clients: Vec<UdpSocket> = (0..100).map(|_| udp_client(address)).collect();
    for round in 0..5 {
        for (i, client) in clients.iter().enumerate() {
            let question = format!("{round} {i}");
            assert_eq!(udp_ask(client, question.as_bytes()), question.as_bytes());
        }
    }
    // An answer may be here before it has been counted.
    proxy.until("counted", |s| s.rules["rule"].bytes_in == s.rules["rule"].bytes_out);
    let counters = proxy.counters("rule");
    assert_eq!((counters.live, counters.flows, counters.failed), (100, 100, Some(0)));
    assert_eq!(proxy.gauge("udp_dropped"), 0);
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    let port = free(Protocol::Udp, Ipv4Addr::LOCALHOST.into()).port();
    let mut proxy = Proxy::new();
    let rule =
        proxy.set("rule", Protocol::Udp, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), echo_server());
    let (_, target) = rule.sockets.pop_first().unwrap();
    rule.sockets.insert(Socket { protocol: Protocol::Udp, scope: Scope::Any(Family::V4), port }, target);
    proxy.apply().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    for asked in ["127.0.0.2", "127.0.0.3", "127.0.0.1"] {
        let asked = SocketAddr::new(asked.parse().unwrap(), port);
        client.send_to(b"who", asked).unwrap();
        let (_, from) = client.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from, asked);
    }
    assert_eq!(proxy.counters("rule").flows, 3);
}

#[test]
fn every_length_arrives_whole() {
    let (proxy, address) = Proxy::udp(echo_server());
    let client = udp_client(address);
    let data = noise(65_507);
    for length in [0, 1, 1472, 1473, 9000, 65_506, 65_507] {
        assert!(udp_ask(&client, &data[..length]) == data[..length], "{length}");
    }
    drop(proxy);
}

#[test]
fn a_burst_from_one_client() {
    let (mut proxy, address) = Proxy::udp(echo_server());
    let client = udp_client(address);
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    for i in 0..100u32 {
        client.send(&i.to_be_bytes()).unwrap();
    }
    let mut got = BTreeSet::new();
    let mut buffer = [0; 4];
    while got.len() < 100 {
        client.recv(&mut buffer).unwrap();
        got.insert(buffer);
    }
    assert_eq!(proxy.counters("rule").flows, 1);
}

#[test]
fn flows_are_bounded_and_old_ones_kept() {
    let (mut proxy, address) = Proxy::udp(echo_server());
    proxy.plan.settings.max_flows = NonZeroU32::new(10);
    proxy.apply().unwrap();
    let clients: Vec<UdpSocket> = (0..10).map(|_| udp_client(address)).collect();
    clients.iter().for_each(|c| assert_eq!(udp_ask(c, b"old"), b"old"));
    let late = udp_client(address);
    late.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    late.send(b"new").unwrap();
    assert_eq!(late.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    clients.iter().for_each(|c| assert_eq!(udp_ask(c, b"old"), b"old"));
    let counters = proxy.counters("rule");
    assert_eq!((counters.live, counters.failed), (10, Some(1)));

    proxy.plan.settings.max_flows = None;
    proxy.plan.rules.values_mut().for_each(|r| r.max_connections = NonZeroU32::new(11));
    proxy.apply().unwrap();
    late.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(udp_ask(&late, b"new"), b"new");
    udp_client(address).send(b"too many for the rule").unwrap();
    proxy.until("refused", |s| s.rules["rule"].failed == Some(2));
}

#[test]
fn idle_flows_expire() {
    let timeouts = Timeouts { udp_idle: Duration::from_millis(300), ..Timeouts::default() };
    let (mut proxy, address) = Proxy::forwarding(Protocol::Udp, echo_server(), timeouts);
    let client = udp_client(address);
    for _ in 0..5 {
        assert_eq!(udp_ask(&client, b"x"), b"x");
        thread::sleep(Duration::from_millis(100));
    }
    let start = Instant::now();
    assert_eq!(proxy.counters("rule").flows, 1, "a busy flow lives on");
    proxy.until("expired", |s| s.rules["rule"].live == 0 && s.gauges["udp_flows"] == 0);
    assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
    assert_eq!(udp_ask(&client, b"y"), b"y");
    assert_eq!(proxy.counters("rule").flows, 2);
}

#[test]
fn a_changed_backend_is_for_new_flows_only() {
    let (mut proxy, address) = Proxy::udp(udp_server_on("127.0.0.1", |_| b"one".to_vec()));
    let old = udp_client(address);
    assert_eq!(udp_ask(&old, b"?"), b"one");
    proxy.set("rule", Protocol::Udp, address, udp_server_on("127.0.0.1", |_| b"two".to_vec()));
    proxy.apply().unwrap();
    assert_eq!(udp_ask(&old, b"?"), b"one");
    assert_eq!(udp_ask(&udp_client(address), b"?"), b"two");
}

#[test]
fn flows_of_a_removed_rule_live_on() {
    let (mut proxy, address) = Proxy::udp(echo_server());
    let clients: Vec<UdpSocket> = (0..20).map(|_| udp_client(address)).collect();
    clients.iter().for_each(|c| assert_eq!(udp_ask(c, b"before"), b"before"));
    let rules = std::mem::take(&mut proxy.plan.rules);
    proxy.apply().unwrap();
    clients.iter().for_each(|c| assert_eq!(udp_ask(c, b"after"), b"after"));
    let late = udp_client(address);
    late.send(b"new").unwrap();
    assert_eq!(late.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    // And back again, beside the flows that were left.
    proxy.plan.rules = rules;
    proxy.apply().unwrap();
    assert_eq!(udp_ask(&late, b"new"), b"new");
    clients.iter().for_each(|c| assert_eq!(udp_ask(c, b"still"), b"still"));
    assert_eq!(proxy.counters("rule").flows, 21);
}

#[test]
fn a_refusal_reaches_the_client() {
    for ip in ["127.0.0.1", "::1"] {
        let backend = free(Protocol::Udp, ip.parse().unwrap());
        let mut proxy = Proxy::new();
        let listen = free(Protocol::Udp, ip.parse().unwrap());
        proxy.set("rule", Protocol::Udp, listen, backend);
        proxy.apply().unwrap();
        udp_refused(&mut proxy, listen);
    }
}

#[test]
fn ipv6_and_across_families() {
    let (v4, v6) = (echo_server(), udp_server_on("::1", <[u8]>::to_vec));
    for (listen, backend) in [("::1", v6), ("::1", v4), ("127.0.0.1", v6)] {
        let mut proxy = Proxy::new();
        let listen = free(Protocol::Udp, listen.parse().unwrap());
        proxy.set("rule", Protocol::Udp, listen, backend);
        proxy.apply().unwrap();
        assert_eq!(udp_ask(&udp_client(listen), b"six"), b"six", "{listen} to {backend}");
    }
}
