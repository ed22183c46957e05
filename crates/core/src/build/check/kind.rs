//! What a check asks, by its type.
//!
//! What goes into a protocol's line or header is held to the bytes that the protocol has for it, so that a file cannot
//! make a check say something else than it reads. Deliberately absent: the protocols themselves ([`crate::check`]).

use std::path::PathBuf;

use super::bytes;
use crate::config::{CheckConfig, Text};
use crate::diagnostic::{Diagnostic, quote};
use crate::ruleset::{CheckKind, HostName, Tls};

/// The most words of a command.
const MOST_WORDS: usize = 64;

/// Builds what is asked; `None` when its type is not known or something that it needs is missing, which is noted.
pub fn build(config: &CheckConfig, diagnostics: &mut Vec<Diagnostic>) -> Option<CheckKind> {
    let mut reader = Reader { diagnostics };
    let kind = match config.kind? {
        "tcp" => CheckKind::Tcp {
            send: bytes::send(config, reader.diagnostics),
            expect: bytes::expect(config, reader.diagnostics),
        },
        "http" => reader.http(config, None),
        "https" => {
            let tls = reader.tls(config);
            reader.http(config, Some(tls))
        }
        "tls" => CheckKind::Tls(reader.tls(config)),
        "postgresql" => CheckKind::Postgresql {
            user: reader.word(&config.user, "user", 63, any).unwrap_or_else(|| "portway".to_owned()),
            database: reader.word(&config.database, "database", 63, any),
        },
        "mysql" => CheckKind::Mysql { user: reader.word(&config.user, "user", 80, any) },
        "redis" => CheckKind::Redis { password: reader.word(&config.password, "password", 512, any) },
        "smtp" => CheckKind::Smtp {
            hello: reader.word(&config.hello, "hello", 255, visible).unwrap_or_else(|| "portway".to_owned()),
        },
        "dns" => CheckKind::Dns { name: reader.query(&config.query) },
        "udp" => {
            if config.send.is_none() && config.send_hex.is_none() {
                reader.missing(config, "send", "send = \"ping\"");
            }
            CheckKind::Udp {
                send: bytes::send(config, reader.diagnostics).unwrap_or_default(),
                expect: bytes::expect(config, reader.diagnostics),
            }
        }
        _ => CheckKind::Command { words: reader.command(config) },
    };
    Some(kind)
}

/// Any character but those that end a text in the protocols that have it.
fn any(byte: u8) -> bool {
    !byte.is_ascii_control()
}

/// Printable ASCII without white space.
fn visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

/// RFC 9110 5.6.2.
fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What stands in a Host header (RFC 9110 7.2), without user information.
fn authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte)
}

