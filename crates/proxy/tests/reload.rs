//! Prepare, commit, abort, clear: what changes and what lives on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;

use portway_core::address::{Family, InterfaceName, PortRange, Protocol};
use portway_core::engine::Engine;
use portway_core::members::{Meets, Member};
use portway_core::plan::proxy::Socket;
use portway_core::ruleset::{Scope, Target, TargetPorts};
use support::*;

/// A server that says its name, then echoes.
fn named(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    name_it(listener, name);
    address
}

fn name_it(listener: TcpListener, name: &'static str) {
    serve(listener, move |mut stream| {
        stream.write_all(name.as_bytes()).unwrap();
        echo(stream);
    });
}

fn name_of(stream: &mut TcpStream) -> String {
    let mut name = [0; 3];
    stream.read_exact(&mut name).unwrap();
    String::from_utf8(name.to_vec()).unwrap()
}

#[test]
fn connections_live_on_and_new_ones_move() {
    let (mut proxy, address) = Proxy::tcp(named("one"));
    let mut old = connect(address);
    assert_eq!(name_of(&mut old), "one");

    proxy.set("rule", Protocol::Tcp, address, named("two"));
    let changed = proxy.apply().unwrap();
    assert_eq!((changed.added, changed.removed), (1, 0));
    assert_eq!(ask(&mut old, b"still"), b"still");
    assert_eq!(name_of(&mut connect(address)), "two");
    assert_eq!(proxy.counters("rule").flows, 2, "counters are not reset");

    let changed = proxy.apply().unwrap();
    assert_eq!((changed.added, changed.removed), (0, 0), "what did not change is not applied");

    proxy.plan.rules.clear();
    let changed = proxy.apply().unwrap();
    assert_eq!((changed.added, changed.removed), (0, 1));
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(ask(&mut old, b"after all"), b"after all");
    assert_eq!(proxy.counters("rule").live, 1, "a removed rule is shown while it has connections");

    proxy.engine.clear().unwrap();
    assert_eq!(old.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.gauge("connections"), 0);
    assert!(proxy.snapshot().rules.is_empty());
}

#[test]
fn a_reload_under_load_loses_nobody() {
    let backend = named("one");
    let (mut proxy, address) = Proxy::tcp(backend);
    let clients = thread::spawn(move || {
        for _ in 0..500 {
            assert_eq!(name_of(&mut connect(address)), "one");
        }
    });
    let mut round = 0;
    while !clients.is_finished() {
        round += 1;
        let timeouts = &mut proxy.set("rule", Protocol::Tcp, address, backend).timeouts;
        timeouts.idle += Duration::from_secs(round);
        proxy.apply().unwrap();
    }
    clients.join().unwrap();
    assert!(round > 1);
}

