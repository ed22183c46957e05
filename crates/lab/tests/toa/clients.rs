//! Whom unmodified servers see.

use std::fs;

use portway_lab::gateway::{Call, option};
use portway_lab::netns::wait_for;

use crate::support::{GATEWAY, GATEWAY6, Host};

/// Options that a Linux client sends in its SYN and in its ACK.
const SYN: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
const ACK: [u8; 12] = [1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0];

fn told(call: &Call, client: &str) -> Call {
    let option = option(client);
    call.clone().syn(&[&SYN[..], &option].concat()).ack(&[&ACK[..], &option].concat())
}

#[test]
fn nginx_logs_the_client() {
    let mut host = Host::new();
    let _toa = host.toa(&["10.3.0.9", "fd03::/64"]);
    let (_nginx, logs) = host.nginx(&["10.3.0.1:80", "[fd03::1]:80"]);
    let mut expected = Vec::new();
    for (from, to, client) in [
        (GATEWAY, "10.3.0.1:80", "198.51.100.7:5001"),
        (GATEWAY6, "[fd03::1]:80", "[2001:db8::7]:5002"),
        // IPv4 clients of an IPv6 backend are named as an IPv6 socket names IPv4.
        ("[fd03::9]:40001", "[fd03::1]:80", "198.51.100.8:5003"),
    ] {
        let answer =
            host.gateway.call(&told(&Call::new(from, to), client), "GET / HTTP/1.0\r\n\r\n").unwrap();
        let (address, port) = client.rsplit_once(':').unwrap();
        let address = address.trim_matches(['[', ']']);
        let mapped = if to.starts_with('[') && !address.contains(':') { "::ffff:" } else { "" };
        let line = format!("{mapped}{address} {port}");
        assert!(answer.ends_with(&format!("\r\n\r\n{line}")), "{answer}");
        expected.push(line);
    }
    let log = || fs::read_to_string(logs.join("access.log")).unwrap_or_default();
    wait_for("the log", || log().lines().count() == 3);
    assert_eq!(log().lines().collect::<Vec<_>>(), expected);
    assert_eq!((host.count("connections"), host.count("told")), (3, 3));
    assert!(host.count("answers") >= 3);
    assert_eq!(host.count("listeners"), 2);
}

#[test]
fn accept_and_getpeername() {
    let mut host = Host::new();
    let _toa = host.toa(&["10.3.0.9", "fd03::9"]);
    let _v4 = host.who("0.0.0.0", 7004);
    let _v6 = host.who("fd03::1", 7006);
    let v4 = Call::new(GATEWAY, "10.3.0.1:7004");
    assert_eq!(host.seen(&told(&v4, "198.51.100.7:5001")), "198.51.100.7 5001");
    let v6 = Call::new(GATEWAY6, "[fd03::1]:7006");
    assert_eq!(host.seen(&told(&v6, "[2001:db8::7]:5002")), "2001:db8::7 5002");
    // Each of the two segments suffices: a SYN may be answered by a cookie, a bare ACK may be lost before data.
    let from = |port: u16| Call::new(&format!("10.3.0.9:{port}"), "10.3.0.1:7004");
    assert_eq!(host.seen(&from(40_001).syn(&option("198.51.100.8:1"))), "198.51.100.8 1");
    assert_eq!(host.seen(&from(40_002).ack(&option("198.51.100.9:65535"))), "198.51.100.9 65535");
    assert_eq!((host.count("connections"), host.count("told")), (4, 4));
}

#[test]
fn dual_stack_servers() {
    let mut host = Host::new();
    let _toa = host.toa(&["10.3.0.0/16", "fd03::/64"]);
    let _server = host.who("::", 7000);
    let v4 = Call::new(GATEWAY, "10.3.0.1:7000");
    assert_eq!(host.seen(&told(&v4, "198.51.100.7:5001")), "::ffff:198.51.100.7 5001");
    // IPv6 clients of an IPv4 backend, and the other way round: the socket can name both.
    let v4 = Call::new("10.3.0.9:40001", "10.3.0.1:7000");
    assert_eq!(host.seen(&told(&v4, "[2001:db8::7]:5002")), "2001:db8::7 5002");
    let v6 = Call::new(GATEWAY6, "[fd03::1]:7000");
    assert_eq!(host.seen(&told(&v6, "[2001:db8::8]:5003")), "2001:db8::8 5003");
    let v6 = Call::new("[fd03::9]:40001", "[fd03::1]:7000");
    assert_eq!(host.seen(&told(&v6, "198.51.100.8:5004")), "::ffff:198.51.100.8 5004");
    // The IPv4 network in the list is what an IPv4 peer of such a socket is held against.
    let other = Call::new("10.4.0.9:40000", "10.3.0.1:7000");
    host.ns.ip("route add 10.4.0.0/16 dev gateway");
    assert_eq!(host.seen(&told(&other, "198.51.100.7:5001")), "::ffff:10.4.0.9 40000");
    assert_eq!((host.count("told"), host.count("untrusted")), (4, 1));
}

