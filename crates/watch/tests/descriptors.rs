//! A process that has run out of descriptors: its checks say nothing about backends. A test binary of its own, because
//! the limit is the process's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::fs::File;
use std::net::TcpListener;
use std::time::Duration;

use portway_core::ruleset::CheckKind;
use support::*;

#[test]
fn want_of_descriptors_takes_no_backend_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bare = probe(listener.local_addr().unwrap(), tcp());
    let datagram = probe(
        datagrams(|said, _| Some(said.to_vec())),
        CheckKind::Udp { send: b"ping".to_vec(), expect: None },
    );
    let program = probe(bare.address, CheckKind::Command { words: vec!["/bin/true".into()] });
    let probes = [bare, datagram, program];
    let watching = Watching::start();
    watching.set_probes(probes.clone());
    for _ in &probes {
        assert!(watching.health().1.up);
    }
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = Some(64);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    eventually("no check can be made", || {
        watching.watch.report().probes.values().all(|probe| probe.passed.is_none())
    });
    for report in watching.watch.report().probes.values() {
        assert!(report.outcome.contains("Too many open files"), "{report:?}");
    }
    watching.assert_quiet(Duration::from_secs(1));
    drop(held);
    eventually("checks are made again", || {
        watching.watch.report().probes.values().all(|probe| probe.passed == Some(true))
    });
    watching.assert_quiet(Duration::ZERO);
}