#[test]
fn a_port_in_use_names_rule_and_listener_and_changes_nothing() {
    let (mut proxy, address) = Proxy::tcp(named("one"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = proxy.plan.clone();
    proxy.set("rule", Protocol::Tcp, address, named("two"));
    proxy.set("second", Protocol::Tcp, taken.local_addr().unwrap(), named("two"));
    let error = proxy.apply().unwrap_err();
    assert_eq!(error.rule, Some(rule_name("second")));
    assert_eq!(error.doing, format!("listen on tcp/{}", taken.local_addr().unwrap()));
    assert!(error.reason.contains("in use"), "{error}");
    assert!(error.hint.is_some());
    assert_eq!(name_of(&mut connect(address)), "one");
    assert_eq!(*proxy.engine.plan(), running);
    assert_eq!(proxy.engine.commit().unwrap().added, 0, "nothing is left prepared");
}

#[test]
fn a_port_that_another_engine_shares_is_in_use() {
    // SO_REUSEPORT would let two daemons of one user split a port's traffic without a word.
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let (_first, address) = Proxy::forwarding(protocol, named("one"), Default::default());
        let mut second = Proxy::new();
        second.set("rule", protocol, address, named("two"));
        assert!(second.apply().unwrap_err().reason.contains("in use"));
    }
}

#[test]
fn abort_forgets() {
    let mut proxy = Proxy::new();
    let address = free(Protocol::Tcp, Ipv4Addr::LOCALHOST.into());
    proxy.set("rule", Protocol::Tcp, address, named("one"));
    proxy.engine.prepare(&proxy.plan).unwrap();
    // Bound already, so that a commit cannot fail: a client waits in the queue.
    let mut early = connect(address);
    proxy.engine.abort();
    assert!(early.read(&mut [0]).is_err());
    assert!(TcpStream::connect(address).is_err());

    proxy.engine.prepare(&proxy.plan).unwrap();
    let mut early = connect(address);
    proxy.engine.commit().unwrap();
    assert_eq!(name_of(&mut early), "one");
}

#[test]
fn the_most_specific_listener_wins() {
    let port = free(Protocol::Tcp, Ipv4Addr::UNSPECIFIED.into()).port();
    let mut proxy = Proxy::new();
    let at = |ip: [u8; 4]| SocketAddr::new(ip.into(), port);
    let any = |proxy: &mut Proxy, name, scope, backend| {
        let rule = proxy.set(name, Protocol::Tcp, at([127, 0, 0, 1]), backend);
        let ports = PortRange::single(port).unwrap();
        rule.sockets = [(Socket { protocol: Protocol::Tcp, scope, port }, ports)].into();
    };
    any(&mut proxy, "any", Scope::Any(Family::V4), named("any"));
    proxy.apply().unwrap();
    // Added later, beside the wildcard of the same engine.
    proxy.set("address", Protocol::Tcp, at([127, 0, 0, 2]), named("two"));
    proxy.apply().unwrap();
    assert_eq!(name_of(&mut connect(at([127, 0, 0, 1]))), "any");
    assert_eq!(name_of(&mut connect(at([127, 0, 0, 2]))), "two");
    let lo = Scope::Interface(InterfaceName::new("lo").unwrap(), Family::V4);
    any(&mut proxy, "interface", lo, named("dev"));
    proxy.apply().unwrap();
    assert_eq!(name_of(&mut connect(at([127, 0, 0, 1]))), "dev");
    assert_eq!(name_of(&mut connect(at([127, 0, 0, 2]))), "two");
}

#[test]
fn a_range_leads_port_by_port() {
    let (backends, [one, two]) = pair();
    name_it(one, "one");
    name_it(two, "two");
    let (listens, _) = pair();
    let mut proxy = Proxy::new();
    let address = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let rule = proxy.set("rule", Protocol::Tcp, address(listens.first()), address(backends.first()));
    let scope = Scope::Address(Ipv4Addr::LOCALHOST.into());
    let socket = |port| Socket { protocol: Protocol::Tcp, scope: scope.clone(), port };
    rule.sockets = listens.iter().map(|port| (socket(port), listens)).collect();
    let target = Target { address: Ipv4Addr::LOCALHOST.into(), ports: TargetPorts::Shifted(backends) };
    rule.pool.meets = Meets::Members(vec![Member { target, ..member(address(1)) }]);
    proxy.apply().unwrap();
    assert_eq!(name_of(&mut connect(address(listens.first()))), "one");
    assert_eq!(name_of(&mut connect(address(listens.last()))), "two");
}

/// Two ports in a row that nobody held, and listeners on them.
fn pair() -> (PortRange, [TcpListener; 2]) {
    loop {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        let Some(range) = port.checked_add(1).and_then(|next| PortRange::new(port, next)) else { continue };
        if let Ok(two) = TcpListener::bind(("127.0.0.1", port + 1)) {
            return (range, [one, two]);
        }
    }
}

#[test]
fn a_changed_number_of_workers_waits_for_the_next_start() {
    let (mut proxy, address) = Proxy::tcp(named("one"));
    proxy.plan.settings.workers = NonZeroU32::new(1);
    proxy.apply().unwrap();
    assert_eq!(name_of(&mut connect(address)), "one");
    assert_eq!(proxy.gauge("workers"), 2);
    assert!(proxy.messages.lock().unwrap().iter().any(|m| m.contains("workers")));
}
