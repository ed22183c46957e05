//! Every kind of failure, provoked one by one: counted as what it is, and nothing else with it.
//!
//! Absent: `no port` and `unreachable`, which need a network namespace (`portway-lab`, tests/agreement.rs).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use portway_load::{
    Direction, Error, ErrorKind, Exchange, Length, Load, Outcome, Plan, PlanError, ServeOptions, Server,
    Stop, run,
};
use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};

/// A TCP server that lets `serve` treat every connection, on a thread each, until the process ends.
fn tcp(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads once, then sends `answer`.
fn answering(answer: &'static [u8]) -> SocketAddr {
    tcp(move |mut stream| {
        let mut buffer = [0; 4096];
        if stream.read(&mut buffer).is_ok() {
            let _ = stream.write_all(answer);
        }
    })
}

fn plan(target: SocketAddr, load: Load, count: u64) -> Plan {
    let mut plan = Plan::new(target, load);
    (plan.warm_up, plan.length, plan.concurrency) = (Duration::ZERO, Length::Count(count), 4);
    plan
}

fn ran(plan: &Plan) -> Outcome {
    run(plan, &Stop::new(), |_| {}).expect("it runs")
}

fn http() -> Load {
    Load::Connections(Exchange::get("host", "/"))
}

/// All of `plan`'s requests fail in the same way.
#[track_caller]
fn fails(plan: &Plan, kind: ErrorKind, count: u64) {
    let outcome = ran(plan);
    let errors: BTreeMap<ErrorKind, u64> = outcome.errors.iter().collect();
    assert_eq!((outcome.done, errors), (0, BTreeMap::from([(kind, count)])), "{plan:?}");
    assert_eq!(outcome.latency, None, "failures have no latency");
}

#[test]
fn refused() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port is free");
    fails(&plan(closed, http(), 20), ErrorKind::Refused, 20);
    let closed = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port is free");
    fails(&plan(closed, Load::Udp { size: 64, fresh: false }, 20), ErrorKind::Refused, 20);
}

#[test]
fn reset() {
    let target = tcp(|mut stream| {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket has this option");
    });
    fails(&plan(target, http(), 20), ErrorKind::Reset, 20);
    fails(&plan(target, Load::Keepalive(Exchange::Echo { size: 64 }), 20), ErrorKind::Reset, 20);
}

#[test]
fn timeouts() {
    let silent = tcp(|mut stream| {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    });
    let mut slow = plan(silent, http(), 8);
    slow.timeout = Duration::from_millis(100);
    fails(&slow, ErrorKind::Timeout, 8);
    // The queue of this listener has room for one connection (listen(2): one more than its length), which nobody takes.
    let full = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor is free");
    bind(&full, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
    listen(&full, 0).expect("it is bound");
    let full = TcpListener::from(full);
    let target = full.local_addr().expect("it is bound");
    let _first = TcpStream::connect(target).expect("there is room for one");
    let mut plan = plan(target, http(), 8);
    plan.connect_timeout = Duration::from_millis(200);
    fails(&plan, ErrorKind::ConnectTimeout, 8);
}

#[test]
fn closed_early() {
    let cut = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
    fails(&plan(cut, http(), 20), ErrorKind::ClosedEarly, 20);
    fails(&plan(answering(b""), http(), 20), ErrorKind::ClosedEarly, 20);
    fails(&plan(cut, Load::Keepalive(Exchange::get("host", "/")), 20), ErrorKind::ClosedEarly, 20);
}

#[test]
fn wrong_answers() {
    let error = answering(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    fails(&plan(error, http(), 20), ErrorKind::WrongAnswer, 20);
    fails(&plan(answering(b"220 mail.example.net ESMTP\r\n"), http(), 20), ErrorKind::WrongAnswer, 20);
    // One byte of the echo, behind the stamp and in its number: another request's answer.
    for at in [63, 23] {
        let spoilt = tcp(move |mut stream| {
            let mut message = [0; 64];
            if stream.read_exact(&mut message).is_ok() {
                message[at] ^= 1;
                let _ = stream.write_all(&message);
            }
        });
        fails(&plan(spoilt, Load::Connections(Exchange::Echo { size: 64 }), 20), ErrorKind::WrongAnswer, 20);
    }
}

/// What an echo server sends back is no report of what it has read.
#[test]
fn an_echo_is_no_sink() {
    let echo = tcp(|mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let _ = stream.write_all(&buffer[..length]);
        }
    });
    let mut plan = plan(echo, Load::Bulk(Direction::Up), 0);
    plan.length = Length::Time(Duration::from_millis(200));
    let outcome = ran(&plan);
    assert!(outcome.errors.of(ErrorKind::WrongAnswer) > 0, "{outcome:?}");
    assert!(outcome.sent < 1 << 40, "{outcome:?}");
}

