//! A piece of an endpoint's text that knows where it stands, and what can be wrong with it.
//!
//! Deliberately absent: what the text means.

use std::ops::Range;

/// What is wrong with a text, and where in it (bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The offending part.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}
/// A piece of the text that knows where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl<'a> Part<'a> {
    pub(super) fn range(self) -> Range<usize> {
        self.at..self.at + self.text.len()
    }

    pub(super) fn slice(self, range: Range<usize>) -> Self {
        Self { text: &self.text[range.clone()], at: self.at + range.start }
    }

    /// The parts on both sides of the one-byte separator at `index`.
    pub(super) fn split_at(self, index: usize) -> (Self, Self) {
        (self.slice(0..index), self.slice(index + 1..self.text.len()))
    }

    pub(super) fn fault<T>(self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { at: self.range(), message: message.into(), hint: None })
    }

    pub(super) fn fault_hint<T>(
        self,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Result<T, Fault> {
        Err(Fault { at: self.range(), message: message.into(), hint: Some(hint.into()) })
    }
}
/// The text as a part, unless it is empty or holds white space.
/// `what` it is and `several` of it, for messages.
pub(super) fn checked_text<'a>(
    text: &'a str,
    what: &str,
    example: &str,
    several: &str,
) -> Result<Part<'a>, Fault> {
    let whole = Part { text, at: 0 };
    if text.is_empty() {
        return whole.fault_hint(format!("{what} cannot be empty"), format!("for example {example}"));
    }
    if let Some((at, space)) = text.char_indices().find(|(_, c)| c.is_whitespace()) {
        let part = whole.slice(at..at + space.len_utf8());
        let joined: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let alone = text.trim() == joined;
        return part.fault_hint(
            format!("{what} holds no white space"),
            if alone {
                format!("write {joined}")
            } else {
                let words: Vec<&str> = text
                    .split(|c: char| c.is_whitespace() || c == ',')
                    .filter(|word| !word.is_empty())
                    .collect();
                format!("{several} are a list: [\"{}\"]", words.join("\", \""))
            },
        );
    }
    Ok(whole)
}
