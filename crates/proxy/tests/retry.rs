//! Connections that are begun anew elsewhere: when, how often, for how long, and when not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use portway_core::address::Protocol;
use portway_core::members::Member;
use portway_core::ruleset::Balance;
use support::*;

fn closed_port() -> Member {
    member(free(Protocol::Tcp, [127, 0, 0, 1].into()))
}

/// A member whose server does this with each connection, and how many it had.
fn counted(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> (Member, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let address = server(move |stream| {
        counter.fetch_add(1, SeqCst);
        serve(stream);
    });
    (member(address), count)
}

/// A pool that asks its members in this order.
fn in_order(members: Vec<Member>, retries: u8, connect: Duration) -> (Proxy, SocketAddr) {
    Proxy::pool(Protocol::Tcp, members, |rule| {
        rule.pool.balance = Balance::First;
        rule.pool.retries = retries;
        rule.timeouts.connect = connect;
    })
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_refused_connection_is_taken_elsewhere() {
    for (_, balance) in Balance::WORDS {
        let members = vec![closed_port(), tellers(1).remove(0), closed_port()];
        let (mut proxy, address) =
            Proxy::pool(Protocol::Tcp, members.clone(), |rule| rule.pool.balance = balance);
        for _ in 0..50 {
            let mut stream = connect(address);
            assert_eq!(told_by(&mut stream), 0, "{balance}");
            assert_eq!(ask(&mut stream, b"through"), b"through");
        }
        let counters = proxy.counters("rule");
        assert_eq!((counters.flows, counters.failed), (50, Some(0)), "{balance}");
        assert_eq!((proxy.member(&members[1]).flows, proxy.member(&members[1]).failed), (50, Some(0)));
        let failed: u64 = [0, 2].iter().filter_map(|nth| proxy.member(&members[*nth]).failed).sum();
        assert_eq!(proxy.gauge("retries"), failed, "{balance}");
        proxy.until("closed", |s| s.members["rule"].values().all(|member| member.live == 0));
    }
}

#[test]
fn only_as_often_as_asked() {
    for (retries, served) in [(0, false), (1, false), (2, true)] {
        let members = vec![closed_port(), closed_port(), tellers(1).remove(0)];
        let (mut proxy, address) = in_order(members, retries, SECOND);
        let mut stream = connect(address);
        match stream.read(&mut [0]) {
            Ok(length) => assert!(served && length == 1),
            Err(error) => assert!(!served && error.kind() == ErrorKind::ConnectionReset, "{error}"),
        }
        assert_eq!(proxy.counters("rule").failed, Some(u64::from(!served)));
        assert_eq!(proxy.gauge("retries"), u64::from(retries.min(2)));
    }
}

#[test]
fn with_nobody_else_left_those_that_failed_are_asked_again() {
    let (flaky, count) = counted(reset);
    let (mut proxy, address) = in_order(vec![flaky, closed_port()], 4, SECOND);
    assert_eq!(connect(address).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.until("failed", |s| s.rules["rule"].live == 0);
    assert!(count.load(SeqCst) >= 2, "{count:?}");
    assert_eq!(proxy.gauge("retries"), 4);
}

#[test]
fn a_silent_backend_costs_its_timeout_and_no_more() {
    let timeout = Duration::from_millis(300);
    let (one, _fill) = black_hole();
    let (two, _fill_two) = black_hole();
    let holes = [member(one.local_addr().unwrap()), member(two.local_addr().unwrap())];
    let good = tellers(1).remove(0);

    let (mut proxy, address) = in_order(vec![holes[0].clone(), good.clone()], 2, timeout);
    let start = Instant::now();
    let mut stream = connect(address);
    // Sent long before there is a backend.
    stream.write_all(b"early").unwrap();
    assert_eq!(told_by(&mut stream), 0);
    assert!((300..900).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"early");
    assert_eq!(proxy.member(&holes[0]).failed, Some(1));

    let (mut proxy, address) = in_order(holes.to_vec(), 1, timeout);
    let start = Instant::now();
    assert_eq!(connect(address).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!((600..1200).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(proxy.counters("rule").failed, Some(1));
}

#[test]
fn a_reset_before_the_first_byte_goes_unnoticed() {
    let (bad, count) = counted(reset);
    let (mut proxy, address) = in_order(vec![bad.clone(), tellers(1).remove(0)], 2, SECOND);
    for _ in 0..50 {
        let mut stream = connect(address);
        assert_eq!(told_by(&mut stream), 0);
        assert_eq!(ask(&mut stream, b"whole"), b"whole");
    }
    assert_eq!(count.load(SeqCst), 50);
    assert_eq!((proxy.member(&bad).failed, proxy.counters("rule").failed), (Some(50), Some(0)));
}

#[test]
fn an_end_before_the_first_byte_is_begun_anew_and_passed_on_when_all_say_so() {
    let (bad, count) = counted(drop);
    let (mut proxy, address) = in_order(vec![bad.clone(), tellers(1).remove(0)], 2, SECOND);
    let mut stream = connect(address);
    assert_eq!(told_by(&mut stream), 0);
    assert_eq!(ask(&mut stream, b"fine"), b"fine");
    assert_eq!(proxy.member(&bad).failed, Some(0), "closing is no failure");
    drop(proxy);

    let (other, other_count) = counted(drop);
    let (_proxy, address) = in_order(vec![bad, other], 2, SECOND);
    assert_eq!(connect(address).read(&mut [0]).unwrap(), 0, "an end, as the backends gave it");
    assert_eq!(count.load(SeqCst) + other_count.load(SeqCst), 1 + 3);
}

#[test]
fn nothing_is_begun_anew_once_a_byte_has_moved() {
    let spoken = |mut stream: TcpStream| {
        stream.write_all(b"bye").unwrap();
    };
    let heard = |mut stream: TcpStream| {
        stream.read_exact(&mut [0]).unwrap();
        reset(stream);
    };
    let ended = |mut stream: TcpStream| {
        // Answers an end with an end.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    };
    let (member, count) = counted(spoken);
    let (_proxy, address) = in_order(vec![member, tellers(1).remove(0)], 2, SECOND);
    let mut all = Vec::new();
    connect(address).read_to_end(&mut all).unwrap();
    assert_eq!((all.as_slice(), count.load(SeqCst)), (&b"bye"[..], 1));

    let (member, count) = counted(heard);
    let (mut proxy, address) = in_order(vec![member.clone(), tellers(1).remove(0)], 2, SECOND);
    let mut stream = connect(address);
    proxy.until("connected", |_| count.load(SeqCst) == 1);
    stream.write_all(b"x").unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(count.load(SeqCst), 1);
    assert_eq!(proxy.member(&member).failed, Some(1), "a reset before its first byte");
    assert_eq!(proxy.gauge("retries"), 0);

    let (member, count) = counted(ended);
    let (mut proxy, address) = in_order(vec![member, tellers(1).remove(0)], 2, SECOND);
    let mut stream = connect(address);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_eq!((count.load(SeqCst), proxy.gauge("retries")), (1, 0));
}

#[test]
fn an_idle_connection_is_not_begun_anew_for_ever() {
    let (member, count) = counted(|stream| {
        thread::sleep(Duration::from_millis(700));
        drop(stream);
    });
    let (_proxy, address) = in_order(vec![member, tellers(1).remove(0)], 2, Duration::from_millis(200));
    assert_eq!(connect(address).read(&mut [0]).unwrap(), 0, "the time for attempts was over");
    assert_eq!(count.load(SeqCst), 1);
}

#[test]
fn a_single_backend_is_asked_once() {
    let (member, count) = counted(reset);
    let (mut proxy, address) = in_order(vec![member], 2, SECOND);
    assert_eq!(connect(address).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.until("closed", |s| s.rules["rule"].live == 0);
    assert_eq!(count.load(SeqCst), 1);
}

/// A backend in a process of its own: answers a line with a line.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["killing_a_backend_loses_no_request_that_had_sent_no_byte", "--exact", "--nocapture"])
            .env("PORTWAY_TEST_BACKEND", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().split("listens on ").nth(1)?.parse().ok()).unwrap();
        Self { child, address }
    }

    /// Kills it and returns when it is dead: its sockets are closed then.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn backend_process() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("\nlistens on {}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        thread::spawn(move || {
            let stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
                (&stream).write_all(line.as_bytes()).unwrap();
                line.clear();
            }
        });
    }
}

/// One request: connects, is silent for a while, asks. When it began to ask, and what came of it.
fn request(address: SocketAddr, silence: Duration) -> (Instant, io::Result<()>) {
    let mut stream = connect(address);
    thread::sleep(silence);
    let asked = Instant::now();
    let answer = stream.write_all(b"hello\n").and_then(|()| {
        let mut line = [0; 6];
        stream.read_exact(&mut line)?;
        assert_eq!(&line, b"hello\n");
        Ok(())
    });
    _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    (asked, answer)
}

#[test]
fn killing_a_backend_loses_no_request_that_had_sent_no_byte() {
    if std::env::var_os("PORTWAY_TEST_BACKEND").is_some() {
        return backend_process();
    }
    let mut processes = [(); 3].map(|()| Process::start());
    let members: Vec<Member> = processes.iter().map(|process| member(process.address)).collect();
    let (mut proxy, address) = Proxy::pool(Protocol::Tcp, members.clone(), |_| {});
    let until = Instant::now() + Duration::from_secs(3);
    let clients: Vec<_> = (0..16u64)
        .map(|nth| {
            thread::spawn(move || {
                let mut results = Vec::new();
                while Instant::now() < until {
                    results.push(request(address, Duration::from_millis(nth * 3)));
                }
                results
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(1));
    processes[1].kill();
    let dead = Instant::now();
    let results: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let after = results.iter().filter(|(asked, _)| *asked > dead).count();
    assert!(after > 500, "{after} requests after the kill are too few to say anything");
    for (asked, result) in &results {
        // What had been sent before may be lost with the backend that had it.
        if let Err(error) = result {
            assert!(*asked < dead, "a request sent {:?} after the kill: {error}", *asked - dead);
        }
    }
    assert!(proxy.gauge("retries") > 0);
    assert!(proxy.member(&members[1]).failed > Some(100), "it was tried all the time: nothing checks it");
}