struct Reader<'d> {
    diagnostics: &'d mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn missing(&mut self, config: &CheckConfig, key: &str, example: &str) {
        let word = config.kind.unwrap_or_default();
        let mistake = Diagnostic::error(config.span.clone(), format!("a {word} check needs `{key}`"));
        self.diagnostics
            .push(mistake.hint(format!("for example check = {{ type = \"{word}\", {example} }}")));
    }

    /// A text of 1 to `most` bytes that are all `allowed`; `None` as well when a mistake was noted.
    fn word(
        &mut self,
        text: &Option<Text>,
        key: &str,
        most: usize,
        allowed: fn(u8) -> bool,
    ) -> Option<String> {
        let text = text.as_ref()?;
        let message = if text.value.is_empty() {
            format!("`{key}` is empty")
        } else if text.value.len() > most {
            format!("`{key}` has {} bytes, and {most} is the most", text.value.len())
        } else if let Some((at, letter)) = text.value.char_indices().find(|(_, letter)| {
            let mut buffer = [0; 4];
            !letter.encode_utf8(&mut buffer).bytes().all(allowed)
        }) {
            let place = text.at(&(at..at + letter.len_utf8()));
            let message = format!("`{key}` cannot hold {}", quote(&letter.to_string()));
            self.diagnostics.push(Diagnostic::error(place, message));
            return None;
        } else {
            return Some(text.value.clone());
        };
        self.diagnostics.push(Diagnostic::error(text.inside(), message));
        None
    }

    fn http(&mut self, config: &CheckConfig, tls: Option<Tls>) -> CheckKind {
        let method = self.word(&config.method, "method", 32, token);
        if let (Some(method), Some(text)) = (&method, &config.method)
            && method.bytes().any(|b| b.is_ascii_lowercase())
        {
            self.diagnostics.push(
                Diagnostic::error(text.inside(), "a method is written in capital letters")
                    .hint(format!("write {}", method.to_ascii_uppercase())),
            );
        }
        let path = self.word(&config.path, "path", bytes::MOST, visible);
        if let (Some(path), Some(text)) = (&path, &config.path)
            && !path.starts_with('/')
        {
            let hint = match path.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
                Some((host, path)) => format!("write path = \"/{path}\" and host = \"{host}\""),
                None => format!("write /{path}"),
            };
            self.diagnostics
                .push(Diagnostic::error(text.inside(), "`path` does not begin with `/`").hint(hint));
        }
        CheckKind::Http {
            tls,
            method: method.unwrap_or_else(|| "GET".to_owned()),
            path: path.unwrap_or_else(|| "/".to_owned()),
            host: self.word(&config.host, "host", 261, authority),
            status: self.status(&config.status),
            body: bytes::expect(config, self.diagnostics),
        }
    }

    /// Codes and ranges of codes, separated by commas.
    fn status(&mut self, text: &Option<Text>) -> Vec<(u16, u16)> {
        const DEFAULT: (u16, u16) = (200, 399);
        let Some(text) = text else { return vec![DEFAULT] };
        let mut ranges = Vec::new();
        let mut at = 0;
        for part in text.value.split(',') {
            let (start, word) = (at + part.len() - part.trim_start().len(), part.trim());
            at += part.len() + 1;
            let code = |word: &str| {
                let code = word.trim().parse::<u16>().ok()?;
                (100..=599).contains(&code).then_some(code)
            };
            let range = match word.split_once('-') {
                Some((first, last)) => code(first).zip(code(last)).filter(|(first, last)| first <= last),
                None => code(word).map(|code| (code, code)),
            };
            match range {
                Some(range) => ranges.push(range),
                None => self.diagnostics.push(
                    Diagnostic::error(
                        text.at(&(start..start + word.len())),
                        format!("{} is neither a status code nor a range of them", quote(word)),
                    )
                    .hint("codes are 100 to 599: status = \"200-299, 301\""),
                ),
            }
        }
        ranges
    }

    fn tls(&mut self, config: &CheckConfig) -> Tls {
        Tls {
            server_name: self.host_name(&config.server_name, "server-name"),
            ca: self.word(&config.ca, "ca", 4095, |byte| byte != 0).and_then(|path| {
                let text = config.ca.as_ref()?;
                self.whole_path(text, "ca", &path).then(|| PathBuf::from(path))
            }),
        }
    }

    /// A path that does not depend on where the daemon was started.
    fn whole_path(&mut self, text: &Text, key: &str, path: &str) -> bool {
        if path.starts_with('/') {
            return true;
        }
        self.diagnostics.push(
            Diagnostic::error(text.inside(), format!("{} is not a whole path", quote(path))).hint(format!(
                "`{key}` begins with /, so that it does not depend on where Portway was started"
            )),
        );
        false
    }

    fn host_name(&mut self, text: &Option<Text>, key: &str) -> Option<HostName> {
        let text = text.as_ref()?;
        let name = HostName::new(&text.value);
        if name.is_none() {
            self.diagnostics.push(
                Diagnostic::error(text.inside(), format!("{} is not a host name", quote(&text.value)))
                    .hint(format!("for example {key} = \"www.example.com\"")),
            );
        }
        name
    }

    /// The name to ask for; the root has none.
    fn query(&mut self, text: &Option<Text>) -> Option<HostName> {
        match text {
            Some(root) if root.value == "." => None,
            text => self.host_name(text, "query"),
        }
    }

    fn command(&mut self, config: &CheckConfig) -> Vec<String> {
        let Some(program) = config.command.first() else {
            self.missing(config, "command", "command = [\"/usr/local/bin/check-app\"]");
            return Vec::new();
        };
        if let Some(beyond) = config.command.get(MOST_WORDS) {
            self.diagnostics.push(Diagnostic::error(
                beyond.inside(),
                format!(
                    "a command has at most {MOST_WORDS} words, and this one has {}",
                    config.command.len()
                ),
            ));
        }
        if config.command.len() == 1 && program.value.contains(' ') {
            let words: Vec<&str> = program.value.split_whitespace().collect();
            self.diagnostics.push(
                Diagnostic::error(program.inside(), "no shell splits this into words")
                    .hint(format!("write a list: command = [\"{}\"]", words.join("\", \""))),
            );
        } else {
            self.whole_path(program, "command", &program.value);
        }
        for text in config.command.iter().take(MOST_WORDS).filter(|text| text.value.contains('\0')) {
            self.diagnostics
                .push(Diagnostic::error(text.inside(), "a word of a command cannot hold a zero byte"));
        }
        config.command.iter().map(|text| text.value.clone()).collect()
    }
}
