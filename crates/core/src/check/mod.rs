//! The bytes of each health check: what is said to a server, and what its answer means.
//!
//! One [`Conversation`] per check that is made. It is fed what came from the server, in pieces of any size, and says
//! what to do next. Every answer is bounded: a server that says more than a check looks at has not answered it.
//! Deliberately absent: sockets, TLS and clocks (the `portway-watch` crate), when a check is due and what follows from
//! its outcome ([`crate::health`]). Nothing here waits: a server that says nothing is the caller's time limit.

mod dns;
mod http;
mod input;
mod mysql;
mod pattern;
mod payload;
mod postgresql;
mod redis;
mod smtp;

use crate::facts::Probe;
use crate::ruleset::CheckKind;

pub use input::End;
use input::Input;
pub use pattern::Pattern;

/// What a conversation asks of its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these bytes (over UDP: this datagram), then ask again.
    Send(Vec<u8>),
    /// Nothing until more has come.
    Wait,
    /// The server is well; what it said, for people.
    Good(String),
    /// It is not; why, for people.
    Bad(String),
}

/// One protocol's side of a conversation.
trait Protocol {
    /// The most bytes of an answer, not yet understood, that are kept.
    fn most(&self) -> usize {
        8 * 1024
    }

    /// What to do next. Takes what it has understood from `input`. A protocol that waits although the input has
    /// ended, or is full, is told so by [`Conversation::step`].
    fn step(&mut self, input: &mut Input) -> Step;

    /// What is still said after the verdict.
    fn farewell(&self) -> &'static [u8] {
        &[]
    }
}

/// One check under way.
pub struct Conversation {
    protocol: Box<dyn Protocol + Send>,
    input: Input,
    verdict: Option<Step>,
}

impl Conversation {
    /// The conversation of a probe, or `None` where none is needed: a bare TCP connect, a TLS handshake, a command.
    ///
    /// `pattern` is [`Pattern::of`] the probe's check. `random` makes a query hard to answer for anybody who has not
    /// seen it.
    pub fn new(probe: &Probe, pattern: Option<&Pattern>, random: u64) -> Option<Self> {
        let pattern = pattern.cloned();
        let protocol: Box<dyn Protocol + Send> = match &probe.check.kind {
            CheckKind::Tcp { send: None, expect: None } | CheckKind::Tls(_) | CheckKind::Command { .. } => {
                return None;
            }
            CheckKind::Tcp { send, .. } => Box::new(payload::Stream::new(send.clone(), pattern)),
            CheckKind::Udp { send, .. } => Box::new(payload::Datagram::new(send.clone(), pattern)),
            CheckKind::Http { tls, method, path, host, status, .. } => {
                let authority = http::authority(host.as_deref(), probe, tls.is_some());
                Box::new(http::Http::new(method, path, &authority, status.clone(), pattern))
            }
            CheckKind::Postgresql { user, database } => {
                Box::new(postgresql::Postgresql::new(user, database.as_deref()))
            }
            CheckKind::Mysql { user } => Box::new(mysql::Mysql::new(user.clone())),
            CheckKind::Redis { password } => Box::new(redis::Redis::new(password.as_deref())),
            CheckKind::Smtp { hello } => Box::new(smtp::Smtp::new(hello)),
            CheckKind::Dns { name } => Box::new(dns::Dns::new(name.as_ref(), random)),
        };
        let input = Input::new(protocol.most());
        Some(Self { protocol, input, verdict: None })
    }

    /// The most bytes of one piece.
    pub const PIECE: usize = 16 * 1024;

    /// These bytes came (over UDP: this datagram came), at most [`Self::PIECE`] of them; more is cut off. Between two
    /// pieces [`Self::step`] is asked until it waits.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.feed(bytes);
    }

    /// No more will come: what has come must do.
    pub fn end(&mut self, end: End) {
        self.input.end(end);
    }

    /// What to do next. A verdict stays what it is.
    pub fn step(&mut self) -> Step {
        if let Some(verdict) = &self.verdict {
            return verdict.clone();
        }
        let step = match self.protocol.step(&mut self.input) {
            Step::Wait if self.input.full() => {
                Step::Bad(format!("an answer of more than {} bytes", self.protocol.most()))
            }
            Step::Wait => match (self.input.ended(), self.input.came()) {
                (None, _) => Step::Wait,
                (Some(End::Closed), false) => Step::Bad("closed without an answer".to_owned()),
                (Some(End::Closed), true) => Step::Bad("closed in the middle of an answer".to_owned()),
                (Some(End::TimeUp), false) => Step::Bad("no answer in time".to_owned()),
                (Some(End::TimeUp), true) => Step::Bad("no whole answer in time".to_owned()),
            },
            step => step,
        };
        if matches!(step, Step::Good(_) | Step::Bad(_)) {
            self.verdict = Some(step.clone());
        }
        step
    }

    /// What may still be said after the verdict, so that the server does not take the end of the check for a fault.
    pub fn farewell(&self) -> &'static [u8] {
        match self.verdict {
            Some(Step::Good(_)) => self.protocol.farewell(),
            _ => &[],
        }
    }
}

/// What a server said, as it can be shown to a person: its first line, printable and not long.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 80;
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let (line, more) = if end > MOST { (&bytes[..MOST], "...") } else { (&bytes[..end], "") };
    let mut text = String::new();
    for char in String::from_utf8_lossy(line).chars() {
        match char {
            ' '..='~' => text.push(char),
            _ => text.extend(char.escape_default()),
        }
    }
    text + more
}
