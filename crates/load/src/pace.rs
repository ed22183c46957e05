//! When requests are due, and which of them count. Pure: time is an argument, in nanoseconds since the start.
//!
//! With a rate, request k is due at k / rate, whatever became of those before, and its latency counts from then. Were it
//! counted from when it could be sent, a server that stalls would be asked less while it stalls, and the very requests that
//! suffer would be missing ("coordinated omission": Gil Tene, "How NOT to Measure Latency"; wrk2's `-R` does the same).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::outcome::nanoseconds;
use crate::plan::{Length, Plan};

/// How long after the end what was due before may still begin, in nanoseconds. What cannot even then was too much.
pub(crate) const GRACE: u64 = 1_000_000_000;

/// The requests of one thread, one after the other.
pub(crate) struct Pace<'a> {
    /// Nanoseconds between two that are due, and until the first; `None` in a closed loop.
    every: Option<f64>,
    first: f64,
    /// How many of this thread have begun.
    begun: u64,
    /// When what counts begins.
    pub(crate) warm: u64,
    /// When it ends, if time ends it.
    pub(crate) end: Option<u64>,
    /// What all threads may still begin, if a count ends it.
    left: Option<&'a AtomicU64>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    /// Begin a request that was due then.
    Begin(u64),
    /// Nothing before then.
    At(u64),
    /// Nothing any more.
    Over,
}

impl<'a> Pace<'a> {
    /// Of thread `index` of `threads`. They take turns: the first is due at the start.
    pub(crate) fn new(plan: &Plan, index: u32, threads: u32, left: &'a AtomicU64) -> Self {
        let apart = plan.rate.map(|rate| 1e9 / rate);
        let warm = nanoseconds(plan.warm_up);
        let (end, left) = match plan.length {
            Length::Time(time) => (Some(warm.saturating_add(nanoseconds(time))), None),
            Length::Count(_) => (None, Some(left)),
            // Of streams, which have no pace.
            Length::Bytes(_) => (Some(warm), None),
        };
        Self {
            every: apart.map(|apart| apart * f64::from(threads)),
            first: apart.map_or(0.0, |apart| apart * f64::from(index)),
            begun: 0,
            warm,
            end,
            left,
        }
    }

    /// Whether there is a schedule.
    pub(crate) fn is_open(&self) -> bool {
        self.every.is_some()
    }

    /// When the next is due by the schedule.
    fn due(&self) -> Option<u64> {
        self.every.map(|every| (self.first + every * self.begun as f64) as u64)
    }

    /// What to do at `now`, when there is a free place. Asking twice begins two.
    pub(crate) fn next(&mut self, now: u64) -> Next {
        let due = self.due().unwrap_or(now);
        let grace = if self.is_open() { GRACE } else { 0 };
        if self.end.is_some_and(|end| due >= end || now >= end.saturating_add(grace)) {
            return Next::Over;
        }
        if due > now {
            return Next::At(due);
        }
        if let Some(left) = self.left.filter(|_| due >= self.warm) {
            let taken = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
            if taken.is_err() {
                return Next::Over;
            }
        }
        self.begun += 1;
        Next::Begin(due)
    }

    /// Whether what was due (in a closed loop: begun) at `due` and ended at `now` counts. In a closed loop that time ends,
    /// what ends in the time counts: what begins and what ends in it are as many, and none waits for the last.
    pub(crate) fn counts(&self, due: u64, now: u64) -> bool {
        match self.end {
            Some(end) if !self.is_open() => (self.warm..end).contains(&now),
            _ => due >= self.warm,
        }
    }

    /// How many were due until the end, counted ones only, that have not begun.
    pub(crate) fn not_begun(&self) -> u64 {
        let (Some(every), Some(end)) = (self.every, self.end) else { return 0 };
        let until = |time: u64| (((time as f64 - self.first) / every).ceil()).max(0.0) as u64;
        until(end).saturating_sub(self.begun.max(until(self.warm)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::{Exchange, Load};

    fn plan(rate: Option<f64>, length: Length) -> Plan {
        let target = "127.0.0.1:1".parse().expect("an address");
        let mut plan = Plan::new(target, Load::Connections(Exchange::get("", "/")));
        (plan.rate, plan.length, plan.warm_up) = (rate, length, Duration::from_millis(10));
        plan
    }

    #[test]
    fn threads_share_a_schedule_without_gaps_or_doubles() {
        let plan = plan(Some(1_000.0), Length::Time(Duration::from_millis(90)));
        let left = AtomicU64::new(0);
        let mut all = Vec::new();
        for index in 0..3 {
            let mut pace = Pace::new(&plan, index, 3, &left);
            let mut now = 0;
            loop {
                match pace.next(now) {
                    Next::Begin(due) => all.push(due / 1_000_000),
                    Next::At(then) => now = then,
                    Next::Over => break,
                }
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<u64>>());
    }

    #[test]
    fn what_is_late_is_due_when_it_was() {
        let plan = plan(Some(1_000.0), Length::Time(Duration::from_secs(1)));
        let left = AtomicU64::new(0);
        let mut pace = Pace::new(&plan, 0, 1, &left);
        assert_eq!(pace.next(0), Next::Begin(0));
        // Busy until 3.5 ms: three were due meanwhile.
        for due in [1_000_000, 2_000_000, 3_000_000] {
            assert_eq!(pace.next(3_500_000), Next::Begin(due));
        }
        assert_eq!(pace.next(3_500_000), Next::At(4_000_000));
        // 1,010 are due, 10 of them do not count, 4 have begun.
        assert_eq!(pace.not_begun(), 1_000);
        (4..20).for_each(|k| assert_eq!(pace.next(u64::MAX / 2), Next::Over, "{k}: the end has come"));
        assert_eq!(pace.not_begun(), 1_000);
        assert_eq!(pace.next(20_000_000), Next::Begin(4_000_000));
    }

    #[test]
    fn a_count_is_kept_to_by_all_threads_together() {
        let plan = plan(None, Length::Count(5));
        let left = AtomicU64::new(5);
        let (mut a, mut b) = (Pace::new(&plan, 0, 2, &left), Pace::new(&plan, 1, 2, &left));
        // The warm-up takes nothing from it.
        assert_eq!(a.next(5), Next::Begin(5));
        let now = 10_000_000;
        for _ in 0..2 {
            assert_eq!((a.next(now), b.next(now)), (Next::Begin(now), Next::Begin(now)));
        }
        assert_eq!((b.next(now), a.next(now), b.next(now)), (Next::Begin(now), Next::Over, Next::Over));
        assert!(!a.counts(5, now) && a.counts(now, now + 1));
    }
}
