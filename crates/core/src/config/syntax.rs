//! Syntax errors: what the TOML parser says, in words that help someone who has never read the TOML
//! specification, and without its follow-up errors.
//!
//! The parser recovers and goes on, so several errors come out of one run. What it makes of the broken lines
//! is a guess, and is not reported as if the user had written it.

use std::ops::Range;

use crate::diagnostic::{Diagnostic, Span};

/// The syntax errors of a text: at most one per line.
pub struct Errors {
    diagnostics: Vec<Diagnostic>,
    /// The byte ranges that cannot be trusted, ascending: a broken line, or a whole section below a broken
    /// header.
    spoiled: Vec<Range<usize>>,
}

impl Errors {
    /// The errors of a parse.
    pub fn new(text: &str, errors: &[toml::de::Error]) -> Self {
        let mut errors: Vec<(Span, &str)> =
            errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
        errors.sort_by_key(|(span, _)| span.start);
        let mut found = Self { diagnostics: Vec::new(), spoiled: Vec::new() };
        // Up to here the text has been spoken of; a line is looked at once, however many errors it has.
        let mut told = 0;
        for (span, message) in errors {
            if span.start < told || found.spoils(&span) {
                continue;
            }
            let line = line_around(text, span.start);
            told = line.end;
            let duplicate = message == "duplicate key";
            let header = text[line.clone()].trim_start().starts_with('[');
            if !duplicate || header {
                found.spoiled.push(if header { section_from(text, line.clone()) } else { line.clone() });
            }
            found.diagnostics.push(describe(text, line, span, message));
        }
        found
    }

    /// Whether a place lies where the parser had to guess.
    pub fn spoils(&self, span: &Span) -> bool {
        let after = self.spoiled.partition_point(|range| range.start <= span.start);
        after.checked_sub(1).is_some_and(|last| span.start <= self.spoiled[last].end)
    }

    /// The syntax errors, and those of `others` that do not follow from them.
    pub fn and(&self, others: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let others = others.into_iter().filter(|other| !self.spoils(&other.primary.span));
        self.diagnostics.iter().cloned().chain(others).collect()
    }
}

/// The line that holds a byte offset, without its end.
fn line_around(text: &str, at: usize) -> Range<usize> {
    let at = text.floor_char_boundary(at);
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    start..text[at..].find('\n').map_or(text.len(), |end| at + end)
}

/// From a header's line to the next header's.
fn section_from(text: &str, header: Range<usize>) -> Range<usize> {
    let mut end = header.end;
    for line in text[header.end..].split_inclusive('\n') {
        if end != header.end && line.trim_start().starts_with('[') {
            break;
        }
        end += line.len();
    }
    header.start..end
}

/// An error in words.
fn describe(text: &str, line: Range<usize>, span: Span, message: &str) -> Diagnostic {
    let plain = Diagnostic::error(span.clone(), message.to_owned());
    let written = text[line.clone()].trim_end();
    if message == "duplicate key" {
        return match text.get(span) {
            Some("rule") => plain.hint("several rules are a list: write [[rule]]"),
            _ => plain.label("already set above").hint("no key means two things: keep one of them"),
        };
    }
    if written.trim_start().starts_with('[') {
        return plain.hint("a header is [name], and [[rule]] for each rule");
    }
    if message.starts_with("missing comma") || message.starts_with("unclosed array") {
        return plain.hint("a list is [\"80\", \"443\"]: is a `,` or the closing `]` missing before this?");
    }
    let Some((key, value)) = written.split_once('=') else {
        let start = written.trim_start();
        return if start.starts_with('{') {
            plain.hint("the file is TOML, not JSON: key = value, one in a line")
        } else {
            plain.hint("write key = value, for example listen = \"0.0.0.0:8888\"")
        };
    };
    let start = line.start + key.len() + 1 + (value.len() - value.trim_start().len());
    let (key, value) = (key.trim(), value.trim());
    let word = value.split('#').next().unwrap_or_default().trim_end();
    match value.chars().next() {
        None => Diagnostic::error(span, format!("`{key}` has no value")).maybe_hint(example(key)),
        Some('"' | '\'') if message.contains("string, expected") => {
            Diagnostic::error(start..start + value.len(), "the closing quote is missing")
        }
        Some('"' | '\'' | '[' | '{') => plain,
        Some(_) if word.contains(['"', '\'', '\\']) => plain,
        Some(_) => {
            Diagnostic::error(start..start + word.len(), format!("the value of `{key}` cannot be read"))
                .hint(format!("a text stands in quotes: {key} = \"{word}\""))
        }
    }
}

/// How a known key is written.
fn example(key: &str) -> Option<String> {
    let sections = super::keys::FILE.walk();
    let key = sections.iter().find_map(|section| section.key(key)).filter(|key| !key.example.is_empty())?;
    Some(format!("for example {} = {}", key.name, key.example))
}
