//! Redis (and Valkey, KeyDB): AUTH where there is a password, then PING (Redis documentation, "RESP protocol spec").
//!
//! Every error is a failure, `LOADING`, `MASTERDOWN`, `BUSY` and `MISCONF` among them, except `NOAUTH` where the file
//! has no password: a server that asks who we are answers. It says so even while it loads its data, so that state is
//! seen only with a password. Deliberately absent: everything else.

use super::input::Input;
use super::{Protocol, Step, shown};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

#[derive(Clone, Copy)]
enum State {
    Start,
    /// AUTH was sent.
    Auth,
    /// PING was sent.
    Ping,
}

/// The conversation.
pub(super) struct Redis {
    auth: Option<Vec<u8>>,
    state: State,
}

impl Redis {
    pub(super) fn new(password: Option<&str>) -> Self {
        let auth = password.map(|password| {
            format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n", password.len()).into_bytes()
        });
        Self { auth, state: State::Start }
    }

    fn ping(&mut self) -> Step {
        self.state = State::Ping;
        Step::Send(PING.to_vec())
    }
}

impl Protocol for Redis {
    fn most(&self) -> usize {
        // A line; error texts of Lua scripts are the longest.
        4 * 1024
    }

    fn step(&mut self, input: &mut Input) -> Step {
        if let State::Start = self.state {
            self.state = State::Auth;
            return match &self.auth {
                Some(auth) => Step::Send(auth.clone()),
                None => self.ping(),
            };
        }
        let Some(line) = input.line() else {
            // Anything else is another protocol, which may never send the end of a line.
            return match input.bytes().first() {
                None | Some(b'+' | b'-') => Step::Wait,
                Some(_) => Step::Bad(format!("not Redis: \"{}\"", shown(input.bytes()))),
            };
        };
        match (self.state, line.as_slice()) {
            (State::Auth, b"+OK") => self.ping(),
            // The password is one too many; whether the server works, PING says.
            (State::Auth, [b'-', text @ ..]) if no_password_set(text) => self.ping(),
            (State::Ping, b"+PONG") => Step::Good("PONG".to_owned()),
            (State::Ping, [b'-', text @ ..]) if self.auth.is_none() && text.starts_with(b"NOAUTH") => {
                Step::Good(shown(text))
            }
            (_, [b'-', text @ ..]) => Step::Bad(shown(text)),
            (_, line) => Step::Bad(format!("not Redis: \"{}\"", shown(line))),
        }
    }
}

/// What Redis says to a password where it has none, before version 6 and since.
fn no_password_set(text: &[u8]) -> bool {
    text.starts_with(b"ERR Client sent AUTH, but no password is set")
        || text.starts_with(b"ERR AUTH <password> called without any password configured")
}
