//! Every load against the generator's own server: what is asked for is done, and counted rightly.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use portway_load::{
    Close, Direction, ErrorKind, Exchange, Length, Load, Outcome, Plan, ServeOptions, Server, Stop, run,
};

fn server(address: &str) -> (Server, SocketAddr) {
    let options = ServeOptions { listen: vec![address.parse().expect("an address")], page: 1000, threads: 1 };
    let server = Server::start(&options).expect("a port is free");
    let address = server.addresses()[0];
    (server, address)
}

fn plan(target: SocketAddr, load: Load) -> Plan {
    let mut plan = Plan::new(target, load);
    plan.warm_up = Duration::from_millis(50);
    plan.length = Length::Time(Duration::from_millis(300));
    plan.concurrency = 8;
    plan
}

fn ran(plan: &Plan) -> Outcome {
    let outcome = run(plan, &Stop::new(), |_| {}).expect("it runs");
    assert_eq!(outcome.errors.total(), 0, "{:?}: {:?}", plan.load, outcome.errors.iter().collect::<Vec<_>>());
    outcome
}

/// A request that names no page is told so, whatever bytes its path has, and the server serves on.
#[test]
fn a_strange_path_is_no_page() {
    let (_server, target) = server("127.0.0.1:0");
    for path in ["\u{e9}", "\u{e9}/", "*", "/\u{e9}", "/99999999999999999999999", "http://host/"] {
        let mut stream = TcpStream::connect(target).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a positive time");
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).expect("sent");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("it answers");
        assert_eq!(&head, b"HTTP/1.1 404", "{path}");
    }
    ran(&plan(target, Load::Connections(Exchange::get("host", "/"))));
}

/// Every exchange over both families, with connections that end in every way and that stay.
#[test]
fn a_count_is_done_exactly() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (_server, target) = server(address);
        let exchanges = [
            (Exchange::get("host", "/"), 1000),
            (Exchange::get("host", "/300000"), 300_000),
            (Exchange::get("host", "/0"), 0),
            (Exchange::Echo { size: 24 }, 24),
            (Exchange::Echo { size: 300_000 }, 300_000),
        ];
        for (exchange, size) in exchanges {
            for (load, close) in [
                (Load::Connections(exchange.clone()), Close::Wait),
                (Load::Connections(exchange.clone()), Close::Reset),
                (Load::Connections(exchange.clone()), Close::Fin),
                (Load::Keepalive(exchange.clone()), Close::Wait),
            ] {
                let mut plan = plan(target, load);
                (plan.close, plan.length, plan.threads) = (close, Length::Count(203), 2);
                let outcome = ran(&plan);
                assert_eq!(outcome.done, 203, "{plan:?}");
                let answers = outcome.received as f64 / 203.0 - size as f64;
                assert!((0.0..200.0).contains(&answers), "{plan:?}: {answers} bytes of heads");
                let latency = outcome.latency.expect("requests have one");
                assert_eq!(latency.steps.last().map(|step| step.1), Some(203));
            }
        }
    }
}

#[test]
fn a_rate_is_held_and_every_request_that_was_due_is_there() {
    let (_server, target) = server("127.0.0.1:0");
    let loads = [
        Load::Connections(Exchange::get("host", "/")),
        Load::Keepalive(Exchange::Echo { size: 100 }),
        Load::Udp { size: 100, fresh: false },
    ];
    for load in loads {
        let mut plan = plan(target, load);
        (plan.rate, plan.threads) = (Some(1_000.0), 2);
        plan.length = Length::Time(Duration::from_millis(500));
        let outcome = ran(&plan);
        assert_eq!(outcome.done, 500, "{plan:?}");
    }
}

#[test]
fn datagrams_return() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (_server, target) = server(address);
        for (size, fresh) in [(24, false), (1_400, true), (60_000, false)] {
            let mut plan = plan(target, Load::Udp { size, fresh });
            plan.length = Length::Count(500);
            let outcome = ran(&plan);
            assert_eq!((outcome.done, outcome.received), (500, 500 * size as u64), "{plan:?}");
        }
    }
}

#[test]
fn streams_flow_both_ways() {
    let (_server, target) = server("127.0.0.1:0");
    for direction in [Direction::Up, Direction::Down] {
        let mut plan = plan(target, Load::Bulk(direction));
        (plan.concurrency, plan.threads) = (3, 2);
        let outcome = ran(&plan);
        assert_eq!(outcome.done, 3);
        assert!(outcome.gbit() > 0.01, "{direction:?}: {} Gbit/s", outcome.gbit());
        assert_eq!(
            (outcome.sent > 0, outcome.received > 0),
            (direction == Direction::Up, direction == Direction::Down)
        );
        assert!((outcome.seconds - 0.3).abs() < 0.001);
    }
}

/// Whoever counts what such a stream costs counts the same work each time: not a byte more is sent.
#[test]
fn a_stream_of_so_many_bytes_is_as_long() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (_server, target) = server(address);
        for direction in [Direction::Up, Direction::Down] {
            for bytes in [1, 131_072, 10_000_019] {
                let mut plan = plan(target, Load::Bulk(direction));
                (plan.concurrency, plan.threads, plan.warm_up) = (3, 2, Duration::ZERO);
                plan.length = Length::Bytes(bytes);
                let outcome = ran(&plan);
                assert_eq!((outcome.done, outcome.sent + outcome.received), (3, 3 * bytes), "{plan:?}");
                assert!(outcome.seconds > 0.0 && outcome.seconds < 60.0, "{outcome:?}");
            }
        }
    }
}

#[test]
fn idle_connections_are_held() {
    let (_server, target) = server("127.0.0.1:0");
    let mut plan = plan(target, Load::Idle);
    (plan.concurrency, plan.threads) = (1_001, 2);
    let mut most = 0;
    let outcome = run(&plan, &Stop::new(), |progress| most = most.max(progress.done)).expect("it runs");
    assert_eq!((outcome.done, most), (1_001, 1_001));
    assert_eq!(outcome.errors.total(), 0);
    assert!(outcome.seconds >= 0.3, "{}", outcome.seconds);
}

#[test]
fn source_addresses_are_taken_in_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let mut plan = plan(listener.local_addr().expect("it is bound"), Load::Idle);
    plan.concurrency = 12;
    plan.from = (2..5).map(|last| IpAddr::from([127, 0, 0, last])).collect();
    let clients = thread::spawn(move || {
        let peers = (0..12).map(|_| listener.accept().expect("it listens"));
        let mut peers: Vec<_> = peers.collect();
        // They are held until all have come.
        peers.drain(..).map(|(_, peer)| peer.ip()).collect::<Vec<_>>()
    });
    run(&plan, &Stop::new(), |_| {}).expect("it runs");
    let clients = clients.join().expect("all have come");
    for from in &plan.from {
        assert_eq!(clients.iter().filter(|client| *client == from).count(), 4, "{from}: {clients:?}");
    }
}

#[test]
fn it_stops_at_once() {
    let (_server, target) = server("127.0.0.1:0");
    let stop = Stop::new();
    let mut plan = plan(target, Load::Connections(Exchange::get("host", "/")));
    plan.length = Length::Time(Duration::from_secs(3600));
    let started = std::time::Instant::now();
    let outcome = run(&plan, &stop, |progress| {
        if progress.done > 100 {
            stop.stop();
        }
    })
    .expect("it runs");
    assert!(outcome.done > 100 && started.elapsed() < Duration::from_secs(5));
    assert!(outcome.seconds < 5.0 && outcome.errors.of(ErrorKind::NotSent) == 0);
}
