//! The traffic: threads in the client's namespace, each asking questions whose answers it knows, and noting every byte
//! that is not as it should be.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use portway_lab::Namespace;
use portway_lab::client::name_from;
use portway_lab::netns::PATIENCE;
use portway_lab::traffic::echo;

use crate::log::{Kind, Log};

/// All threads of one lane.
pub struct Traffic {
    client: Namespace,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// How long a datagram's answer may take, on a machine that has much else to do.
const ANSWER: Duration = Duration::from_secs(4);
/// What a pool's connection is asked is small: its end is what the test is about.
const QUESTION: usize = 2000;

impl Traffic {
    pub fn new(client: &Namespace, log: &Arc<Log>) -> Self {
        Self { client: client.clone(), log: log.clone(), stop: Arc::default(), threads: Vec::new() }
    }

    /// Runs `ask` over and over with pauses, until the end.
    fn repeat(&mut self, pause: Duration, mut ask: impl FnMut(&Log, &mut Bytes) + Send + 'static) {
        let (client, log, stop) = (self.client.clone(), self.log.clone(), self.stop.clone());
        let mut bytes = Bytes::new(self.threads.len() as u64);
        self.threads.push(thread::spawn(move || {
            client.enter(|| {
                while !stop.load(Ordering::Relaxed) {
                    ask(&log, &mut bytes);
                    thread::sleep(pause);
                }
            });
        }));
    }

    /// Connections that stay open, each asked in turn.
    pub fn held(&mut self, kind: Kind, to: &str, count: usize) {
        let to = address(to);
        let mut streams: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
        let mut turn = 0;
        self.repeat(Duration::from_millis(40), move |log, bytes| {
            turn = (turn + 1) % count;
            let (since, question) = (Instant::now(), bytes.some(1, QUESTION));
            // Opening is not what this kind is about: a pool's dead backend refuses, and the next one takes it.
            let stream = match streams[turn].take().map_or_else(|| open(to), Ok) {
                Ok(stream) => stream,
                Err(e) if kind == Kind::HeldByPool => {
                    return log.error(Kind::ShortByPool, since, format!("open: {e}"));
                }
                Err(e) => return log.error(kind, since, format!("open: {e}")),
            };
            streams[turn] = ask(log, kind, since, stream, &question);
        });
    }

    /// A connection for each question, ended by the client.
    pub fn short(&mut self, kind: Kind, to: &str) {
        let to = address(to);
        self.repeat(Duration::from_millis(40), move |log, bytes| {
            let (since, question) = (Instant::now(), bytes.some(1, 8 * QUESTION));
            let asked = open(to).and_then(|mut stream| {
                echo(&mut stream, &question)?;
                stream.shutdown(Shutdown::Write)?;
                ends(&mut stream)
            });
            note(log, kind, since, question.len(), asked);
        });
    }

    /// A connection for each question, ended by a server that says its name and no more.
    pub fn short_by_server(&mut self, to: &str) {
        let to = address(to);
        self.repeat(Duration::from_millis(60), move |log, _| {
            let since = Instant::now();
            let asked = open(to).and_then(|mut stream| ends(&mut stream));
            note(log, Kind::ShortByServer, since, 0, asked);
        });
    }

    /// One connection with blocks of 64 KiB there and back, 16 MiB in all, then the next.
    pub fn bulk(&mut self, to: &str) {
        const BLOCK: usize = 65_536;
        let to = address(to);
        let (mut stream, mut blocks) = (None, 0);
        self.repeat(Duration::from_millis(25), move |log, bytes| {
            let (since, question) = (Instant::now(), bytes.take(BLOCK));
            match stream.take().map_or_else(|| open(to), Ok) {
                Ok(opened) => {
                    blocks += 1;
                    let kept = ask(log, Kind::Bulk, since, opened, &question);
                    stream = kept.filter(|_| blocks % 256 != 0);
                }
                Err(e) => log.error(Kind::Bulk, since, format!("open: {e}")),
            }
        });
    }

    /// Datagrams from one socket after the other, some of them larger than any frame where they may be in fragments.
    pub fn datagrams(&mut self, kind: Kind, to: &str, fragmented: bool) {
        let to = address(to);
        let (mut socket, mut questions) = (None::<UdpSocket>, 0);
        self.repeat(Duration::from_millis(40), move |log, bytes| {
            questions += 1;
            let most = if fragmented && questions % 50 == 0 { 20_000 } else { 1400 };
            let (since, question) = (Instant::now(), bytes.some(8, most));
            let dialled = socket.take().filter(|_| questions % 30 != 0).map_or_else(|| dial(to), Ok);
            let dialled = dialled.unwrap_or_else(|e| panic!("a socket of the client's own: {e}"));
            let mut answer = vec![0; 65_536];
            match dialled.send(&question).and_then(|_| dialled.recv(&mut answer)) {
                Ok(length) if answer[..length] == question => log.answered(kind, length),
                // What is asked next has a socket of its own, lest a late answer be taken for its.
                Ok(length) => {
                    return log.error(kind, since, format!("{length} other bytes for {}", question.len()));
                }
                Err(e) => return log.error(kind, since, format!("{} bytes: {e}", question.len())),
            }
            socket = Some(dialled);
        });
    }

    /// Ends all of it.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

/// Asks an open connection, and keeps it if all is well.
fn ask(log: &Log, kind: Kind, since: Instant, mut stream: TcpStream, question: &[u8]) -> Option<TcpStream> {
    let asked = echo(&mut stream, question);
    let well = asked.is_ok();
    note(log, kind, since, question.len(), asked);
    well.then_some(stream)
}

fn note(log: &Log, kind: Kind, since: Instant, bytes: usize, outcome: io::Result<()>) {
    match outcome {
        Ok(()) => log.answered(kind, bytes),
        Err(e) => log.error(kind, since, format!("{e} ({:?}) after {:?}", e.kind(), since.elapsed())),
    }
}

/// Connects, and takes the name that every server says first.
fn open(to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    name_from(&mut stream)?;
    Ok(stream)
}

fn dial(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(ANSWER))?;
    Ok(socket)
}

/// Insists on the end of the stream, and nothing before it.
fn ends(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => Err(io::Error::other("a byte after the last one")),
    }
}

fn address(to: &str) -> SocketAddr {
    to.parse().unwrap_or_else(|_| panic!("{to} is no socket address"))
}

/// Bytes that no other question has in that order (xorshift64, Marsaglia 2003).
struct Bytes(u64);

impl Bytes {
    fn new(thread: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (thread + 1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// So many at least, and up to `spread` more.
    fn some(&mut self, least: usize, spread: usize) -> Vec<u8> {
        let more = (self.next() % spread as u64) as usize;
        self.take(least + more)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let words = (0..count.div_ceil(8)).flat_map(|_| self.next().to_ne_bytes());
        words.take(count).collect()
    }
}
