//! HTTP/1.1 (RFC 9110, RFC 9112): one request, the response's status, and its body where one is expected.
//!
//! The head is read by the `httparse` crate, the body is ours because it must be looked at as it comes. Deliberately
//! absent: redirections (a 301 is an answer to judge), content codings (none is asked for) and connections that are
//! used again.

use super::input::{End, Input};
use super::pattern::{Pattern, Search};
use super::{Protocol, Step, shown};
use crate::facts::Probe;

/// The most header lines of a response.
const HEADERS: usize = 128;
/// The longest line that gives the size of a chunk, extensions included, in bytes.
const CHUNK_LINE: usize = 256;
/// The most interim responses (RFC 9110 15.2) before the final one.
const INTERIM: u8 = 8;

/// The Host header: what the file says, else the backend's name, else its address; with the port where it is not the
/// scheme's.
pub(super) fn authority(host: Option<&str>, probe: &Probe, tls: bool) -> String {
    if let Some(host) = host {
        return host.to_owned();
    }
    let port = probe.address.port();
    let usual = if tls { 443 } else { 80 };
    match (&probe.host, port == usual) {
        (Some(name), true) => name.to_string(),
        (Some(name), false) => format!("{name}:{port}"),
        (None, false) => probe.address.to_string(),
        (None, true) if probe.address.is_ipv6() => format!("[{}]", probe.address.ip()),
        (None, true) => probe.address.ip().to_string(),
    }
}

/// How the end of the body is found (RFC 9112 6.3).
enum Framing {
    /// There is none.
    Empty,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// It ends with the connection.
    Close,
}

/// Where in the chunked coding (RFC 9112 7.1) we are.
enum Chunk {
    /// Before the line that gives the size.
    Size,
    /// In a chunk, so many bytes before its end.
    Data(u64),
    /// Before the line end behind a chunk.
    LineEnd,
    /// Behind the last chunk; the trailer says nothing about the body.
    Done,
}

/// Where in the response we are.
enum State {
    Head,
    Body(Framing),
}

/// The conversation.
pub(super) struct Http {
    request: Option<Vec<u8>>,
    head_only: bool,
    status: Vec<(u16, u16)>,
    code: u16,
    search: Option<Search>,
    state: State,
    interim: u8,
    /// Where the search for the end of the head goes on.
    looked: usize,
    body: Vec<u8>,
}

impl Http {
    /// A request, the status codes that are good, and what the body must hold.
    pub(super) fn new(
        method: &str,
        path: &str,
        authority: &str,
        status: Vec<(u16, u16)>,
        body: Option<Pattern>,
    ) -> Self {
        // Connection: close, so that a body without a length is possible and the server keeps nothing.
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: portway\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n"
        );
        Self {
            request: Some(request.into_bytes()),
            head_only: method == "HEAD",
            status,
            code: 0,
            search: body.map(Search::new),
            state: State::Head,
            interim: 0,
            looked: 0,
            body: Vec::new(),
        }
    }

    /// Reads the head once it is there; `None` to go on, with the body or with the next response.
    fn head(&mut self, input: &mut Input) -> Option<Step> {
        let Some(length) = self.head_length(input.bytes()) else { return Some(Step::Wait) };
        self.looked = 0;
        let head = input.take(length);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let code = match response.parse(&head) {
            Ok(httparse::Status::Complete(_)) => response.code?,
            Ok(httparse::Status::Partial) => return bad(format!("not HTTP: \"{}\"", shown(&head))),
            Err(error) => return bad(format!("not HTTP ({error}): \"{}\"", shown(&head))),
        };
        if (100..200).contains(&code) && code != 101 {
            self.interim += 1;
            let too_many = self.interim > INTERIM;
            return too_many.then(|| Step::Bad(format!("more than {INTERIM} interim responses")));
        }
        if !self.status.iter().any(|(first, last)| (*first..=*last).contains(&code)) {
            return bad(format!("HTTP {code}, expected {}", ranges(&self.status)));
        }
        if self.search.is_none() {
            return Some(Step::Good(format!("HTTP {code}")));
        }
        self.code = code;
        match self.framing(code, response.headers) {
            Ok(framing) => self.state = State::Body(framing),
            Err(reason) => return bad(reason),
        }
        None
    }

    /// The length of the head, its empty line included, once that has come. Lines may end with LF alone (RFC 9112
    /// 2.2).
    fn head_length(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate().skip(self.looked) {
            let line = &bytes[..at];
            if *byte == b'\n' && (line.ends_with(b"\n") || line.ends_with(b"\n\r")) {
                return Some(at + 1);
            }
        }
        self.looked = bytes.len();
        None
    }

    fn good(&self) -> Step {
        Step::Good(format!("HTTP {}, the expected body", self.code))
    }

    fn framing(&self, code: u16, headers: &[httparse::Header<'_>]) -> Result<Framing, String> {
        if self.head_only || matches!(code, 101 | 204 | 304) {
            return Ok(Framing::Empty);
        }
        let named = |name: &'static str| {
            headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|h| h.value)
        };
        if let Some(coding) = named("transfer-encoding").next_back() {
            let coding = coding.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            return Ok(if chunked { Framing::Chunked(Chunk::Size) } else { Framing::Close });
        }
        let mut lengths = named("content-length");
        let Some(first) = lengths.next() else { return Ok(Framing::Close) };
        let wrong = || format!("a wrong content-length: \"{}\"", shown(first));
        if lengths.any(|other| other != first) {
            return Err("two different content-lengths".to_owned());
        }
        if first.is_empty() || !first.iter().all(u8::is_ascii_digit) {
            return Err(wrong());
        }
        let length = std::str::from_utf8(first).ok().and_then(|digits| digits.parse().ok());
        length.map(Framing::Length).ok_or_else(wrong)
    }

    /// Moves what has come of the body from `input`; whether the body is whole.
    fn body(&mut self, input: &mut Input) -> Result<bool, String> {
        let State::Body(framing) = &mut self.state else { return Ok(false) };
        match framing {
            Framing::Empty => Ok(true),
            Framing::Close => {
                self.body.extend(input.take(usize::MAX));
                Ok(input.ended() == Some(End::Closed))
            }
            Framing::Length(left) => {
                move_data(input, left, &mut self.body);
                Ok(*left == 0)
            }
            Framing::Chunked(chunk) => unchunk(input, chunk, &mut self.body),
        }
    }
}

