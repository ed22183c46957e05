//! The schedule of a load with a rate: it is held, and a server that stalls shows in the latency of all that was due
//! meanwhile (no coordinated omission), whereas a closed loop, by its nature, sees it once per connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use portway_load::{Exchange, Latency, Length, Load, Outcome, Plan, Stop, run};
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

const RATE: f64 = 1_000.0;
const STALL: Duration = Duration::from_millis(200);
const STALLED_AT: u32 = 400;

/// One thread that returns datagrams, and stalls once, before one of them.
fn udp() -> SocketAddr {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = server.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut buffer = [0; 128];
        for number in 0.. {
            let Ok((length, client)) = server.recv_from(&mut buffer) else { return };
            if number == STALLED_AT {
                thread::sleep(STALL);
            }
            let _ = server.send_to(&buffer[..length], client);
        }
    });
    address
}

/// The same with connections, one at a time. Its queue holds what comes while it stalls.
fn tcp() -> SocketAddr {
    let server = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor is free");
    bind(&server, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
    listen(&server, 4096).expect("it is bound");
    let server = TcpListener::from(server);
    let address = server.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut message = [0; 64];
        for number in 0.. {
            let Ok((mut stream, _)) = server.accept() else { return };
            if stream.read_exact(&mut message).is_err() {
                continue;
            }
            if number == STALLED_AT {
                thread::sleep(STALL);
            }
            let _ = stream.write_all(&message);
        }
    });
    address
}

fn measured(target: SocketAddr, load: Load, rate: Option<f64>, concurrency: u32) -> Outcome {
    let mut plan = Plan::new(target, load);
    plan.warm_up = Duration::ZERO;
    plan.length = Length::Time(Duration::from_secs(1));
    (plan.rate, plan.concurrency, plan.timeout) = (rate, concurrency, Duration::from_secs(2));
    let outcome = run(&plan, &Stop::new(), |_| {}).expect("it runs");
    assert_eq!(outcome.errors.total(), 0, "{:?}", outcome.errors.iter().collect::<Vec<_>>());
    outcome
}

/// How many took longer.
fn beyond(latency: &Latency, ms: f64) -> u64 {
    let all = latency.steps.last().map_or(0, |step| step.1);
    let within = latency.steps.iter().take_while(|step| step.0 <= ms * 1e3).last();
    all - within.map_or(0, |step| step.1)
}

/// 200 of 1,000 are due while it stalls for 200 ms, and wait between 200 ms and nothing: 100 longer than 100 ms, 20 longer
/// than 180.
#[test]
fn a_stall_shows_as_often_as_it_was_due() {
    let udp_load = Load::Udp { size: 64, fresh: false };
    let tcp_load = Load::Connections(Exchange::Echo { size: 64 });
    for (target, load) in [(udp(), udp_load), (tcp(), tcp_load)] {
        let outcome = measured(target, load.clone(), Some(RATE), 500);
        assert_eq!(outcome.done, 1_000, "{load:?}");
        let latency = outcome.latency.expect("there were answers");
        let at = |found: f64, ms: f64, off: f64| {
            assert!((found / 1e3 - ms).abs() < off, "{load:?}: {found} us, not {ms} ms: {latency:?}");
        };
        at(latency.p50, 0.0, 20.0);
        at(latency.p90, 100.0, 25.0);
        at(latency.p99, 190.0, 20.0);
        at(latency.max, 200.0, 40.0);
        assert!((80..=130).contains(&beyond(&latency, 100.0)), "{load:?}: {latency:?}");
    }
}

/// The same server asked in a closed loop: each connection meets the stall once, and nine in ten that were to come do not.
#[test]
fn a_closed_loop_omits_it() {
    let outcome = measured(udp(), Load::Udp { size: 64, fresh: false }, None, 2);
    let latency = outcome.latency.expect("there were answers");
    assert!(latency.max >= 199e3, "{latency:?}");
    let seen = latency.steps.last().map_or(0, |step| step.1) - within(&latency, 199.0);
    assert!((1..=2).contains(&seen), "{seen} of two: {latency:?}");
    assert!(latency.p99 < 50e3, "{latency:?}");
}

/// How many took at most so long, as far as the steps tell.
fn within(latency: &Latency, ms: f64) -> u64 {
    latency.steps.iter().take_while(|step| step.0 < ms * 1e3).last().map_or(0, |step| step.1)
}

/// The server's clock and counter, not the generator's own words.
#[test]
fn a_rate_is_held_within_a_hundredth() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let target = server.local_addr().expect("it is bound");
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 128];
        while let Ok((length, client)) = server.recv_from(&mut buffer) {
            let _ = tell.send(Instant::now());
            let _ = server.send_to(&buffer[..length], client);
        }
    });
    let mut plan = Plan::new(target, Load::Udp { size: 64, fresh: false });
    (plan.rate, plan.threads, plan.concurrency) = (Some(2_500.0), 2, 200);
    (plan.warm_up, plan.length) = (Duration::from_millis(100), Length::Time(Duration::from_secs(2)));
    let outcome = run(&plan, &Stop::new(), |_| {}).expect("it runs");
    let came: Vec<Instant> = told.try_iter().collect();
    assert_eq!((outcome.done, came.len()), (5_000, 5_250));
    assert_eq!(outcome.rate(), 2_500.0);
    let (first, last) = (came[0], came[came.len() - 1]);
    let rate = 5_249.0 / last.duration_since(first).as_secs_f64();
    assert!((rate / 2_500.0 - 1.0).abs() < 0.01, "{rate} a second arrived");
}