/// Of ten datagrams the tenth stays unanswered until it is too late: one in ten is lost, and a late answer is not taken for
/// the next one's.
#[test]
fn lost_and_late() {
    for late in [false, true] {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let target = server.local_addr().expect("it is bound");
        thread::spawn(move || {
            let mut buffer = [0; 128];
            let mut held = None;
            for number in 1.. {
                let Ok((length, client)) = server.recv_from(&mut buffer) else { return };
                let message = buffer[..length].to_vec();
                if number % 10 == 0 {
                    held = late.then_some((message, client));
                    continue;
                }
                for (message, client) in held.take().into_iter().chain([(message, client)]) {
                    let _ = server.send_to(&message, client);
                }
            }
        });
        let mut plan = plan(target, Load::Udp { size: 64, fresh: false }, 30);
        (plan.concurrency, plan.timeout) = (1, Duration::from_millis(300));
        let outcome = ran(&plan);
        let errors: BTreeMap<ErrorKind, u64> = outcome.errors.iter().collect();
        assert_eq!((outcome.done, errors), (27, BTreeMap::from([(ErrorKind::Lost, 3)])), "late: {late}");
    }
}

/// One at a time, 20 ms each, and 200 due in a second: what cannot begin until a second after the end is told, and nothing
/// is missing.
#[test]
fn not_sent() {
    let slow = tcp(|mut stream| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            thread::sleep(Duration::from_millis(20));
            let _ = stream.write_all(&message);
        }
    });
    let mut plan = plan(slow, Load::Keepalive(Exchange::Echo { size: 64 }), 0);
    (plan.rate, plan.length, plan.concurrency) = (Some(200.0), Length::Time(Duration::from_secs(1)), 1);
    let outcome = ran(&plan);
    let not_sent = outcome.errors.of(ErrorKind::NotSent);
    assert_eq!((outcome.done + not_sent, outcome.errors.total()), (200, not_sent));
    assert!((20..=101).contains(&outcome.done), "{} in two seconds of 20 ms each", outcome.done);
}

#[test]
fn streams_and_idle_connections_that_end() {
    let brief = tcp(|mut stream| {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        thread::sleep(Duration::from_millis(20));
    });
    for direction in [Direction::Up, Direction::Down] {
        let mut plan = plan(brief, Load::Bulk(direction), 0);
        plan.length = Length::Time(Duration::from_millis(200));
        let outcome = ran(&plan);
        assert!(outcome.errors.total() > 0, "{direction:?}");
        // Ended with bytes unread (up) a connection is reset, read to the end (down) it is closed.
        let kind = if direction == Direction::Up { ErrorKind::Reset } else { ErrorKind::ClosedEarly };
        assert_eq!(outcome.errors.of(kind), outcome.errors.total(), "{direction:?}");
    }
    for (direction, kind) in [(Direction::Up, ErrorKind::Reset), (Direction::Down, ErrorKind::ClosedEarly)] {
        // Each is begun once.
        let mut plan = plan(brief, Load::Bulk(direction), 0);
        plan.length = Length::Bytes(100_000_000);
        let outcome = ran(&plan);
        assert_eq!(
            (outcome.done, outcome.errors.of(kind), outcome.errors.total()),
            (0, 4, 4),
            "{direction:?}"
        );
    }
    let silent = tcp(|mut stream| {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    });
    let mut unheard = plan(silent, Load::Bulk(Direction::Up), 0);
    (unheard.length, unheard.timeout) = (Length::Bytes(1000), Duration::from_millis(100));
    let outcome = ran(&unheard);
    assert_eq!((outcome.done, outcome.errors.of(ErrorKind::Timeout)), (0, 4), "nobody says that it has come");
    let leaving = tcp(|_stream| thread::sleep(Duration::from_millis(50)));
    let mut plan = plan(leaving, Load::Idle, 0);
    plan.length = Length::Time(Duration::from_secs(1));
    let outcome = ran(&plan);
    assert_eq!((outcome.done, outcome.errors.of(ErrorKind::ClosedEarly)), (0, 4));
    assert_eq!(outcome.errors.total(), 4);
}

#[test]
fn what_cannot_be_run_is_said_first() {
    let options =
        ServeOptions { listen: vec!["127.0.0.1:0".parse().expect("an address")], page: 1, threads: 1 };
    let server = Server::start(&options).expect("a port is free");
    let sound = plan(server.addresses()[0], http(), 1);
    let refused = |change: &dyn Fn(&mut Plan)| {
        let mut plan = sound.clone();
        change(&mut plan);
        run(&plan, &Stop::new(), |_| {}).expect_err("it is refused")
    };
    let foreign = "192.0.2.77".parse().expect("an address");
    assert!(
        matches!(refused(&|plan| plan.from = vec![foreign]), Error::Source { address, .. } if address == foreign)
    );
    let other = "::1".parse().expect("an address");
    assert!(matches!(refused(&|plan| plan.from = vec![other]), Error::Plan(PlanError::Family { .. })));
    assert!(matches!(refused(&|plan| plan.concurrency = 0), Error::Plan(PlanError::Nobody)));
    assert!(matches!(refused(&|plan| plan.rate = Some(0.0)), Error::Plan(PlanError::Rate)));
    assert!(matches!(refused(&|plan| plan.concurrency = u32::MAX), Error::Files { .. }));
    let small = |plan: &mut Plan| plan.load = Load::Udp { size: 23, fresh: false };
    assert!(matches!(refused(&small), Error::Plan(PlanError::Size { size: 23, .. })));
    let counted = |plan: &mut Plan| plan.load = Load::Idle;
    assert!(matches!(refused(&counted), Error::Plan(PlanError::NoCount)));
    let measured = |plan: &mut Plan| plan.length = Length::Bytes(1000);
    assert!(matches!(refused(&measured), Error::Plan(PlanError::NoBytes)));
}
