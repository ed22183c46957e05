//! What a check sends and what its answer must hold: text, hexadecimal, regular expressions.
//!
//! Deliberately absent: how an answer is searched, which is the check's business when it runs.

use crate::check::Pattern;
use crate::config::{CheckConfig, Text};
use crate::diagnostic::{Diagnostic, quote};
use crate::ruleset::Expect;

/// The most bytes to send, to expect, and of a regular expression.
pub const MOST: usize = 1024;

/// `send` or `send-hex`.
pub fn send(config: &CheckConfig, diagnostics: &mut Vec<Diagnostic>) -> Option<Vec<u8>> {
    refuse_both("send", &[&config.send, &config.send_hex], diagnostics);
    let text = config.send.as_ref().and_then(|text| literal(text, "send", diagnostics));
    text.or_else(|| config.send_hex.as_ref().and_then(|text| hex(text, "send-hex", diagnostics)))
}

/// `expect`, `expect-hex` or `expect-regex`.
pub fn expect(config: &CheckConfig, diagnostics: &mut Vec<Diagnostic>) -> Option<Expect> {
    refuse_both("expect", &[&config.expect, &config.expect_hex, &config.expect_regex], diagnostics);
    let text = config.expect.as_ref().and_then(|text| literal(text, "expect", diagnostics));
    let bytes =
        text.or_else(|| config.expect_hex.as_ref().and_then(|text| hex(text, "expect-hex", diagnostics)));
    let regex = config.expect_regex.as_ref().and_then(|text| regex(text, diagnostics));
    bytes.map(Expect::Bytes).or(regex)
}

/// One spelling of a thing, not several.
fn refuse_both(name: &str, spellings: &[&Option<Text>], diagnostics: &mut Vec<Diagnostic>) {
    let mut written: Vec<&Text> = spellings.iter().copied().flatten().collect();
    written.sort_by_key(|text| text.span.start);
    if let [first, second, ..] = written.as_slice() {
        diagnostics.push(
            Diagnostic::error(second.inside(), format!("this check has `{name}` twice"))
                .also(first.inside(), "in another form here")
                .hint("keep one of the forms"),
        );
    }
}

fn literal(text: &Text, name: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Vec<u8>> {
    within(text, name, text.value.len(), diagnostics)?;
    Some(text.value.clone().into_bytes())
}

/// Pairs of hexadecimal digits, with white space anywhere between them.
fn hex(text: &Text, name: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Vec<u8>> {
    let mut digits = Vec::new();
    for (at, letter) in text.value.char_indices().filter(|(_, letter)| !letter.is_whitespace()) {
        let Some(digit) = letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok()) else {
            let place = text.at(&(at..at + letter.len_utf8()));
            diagnostics.push(
                Diagnostic::error(
                    place,
                    format!("{} is not a hexadecimal digit", quote(&letter.to_string())),
                )
                .hint(format!("two digits for each byte: {name} = \"00 0a ff\"")),
            );
            return None;
        };
        digits.push(digit);
    }
    if !digits.len().is_multiple_of(2) {
        diagnostics.push(
            Diagnostic::error(
                text.inside(),
                format!("`{name}` has {} digits, half a byte too many", digits.len()),
            )
            .hint("two digits for each byte: 0a, not a"),
        );
        return None;
    }
    within(text, name, digits.len() / 2, diagnostics)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn regex(text: &Text, diagnostics: &mut Vec<Diagnostic>) -> Option<Expect> {
    within(text, "expect-regex", text.value.len(), diagnostics)?;
    let expect = Expect::Regex(text.value.clone());
    match Pattern::new(&expect) {
        Ok(_) => Some(expect),
        Err(why) => {
            diagnostics.push(
                Diagnostic::error(text.inside(), format!("this is not a regular expression: {why}"))
                    .hint("for a text as it is write `expect`"),
            );
            None
        }
    }
}

/// From 1 to [`MOST`] bytes.
fn within(text: &Text, name: &str, bytes: usize, diagnostics: &mut Vec<Diagnostic>) -> Option<()> {
    let message = match bytes {
        0 => format!("`{name}` is empty"),
        1..=MOST => return Some(()),
        _ => format!("`{name}` has {bytes} bytes, and {MOST} is the most"),
    };
    diagnostics.push(Diagnostic::error(text.inside(), message));
    None
}
