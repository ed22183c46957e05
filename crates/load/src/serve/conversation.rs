//! One connection of the server: what was asked for, what is still to be sent.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::stamp::{REPORT, Stamp, Wish, filler};

/// The longest head of a request.
const MOST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 64;
/// Bytes of a page or stream sent per call, and calls in one turn.
const PIECE: usize = 128 << 10;
const CALLS: usize = 8;

/// How often a sink says how much has come, at most.
const REPORTS: Duration = Duration::from_millis(10);

/// What pages and streams are made of.
pub(super) struct Page {
    /// Bytes of the page.
    size: u64,
    filler: Vec<u8>,
}

impl Page {
    pub(super) fn new(size: u64) -> Self {
        Self { size, filler: filler(PIECE) }
    }
}

/// What a conversation needs now.
pub(super) enum Next {
    /// An event.
    Wait,
    /// Another turn.
    Again,
    /// Its end.
    Over,
}

/// What the bytes that come are.
#[derive(Clone, Copy)]
enum Mode {
    /// A request, or its beginning.
    Request,
    /// A message to return: bytes that are missing, and whether it ends then.
    Echo { left: u64, close: bool },
    /// Bytes to count, how many have come, how many are to (0: no end), and when that was told last.
    Sink { come: u64, whole: u64, told: Instant },
    /// Not read: there is a stream to send.
    Source,
}

/// A connection.
pub(super) struct Conversation {
    socket: OwnedFd,
    mode: Mode,
    /// The beginning of a request that is not whole, or what came before it could be answered.
    held: Vec<u8>,
    /// Whether it is the latter.
    early: bool,
    /// What did not fit into the socket, and how much of a page follows.
    pending: Vec<u8>,
    body: u64,
    /// Whether it ends when that is sent.
    last: bool,
}

