//! Checks against servers of a few lines: well, malformed, slow, silent and gone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portway_core::ruleset::{CheckKind, Expect, Tls};
use support::*;

fn http() -> CheckKind {
    CheckKind::Http {
        tls: None,
        method: "GET".into(),
        path: "/".into(),
        host: None,
        status: vec![(200, 399)],
        body: None,
    }
}

fn udp(expect: &str) -> CheckKind {
    CheckKind::Udp { send: b"ping".to_vec(), expect: Some(Expect::Bytes(expect.as_bytes().to_vec())) }
}

/// Every kind that talks over TCP and expects an answer.
fn talking() -> Vec<CheckKind> {
    vec![
        tcp_expecting("hello"),
        http(),
        CheckKind::Http {
            tls: Some(Tls::default()),
            method: "GET".into(),
            path: "/".into(),
            host: None,
            status: vec![(200, 399)],
            body: None,
        },
        CheckKind::Tls(Tls::default()),
        CheckKind::Postgresql { user: "portway".into(), database: None },
        CheckKind::Mysql { user: None },
        CheckKind::Mysql { user: Some("probe".into()) },
        CheckKind::Redis { password: None },
        CheckKind::Redis { password: Some("secret".into()) },
        CheckKind::Smtp { hello: "portway".into() },
    ]
}

#[test]
fn a_connection_is_enough_for_tcp() {
    assert_up(probe(saying(""), tcp()), "connected");
    assert_down(probe(free_port(), tcp()), "connect: Connection refused");
}

#[test]
fn a_bare_connection_is_ended_by_a_reset() {
    let ends = Seen::new();
    let seen = ends.clone();
    let address = server(move |mut stream| {
        // Accepted after the reset as well: the kernel had queued the connection.
        seen.push(drain(&mut stream).map_err(|error| error.kind()));
    });
    assert_up(probe(address, tcp()), "connected");
    eventually("the server sees the end", || !ends.all().is_empty());
    assert_eq!(ends.all()[0], Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn bytes_that_were_sent_are_not_lost() {
    let heard = Seen::new();
    let seen = heard.clone();
    let address = server(move |mut stream| {
        let mut text = String::new();
        thread::sleep(Duration::from_millis(50));
        stream.read_to_string(&mut text).unwrap();
        seen.push(text);
    });
    assert_up(probe(address, CheckKind::Tcp { send: Some(b"hello".to_vec()), expect: None }), "sent");
    eventually("the server has read", || !heard.all().is_empty());
    assert_eq!(heard.all()[0], "hello");
}

#[test]
fn an_answer_is_compared() {
    assert_up(probe(saying("hello, world"), tcp_expecting("lo, w")), "the expected answer");
    assert_down(
        probe(server(|mut stream| _ = stream.write_all(b"hello, moon")), tcp_expecting("world")),
        "not the expected answer: \"hello, moon\"",
    );
}

/// As a process that was stopped (SIGSTOP): the kernel takes connections, nobody answers.
#[test]
fn a_frozen_server_passes_a_bare_tcp_check_and_no_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert_up(probe(address, tcp()), "connected");
    for kind in talking() {
        let begun = Instant::now();
        assert_down(probe(address, kind.clone()), "no answer in time");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(2), "{kind}: {took:?}");
    }
}

#[test]
fn a_server_that_closes_at_once_is_down() {
    let address = server(drop);
    for kind in talking() {
        let (up, reason) = verdict(probe(address, kind.clone()));
        assert!(!up, "{kind}: {reason}");
    }
}

#[test]
fn a_server_of_another_kind_is_down() {
    let noise: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for said in [b"\r\n\r\n\r\n".to_vec(), noise, b"{\"error\": 1}\n".to_vec()] {
        let address = saying(said.clone());
        for kind in talking() {
            let (up, reason) = verdict(probe(address, kind.clone()));
            assert!(!up, "{kind} of {} bytes: {reason}", said.len());
        }
    }
}

