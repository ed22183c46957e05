//! The state machine of one health check: when it is due again, and the verdict that follows from its outcomes.
//!
//! Deliberately absent: the clock and random numbers, which are arguments; what is asked of a backend
//! ([`crate::ruleset::CheckKind`]); and what a verdict changes ([`crate::members`], [`crate::effects`]).

use std::sync::Arc;
use std::time::Duration;

use crate::facts::{Health, Moment};
use crate::jitter;
use crate::ruleset::Check;

/// What one check came to, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend answered as it should ("HTTP 200").
    Passed(String),
    /// It did not ("connect: Connection refused").
    Failed(String),
}

/// A verdict that differs from the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// New flows may go there.
    Up,
    /// They may not.
    Down,
}

/// One check of one address over time.
#[derive(Clone, Debug)]
pub struct Monitor {
    check: Arc<Check>,
    verdict: Option<Health>,
    /// Outcomes in a row that speak against the verdict.
    against: u32,
}

impl Monitor {
    /// A check that was never made. There is no verdict, which counts as up.
    pub fn new(check: Arc<Check>) -> Self {
        Self { check, verdict: None, against: 0 }
    }

    /// The verdict so far; its reason is what the last check said.
    pub fn verdict(&self) -> Option<&Health> {
        self.verdict.as_ref()
    }

    /// Takes the outcome of a check that ended at `now`. The first one decides alone, either way: nobody waits for
    /// `rise` checks at the start, and a backend that was never seen up is not tried on clients. After that `fall`
    /// failures in a row take the backend down and `rise` passes in a row bring it up.
    pub fn observe(&mut self, outcome: Outcome, now: Moment) -> Option<Transition> {
        let (up, reason) = match outcome {
            Outcome::Passed(reason) => (true, reason),
            Outcome::Failed(reason) => (false, reason),
        };
        let transition = if up { Transition::Up } else { Transition::Down };
        let Some(verdict) = &mut self.verdict else {
            self.verdict = Some(Health { up, since: now, recovered: false, reason });
            return Some(transition);
        };
        verdict.reason = reason;
        if up == verdict.up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if up { self.check.rise } else { self.check.fall } {
            return None;
        }
        self.against = 0;
        (verdict.up, verdict.since, verdict.recovered) = (up, now, up);
        Some(transition)
    }

    /// When the next check is due after one that began at `started`: after `interval` while the backend is up and its
    /// last check passed, after `interval-down` otherwise, each up to a tenth shorter or longer by `random`. A check
    /// that lasts longer than that is followed by the next as soon as it ends: one at a time.
    pub fn next(&self, started: Moment, random: u64) -> Moment {
        let well = self.against == 0 && self.verdict.as_ref().is_some_and(|verdict| verdict.up);
        let interval = if well { self.check.interval } else { self.check.interval_down };
        started.saturating_add(jitter::around(interval, random))
    }
}

/// From the moment at which a backend that is up fails to the verdict, at worst: it fails right after it has passed a
/// check, and every check that follows begins as late as it may and takes all of its time. Holds where checks begin
/// when they are due.
pub fn detection_time(check: &Check) -> Duration {
    let first = jitter::longest(check.interval).max(check.timeout);
    let each = jitter::longest(check.interval_down).max(check.timeout);
    let further = check.fall.max(1) - 1;
    first.saturating_add(each.saturating_mul(further)).saturating_add(check.timeout)
}

/// From the moment at which a backend that is down works again to the verdict, at worst: a check that began just
/// before that still fails, and every check that follows begins as late as it may and takes nearly all of its time.
pub fn recovery_time(check: &Check) -> Duration {
    let each = jitter::longest(check.interval_down).max(check.timeout);
    each.saturating_mul(check.rise.max(1)).saturating_add(check.timeout)
}
