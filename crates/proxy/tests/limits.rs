//! At the limits: accept pauses without spinning, nothing else is harmed, and it recovers.
//!
//! One test, because it looks at this process's CPU time and open files.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use portway_core::address::Protocol;
use portway_core::members::{Meets, Member};
use portway_core::ruleset::Timeouts;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;

fn at_the_limit(proxy: &mut Proxy, address: SocketAddr, limit: usize) {
    let mut kept: Vec<TcpStream> = (0..limit).map(|_| connect(address)).collect();
    kept.iter_mut().for_each(|s| assert_eq!(ask(s, b"in"), b"in"));
    let mut late: Vec<TcpStream> = (0..20).map(|_| connect(address)).collect();
    late.iter_mut().for_each(|s| s.write_all(b"?").unwrap());
    assert!(late.iter_mut().all(waits));
    proxy.until("paused", |s| s.gauges["accept_paused"] > 0);
    assert_eq!(proxy.gauge("connections"), limit as u64);
    assert!(idle_cpu() < Duration::from_millis(100), "the engine spins");
    kept.iter_mut().for_each(|s| assert_eq!(ask(s, b"still"), b"still"));
    assert_eq!(proxy.told("paused"), 1, "once per episode");

    // One goes, one comes.
    drop(kept.pop());
    proxy.until("one more", |s| s.rules["rule"].flows == limit as u64 + 1);
    drop(kept);
    for stream in &mut late {
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"?");
    }
    assert_eq!(proxy.told("paused"), 1, "once per episode");
    proxy.until("resumed", |s| s.gauges["accept_paused"] == 0);
    let counters = proxy.counters("rule");
    assert_eq!((counters.flows, counters.failed), (limit as u64 + 20, Some(0)), "nobody was turned away");
}

#[test]
fn limits() {
    if std::env::var_os("PORTWAY_TEST_FILES").is_some() {
        return few_files();
    }
    let backend = server(echo);
    let (mut proxy, address) = Proxy::tcp(backend);
    proxy.plan.settings.max_connections = NonZeroU32::new(50);
    proxy.apply().unwrap();
    at_the_limit(&mut proxy, address, 50);
    drop(proxy);

    let (mut proxy, address) = Proxy::tcp(backend);
    proxy.set("rule", Protocol::Tcp, address, backend).max_connections = NonZeroU32::new(30);
    proxy.apply().unwrap();
    at_the_limit(&mut proxy, address, 30);
    drop(proxy);

    full_and_deserted();

    thousands(backend);

    // The open-file limit cannot be raised again, so that part runs in a process of its own.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["limits", "--exact", "--nocapture"])
        .env("PORTWAY_TEST_FILES", backend.to_string())
        .stdin(Stdio::piped())
        .status()
        .unwrap();
    assert!(child.success());
}

/// Clients wait for members with room, then for any member at all.
fn full_and_deserted() {
    let max_connections = NonZeroU32::new(1);
    let members = tellers(2).into_iter().map(|member| Member { max_connections, ..member }).collect();
    let (mut proxy, address) = Proxy::pool(Protocol::Tcp, members, |_| {});
    let _held: Vec<TcpStream> = (0..2).map(|_| connect(address)).collect();
    proxy.until("held", |s| s.rules["rule"].live == 2);
    let _late: Vec<TcpStream> = (0..4).map(|_| connect(address)).collect();
    proxy.until("paused", |s| s.gauges["accept_paused"] > 0);
    assert!(idle_cpu() < Duration::from_millis(100), "the engine spins");
    proxy.adjust(Meets::Drop);
    let _later: Vec<TcpStream> = (0..8).map(|_| connect(address)).collect();
    thread::sleep(Duration::from_millis(200));
    assert!(idle_cpu() < Duration::from_millis(100), "the engine spins");
}

/// 1,500 connections at once, most of them idle.
fn thousands(backend: SocketAddr) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let (mut proxy, address) = Proxy::forwarding(Protocol::Tcp, backend, Timeouts::default());
    let mut all: Vec<TcpStream> = (0..1500).map(|_| connect(address)).collect();
    proxy.until("all in", |s| s.gauges["connections"] == 1500);
    assert!(idle_cpu() < Duration::from_millis(100));
    all.iter_mut().for_each(|s| assert_eq!(ask(s, b"x"), b"x"));
    drop(all);
    proxy.until("all gone", |s| s.gauges["connections"] == 0);
}

/// The file asks for more connections than files can be open.
fn few_files() {
    let backend: SocketAddr = std::env::var("PORTWAY_TEST_FILES").unwrap().parse().unwrap();
    let files = 200;
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: Some(files) }).unwrap();
    let (mut proxy, address) = Proxy::tcp(backend);
    proxy.plan.settings.max_connections = NonZeroU32::new(10_000);
    proxy.apply().unwrap();
    assert!(proxy.messages.lock().unwrap().iter().any(|m| m.contains("files")), "said beforehand");
    // Clients count here as well: three descriptors for each connection.
    let mut kept: Vec<TcpStream> = Vec::new();
    while proxy.gauge("accept_paused_total") == 0 {
        kept.push(TcpStream::connect(address).expect("descriptors run out for the proxy first"));
        thread::sleep(Duration::from_millis(5));
        assert!(kept.len() < 70);
    }
    assert!(kept.len() > 40, "{}", kept.len());
    let mut waiting = kept.pop().unwrap();
    kept.iter_mut().for_each(|s| assert_eq!(ask(s, b"fine"), b"fine"));
    assert!(idle_cpu() < Duration::from_millis(100), "the engine spins");
    kept.truncate(10);
    waiting.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(ask(&mut waiting, b"at last"), b"at last");
    assert_eq!(proxy.counters("rule").failed, Some(0));
}
