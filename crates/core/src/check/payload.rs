//! Bytes of the user's choice, over TCP and over UDP.
//!
//! Deliberately absent: anything that knows a protocol.

use super::input::Input;
use super::pattern::{Pattern, Search};
use super::{Protocol, Step, shown};

/// TCP: send something, expect something; both may be missing.
pub(super) struct Stream {
    send: Option<Vec<u8>>,
    expect: Option<Search>,
}

impl Stream {
    pub(super) fn new(send: Option<Vec<u8>>, expect: Option<Pattern>) -> Self {
        Self { send: send.filter(|bytes| !bytes.is_empty()), expect: expect.map(Search::new) }
    }
}

impl Protocol for Stream {
    fn most(&self) -> usize {
        Search::WINDOW
    }

    fn step(&mut self, input: &mut Input) -> Step {
        if let Some(bytes) = self.send.take() {
            return Step::Send(bytes);
        }
        let Some(search) = &mut self.expect else { return Step::Good("sent".to_owned()) };
        let answer = input.bytes();
        if search.finds(answer, input.last()) {
            return Step::Good("the expected answer".to_owned());
        }
        if answer.is_empty() || !input.last() {
            return Step::Wait;
        }
        Step::Bad(format!("not the expected answer: \"{}\"", shown(answer)))
    }
}

/// UDP: one datagram out, and the answer judged by the first that comes back.
pub(super) struct Datagram {
    send: Option<Vec<u8>>,
    expect: Option<Pattern>,
}

impl Datagram {
    pub(super) fn new(send: Vec<u8>, expect: Option<Pattern>) -> Self {
        Self { send: Some(send), expect }
    }
}

impl Protocol for Datagram {
    fn most(&self) -> usize {
        Search::WINDOW
    }

    fn step(&mut self, input: &mut Input) -> Step {
        if let Some(bytes) = self.send.take() {
            return Step::Send(bytes);
        }
        if !input.came() {
            return Step::Wait;
        }
        let answer = input.bytes();
        match &self.expect {
            Some(pattern) if !pattern.is_in(answer) => {
                Step::Bad(format!("not the expected answer: \"{}\"", shown(answer)))
            }
            Some(_) => Step::Good("the expected answer".to_owned()),
            None => Step::Good("answered".to_owned()),
        }
    }
}
