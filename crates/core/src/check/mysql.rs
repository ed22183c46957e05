//! The handshake of MySQL and MariaDB, protocol 10 (MySQL Internals, "Connection Phase"; MariaDB Knowledge Base,
//! "Connection").
//!
//! Always to its end. A server counts connections that end after its greeting, and blocks a host after
//! `max_connect_errors` (100) of them in a row, clients included that come through the same host; an answer of
//! "access denied" is not counted (seen with MariaDB 10.11). So without a user the log-in is made as `portway`, and
//! whatever the server says of that user is good. With a user the log-in, without a password, must succeed.
//! Deliberately absent: passwords, TLS, queries.

use super::input::Input;
use super::{Protocol, Step, shown};

/// The longest packet, in bytes.
const PACKET: usize = 4 * 1024;
/// The most packets after the greeting.
const PACKETS: u8 = 8;
/// COM_QUIT.
const QUIT: &[u8] = b"\x01\0\0\0\x01";

const LONG_PASSWORD: u32 = 1;
const PROTOCOL_41: u32 = 1 << 9;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
/// utf8mb4_general_ci.
const CHARSET: u8 = 45;

/// What a server says when it does not know us, or not without a password or TLS: ER_DBACCESS_DENIED, ER_ACCESS_DENIED,
/// ER_NOT_SUPPORTED_AUTH_MODE, ER_ACCESS_DENIED_NO_PASSWORD, ER_SECURE_TRANSPORT_REQUIRED, ER_ACCOUNT_HAS_BEEN_LOCKED.
const DENIED: [u16; 6] = [1044, 1045, 1251, 1698, 3118, 3159];

/// The conversation.
pub(super) struct Mysql {
    user: Option<String>,
    greeted: bool,
    packets: u8,
    inside: bool,
}

impl Mysql {
    pub(super) fn new(user: Option<String>) -> Self {
        Self { user, greeted: false, packets: 0, inside: false }
    }

    /// The answer to the greeting: HandshakeResponse41, without a password.
    fn greet(&mut self, number: u8, greeting: &[u8]) -> Step {
        let Some((capabilities, plugin)) = capabilities(greeting) else {
            return Step::Bad(format!("not MySQL's protocol 10: \"{}\"", shown(greeting)));
        };
        if capabilities & PROTOCOL_41 == 0 {
            return Step::Bad("a server before MySQL 4.1".to_owned());
        }
        let user = self.user.as_deref().unwrap_or("portway");
        let wanted = LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;
        let mut body = (capabilities & wanted | PROTOCOL_41).to_le_bytes().to_vec();
        body.extend((1_u32 << 24).to_le_bytes());
        body.push(CHARSET);
        body.extend([0; 23]);
        body.extend(user.bytes().filter(|byte| *byte != 0));
        // The name's end, and a password of no bytes.
        body.extend([0, 0]);
        if capabilities & PLUGIN_AUTH != 0 {
            body.extend(plugin);
            body.push(0);
        }
        self.greeted = true;
        Step::Send(packet(number.wrapping_add(1), &body))
    }

    /// What follows from a packet after our answer; `None` to read on.
    fn logged_in(&mut self, number: u8, body: &[u8]) -> Option<Step> {
        self.packets += 1;
        let anybody = self.user.is_none();
        let refused = |words: String| if anybody { Step::Good(words) } else { Step::Bad(words) };
        match body {
            [0, ..] => {
                self.inside = true;
                Some(Step::Good("logged in".to_owned()))
            }
            [0xff, ..] => Some(match error(body) {
                (Some(code), words) if DENIED.contains(&code) => refused(words),
                (_, words) => Step::Bad(words),
            }),
            _ if self.packets > PACKETS => Some(Step::Bad("no end of packets".to_owned())),
            // Old servers ask for the password in a way that is no more.
            [0xfe] => Some(refused("asks for an old password".to_owned())),
            // Another method: no password there either.
            [0xfe, ..] => Some(Step::Send(packet(number.wrapping_add(1), &[]))),
            // caching_sha2_password: 3 is "known already", the verdict follows; 4 asks for the whole password.
            [1, 3] => None,
            [1, ..] => Some(refused("asks for a password".to_owned())),
            _ => Some(Step::Bad(format!("not MySQL's answer to a log-in: \"{}\"", shown(body)))),
        }
    }
}

impl Protocol for Mysql {
    fn most(&self) -> usize {
        PACKET + 4
    }

    fn step(&mut self, input: &mut Input) -> Step {
        loop {
            let Some([low, middle, high, number]) = input.bytes().first_chunk::<4>().copied() else {
                return Step::Wait;
            };
            let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
            if !(1..=PACKET).contains(&length) {
                return Step::Bad(format!("not MySQL: \"{}\"", shown(input.bytes())));
            }
            if input.bytes().len() < length + 4 {
                return Step::Wait;
            }
            let packet = input.take(length + 4);
            let body = &packet[4..];
            match body {
                [0xff, ..] if !self.greeted => return Step::Bad(error(body).1),
                _ if !self.greeted => return self.greet(number, body),
                _ => {}
            }
            if let Some(step) = self.logged_in(number, body) {
                return step;
            }
        }
    }

    fn farewell(&self) -> &'static [u8] {
        if self.inside { QUIT } else { &[] }
    }
}

fn packet(number: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("invariant: the file's names are short").to_le_bytes();
    [&length[..3], &[number], body].concat()
}

/// The capabilities of a greeting (HandshakeV10) and the method that it names.
fn capabilities(greeting: &[u8]) -> Option<(u32, &[u8])> {
    let [10, rest @ ..] = greeting else { return None };
    let version = rest.iter().position(|byte| *byte == 0)?;
    // Thread id, first part of the challenge, a zero.
    let rest = rest.get(version + 1 + 4 + 8 + 1..)?;
    let (low, rest) = rest.split_first_chunk::<2>()?;
    let low = u32::from(u16::from_le_bytes(*low));
    // Character set, status, the upper half, the length of the challenge, reserved.
    let Some(([_, _, _, high @ .., length], rest)) = rest.split_first_chunk::<6>() else {
        return Some((low, b""));
    };
    let all = low | u32::from(u16::from_le_bytes(*high)) << 16;
    let second = usize::from(length.saturating_sub(8)).max(13);
    let plugin = rest.get(10 + second..).unwrap_or_default();
    let end = plugin.iter().position(|byte| *byte == 0).unwrap_or(plugin.len());
    Some((all, &plugin[..end.min(64)]))
}

/// The code of an ERR packet, and all of it in words.
fn error(body: &[u8]) -> (Option<u16>, String) {
    let Some((code, text)) = body.get(1..).and_then(|rest| rest.split_first_chunk::<2>()) else {
        return (None, "an error without a code".to_owned());
    };
    let code = u16::from_le_bytes(*code);
    // The SQLSTATE is there once both sides know that they speak 4.1.
    let text = if text.starts_with(b"#") { text.get(6..).unwrap_or_default() } else { text };
    (Some(code), format!("error {code}: {}", shown(text)))
}
