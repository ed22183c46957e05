//! Rules from a command line: `portway forward LISTEN BACKEND …` and the one-word form of ssh and Docker,
//! `8888:192.168.1.100:80`.
//!
//! The words become the same [`Config`] that a file gives, and diagnostics point into the words joined by
//! spaces. Deliberately absent: the options' names and help, which are the program's.

use std::net::Ipv6Addr;

use super::read::choose;
use super::rule::engine;
use super::{BackendConfig, Config, RuleConfig, SourceConfig, Text};
use crate::build::{Built, build};
use crate::diagnostic::{Diagnostic, Source};

/// The name of the source that diagnostics point into.
pub const SOURCE_NAME: &str = "<command line>";

/// Builds the rules of a command line: `pairs` are the positional words, `engine_word` and `source` the values
/// of `--engine` and `--source`, which hold for every rule.
pub fn from_command_line(pairs: &[&str], engine_word: Option<&str>, source: Option<&str>) -> (Source, Built) {
    let mut line = Line::default();
    let words: Vec<Text> = pairs.iter().map(|word| line.word(word)).collect();
    let engine_text = engine_word.map(|word| line.option("--engine", word));
    let source_text = source.map(|word| line.option("--source", word));

    let mut diagnostics = Vec::new();
    let mut rules = rules(&words, &mut diagnostics);
    let engine = engine_text.and_then(|text| {
        match choose("--engine", &["auto", "nftables", "ebpf", "proxy"], &[], &text) {
            Ok(word) => Some((engine(word), text.span)),
            Err(mistake) => {
                diagnostics.push(mistake);
                None
            }
        }
    });
    let source = source_text.map(source_config);
    for rule in &mut rules {
        rule.engine.clone_from(&engine);
        rule.source.clone_from(&source);
    }
    if words.is_empty() {
        let end = line.text.len();
        diagnostics.push(
            Diagnostic::error(end..end, "nothing to forward")
                .hint("write LISTEN BACKEND, for example 0.0.0.0:8888 192.168.1.100:80"),
        );
    }
    let mut built = build(&Config { rules, ..Config::default() }, diagnostics);
    // A wrong --source is every rule's mistake, and is told once.
    let place = |diagnostic: &Diagnostic| (diagnostic.primary.span.start, diagnostic.primary.span.end);
    built.diagnostics.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.message.cmp(&b.message)));
    built.diagnostics.dedup_by(|a, b| a.primary == b.primary && a.message == b.message);
    (Source::new(SOURCE_NAME, line.text), built)
}

/// The words, joined.
#[derive(Default)]
struct Line {
    text: String,
}

impl Line {
    fn word(&mut self, word: &str) -> Text {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        let start = self.text.len();
        self.text.push_str(word);
        Text::verbatim(word, start)
    }

    fn option(&mut self, name: &str, value: &str) -> Text {
        self.word(name);
        self.word(value)
    }
}

fn rules(words: &[Text], diagnostics: &mut Vec<Diagnostic>) -> Vec<RuleConfig> {
    let mut rules = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let (listen, forward) = match split_pair(word) {
            Form::Pair(listen, forward) => (listen, forward),
            Form::Ambiguous => {
                diagnostics.push(
                    Diagnostic::error(word.inside(), "this could be a listener and a port, or two ports")
                        .hint(format!("for a backend on this host write {}", local(word))),
                );
                continue;
            }
            Form::Unbracketed => {
                diagnostics.push(
                    Diagnostic::error(word.inside(), "an IPv6 address needs brackets")
                        .hint("for example [2001:db8::1]:8888, or in one word 8888:[fd00::1]:80"),
                );
                continue;
            }
            Form::Single => match rest.next() {
                Some(forward) => (word.clone(), forward.clone()),
                None => {
                    diagnostics.push(
                        Diagnostic::error(word.inside(), "this listener has no backend")
                            .hint(format!("write {} BACKEND, for example {0} 192.168.1.100:80", word.value)),
                    );
                    continue;
                }
            },
        };
        let span = listen.span.start..forward.span.end;
        rules.push(RuleConfig {
            span,
            listen: vec![listen],
            backends: vec![BackendConfig::from(forward)],
            ..RuleConfig::default()
        });
    }
    rules
}

/// What a positional word is.
enum Form {
    /// Listener and backend in one.
    Pair(Text, Text),
    /// Two numbers.
    Ambiguous,
    /// An IPv6 address without brackets, with or without ports around it.
    Unbracketed,
    /// A listener.
    Single,
}

/// Splits `PORT:ADDRESS[:PORT]` and `SCOPE:PORT:ADDRESS[:PORT]`, brackets respected.
fn split_pair(word: &Text) -> Form {
    let text = word.value.as_str();
    let is_ports = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let protocol = |text: &str| text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'+');
    let start = text.find('/').filter(|slash| protocol(&text[..*slash])).map_or(0, |slash| slash + 1);
    let v6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    if v6(&text[start..]) || text[start..].rsplit_once(':').is_some_and(|(host, _)| v6(host)) {
        return Form::Unbracketed;
    }
    let mut depth = 0_i32;
    let mut colons = Vec::new();
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            b':' if depth <= 0 => colons.push(at),
            _ => {}
        }
    }
    let Some(first) = colons.first() else { return Form::Single };
    let port_first = is_ports(&text[start..*first]);
    let cut = match colons.as_slice() {
        [one] if port_first && is_ports(&text[one + 1..]) => return Form::Ambiguous,
        // An IPv6 backend without brackets stays whole, to be told so.
        [one, ..] if port_first => *one,
        [one, two, ..] if is_ports(&text[one + 1..*two]) => *two,
        _ => return Form::Single,
    };
    let base = word.span.start;
    Form::Pair(Text::verbatim(&text[..cut], base), Text::verbatim(&text[cut + 1..], base + cut + 1))
}

/// `8888:80` as it would be meant for this host.
fn local(word: &Text) -> String {
    match word.value.split_once(':') {
        Some((listen, port)) => {
            format!("{listen} 127.0.0.1:{port}, or in one word {listen}:127.0.0.1:{port}")
        }
        None => word.value.clone(),
    }
}

fn source_config(text: Text) -> SourceConfig {
    if text.value.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.value.contains([',', ':', '.']) {
        return SourceConfig::Word(text);
    }
    let mut at = text.span.start;
    let pool = text.value.split(',').map(|address| {
        let part = Text::verbatim(address, at);
        at += address.len() + 1;
        part
    });
    SourceConfig::Pool(pool.collect(), text.span.clone())
}
