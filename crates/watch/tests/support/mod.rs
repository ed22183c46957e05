//! What the tests of this crate stand on: a watch with its events, and servers of a few lines.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

pub mod dns;
pub mod programs;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portway_core::facts::{Answer, Health, Lookup, Probe};
use portway_core::ruleset::{Check, CheckKind, Dns, Expect};
use portway_watch::{Event, Watch};

/// How long anything that must happen may take.
pub const SOON: Duration = Duration::from_secs(10);

/// A watch and what it has found.
pub struct Watching {
    pub watch: Watch,
    pub events: Receiver<Event>,
}

impl Watching {
    pub fn start() -> Self {
        let (sender, events) = channel();
        let watch = Watch::start(Instant::now(), move |event| _ = sender.send(event)).unwrap();
        Self { watch, events }
    }

    pub fn set_probes(&self, probes: impl IntoIterator<Item = Probe>) {
        self.watch.set(probes.into_iter().collect(), BTreeSet::new(), &Dns::default());
    }

    pub fn set_lookups(&self, lookups: impl IntoIterator<Item = Lookup>, dns: &Dns) {
        self.watch.set(BTreeSet::new(), lookups.into_iter().collect(), dns);
    }

    /// The next verdict.
    #[track_caller]
    pub fn health(&self) -> (Probe, Health, Instant) {
        match self.events.recv_timeout(SOON).expect("a verdict") {
            Event::Health { probe, health, at } => (probe, health, at),
            event => panic!("{event:?}"),
        }
    }

    /// The next answer.
    #[track_caller]
    pub fn answer(&self) -> Answer {
        match self.events.recv_timeout(SOON).expect("an answer") {
            Event::Names { answer, .. } => answer,
            event => panic!("{event:?}"),
        }
    }

    #[track_caller]
    pub fn assert_quiet(&self, time: Duration) {
        match self.events.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A quick check of `address`.
pub fn probe(address: SocketAddr, kind: CheckKind) -> Probe {
    let check = Check {
        interval: Duration::from_millis(200),
        interval_down: Duration::from_millis(100),
        timeout: Duration::from_millis(300),
        ..Check::new(kind)
    };
    Probe { address, check: Arc::new(check), host: None }
}

/// The same probe with another check.
pub fn with(mut probe: Probe, change: impl FnOnce(&mut Check)) -> Probe {
    change(Arc::make_mut(&mut probe.check));
    probe
}

/// The first verdict on a probe, and what it was founded on.
#[track_caller]
pub fn verdict(probe: Probe) -> (bool, String) {
    let watching = Watching::start();
    watching.set_probes([probe]);
    let (_, health, _) = watching.health();
    (health.up, health.reason)
}

#[track_caller]
pub fn assert_up(probe: Probe, words: &str) {
    let (up, reason) = verdict(probe);
    assert!(up && reason.contains(words), "up: {up}, {reason:?} lacks {words:?}");
}

#[track_caller]
pub fn assert_down(probe: Probe, words: &str) {
    let (up, reason) = verdict(probe);
    assert!(!up && reason.contains(words), "up: {up}, {reason:?} lacks {words:?}");
}

pub fn tcp() -> CheckKind {
    CheckKind::Tcp { send: None, expect: None }
}

pub fn tcp_expecting(bytes: &str) -> CheckKind {
    CheckKind::Tcp { send: None, expect: Some(Expect::Bytes(bytes.as_bytes().to_vec())) }
}

/// A port on which nothing listens.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A TCP server that gives every connection to `serve`, each on a thread of its own, while the test runs.
pub fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// A server that says `bytes` to everybody, and then waits for them to go.
pub fn saying(bytes: impl Into<Vec<u8>>) -> SocketAddr {
    let bytes = bytes.into();
    server(move |mut stream| {
        _ = stream.write_all(&bytes);
        _ = drain(&mut stream);
    })
}

/// Reads until the other side has gone; how it went.
pub fn drain(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// A UDP server that answers with what `answer` makes of a datagram.
pub fn datagrams(answer: impl Fn(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..count], from) {
                _ = socket.send_to(&answer, from);
            }
        }
    });
    address
}

/// Something that threads of a server leave for the test.
#[derive(Clone, Default)]
pub struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Seen<T> {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Vec::new())))
    }

    pub fn push(&self, value: T) {
        self.0.lock().unwrap().push(value);
    }

    pub fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }
}

/// Waits until `holds`.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
