//! What has come from a server and was not understood yet, with a bound.
//!
//! Deliberately absent: what the bytes mean.

use super::Conversation;

/// Why no more will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server has closed its direction.
    Closed,
    /// The time of the check is up.
    TimeUp,
}

/// Bytes that came.
pub(super) struct Input {
    bytes: Vec<u8>,
    most: usize,
    came: bool,
    end: Option<End>,
}

impl Input {
    /// Nothing yet. More than `most` bytes that nothing was taken of are too many.
    pub(super) fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, came: false, end: None }
    }

    /// Adds a piece.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let room = (self.most + Conversation::PIECE).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.came = true;
    }

    /// No more will come.
    pub(super) fn end(&mut self, end: End) {
        self.end = Some(end);
    }

    /// Whether no more will come, and why.
    pub(super) fn ended(&self) -> Option<End> {
        self.end
    }

    /// Whether there is no more to look at: the end has come, or the bound.
    pub(super) fn last(&self) -> bool {
        self.end.is_some() || self.full()
    }

    /// Whether more has come than may stay here.
    pub(super) fn full(&self) -> bool {
        self.bytes.len() > self.most
    }

    /// Whether anything came, an empty datagram included.
    pub(super) fn came(&self) -> bool {
        self.came
    }

    /// What came and was not taken.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the first `count` bytes, or all where there are fewer.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(count.min(self.bytes.len()));
        std::mem::replace(&mut self.bytes, rest)
    }

    /// Takes a line that has come whole, without its end: CR LF, or LF alone, which lenient servers send.
    pub(super) fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let mut line = self.take(end + 1);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }
}
