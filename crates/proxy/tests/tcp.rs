//! TCP through the engine, on loopback, without privilege.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use portway_core::address::Protocol;
use portway_core::ruleset::Timeouts;
use support::*;

#[test]
fn echo_and_counters() {
    let (mut proxy, address) = Proxy::tcp(server(echo));
    let mut stream = connect(address);
    assert_eq!(ask(&mut stream, b"hello"), b"hello");
    assert_eq!(ask(&mut stream, b"again"), b"again");
    proxy.until("one live connection", |s| s.rules["rule"].live == 1);
    drop(stream);
    proxy.until("none", |s| s.rules["rule"].live == 0 && s.gauges["connections"] == 0);
    let counters = proxy.counters("rule");
    assert_eq!((counters.flows, counters.failed), (1, Some(0)));
    assert_eq!((counters.bytes_in, counters.bytes_out), (10, 10));
}

#[test]
fn accepted_sockets_have_nagle_off() {
    // Two small writes in a row, answered only when both are there: with Nagle's rule and delayed ACKs this
    // takes 40 ms per round.
    let address = server(|mut stream| {
        stream.set_nodelay(true).unwrap();
        let mut two = [0; 2];
        while stream.read_exact(&mut two).is_ok() {
            stream.write_all(&two[..1]).unwrap();
            stream.write_all(&two[1..]).unwrap();
        }
    });
    let (_proxy, address) = Proxy::tcp(address);
    let mut stream = connect(address);
    stream.set_nodelay(true).unwrap();
    let start = Instant::now();
    for _ in 0..50 {
        stream.write_all(b"a").unwrap();
        stream.write_all(b"b").unwrap();
        let mut two = [0; 2];
        stream.read_exact(&mut two).unwrap();
    }
    assert!(start.elapsed() < Duration::from_millis(1000), "{:?}", start.elapsed());
}

#[test]
fn large_both_ways_at_once() {
    let (mut proxy, address) = Proxy::tcp(server(echo));
    let stream = connect(address);
    let data = noise(48 << 20);
    let mut writer = stream.try_clone().unwrap();
    let expected = data.clone();
    let sender = thread::spawn(move || {
        writer.write_all(&data).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    (&stream).read_to_end(&mut received).unwrap();
    sender.join().unwrap();
    assert!(received == expected, "{} bytes", received.len());
    assert!(proxy.gauge("open_pipes") > 0, "a long transfer is spliced");
    let counters = proxy.counters("rule");
    assert_eq!((counters.bytes_in, counters.bytes_out), (48 << 20, 48 << 20));
}

#[test]
fn many_sizes_arrive_whole() {
    // Around the buffer's and the pipe's length, and where copying turns to splicing and back.
    let (_proxy, address) = Proxy::tcp(server(echo));
    let data = noise(3 << 20);
    let mut stream = connect(address);
    for size in
        [1, 100, 4095, 65_535, 65_536, 65_537, 262_144, 300_000, 10, 20, 30, 1 << 20, (1 << 20) + 1, 3 << 20]
    {
        let mut writer = stream.try_clone().unwrap();
        let part = data[..size].to_vec();
        let sender = thread::spawn(move || writer.write_all(&part).unwrap());
        let mut answer = vec![0; size];
        stream.read_exact(&mut answer).unwrap();
        sender.join().unwrap();
        assert!(answer == data[..size], "{size} bytes");
    }
}

#[test]
fn a_slow_reader_holds_the_sender_back() {
    let (sent, received) = channel();
    let address = server(move |mut stream| {
        let data = noise(1 << 20);
        stream.set_nonblocking(true).unwrap();
        let (mut total, mut quiet) = (0usize, Instant::now());
        while quiet.elapsed() < Duration::from_millis(700) {
            match stream.write(&data[total % data.len()..]) {
                Ok(length) => (total, quiet) = (total + length, Instant::now()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(5))
                }
                Err(error) => panic!("{error}"),
            }
        }
        sent.send(total).unwrap();
    });
    let (_proxy, address) = Proxy::tcp(address);
    let mut stream = connect(address);
    let total = received.recv_timeout(SOON).unwrap();
    assert!(total < 64 << 20, "{total} bytes were taken from the sender though nobody reads");
    let expected = noise(1 << 20);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), total);
    assert!(all.chunks(1 << 20).all(|part| part == &expected[..part.len()]), "order and content");
}

