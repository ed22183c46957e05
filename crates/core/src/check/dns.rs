//! A DNS query over UDP (RFC 1035): answered without an error.
//!
//! Asked are the A records of a name, or without one the name servers of the root, which every recursive resolver
//! knows; a server that knows its own zones only refuses that (REFUSED), and wants a name of one of them. A datagram
//! that does not belong to the query is not an answer and changes nothing, so that nobody off the path can take a
//! backend down. Deliberately absent: what the answer's records say, and TCP: a truncated answer is an answer.

use super::input::Input;
use super::{Protocol, Step};
use crate::ruleset::HostName;

const A: u16 = 1;
const NS: u16 = 2;
const IN: u16 = 1;
/// QR in the first byte of the flags.
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const RECURSION_DESIRED: u8 = 0x01;

/// The conversation.
pub(super) struct Dns {
    query: Vec<u8>,
    sent: bool,
}

impl Dns {
    pub(super) fn new(name: Option<&HostName>, random: u64) -> Self {
        let [first, second, ..] = random.to_le_bytes();
        // One question, no records.
        let mut query = vec![first, second, RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.into_iter().flat_map(|name| name.as_str().split('.')) {
            query.push(u8::try_from(label.len()).expect("invariant: a label has at most 63 bytes"));
            query.extend(label.as_bytes());
        }
        query.push(0);
        let kind = if name.is_some() { A } else { NS };
        query.extend([kind.to_be_bytes(), IN.to_be_bytes()].concat());
        Self { query, sent: false }
    }

    /// The code of an answer to this query (RFC 1035 4.1.1).
    fn code(&self, answer: &[u8]) -> Option<u8> {
        let (head, question) = self.query.split_first_chunk::<12>()?;
        let (theirs, rest) = answer.split_first_chunk::<12>()?;
        let ours = theirs[..2] == head[..2]
            && theirs[2] & RESPONSE != 0
            && theirs[2] & OPCODE == 0
            && theirs[4..6] == head[4..6]
            && rest.get(..question.len()).is_some_and(|echo| echo.eq_ignore_ascii_case(question));
        ours.then_some(theirs[3] & 0x0f)
    }
}

impl Protocol for Dns {
    fn step(&mut self, input: &mut Input) -> Step {
        if !self.sent {
            self.sent = true;
            return Step::Send(self.query.clone());
        }
        let answer = input.take(usize::MAX);
        match self.code(&answer) {
            None => Step::Wait,
            Some(0) => Step::Good("answered NOERROR".to_owned()),
            Some(code) => Step::Bad(format!("answered {}", name(code))),
        }
    }
}

/// The name of a response code (RFC 1035 4.1.1, RFC 2136 2.2).
fn name(code: u8) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        code => format!("code {code}"),
    }
}
