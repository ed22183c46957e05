//! One name over time: when it is asked for again, and the answer that holds meanwhile.
//!
//! A resolver that fails takes nothing away: the last good answer stays until there is another. Deliberately absent:
//! the questions themselves, the clock and random numbers, which are arguments; and what an answer changes
//! ([`crate::members`]).

use std::time::Duration;

use crate::facts::{Answer, Moment, Resolved};
use crate::jitter;
use crate::ruleset::{Dns, Pool};

/// The wait after the first failure; each further one in a row doubles it.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait after failures.
const LAST_BACKOFF: Duration = Duration::from_secs(30);
/// How long resolvers must say that there is no such name before an answer that was good is given up: a zone that is
/// reloaded or delegated anew says so for a moment.
pub const ABSENCE: Duration = Duration::from_secs(30);

/// What one question came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Addresses; for a service those of the hosts that it names, with the records' ports, weights and priorities.
    Answered {
        /// In any order. None at all is [`Outcome::Absent`].
        records: Vec<Resolved>,
        /// The lowest TTL of what the answer was made from.
        ttl: Duration,
    },
    /// There is no such name (NXDOMAIN), or it has no such records (RFC 2308).
    Absent {
        /// How long that may be believed (RFC 2308 section 5), where the resolver says.
        ttl: Option<Duration>,
    },
    /// No answer, or none that says anything about the name (SERVFAIL, REFUSED, a timeout), in words for people.
    Failed(String),
}

/// One name: its last good answer and when it is due.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// The bounds between which a TTL is believed.
    ttl: (Duration, Duration),
    answer: Option<Answer>,
    /// Failures, and answers that there is no such name, in a row.
    failures: u32,
    /// When resolvers began to say that there is no such name.
    absent: Option<Moment>,
    /// What the last question failed with.
    problem: Option<String>,
    due: Due,
}

/// When the next question is due.
#[derive(Clone, Copy, Debug)]
enum Due {
    AtOnce,
    /// This long after that moment, by a TTL.
    Expiry(Moment, Duration),
    /// The same, after a failure; not after the third.
    Retry(Moment, Duration, Option<Moment>),
}

impl Resolution {
    /// A name that was never resolved, due at once.
    pub fn new(dns: &Dns) -> Self {
        let least = dns.ttl_min.max(Duration::from_millis(1));
        Self {
            ttl: (least, dns.ttl_max.max(least)),
            answer: None,
            failures: 0,
            absent: None,
            problem: None,
            due: Due::AtOnce,
        }
    }

    /// A name with the last answer of an earlier run, due at once.
    pub fn known(dns: &Dns, answer: Answer) -> Self {
        Self { answer: Some(tidy(answer)), ..Self::new(dns) }
    }

    /// The answer that holds; `None` when there was never one.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// What the last question failed with, in words; `None` when it was answered.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Takes the outcome of a question at `now`, and gives the answer where it is another one than before. Addresses
    /// are believed at once. That there are none is believed at once of a name that never had any, and otherwise after
    /// [`ABSENCE`] without a good answer. Failures change nothing.
    pub fn answered(&mut self, outcome: Outcome, now: Moment) -> Option<Answer> {
        match outcome {
            Outcome::Answered { records, ttl } if !records.is_empty() => {
                (self.failures, self.absent, self.problem) = (0, None, None);
                self.due = Due::Expiry(now, ttl);
                self.replace(tidy(records))
            }
            Outcome::Answered { ttl, .. } => self.found_absent(Some(ttl), now),
            Outcome::Absent { ttl } => self.found_absent(ttl, now),
            Outcome::Failed(problem) => {
                self.problem = Some(problem);
                let backoff = self.backoff();
                self.due = Due::Retry(now, backoff, None);
                None
            }
        }
    }

    fn found_absent(&mut self, ttl: Option<Duration>, now: Moment) -> Option<Answer> {
        self.problem = Some("no such name, or it has no addresses".to_owned());
        let since = *self.absent.get_or_insert(now);
        let believed = since.saturating_add(ABSENCE);
        if now < believed && self.answer.as_ref().is_some_and(|answer| !answer.is_empty()) {
            let backoff = self.backoff();
            self.due = Due::Retry(now, backoff, Some(believed));
            return None;
        }
        // Asked as often as a server that fails: a name that appears is wanted soon.
        self.failures = 0;
        self.due = Due::Expiry(now, ttl.unwrap_or(LAST_BACKOFF).min(LAST_BACKOFF));
        self.replace(Answer::new())
    }

    fn backoff(&mut self) -> Duration {
        let doubled = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(LAST_BACKOFF)
    }

    fn replace(&mut self, answer: Answer) -> Option<Answer> {
        let changed = self.answer.as_ref() != Some(&answer);
        self.answer = Some(answer);
        self.answer.clone().filter(|_| changed)
    }

    /// When to ask next. After an answer: when its TTL, kept between `ttl-min` and `ttl-max`, is over and up to a tenth
    /// later by `random` (earlier, a cache would give the same answer with the rest of its TTL). After a failure: 1 s
    /// doubling to 30 s, up to a tenth more or less.
    pub fn next(&self, random: u64) -> Moment {
        let (least, most) = self.ttl;
        match self.due {
            Due::AtOnce => Moment::ZERO,
            Due::Expiry(at, ttl) => {
                let ttl = ttl.clamp(least, most);
                let later = jitter::of_a_tenth(ttl, random);
                // A TTL that was cut down is not over, so those are spread towards earlier.
                let wait = if ttl + later <= most { ttl + later } else { (most - later).max(least) };
                at.saturating_add(wait)
            }
            Due::Retry(at, backoff, latest) => {
                let next = at.saturating_add(jitter::around(backoff, random));
                latest.map_or(next, |latest| next.min(latest))
            }
        }
    }
}

/// Sorted, without doubles, and no more than a pool may have; of a service with more, the preferred ones. Which are kept
/// does not follow from the order in which a resolver names them.
fn tidy(mut records: Vec<Resolved>) -> Answer {
    records.sort_by(|a, b| (a.priority, a).cmp(&(b.priority, b)));
    records.dedup();
    records.truncate(Pool::MOST_MEMBERS);
    records.sort();
    records
}
