//! What an answer must hold, made ready once and looked for as the answer grows.
//!
//! Bytes are looked for as a regular expression of themselves, so that there is one way to find things. Deliberately
//! absent: where the answer comes from.

use regex::bytes::{Regex, RegexBuilder};

use crate::ruleset::{CheckKind, Expect};

/// An expectation that is ready to use; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// The most memory that a compiled expression may take, in bytes, and the most that searching with it may.
    const MOST: usize = 1 << 20;

    /// The pattern of an expectation.
    ///
    /// # Errors
    /// The regular expression has a mistake or is too large; which, in words for people.
    pub fn new(expect: &Expect) -> Result<Self, String> {
        let text = match expect {
            Expect::Regex(text) => text.clone(),
            Expect::Bytes(bytes) => {
                let literal: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
                format!("(?-u){literal}")
            }
        };
        let mut builder = RegexBuilder::new(&text);
        builder.size_limit(Self::MOST).dfa_size_limit(Self::MOST);
        builder.build().map(Self).map_err(|error| words(&error))
    }

    /// The pattern of what a check expects, where it expects something.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(kind: &CheckKind) -> Result<Option<Self>, String> {
        let expect = match kind {
            CheckKind::Tcp { expect, .. } | CheckKind::Udp { expect, .. } => expect.as_ref(),
            CheckKind::Http { body, .. } => body.as_ref(),
            _ => None,
        };
        expect.map(Self::new).transpose()
    }

    /// Whether `bytes` hold it.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }
}

/// What is wrong with a regular expression.
fn words(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it would be too large".to_owned(),
        // The last line of the library's report is the reason; those before it draw the place.
        other => {
            let report = other.to_string();
            let last = report.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

/// A search in an answer that grows.
pub(super) struct Search {
    pattern: Pattern,
    /// Bytes that were looked at, counted again at every look.
    spent: usize,
    /// The length of the answer at the last look.
    seen: usize,
}

impl Search {
    /// The most of an answer that is looked at, in bytes.
    pub(super) const WINDOW: usize = 64 * 1024;
    /// An answer may be looked at anew with every piece of it, until this many bytes were looked at. A server that
    /// sends byte by byte would have the processor look at 64 KiB 64 Ki times.
    const EAGER: usize = 1 << 20;

    /// A search for `pattern`.
    pub(super) fn new(pattern: Pattern) -> Self {
        Self { pattern, spent: 0, seen: 0 }
    }

    /// Whether the answer so far holds the pattern. `last`: there will be no more of it, so that this look is made
    /// whatever was spent.
    pub(super) fn finds(&mut self, answer: &[u8], last: bool) -> bool {
        let answer = &answer[..answer.len().min(Self::WINDOW)];
        let last = last || answer.len() == Self::WINDOW;
        let grown = answer.len() > self.seen + self.seen / 8;
        if !last && self.spent > Self::EAGER && !grown {
            return false;
        }
        self.spent = self.spent.saturating_add(answer.len());
        self.seen = answer.len();
        self.pattern.is_in(answer)
    }
}