impl Conversation {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            mode: Mode::Request,
            held: Vec::new(),
            early: false,
            pending: Vec::new(),
            body: 0,
            last: false,
        }
    }

    /// Sends and reads as far as it can in one turn.
    pub(super) fn go_on(&mut self, page: &Page, scratch: &mut [u8]) -> Next {
        for _ in 0..CALLS {
            match self.step(page, scratch) {
                Ok(true) => {}
                Ok(false) | Err(Errno::AGAIN) => return Next::Wait,
                Err(Errno::INTR) => {}
                Err(_) => return Next::Over,
            }
        }
        Next::Again
    }

    /// One call. `Ok(false)`: the socket is empty. An error other than `AGAIN` ends the conversation; its orderly end is
    /// `PIPE`.
    fn step(&mut self, page: &Page, scratch: &mut [u8]) -> Result<bool, Errno> {
        if !self.pending.is_empty() {
            let sent = send(&self.socket, &self.pending, SendFlags::NOSIGNAL)?;
            self.pending.drain(..sent);
            return Ok(true);
        }
        if self.body > 0 {
            let piece = self.body.min(page.filler.len() as u64) as usize;
            self.body -= send(&self.socket, &page.filler[..piece], SendFlags::NOSIGNAL)? as u64;
            return Ok(true);
        }
        if self.last {
            return Err(Errno::PIPE);
        }
        if matches!(self.mode, Mode::Source) {
            send(&self.socket, &page.filler, SendFlags::NOSIGNAL)?;
            return Ok(true);
        }
        if self.early {
            self.early = false;
            let mut held = std::mem::take(&mut self.held);
            self.take(&mut held, page)?;
            return Ok(true);
        }
        let (length, _) = recv(&self.socket, &mut *scratch, RecvFlags::empty())?;
        if length == 0 {
            return Err(Errno::PIPE);
        }
        let whole = length < scratch.len();
        if self.held.is_empty() {
            self.take(&mut scratch[..length], page)?;
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(&scratch[..length]);
            self.take(&mut held, page)?;
        }
        // Edge-triggered: after a short read the next bytes, and the end as well, are an event. What is to be sent goes now.
        Ok(!whole
            || !self.pending.is_empty()
            || self.body > 0
            || self.last
            || matches!(self.mode, Mode::Source))
    }

    /// Takes bytes that have come.
    fn take(&mut self, mut bytes: &mut [u8], page: &Page) -> Result<(), Errno> {
        while !bytes.is_empty() && !self.last {
            if self.body > 0 {
                // Requests that do not wait for answers are answered in turn.
                self.held.extend_from_slice(bytes);
                self.early = true;
                return Ok(());
            }
            match self.mode {
                Mode::Source => return Ok(()),
                Mode::Sink { come, whole, told } => {
                    return self.count(come + bytes.len() as u64, whole, told);
                }
                Mode::Echo { left, close } => {
                    let here = left.min(bytes.len() as u64) as usize;
                    let (message, rest) = bytes.split_at_mut(here);
                    self.send(message)?;
                    let left = left - here as u64;
                    self.mode = if left == 0 { Mode::Request } else { Mode::Echo { left, close } };
                    self.last = left == 0 && close;
                    bytes = rest;
                }
                Mode::Request => match self.request(bytes, page)? {
                    Some(length) => bytes = &mut bytes[length..],
                    None if bytes.len() <= MOST_HEAD => {
                        self.held.extend_from_slice(bytes);
                        return Ok(());
                    }
                    None => return Err(Errno::PROTO),
                },
            }
        }
        Ok(())
    }

    /// So much of a stream has come. Of one that has an end only that is told: reports are work that a clock decides on.
    fn count(&mut self, come: u64, whole: u64, mut told: Instant) -> Result<(), Errno> {
        let is_due = if whole == 0 { told.elapsed() >= REPORTS } else { come >= whole };
        if is_due {
            told = Instant::now();
            match send(&self.socket, &come.to_be_bytes(), SendFlags::NOSIGNAL) {
                Ok(sent) => self.pending.extend_from_slice(&come.to_be_bytes()[sent.min(REPORT)..]),
                // A client that does not read them does not want them.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        self.mode = Mode::Sink { come, whole, told };
        Ok(())
    }

    /// Sends, and keeps what does not fit.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let sent = if self.pending.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(error) => return Err(error),
            }
        } else {
            0
        };
        self.pending.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Begins what the bytes ask for, and says how many of them said so; `None` when they are not whole.
    fn request(&mut self, bytes: &[u8], page: &Page) -> Result<Option<usize>, Errno> {
        let known = bytes.len().min(Stamp::MAGIC.len());
        if bytes[..known] == Stamp::MAGIC[..known] {
            if bytes.len() < Stamp::LEN {
                return Ok(None);
            }
            let stamp = Stamp::decode(bytes).ok_or(Errno::PROTO)?;
            let (mode, taken) = match stamp.wish {
                // The stamp is a part of the message.
                Wish::Echo if stamp.len >= Stamp::LEN as u64 => {
                    (Mode::Echo { left: stamp.len, close: stamp.close }, 0)
                }
                Wish::Echo => return Err(Errno::PROTO),
                Wish::Sink => (Mode::Sink { come: 0, whole: stamp.len, told: Instant::now() }, Stamp::LEN),
                Wish::Source if stamp.len > 0 => {
                    (self.body, self.last) = (stamp.len, true);
                    (Mode::Request, Stamp::LEN)
                }
                Wish::Source => (Mode::Source, Stamp::LEN),
            };
            self.mode = mode;
            return Ok(Some(taken));
        }
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Errno::PROTO),
        };
        let connection = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("connection"));
        let said = |word: &[u8]| connection.is_some_and(|header| header.value.eq_ignore_ascii_case(word));
        let close = said(b"close") || (request.version == Some(0) && !said(b"keep-alive"));
        let path = request.path.unwrap_or("/");
        let size = match path.strip_prefix('/') {
            Some("") => Some(page.size),
            Some(size) => size.parse().ok(),
            None => None,
        };
        self.respond(size.filter(|_| request.method == Some("GET")), close, page)?;
        Ok(Some(length))
    }

    /// Sends a page, or that there is none.
    fn respond(&mut self, size: Option<u64>, close: bool, page: &Page) -> Result<(), Errno> {
        let status = if size.is_some() { "200 OK" } else { "404 Not Found" };
        let size = size.unwrap_or(0);
        // The head and what a small page has go in one segment.
        let mut out = [0; 4096];
        let mut rest = &mut out[..];
        let connection = if close { "close" } else { "keep-alive" };
        let head = write!(
            rest,
            "HTTP/1.1 {status}\r\nServer: portway-bench\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\
             Connection: {connection}\r\n\r\n"
        );
        head.expect("invariant: 4096 bytes hold this head");
        let here = size.min(rest.len() as u64) as usize;
        rest[..here].copy_from_slice(&page.filler[..here]);
        let room = rest.len() - here;
        let length = out.len() - room;
        self.send(&out[..length])?;
        self.body += size - here as u64;
        self.last = close;
        Ok(())
    }
}