#[test]
fn a_server_that_never_stops_talking_is_down_soon() {
    for said in
        [&b"x"[..], b"220-x\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"+OK\r\n", b"R\0\0\0\x08\0\0\0\0"]
    {
        let said = said.repeat(10_000);
        let address = server(move |mut stream| while stream.write_all(&said).is_ok() {});
        for kind in talking() {
            let begun = Instant::now();
            let (up, reason) = verdict(probe(address, kind.clone()));
            assert!(!up, "{kind}: {reason}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{kind}: {:?}", begun.elapsed());
        }
    }
}

/// The limit is for all of a check, however often something comes.
#[test]
fn a_server_that_drips_is_down_in_time() {
    let address = server(|mut stream| {
        for byte in b"HTTP/1.1 200 OK\r\nServer: a slow one, but correct\r\n\r\n" {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
    let begun = Instant::now();
    assert_down(probe(address, http()), "no whole answer in time");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn an_answer_may_come_in_pieces() {
    let address = server(|mut stream| {
        stream.set_nodelay(true).unwrap();
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready" {
            _ = stream.write_all(&[*byte]);
            thread::sleep(Duration::from_millis(1));
        }
    });
    let mut kind = http();
    let CheckKind::Http { body, .. } = &mut kind else { unreachable!() };
    *body = Some(Expect::Regex("^ready$".into()));
    assert_up(probe(address, kind), "HTTP 200, the expected body");
}

#[test]
fn smtp_is_left_politely() {
    let heard = Seen::new();
    let seen = heard.clone();
    let address = server(move |mut stream| {
        let mut text = Vec::new();
        stream.write_all(b"220 hello\r\n").unwrap();
        let mut buffer = [0; 100];
        let count = stream.read(&mut buffer).unwrap();
        text.extend(&buffer[..count]);
        stream.write_all(b"250-hello\r\n250 SIZE\r\n").unwrap();
        stream.read_to_end(&mut text).unwrap();
        seen.push(String::from_utf8(text).unwrap());
    });
    assert_up(probe(address, CheckKind::Smtp { hello: "portway.example".into() }), "answered EHLO");
    eventually("the server has read", || !heard.all().is_empty());
    assert_eq!(heard.all()[0], "EHLO portway.example\r\nQUIT\r\n");
}

#[test]
fn udp_is_asked_and_judged() {
    let address = datagrams(|said, _| Some([said, b" pong"].concat()));
    assert_up(probe(address, udp("ping pong")), "the expected answer");
    assert_down(probe(address, udp("peng")), "not the expected answer: \"ping pong\"");
    assert_down(probe(datagrams(|_, _| None), udp("pong")), "no answer in time");
    // An ICMP port unreachable.
    assert_down(probe(free_port(), udp("pong")), "receive: Connection refused");
}

#[test]
fn dns_is_asked_and_judged() {
    let server = support::dns::DnsServer::start();
    server.set("app.example", 60, [support::dns::Data::a("10.0.0.1")]);
    let dns = |name: &str| CheckKind::Dns { name: portway_core::ruleset::HostName::new(name) };
    assert_up(probe(server.address, dns("app.example")), "NOERROR");
    assert_down(probe(server.address, dns("other.example")), "NXDOMAIN");
    server.mood(support::dns::Mood::Code(support::dns::SERVFAIL));
    assert_down(probe(server.address, dns("app.example")), "SERVFAIL");
    server.mood(support::dns::Mood::Garbage);
    assert_down(probe(server.address, dns("app.example")), "no whole answer in time");
    server.mood(support::dns::Mood::Silent);
    assert_down(probe(server.address, dns("app.example")), "no answer in time");
}

#[test]
fn checks_come_from_their_source() {
    let peers = Seen::new();
    let seen = peers.clone();
    let address = server(move |stream| seen.push(stream.peer_addr().unwrap().ip()));
    let from = |probe, source: &str| with(probe, |check| check.source = Some(ip(source)));
    // What is sent keeps the connection from being reset before the server can ask who it was.
    let kind = CheckKind::Tcp { send: Some(b"hello".to_vec()), expect: None };
    assert_up(from(probe(address, kind), "127.0.0.77"), "sent");
    eventually("the server has accepted", || !peers.all().is_empty());
    assert_eq!(peers.all()[0], ip("127.0.0.77"));
    let seen = peers.clone();
    let address = datagrams(move |said, from| {
        seen.push(from.ip());
        Some(said.to_vec())
    });
    assert_up(from(probe(address, udp("ping")), "127.0.0.78"), "the expected answer");
    assert_eq!(peers.all()[1], ip("127.0.0.78"));
    // An address that this host does not have (RFC 5737), and one of the other family.
    for source in ["192.0.2.1", "::1"] {
        assert_down(from(probe(saying(""), tcp()), source), &format!("source {source}"));
        assert_down(from(probe(address, udp("ping")), source), &format!("source {source}"));
    }
}

#[test]
fn ipv6_is_checked() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    assert_up(probe(listener.local_addr().unwrap(), tcp()), "connected");
}

#[test]
fn a_check_never_overlaps_itself() {
    let (now, most, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Seen::new());
    let (inside, highest, seen) = (Arc::clone(&now), Arc::clone(&most), all.clone());
    let address = server(move |mut stream| {
        highest.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(80));
        inside.fetch_sub(1, Ordering::SeqCst);
        _ = stream.write_all(b"hello");
        seen.push(());
    });
    let watching = Watching::start();
    let quick = Duration::from_millis(10);
    let probe = with(probe(address, tcp_expecting("hello")), |check| {
        (check.interval, check.interval_down) = (quick, quick);
    });
    watching.set_probes([probe]);
    thread::sleep(Duration::from_secs(1));
    let count = all.all().len();
    assert!((5..=13).contains(&count), "{count} checks of 80 ms in a second");
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_watched_already_goes_on_and_what_is_gone_is_forgotten() {
    let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let probes = counts.clone().map(|count| {
        let address = server(move |_: TcpStream| _ = count.fetch_add(1, Ordering::SeqCst));
        with(probe(address, tcp()), |check| check.interval = Duration::from_millis(20))
    });
    let watching = Watching::start();
    watching.set_probes(probes.clone());
    for _ in 0..2 {
        assert!(watching.health().1.up);
    }
    eventually("some checks", || counts[0].load(Ordering::SeqCst) > 5);
    let before = watching.watch.report();
    // Again and again, faster than the interval: the schedule stays.
    for _ in 0..20 {
        watching.set_probes(probes.clone());
        thread::sleep(Duration::from_millis(5));
    }
    watching.set_probes([probes[0].clone()]);
    eventually("the report forgets", || watching.watch.report().probes.len() == 1);
    let after = watching.watch.report();
    let (old, new) = (&before.probes[&probes[0]], &after.probes[&probes[0]]);
    assert!(new.checks > old.checks && new.checks < old.checks + 15, "{old:?}, {new:?}");
    assert_eq!((new.passed, new.outcome.as_str()), (Some(true), "connected"));
    assert!(new.took < Duration::from_millis(100) && new.at.elapsed() < Duration::from_secs(1), "{new:?}");
    let gone = counts[1].load(Ordering::SeqCst);
    thread::sleep(Duration::from_millis(200));
    assert!(counts[1].load(Ordering::SeqCst) <= gone + 1, "no checks of what is gone");
    watching.assert_quiet(Duration::ZERO);
    // What comes back is judged anew.
    watching.set_probes(probes.clone());
    assert_eq!(watching.health().0, probes[1]);
}

#[test]
fn a_dropped_watch_is_silent_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = probe(listener.local_addr().unwrap(), tcp_expecting("x"));
    let watching = Watching::start();
    watching.set_probes([with(slow, |check| check.timeout = Duration::from_secs(60))]);
    listener.set_nonblocking(true).unwrap();
    // Held: a connection that is closed is a check that has failed.
    let mut taken = None;
    eventually("a check under way", || {
        taken = listener.accept().ok();
        taken.is_some()
    });
    let begun = Instant::now();
    drop(watching.watch);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(watching.events.recv().is_err(), "the sender is gone, and there was no event");
}
