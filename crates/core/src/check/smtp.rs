//! SMTP (RFC 5321): greeting, EHLO, QUIT.
//!
//! Good is a greeting of 220 and an answer of 250 to EHLO; 421 and 554 are what a server says that takes no mail.
//! QUIT is sent, its answer not waited for. Deliberately absent: STARTTLS, log-ins, HELO (every server must know EHLO,
//! RFC 5321 4.1.1.1) and mail.

use super::input::Input;
use super::{Protocol, Step, shown};

/// The most lines of one reply.
const LINES: u16 = 128;

enum State {
    Greeting,
    Hello,
}

/// The conversation.
pub(super) struct Smtp {
    hello: Vec<u8>,
    state: State,
    lines: u16,
}

impl Smtp {
    pub(super) fn new(hello: &str) -> Self {
        // A line end would begin another command.
        let name: String = hello.chars().filter(char::is_ascii_graphic).collect();
        Self { hello: format!("EHLO {name}\r\n").into_bytes(), state: State::Greeting, lines: 0 }
    }

    /// What a whole reply means: it is the last line that counts (RFC 5321 4.2.1).
    fn reply(&mut self, code: &[u8], line: &[u8]) -> Step {
        self.lines = 0;
        match (&self.state, code) {
            (State::Greeting, b"220") => {
                self.state = State::Hello;
                Step::Send(self.hello.clone())
            }
            (State::Hello, b"250") => Step::Good("answered EHLO".to_owned()),
            (State::Greeting, _) => Step::Bad(format!("greeting \"{}\"", shown(line))),
            (State::Hello, _) => Step::Bad(format!("answer to EHLO \"{}\"", shown(line))),
        }
    }
}

impl Protocol for Smtp {
    fn most(&self) -> usize {
        // A reply line has at most 512 bytes (RFC 5321 4.5.3.1.5).
        4 * 1024
    }

    fn step(&mut self, input: &mut Input) -> Step {
        loop {
            let Some(line) = input.line() else {
                let first = input.bytes().first();
                if first.is_some_and(|byte| !byte.is_ascii_digit()) {
                    return Step::Bad(format!("not SMTP: \"{}\"", shown(input.bytes())));
                }
                return Step::Wait;
            };
            self.lines += 1;
            let digits = line.first_chunk::<3>().filter(|code| code.iter().all(u8::is_ascii_digit));
            match (digits, line.get(3)) {
                (Some(code), None | Some(b' ')) => return self.reply(code, &line),
                (Some(_), Some(b'-')) if self.lines < LINES => {}
                _ => return Step::Bad(format!("not SMTP: \"{}\"", shown(&line))),
            }
        }
    }

    fn farewell(&self) -> &'static [u8] {
        b"QUIT\r\n"
    }
}
