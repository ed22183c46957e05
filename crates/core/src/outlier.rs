//! Outliers: which members of a pool passive checks leave out, and for how long.
//!
//! Pure: members are indices, time is an argument. A member that fails too often within a window is ejected, for twice
//! as long each time in a row, and never so many at once that the rest would have to carry everything (Envoy's outlier
//! detection works the same way). Deliberately absent: what a failure is, which is the engine's to see.

use std::collections::VecDeque;
use std::time::Duration;

use crate::facts::Moment;
use crate::ruleset::Passive;

/// How often the time out doubles: 2^5 = 32 times the first.
const MOST_DOUBLINGS: u32 = 5;

/// What is held against the members of one pool.
#[derive(Clone, Debug)]
pub struct Outliers {
    passive: Passive,
    members: Vec<Record>,
}

#[derive(Clone, Debug, Default)]
struct Record {
    /// The latest failures, at most as many as eject.
    failures: VecDeque<Moment>,
    /// Ejections since it last answered.
    in_a_row: u32,
    /// When the latest ejection ends.
    until: Moment,
}

impl Outliers {
    /// Nothing is held against any of `members` members.
    pub fn new(members: usize, passive: Passive) -> Self {
        Self { passive, members: vec![Record::default(); members] }
    }

    /// The pool has changed: its n-th member was the `before[n]`-th, or is new.
    #[must_use]
    pub fn changed(&self, before: &[Option<usize>], passive: Passive) -> Self {
        let record = |before: &Option<usize>| self.members.get((*before)?).cloned();
        Self { passive, members: before.iter().map(|before| record(before).unwrap_or_default()).collect() }
    }

    /// A flow to `member` failed at `now`. When this ejects it: until when.
    pub fn failure(&mut self, member: usize, now: Moment) -> Option<Moment> {
        let ejected = self.members.iter().filter(|record| record.until > now).count();
        let others = self.members.len().saturating_sub(1);
        let most = (self.members.len() * usize::from(self.passive.max_ejected) / 100).max(1).min(others);
        let record = self.members.get_mut(member)?;
        if record.until > now {
            // A flow that had begun before it was ejected.
            return None;
        }
        let max_fails = self.passive.max_fails.max(1) as usize;
        record.failures.push_back(now);
        while record.failures.len() > max_fails
            || record.failures.front().is_some_and(|at| *at + self.passive.fail_timeout < now)
        {
            record.failures.pop_front();
        }
        if record.failures.len() < max_fails || ejected >= most {
            return None;
        }
        let time: Duration = self.passive.fail_timeout * (1 << record.in_a_row.min(MOST_DOUBLINGS));
        record.in_a_row += 1;
        record.failures.clear();
        record.until = now + time;
        Some(record.until)
    }

    /// `member` has answered: its earlier failures and ejections no longer count.
    pub fn success(&mut self, member: usize) {
        if let Some(record) = self.members.get_mut(member) {
            record.failures.clear();
            record.in_a_row = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn passive(max_fails: u32, max_ejected: u8) -> Passive {
        Passive { max_fails, fail_timeout: secs(10), max_ejected }
    }

    #[test]
    fn failures_within_the_window_eject() {
        let mut outliers = Outliers::new(3, passive(3, 50));
        assert_eq!(outliers.failure(0, secs(0)), None);
        assert_eq!(outliers.failure(0, secs(5)), None);
        assert_eq!(outliers.failure(0, secs(11)), None, "the first has left the window");
        assert_eq!(outliers.failure(1, secs(11)), None, "each has its own count");
        assert_eq!(outliers.failure(0, secs(12)), Some(secs(22)));
        assert_eq!(outliers.failure(0, secs(13)), None, "it is out already");
    }

    #[test]
    fn each_further_time_in_a_row_is_twice_as_long_up_to_32_times() {
        let mut outliers = Outliers::new(2, passive(1, 50));
        let mut now = secs(0);
        for times in [1, 2, 4, 8, 16, 32, 32, 32] {
            let until = outliers.failure(0, now).unwrap();
            assert_eq!(until - now, secs(10) * times);
            now = until;
        }
        outliers.success(0);
        assert_eq!(outliers.failure(0, now), Some(now + secs(10)));
    }

    #[test]
    fn an_answer_wipes_the_slate() {
        let mut outliers = Outliers::new(2, passive(2, 50));
        outliers.failure(0, secs(0));
        outliers.success(0);
        assert_eq!(outliers.failure(0, secs(1)), None);
    }

    #[test]
    fn the_last_member_stays_whatever_it_does() {
        assert_eq!(Outliers::new(1, passive(1, 100)).failure(0, secs(0)), None);
        let mut outliers = Outliers::new(2, passive(1, 100));
        assert!(outliers.failure(0, secs(0)).is_some());
        assert_eq!(outliers.failure(1, secs(1)), None);
        assert!(outliers.failure(1, secs(10)).is_some(), "once the other is back");
    }

    #[test]
    fn a_changed_pool_keeps_what_is_held_against_those_who_stay() {
        let mut outliers = Outliers::new(3, passive(1, 50));
        outliers.failure(2, secs(0)).unwrap();
        let mut outliers = outliers.changed(&[Some(2), None, Some(0)], passive(1, 50));
        assert_eq!(outliers.failure(2, secs(1)), None, "one of three is out, and that is the bound");
        assert_eq!(outliers.failure(0, secs(10)), Some(secs(30)), "the second in a row");
    }

    proptest! {
        /// Whatever fails, and whenever: never more are out than the bound says, and never all.
        #[test]
        fn the_bound_holds(
            members in 1usize..20,
            max_ejected in 0u8..=100,
            events in proptest::collection::vec((0usize..20, 0u64..5), 0..200),
        ) {
            let mut outliers = Outliers::new(members, passive(2, max_ejected));
            let mut until = vec![secs(0); members];
            let mut now = secs(0);
            for (member, later) in events {
                now += secs(later);
                if let Some(end) = outliers.failure(member, now) {
                    prop_assert!(end > now);
                    until[member] = end;
                }
                let out = until.iter().filter(|until| **until > now).count();
                let most = (members * usize::from(max_ejected) / 100).max(1);
                prop_assert!(out <= most && out < members, "{out} of {members}");
            }
        }
    }
}
