//! What the watch has done, for `status`.
//!
//! Deliberately absent: verdicts and answers; they are facts, and whoever took the events has them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portway_core::facts::{Lookup, Probe};

/// By probe and lookup; those that were never made are absent.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The checks.
    pub probes: BTreeMap<Probe, ProbeReport>,
    /// The names.
    pub lookups: BTreeMap<Lookup, LookupReport>,
}

/// The checks of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// How many were made.
    pub checks: u64,
    /// Whether the last one passed; `None` when it could not be made for want of descriptors or memory here, which
    /// says nothing about the backend.
    pub passed: Option<bool>,
    /// What it came to, in words.
    pub outcome: String,
    /// How long it took.
    pub took: Duration,
    /// When it ended.
    pub at: Instant,
}

/// The questions for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupReport {
    /// How often it was asked for.
    pub asked: u64,
    /// What was wrong with the last answer, in words: all of it, or one of its questions.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// When it came.
    pub at: Instant,
    /// When it is asked for again: the rest of its TTL, clamped, or the wait after a failure.
    pub next: Instant,
}

impl LookupReport {
    /// What is left of the TTL, or of the wait, at `now`.
    pub fn left(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }
}