#[test]
fn the_client_ends_first() {
    let address = server(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        thread::sleep(Duration::from_millis(100));
        stream.write_all(&all).unwrap();
        stream.write_all(b" was all").unwrap();
    });
    let (_proxy, address) = Proxy::tcp(address);
    let mut stream = connect(address);
    stream.write_all(b"this").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "this was all");
}

#[test]
fn the_backend_ends_first_and_still_reads() {
    let (got, received) = channel();
    let address = server(move |mut stream| {
        stream.write_all(b"goodbye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        // A reset instead of an end would be an error here.
        got.send(stream.read_to_end(&mut all).map(|_| all)).unwrap();
    });
    let (mut proxy, address) = Proxy::tcp(address);
    let mut stream = connect(address);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "goodbye");
    let data = noise(2 << 20);
    stream.write_all(&data).unwrap();
    drop(stream);
    let all = received.recv_timeout(SOON).unwrap().expect("a clean end");
    assert!(all == data, "{} bytes", all.len());
    proxy.until("closed", |s| s.rules["rule"].live == 0);
}

#[test]
fn data_and_end_together_both_ways() {
    let address = server(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let (mut proxy, address) = Proxy::tcp(address);
    for round in 0..200 {
        let mut stream = connect(address);
        let data = noise(round * 700 + 1);
        stream.write_all(&data).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all == data, "round {round}: {} bytes", all.len());
    }
    proxy.until("closed", |s| s.rules["rule"].live == 0);
}

#[test]
fn a_server_that_speaks_first_is_not_kept_waiting() {
    let address = server(|mut stream| {
        // As a server whose small writes are held back until the handshake's ACK has come.
        stream.write_all(b"220 ready\r\n").unwrap();
        stream.write_all(b"really\r\n").unwrap();
        let mut byte = [0];
        _ = stream.read(&mut byte);
    });
    let (_proxy, address) = Proxy::tcp(address);
    let mut waits: Vec<Duration> = (0..21)
        .map(|_| {
            let start = Instant::now();
            let mut stream = connect(address);
            let mut banner = [0; 19];
            stream.read_exact(&mut banner).unwrap();
            start.elapsed()
        })
        .collect();
    waits.sort();
    // A busy machine holds up a few; an ACK that is delayed (40 ms and more) comes late every time.
    assert!(waits[10] < Duration::from_millis(35), "{waits:?}: the handshake's ACK came late");
}

#[test]
fn a_closed_port_is_a_reset() {
    let (mut proxy, address) = Proxy::tcp(free(Protocol::Tcp, [127, 0, 0, 1].into()));
    let start = Instant::now();
    let mut stream = connect(address);
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(start.elapsed() < Duration::from_millis(500));
    proxy.until("counted", |s| s.rules["rule"].failed == Some(1) && s.rules["rule"].live == 0);
    assert!(proxy.messages.lock().unwrap().iter().any(|m| m.contains("refused")));
}

#[test]
fn a_reset_goes_through_both_ways() {
    let (got, received) = channel();
    let address = server(move |mut stream| {
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        if first == *b"r" {
            return reset(stream);
        }
        got.send(stream.read(&mut first)).unwrap();
    });
    let (mut proxy, address) = Proxy::tcp(address);
    let mut stream = connect(address);
    stream.write_all(b"r").unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    let mut stream = connect(address);
    stream.write_all(b"x").unwrap();
    proxy.until("through", |s| s.rules["rule"].bytes_in == 2);
    reset(stream);
    let result = received.recv_timeout(SOON).unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.until("closed", |s| s.rules["rule"].live == 0);
}