#[test]
fn an_ipv4_socket_cannot_name_an_ipv6_client() {
    let mut host = Host::new();
    let _toa = host.toa(&["10.3.0.9"]);
    let _server = host.who("10.3.0.1", 7000);
    let call = Call::new(GATEWAY, "10.3.0.1:7000");
    assert_eq!(host.seen(&told(&call, "[2001:db8::7]:5002")), "10.3.0.9 40000");
    assert_eq!(host.count("family"), 1);
}

#[test]
fn whoever_is_not_trusted_is_himself() {
    let mut host = Host::new();
    let _toa = host.toa(&["10.3.0.9", "fd03::8/127"]);
    let _server = host.who("::", 7000);
    let v4 = Call::new("10.3.0.8:40000", "10.3.0.1:7000");
    assert_eq!(host.seen(&told(&v4, "198.51.100.7:5001")), "::ffff:10.3.0.8 40000");
    let v6 = Call::new("[fd03::a]:40000", "[fd03::1]:7000");
    assert_eq!(host.seen(&told(&v6, "[2001:db8::7]:5002")), "fd03::a 40000");
    assert_eq!((host.count("untrusted"), host.count("told")), (2, 0));
    let v6 = Call::new(GATEWAY6, "[fd03::1]:7000");
    assert_eq!(host.seen(&told(&v6, "[2001:db8::7]:5002")), "2001:db8::7 5002");
}

#[test]
fn without_the_option_the_peer_is_the_peer() {
    let mut host = Host::new();
    let _toa = host.toa(&["10.3.0.9"]);
    let _server = host.who("0.0.0.0", 7000);
    assert_eq!(host.seen(&Call::new(GATEWAY, "10.3.0.1:7000").syn(&SYN).ack(&ACK)), "10.3.0.9 40000");
    assert_eq!(host.seen(&Call::new("10.3.0.8:40000", "10.3.0.1:7000")), "10.3.0.8 40000");
    assert_eq!((host.count("silent"), host.count("direct"), host.count("told")), (1, 1, 0));
}

#[test]
fn hostile_options_are_not_believed() {
    let mut host = Host::new();
    let _toa = host.toa(&["10.3.0.9"]);
    let _server = host.who("0.0.0.0", 7000);
    let client = option("198.51.100.7:5001");
    let other = option("198.51.100.8:5001");
    let nonsense: [(&str, Vec<u8>, Vec<u8>); 8] = [
        ("two in one header", [&client[..], &other].concat(), vec![]),
        ("the same twice", vec![], [&client[..], &client].concat()),
        ("SYN and ACK differ", client.clone(), other.clone()),
        ("a loopback address", option("127.0.0.1:1"), vec![]),
        ("no address", option("0.0.0.0:1"), vec![]),
        ("a multicast address", vec![], option("[ff02::1]:1")),
        ("no port", option("198.51.100.7:0"), vec![]),
        ("many", client.repeat(5), client.repeat(5)),
    ];
    for (nth, (what, syn, ack)) in nonsense.iter().enumerate() {
        let from = format!("10.3.0.9:{}", 41_000 + nth);
        let call = Call::new(&from, "10.3.0.1:7000").syn(syn).ack(ack);
        assert_eq!(host.seen(&call), from.replace(':', " "), "{what}");
    }
    assert_eq!(host.count("malformed"), nonsense.len() as u64);
    // What is cut short or of another length is somebody else's experiment, and says nothing.
    let silent: [(&str, Vec<u8>); 6] = [
        ("cut short by the header's end", vec![1, 1, 1, 1, 254, 8, 1, 2]),
        ("no length", vec![1, 1, 1, 254]),
        ("length 0", [&[254, 0][..], &client[2..]].concat()),
        ("length 1", [&[254, 1][..], &client[2..]].concat()),
        ("another length", vec![254, 6, 0xe2, 0xd4, 0xc3, 0xd9]),
        ("behind the end", [&[0][..], &client].concat()),
    ];
    for (nth, (what, options)) in silent.iter().enumerate() {
        let from = format!("10.3.0.9:{}", 42_000 + nth);
        let call = Call::new(&from, "10.3.0.1:7000").with(options);
        assert_eq!(host.seen(&call), from.replace(':', " "), "{what}");
    }
    assert_eq!(host.count("silent"), silent.len() as u64);
    assert_eq!(host.count("told"), 0);
    // As far back in the header as it can be.
    let last = [&[1; 32][..], &client].concat();
    let call = Call::new("10.3.0.9:43000", "10.3.0.1:7000").with(&last);
    assert_eq!(host.seen(&call), "198.51.100.7 5001");
}

#[test]
fn servers_elsewhere_are_not_touched() {
    let mut host = Host::new();
    let _toa = host.toa(&["10.3.0.0/16"]);
    let elsewhere = portway_lab::Cgroup::new();
    host.ns.put_into(&elsewhere);
    let _server = host.who("0.0.0.0", 7000);
    let call = told(&Call::new(GATEWAY, "10.3.0.1:7000"), "198.51.100.7:5001");
    assert_eq!(host.seen(&call), "10.3.0.9 40000");
    assert_eq!(host.count("connections"), 0);
}
