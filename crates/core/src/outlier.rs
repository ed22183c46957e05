//! Outliers: the members of a pool that passive checks leave out, and for how long.
//!
//! A member that fails flow after flow is ejected, each time in a row for twice as long, and never so many at once that
//! the rest would have to carry everything (what Envoy calls outlier detection). Members are known by their place in
//! the pool. Deliberately absent: what counts as a failure, which is the engine's to see; the clock, which is an
//! argument; and active checks ([`crate::health`]).

use std::collections::VecDeque;

use crate::facts::Moment;
use crate::ruleset::Passive;

/// How often the time of an ejection doubles: to 32 times the first.
const MOST_DOUBLINGS: u32 = 5;

/// What is held against the members of one pool.
#[derive(Clone, Debug)]
pub struct Outliers {
    passive: Passive,
    members: Vec<Record>,
}

/// What is held against one.
#[derive(Clone, Debug, Default)]
struct Record {
    /// Its latest failures since it last took a flow, at most as many as eject it.
    failures: VecDeque<Moment>,
    /// Ejections since it last took a flow.
    in_a_row: u32,
    /// When the latest ejection ends.
    until: Moment,
}

impl Outliers {
    /// Nothing is held against any of `members` members.
    pub fn new(members: usize, passive: Passive) -> Self {
        Self { passive, members: vec![Record::default(); members] }
    }

    /// The same for a pool that has changed: its n-th member was at the place `before[n]`, or is new. More may be
    /// ejected than the smaller pool allows: see [`Self::release`].
    #[must_use]
    pub fn changed(&self, before: &[Option<usize>], passive: Passive) -> Self {
        let record = |place: &Option<usize>| place.and_then(|place| self.members.get(place)).cloned();
        Self { passive, members: before.iter().map(|place| record(place).unwrap_or_default()).collect() }
    }

    /// Ends the ejections that are too many for the pool, those first that would end first, and says whose they were.
    pub fn release(&mut self, now: Moment) -> Vec<usize> {
        let mut ejected: Vec<usize> =
            (0..self.members.len()).filter(|member| self.is_ejected(*member, now)).collect();
        ejected.sort_by_key(|member| self.members[*member].until);
        ejected.truncate(ejected.len().saturating_sub(self.most_ejected()));
        for member in &ejected {
            self.members[*member].until = now;
        }
        ejected
    }

    /// A flow to `member` failed at `now`. When this ejects it: until when. It does so when it has failed `max-fails`
    /// times within `fail-timeout` without taking a flow in between, and as many as may be are not ejected already.
    pub fn failure(&mut self, member: usize, now: Moment) -> Option<Moment> {
        // Flows that had begun before it was ejected say nothing new.
        if self.is_ejected(member, now) {
            return None;
        }
        let room = self.ejected(now) < self.most_ejected();
        let Passive { max_fails, fail_timeout, .. } = self.passive;
        let enough = usize::try_from(max_fails.max(1)).unwrap_or(usize::MAX);
        let record = self.members.get_mut(member)?;
        record.failures.push_back(now);
        if record.failures.len() > enough {
            record.failures.pop_front();
        }
        let oldest = now.saturating_sub(fail_timeout);
        while record.failures.front().is_some_and(|failure| *failure < oldest) {
            record.failures.pop_front();
        }
        if record.failures.len() < enough || !room {
            return None;
        }
        let time = fail_timeout.saturating_mul(1 << record.in_a_row.min(MOST_DOUBLINGS));
        record.in_a_row = record.in_a_row.saturating_add(1);
        record.failures.clear();
        record.until = now.saturating_add(time);
        Some(record.until)
    }

    /// `member` has taken a flow: its failures and ejections are no longer in a row.
    pub fn success(&mut self, member: usize) {
        if let Some(record) = self.members.get_mut(member) {
            record.failures.clear();
            record.in_a_row = 0;
        }
    }

    /// Whether `member` is left out at `now`.
    pub fn is_ejected(&self, member: usize, now: Moment) -> bool {
        self.members.get(member).is_some_and(|record| record.until > now)
    }

    /// When the next ejection ends that has not ended by `now`.
    pub fn returns(&self, now: Moment) -> Option<Moment> {
        self.members.iter().map(|record| record.until).filter(|until| *until > now).min()
    }

    /// How many are left out at `now`.
    fn ejected(&self, now: Moment) -> usize {
        self.members.iter().filter(|record| record.until > now).count()
    }

    /// How many may be: as many as the file says and at least one, but never the last.
    fn most_ejected(&self) -> usize {
        let members = self.members.len();
        (members * usize::from(self.passive.max_ejected) / 100).max(1).min(members.saturating_sub(1))
    }
}