impl Protocol for Http {
    fn most(&self) -> usize {
        // The head: nginx and Apache send and take 8 KiB, proxies up to 64.
        32 * 1024
    }

    fn step(&mut self, input: &mut Input) -> Step {
        if let Some(request) = self.request.take() {
            return Step::Send(request);
        }
        while matches!(self.state, State::Head) {
            if let Some(step) = self.head(input) {
                return step;
            }
        }
        let whole = match self.body(input) {
            Ok(whole) => whole,
            Err(reason) => return Step::Bad(reason),
        };
        let Some(search) = &mut self.search else { return self.good() };
        if search.finds(&self.body, whole || input.last()) {
            return self.good();
        }
        if whole || self.body.len() >= Search::WINDOW {
            return Step::Bad(format!("not the expected body: \"{}\"", shown(&self.body)));
        }
        Step::Wait
    }
}

/// Moves as much of the `left` bytes as has come.
fn move_data(input: &mut Input, left: &mut u64, body: &mut Vec<u8>) {
    let count = usize::try_from(*left).unwrap_or(usize::MAX);
    let data = input.take(count);
    *left -= data.len() as u64;
    body.extend(data);
}

/// Moves the data of the chunks that have come; whether the last one has.
fn unchunk(input: &mut Input, chunk: &mut Chunk, body: &mut Vec<u8>) -> Result<bool, String> {
    loop {
        match chunk {
            Chunk::Done => return Ok(true),
            Chunk::Data(0) => *chunk = Chunk::LineEnd,
            Chunk::Data(left) => {
                if input.bytes().is_empty() {
                    return Ok(false);
                }
                move_data(input, left, body);
            }
            Chunk::LineEnd => match input.line() {
                Some(line) if line.is_empty() => *chunk = Chunk::Size,
                None if b"\r".starts_with(input.bytes()) => return Ok(false),
                _ => return Err("a chunk longer than its size".to_owned()),
            },
            Chunk::Size => match httparse::parse_chunk_size(input.bytes()) {
                Ok(httparse::Status::Complete((length, size))) => {
                    input.take(length);
                    *chunk = if size == 0 { Chunk::Done } else { Chunk::Data(size) };
                }
                Ok(httparse::Status::Partial) if input.bytes().len() <= CHUNK_LINE => return Ok(false),
                _ => return Err(format!("a wrong chunk size: \"{}\"", shown(input.bytes()))),
            },
        }
    }
}

fn bad(reason: String) -> Option<Step> {
    Some(Step::Bad(reason))
}

/// The codes as the file writes them.
fn ranges(status: &[(u16, u16)]) -> String {
    let one = |(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    status.iter().map(one).collect::<Vec<_>>().join(", ")
}
