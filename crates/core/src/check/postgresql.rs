//! PostgreSQL's start-up, protocol 3.0 (PostgreSQL documentation, chapters "Message Flow" and "Message Formats").
//!
//! The server is well when it has let us in and is ready for a query, and also when it asks who we are: a password, or
//! "no such role", "no such database", "not from this address" (SQLSTATE classes 28 and 3D) are what a server says
//! that works. Every other error is a failure, above all 57P03 (starting up, shutting down, in recovery), 57P01 and
//! 57P02 (going down) and class 53 (53300, too many connections): clients would get the same. Deliberately absent:
//! TLS before the start-up, passwords, and queries.

use super::input::Input;
use super::{Protocol, Step, shown};

/// The longest message, in bytes; what a server says at the start is short.
const MESSAGE: usize = 8 * 1024;
/// The most messages before the verdict: a server reports a dozen parameters.
const MESSAGES: u16 = 256;
/// `Terminate`.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// The conversation.
pub(super) struct Postgresql {
    start: Option<Vec<u8>>,
    /// We were let in, and have to take our leave.
    inside: bool,
    messages: u16,
}

impl Postgresql {
    pub(super) fn new(user: &str, database: Option<&str>) -> Self {
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        let pairs = [("user", Some(user)), ("database", database), ("application_name", Some("portway"))];
        for (key, value) in pairs {
            let Some(value) = value else { continue };
            for word in [key, value] {
                body.extend(word.bytes().filter(|byte| *byte != 0));
                body.push(0);
            }
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).expect("invariant: the file's names are short");
        let start = [&length.to_be_bytes()[..], &body].concat();
        Self { start: Some(start), inside: false, messages: 0 }
    }
}

impl Protocol for Postgresql {
    fn most(&self) -> usize {
        MESSAGE + 1
    }

    fn step(&mut self, input: &mut Input) -> Step {
        if let Some(start) = self.start.take() {
            return Step::Send(start);
        }
        loop {
            let bytes = input.bytes();
            // A server that cannot fork says 'E' and a text without a length, as in protocol 2.
            let Some((kind, length)) = header(bytes) else { return Step::Wait };
            if !b"REKNSZv".contains(&kind) || !(4..=MESSAGE).contains(&length) {
                return Step::Bad(format!("not PostgreSQL, or too old: \"{}\"", shown(bytes)));
            }
            if bytes.len() < length + 1 {
                return Step::Wait;
            }
            let message = input.take(length + 1);
            self.messages += 1;
            if self.messages > MESSAGES {
                return Step::Bad("no end of messages".to_owned());
            }
            match (kind, &message[5..]) {
                (b'R', [0, 0, 0, 0]) => self.inside = true,
                (b'R', _) => return Step::Good("asks for a password".to_owned()),
                (b'Z', _) => return Step::Good("ready for a query".to_owned()),
                (b'E', fields) => {
                    self.inside = false;
                    return judge(fields);
                }
                _ => {}
            }
        }
    }

    fn farewell(&self) -> &'static [u8] {
        // Before we are in, the server takes it for a wrong answer to its question, and writes that to its log.
        if self.inside { TERMINATE } else { &[] }
    }
}

/// The kind of the first message, and its length without that byte.
fn header(bytes: &[u8]) -> Option<(u8, usize)> {
    let (kind, rest) = bytes.split_first()?;
    let length = rest.first_chunk::<4>()?;
    Some((*kind, usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX)))
}

/// The verdict on an ErrorResponse.
fn judge(fields: &[u8]) -> Step {
    let field = |kind: u8| {
        fields.split(|byte| *byte == 0).find_map(|field| field.split_first().filter(|(k, _)| **k == kind))
    };
    let state = field(b'C').map_or(&b""[..], |(_, value)| value);
    let message = field(b'M').map_or(&b""[..], |(_, value)| value);
    let words = format!("SQLSTATE {}: {}", shown(state), shown(message));
    if state.starts_with(b"28") || state.starts_with(b"3D") { Step::Good(words) } else { Step::Bad(words) }
}