#[test]
fn an_answer_before_a_reset_arrives() {
    // The server answers and closes with the request unread, so its kernel resets ("413 Content Too Large").
    let address = server(|mut stream| {
        stream.write_all(b"too large").unwrap();
        thread::sleep(Duration::from_millis(50));
    });
    let (_proxy, address) = Proxy::tcp(address);
    let mut stream = connect(address);
    stream.write_all(b"a request that nobody reads").unwrap();
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"too large");
}

#[test]
fn connect_times_out() {
    let (listener, _fill) = black_hole();
    let timeouts = Timeouts { connect: Duration::from_millis(300), ..Timeouts::default() };
    let (mut proxy, address) = Proxy::forwarding(Protocol::Tcp, listener.local_addr().unwrap(), timeouts);
    let start = Instant::now();
    let mut stream = connect(address);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let took = start.elapsed();
    assert!((300..900).contains(&took.as_millis()), "{took:?}");
    assert_eq!(proxy.counters("rule").failed, Some(1));
}

#[test]
fn idle_connections_end_and_busy_ones_do_not() {
    let timeouts = Timeouts { idle: Duration::from_millis(400), ..Timeouts::default() };
    let (_proxy, address) = Proxy::forwarding(Protocol::Tcp, server(echo), timeouts);
    let mut stream = connect(address);
    for _ in 0..8 {
        assert_eq!(ask(&mut stream, b"x"), b"x");
        thread::sleep(Duration::from_millis(150));
    }
    let start = Instant::now();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
}

#[test]
fn half_closed_connections_have_their_own_clock() {
    let timeouts = Timeouts { half_closed: Duration::from_millis(300), ..Timeouts::default() };
    let address = server(|stream| {
        // Reads the end and never answers.
        _ = (&stream).read(&mut [0; 16]);
        thread::sleep(SOON);
    });
    let (_proxy, address) = Proxy::forwarding(Protocol::Tcp, address, timeouts);
    for first in [&b""[..], b"data"] {
        let start = Instant::now();
        let mut stream = connect(address);
        stream.write_all(first).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!((300..900).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}

#[test]
fn ipv6_and_across_families() {
    let (v4, v6) = (server_on("127.0.0.1", echo), server_on("::1", echo));
    for (listen, backend) in [("::1", v6), ("::1", v4), ("127.0.0.1", v6)] {
        let mut proxy = Proxy::new();
        let listen = free(Protocol::Tcp, listen.parse().unwrap());
        proxy.set("rule", Protocol::Tcp, listen, backend);
        proxy.apply().unwrap();
        assert_eq!(ask(&mut connect(listen), b"six"), b"six", "{listen} to {backend}");
    }
}

#[test]
fn the_source_pool_is_used_in_turn() {
    let (seen, peers) = channel::<SocketAddr>();
    let address = server(move |stream| seen.send(stream.peer_addr().unwrap()).unwrap());
    let (mut proxy, listen) = Proxy::tcp(address);
    let pool = ["127.0.0.5".parse().unwrap(), "127.0.0.6".parse().unwrap()];
    proxy.set("rule", Protocol::Tcp, listen, address).source =
        portway_core::plan::proxy::Source::Pool(pool.into());
    proxy.apply().unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        _ = connect(listen).read(&mut [0]);
        seen.push(peers.recv_timeout(SOON).unwrap().ip());
    }
    seen.sort();
    assert_eq!(seen, [pool[0], pool[0], pool[1], pool[1]]);
}

#[test]
fn urgent_data_does_not_stall_what_follows() {
    let (_proxy, address) = Proxy::tcp(server(echo));
    let mut stream = connect(address);
    for _ in 0..20 {
        assert_eq!(ask(&mut stream, b"a"), b"a");
        stream.write_all(b"b").unwrap();
        rustix::net::send(&stream, b"!", rustix::net::SendFlags::OOB).unwrap();
        stream.write_all(b"cdef").unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"b!cdef");
    }
}
