//! The schedule of a load with a rate: it is held, and a server that stalls shows in the latency of all that was due
//! meanwhile (no coordinated omission), whereas a closed loop, by its nature, sees it once per connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use portway_load::{Exchange, Latency, Length, Load, Outcome, Plan, Stop, run};
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

const RATE: f64 = 1_000.0;
const STALL: Duration = Duration::from_millis(200);
const STALLED_AT: u32 = 400;
/// How much later than the server answered the generator may have noticed, on a machine that does other things as well.
const NOTICE: f64 = 60.0;

/// What a server saw: the number of each request, from 0 on, and when it was answered.
type Log = Receiver<(u64, Instant)>;

/// The number that the generator gave a message: the first is 1.
fn number(message: &[u8]) -> u64 {
    u64::from_be_bytes(message[16..24].try_into().expect("eight bytes")) - 1
}

/// One thread that returns datagrams, and stalls once, before one of them.
fn udp(stalled_at: u32) -> (SocketAddr, Log) {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = server.local_addr().expect("it is bound");
    let (tell, log) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 128];
        for count in 0.. {
            let Ok((length, client)) = server.recv_from(&mut buffer) else { return };
            if count == stalled_at {
                thread::sleep(STALL);
            }
            let _ = tell.send((number(&buffer), Instant::now()));
            let _ = server.send_to(&buffer[..length], client);
        }
    });
    (address, log)
}

/// The same with connections, one at a time. Its queue holds what comes while it stalls.
fn tcp() -> (SocketAddr, Log) {
    let server = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor is free");
    bind(&server, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
    listen(&server, 4096).expect("it is bound");
    let server = TcpListener::from(server);
    let address = server.local_addr().expect("it is bound");
    let (tell, log) = mpsc::channel();
    thread::spawn(move || {
        let mut message = [0; 64];
        for count in 0.. {
            let Ok((mut stream, _)) = server.accept() else { return };
            if stream.read_exact(&mut message).is_err() {
                continue;
            }
            if count == STALLED_AT {
                thread::sleep(STALL);
            }
            let _ = tell.send((number(&message), Instant::now()));
            let _ = stream.write_all(&message);
        }
    });
    (address, log)
}

fn measured(target: SocketAddr, load: Load, rate: Option<f64>, concurrency: u32) -> Outcome {
    let mut plan = Plan::new(target, load);
    plan.warm_up = Duration::ZERO;
    plan.length = Length::Time(Duration::from_secs(1));
    (plan.rate, plan.concurrency, plan.timeout) = (rate, concurrency, Duration::from_secs(5));
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

/// 200 of 1,000 are due while it stalls for 200 ms and wait between 200 ms and nothing: 100 of them longer than 100 ms.
/// Where ten at a time are allowed, the others wait here rather than there, and it must make no difference. A busy machine
/// makes it more, so the upper bounds are by the server's own log: when it answered, against when it was due.
#[test]
fn a_stall_shows_as_often_as_it_was_due() {
    let udp_load = Load::Udp { size: 64, fresh: false };
    let tcp_load = Load::Connections(Exchange::Echo { size: 64 });
    thread::scope(|scope| {
        scope.spawn(|| stalled(udp(STALLED_AT), udp_load.clone(), 1_000));
        scope.spawn(|| stalled(udp(STALLED_AT), udp_load.clone(), 10));
        scope.spawn(|| stalled(tcp(), tcp_load.clone(), 1_000));
        scope.spawn(|| stalled(tcp(), tcp_load.clone(), 10));
    });
}

fn stalled((target, log): (SocketAddr, Log), load: Load, concurrency: u32) {
    let started = Instant::now();
    let outcome = measured(target, load.clone(), Some(RATE), concurrency);
    assert_eq!(outcome.done, 1_000, "{load:?}");
    let late = |(number, answered): (u64, Instant)| {
        let due = started + Duration::from_secs_f64(number as f64 / RATE);
        answered.saturating_duration_since(due).as_secs_f64() * 1e3
    };
    let mut truth: Vec<f64> = log.try_iter().map(late).collect();
    truth.sort_by(f64::total_cmp);
    let latency = outcome.latency.expect("there were answers");
    let check = |found: f64, rank: usize, least: f64| {
        let (found, truth) = (found / 1e3, truth[rank]);
        let between = found >= least && found <= truth + NOTICE;
        assert!(between, "{load:?}: number {rank} took {found} ms, not {least} to {truth}: {latency:?}");
    };
    check(latency.p50, 499, 0.0);
    check(latency.p90, 899, 98.0);
    check(latency.p99, 989, 188.0);
    check(latency.p999, 998, 197.0);
    check(latency.max, 999, 198.0);
    assert!(beyond(&latency, 100.0) >= 90, "{load:?}: {latency:?}");
}

/// The same server asked in a closed loop: each of its two conversations meets the stall once, and the other requests that
/// were to come meanwhile do not.
#[test]
fn a_closed_loop_omits_it() {
    let (target, _log) = udp(STALLED_AT);
    let outcome = measured(target, Load::Udp { size: 64, fresh: false }, None, 2);
    let latency = outcome.latency.expect("there were answers");
    assert!(latency.max >= 199e3, "{latency:?}");
    let seen = beyond(&latency, 100.0);
    assert!((1..=10).contains(&seen), "{seen}: {latency:?}");
}

/// By the server's clock and counter, not by the generator's own words. How late a datagram was is mostly the machine's
/// affair; the least late of the first half and of the second are as late as each other unless the rate is another one.
#[test]
fn a_rate_is_held_within_a_hundredth() {
    let (target, log) = udp(u32::MAX);
    let mut plan = Plan::new(target, Load::Udp { size: 64, fresh: false });
    (plan.rate, plan.concurrency) = (Some(2_500.0), 1_000);
    (plan.warm_up, plan.length) = (Duration::from_millis(100), Length::Time(Duration::from_secs(2)));
    let started = Instant::now();
    let outcome = run(&plan, &Stop::new(), |_| {}).expect("it runs");
    let late = |(number, answered): (u64, Instant)| {
        answered.duration_since(started).as_secs_f64() - number as f64 / 2_500.0
    };
    let late: Vec<f64> = log.try_iter().map(late).collect();
    assert_eq!((outcome.done, late.len()), (5_000, 5_250));
    assert_eq!(outcome.rate(), 2_500.0);
    let halves = late.split_at(2_625);
    let least = |half: &[f64]| half.iter().copied().fold(f64::INFINITY, f64::min);
    let (first, second) = (least(halves.0), least(halves.1));
    // Half of the run is 1.05 s.
    assert!((second - first).abs() < 0.0105, "{first} s late, then {second} s");
    assert!(late.iter().all(|late| *late >= 0.0), "early");
}
