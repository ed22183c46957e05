//! How long it takes until a backend that fails is found out, against the bound that the core states; and what ten
//! thousand probes do to each other. One test at a time: these measure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portway_core::facts::Probe;
use portway_core::health::{detection_time, recovery_time};
use portway_core::ruleset::Check;
use portway_watch::Event;
use support::*;

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What a machine that tests other things as well may add.
const SLACK: Duration = Duration::from_millis(250);

/// How a server fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// It says nothing any more; the kernel still connects. As a process that was stopped.
    Frozen,
    /// It closes every connection without a word.
    Closing,
    /// It says something else.
    Wrong,
}

#[test]
fn failures_are_found_within_the_stated_time() {
    let _alone = alone();
    for failure in [Failure::Frozen, Failure::Closing, Failure::Wrong] {
        let state: Arc<Mutex<Option<Failure>>> = Arc::default();
        let of_server = Arc::clone(&state);
        let address = server(move |mut stream| {
            // A copy: a frozen server must not keep the test from thawing it.
            let failure = *of_server.lock().unwrap();
            match failure {
                None => _ = stream.write_all(b"hello"),
                Some(Failure::Frozen) => _ = drain(&mut stream),
                Some(Failure::Closing) => {}
                Some(Failure::Wrong) => _ = stream.write_all(b"other"),
            }
        });
        let check = Check {
            interval: Duration::from_millis(500),
            interval_down: Duration::from_millis(250),
            timeout: Duration::from_millis(200),
            ..Check::new(tcp_expecting("hello"))
        };
        let watching = Watching::start();
        watching.set_probes([Probe { address, check: Arc::new(check.clone()), host: None }]);
        assert!(watching.health().1.up);
        // Twice, at another place in the interval.
        for pause in [Duration::from_millis(100), Duration::from_millis(350)] {
            thread::sleep(pause);
            let failed = Instant::now();
            *state.lock().unwrap() = Some(failure);
            let (_, health, at) = watching.health();
            let took = at - failed;
            assert!(!health.up && took <= detection_time(&check) + SLACK, "{failure:?}: {took:?}");
            println!("{failure:?}: found after {took:?}, stated {:?}", detection_time(&check));
            thread::sleep(pause);
            let back = Instant::now();
            *state.lock().unwrap() = None;
            let (_, health, at) = watching.health();
            let took = at - back;
            assert!(health.up && health.recovered && took <= recovery_time(&check) + SLACK, "{took:?}");
            println!("{failure:?}: back after {took:?}, stated {:?}", recovery_time(&check));
        }
    }
}

/// A process that dies: its connections are refused from then on.
#[test]
fn a_dead_process_is_found_within_the_stated_time() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let check = Check {
        interval: Duration::from_millis(500),
        interval_down: Duration::from_millis(250),
        timeout: Duration::from_millis(200),
        ..Check::new(tcp())
    };
    let watching = Watching::start();
    watching.set_probes([Probe { address, check: Arc::new(check.clone()), host: None }]);
    assert!(watching.health().1.up);
    let died = Instant::now();
    drop(listener);
    let (_, health, at) = watching.health();
    assert!(!health.up && at - died <= detection_time(&check) + SLACK, "{:?}", at - died);
    println!("dead: found after {:?}, stated {:?}", at - died, detection_time(&check));
}

/// A verdict changes after `fall` and `rise` checks in a row, no earlier.
#[test]
fn one_failure_in_three_changes_nothing() {
    let _alone = alone();
    let count = AtomicUsize::new(0);
    let address = server(move |mut stream| {
        if count.fetch_add(1, Ordering::SeqCst) % 3 != 2 {
            _ = stream.write_all(b"hello");
        }
    });
    let probe = with(probe(address, tcp_expecting("hello")), |check| {
        (check.interval, check.interval_down) = (Duration::from_millis(20), Duration::from_millis(20));
    });
    let watching = Watching::start();
    watching.set_probes([probe]);
    assert!(watching.health().1.up);
    watching.assert_quiet(Duration::from_millis(700));
}

/// A listener on every address whose queue is long: here one process stands for thousands of backends.
fn popular() -> TcpListener {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    rustix::net::listen(&listener, 4096).unwrap();
    listener
}

/// Ten thousand addresses behind one listener.
#[test]
fn ten_thousand_probes_are_spread_and_bounded() {
    const COUNT: u32 = 10_000;
    let _alone = alone();
    let listener = popular();
    let port = listener.local_addr().unwrap().port();
    let arrivals = Arc::new(Mutex::new(Vec::<Instant>::new()));
    let of_server = Arc::clone(&arrivals);
    thread::spawn(move || {
        for stream in listener.incoming() {
            of_server.lock().unwrap().push(Instant::now());
            drop(stream);
        }
    });
    let check = Arc::new(Check {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(3),
        ..Check::new(tcp())
    });
    let address = |nth: u32| SocketAddr::new(Ipv4Addr::from(0x7f01_0000 + nth).into(), port);
    let probes: BTreeSet<Probe> = (0..COUNT)
        .map(|nth| Probe { address: address(nth), check: Arc::clone(&check), host: None })
        .collect();
    let watching = Watching::start();
    let begun = Instant::now();
    watching.set_probes(probes);
    for _ in 0..COUNT {
        let (_, health, _) = watching.health();
        assert!(health.up, "{health:?}");
    }
    println!("{COUNT} first verdicts after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let early =
        arrivals.lock().unwrap().iter().filter(|at| **at - begun < Duration::from_millis(100)).count();
    assert!(early <= 2000, "{early} checks in the first tenth of a second");
    // The round that follows, in which none fails.
    let end = begun.elapsed() + Duration::from_secs(15);
    loop {
        thread::sleep(Duration::from_millis(500));
        let report = watching.watch.report();
        let odd: Vec<_> = report.probes.values().filter(|probe| probe.passed != Some(true)).collect();
        assert!(odd.is_empty(), "{} of them: {:?}", odd.len(), odd[0]);
        if report.probes.values().all(|probe| probe.checks >= 2) {
            break;
        }
        assert!(begun.elapsed() < end, "some are not checked again");
    }
    watching.assert_quiet(Duration::ZERO);
}

/// Servers that do not answer hold a place each for the whole time limit: no more at a time than there are places.
#[test]
fn no_more_than_a_thousand_checks_at_the_same_time() {
    let _alone = alone();
    let listener = popular();
    let port = listener.local_addr().unwrap().port();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let check = Arc::new(Check {
        interval: Duration::from_secs(60),
        interval_down: Duration::from_secs(60),
        timeout: Duration::from_millis(500),
        ..Check::new(tcp_expecting("hello"))
    });
    let address = |nth: u32| SocketAddr::new(Ipv4Addr::from(0x7f02_0000 + nth).into(), port);
    let probes: Vec<Probe> =
        (0..2500).map(|nth| Probe { address: address(nth), check: Arc::clone(&check), host: None }).collect();
    let watching = Watching::start();
    let begun = Instant::now();
    watching.set_probes(probes);
    let (mut verdicts, mut most) = (0, 0);
    while verdicts < 2500 {
        assert!(begun.elapsed() < SOON, "{verdicts} verdicts");
        most = most.max(descriptors() - before);
        while let Ok(Event::Health { health, .. }) = watching.events.try_recv() {
            assert_eq!(health.reason, "no answer in time");
            verdicts += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
    // Three turns of a thousand.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1400) && took < Duration::from_secs(5), "{took:?}");
    // The watch's own besides.
    assert!((500..=1010).contains(&most), "{most} descriptors at the same time");
}
