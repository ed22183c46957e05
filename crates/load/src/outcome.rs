//! What became of a load: what was answered, how long it took, and what failed, by kind.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What became of a load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// How long was counted, in seconds.
    pub seconds: f64,
    /// What succeeded: requests or datagrams answered, streams that lived, connections that were held to the end.
    pub done: u64,
    /// Bytes of TCP or UDP payload that were sent for what was done.
    pub sent: u64,
    /// Bytes of TCP or UDP payload that came for what was done.
    pub received: u64,
    /// What failed.
    pub errors: Errors,
    /// How long each took, of loads that have requests; of idle connections how long they took to be made.
    pub latency: Option<Latency>,
    /// CPU time of the generator's threads over the whole run, warm-up included, in seconds, and ...
    pub cpu: f64,
    /// ... the part of the run during which they ran. Near 1 the generator was what was measured.
    pub busy: f64,
}

impl Outcome {
    /// What succeeded per second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.done as f64 / self.seconds } else { 0.0 }
    }

    /// Payload of both directions per second, in Gbit.
    pub fn gbit(&self) -> f64 {
        if self.seconds > 0.0 { (self.sent + self.received) as f64 * 8e-9 / self.seconds } else { 0.0 }
    }
}

/// In what way something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// Nobody listens there (a RST instead of a SYN-ACK, or an ICMP message).
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was not made in time.
    ConnectTimeout,
    /// The answer was not there in time.
    Timeout,
    /// The other side ended the connection before the answer was whole.
    ClosedEarly,
    /// An answer that is none: not the protocol's, other bytes than expected, a status of 400 or more.
    WrongAnswer,
    /// A datagram without an answer in time.
    Lost,
    /// The source addresses have no free port left towards the target.
    NoPort,
    /// No way there: no route, or a router said so.
    Unreachable,
    /// Due by the rate, but all connections were busy until a second after the end.
    NotSent,
    /// Anything else that the kernel said.
    Other,
}

impl ErrorKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Reset,
        Self::ConnectTimeout,
        Self::Timeout,
        Self::ClosedEarly,
        Self::WrongAnswer,
        Self::Lost,
        Self::NoPort,
        Self::Unreachable,
        Self::NotSent,
        Self::Other,
    ];

    /// By the kernel's error.
    pub(crate) fn of(error: Errno) -> Self {
        match error {
            Errno::CONNREFUSED => Self::Refused,
            Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED => Self::Reset,
            Errno::TIMEDOUT => Self::Timeout,
            // connect() says the first where bind() left the port to it, bind() the second.
            Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Self::NoPort,
            Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::PERM | Errno::NETDOWN => {
                Self::Unreachable
            }
            _ => Self::Other,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::ConnectTimeout => "connect timeout",
            Self::Timeout => "timeout",
            Self::ClosedEarly => "closed early",
            Self::WrongAnswer => "wrong answer",
            Self::Lost => "lost",
            Self::NoPort => "no port",
            Self::Unreachable => "unreachable",
            Self::NotSent => "not sent",
            Self::Other => "other",
        })
    }
}

/// How many failed, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors([u64; ErrorKind::ALL.len()]);

impl Errors {
    /// Of one kind.
    pub fn of(&self, kind: ErrorKind) -> u64 {
        self.0[kind as usize]
    }

    /// Of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The kinds that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (ErrorKind, u64)> + '_ {
        ErrorKind::ALL.into_iter().map(|kind| (kind, self.of(kind))).filter(|(_, count)| *count > 0)
    }

    pub(crate) fn add(&mut self, kind: ErrorKind, count: u64) {
        self.0[kind as usize] += count;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        ErrorKind::ALL.into_iter().for_each(|kind| self.add(kind, other.of(kind)));
    }
}

/// How long requests took, in microseconds, to three digits. Without coordinated omission: of a load with a rate, the time
/// counts from when a request was due, not from when it could be sent. Records of `portway lab` hold it as it is here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half took at most this.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// The distribution for drawing: upper bound in microseconds, and how many of all took at most that, growing.
    pub steps: Vec<(f64, u64)>,
}

/// Steps of the drawing for each halving of what is left: tens of them in the middle, and still some for the last of a
/// million.
const TICKS: u32 = 8;
/// The longest time that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// Times as they are measured. High Dynamic Range histogram: constant memory, constant relative error, and adding one
/// is adding to an integer (Gil Tene, hdrhistogram.org).
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
        Self(histogram.expect("invariant: the bounds and digits are constants that fit"))
    }

    pub(crate) fn add(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("invariant: all have the same bounds");
    }

    pub(crate) fn latency(&self) -> Option<Latency> {
        if self.0.is_empty() {
            return None;
        }
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let at = |quantile| us(self.0.value_at_quantile(quantile).min(self.0.max()));
        let mut steps: Vec<(f64, u64)> = Vec::new();
        let mut total = 0;
        for step in self.0.iter_quantiles(TICKS) {
            total += step.count_since_last_iteration();
            let bound = us(step.value_iterated_to().min(self.0.max()));
            match steps.last_mut() {
                Some(last) if last.0 >= bound => last.1 = total,
                _ => steps.push((bound, total)),
            }
        }
        Some(Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us(self.0.max()),
            steps,
        })
    }
}

/// Whole nanoseconds.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_steps_of_a_known_distribution() {
        let mut times = Times::new();
        // 1 to 10,000 microseconds, each once.
        (1..=10_000u64).for_each(|us| times.add(us * 1_000));
        let latency = times.latency().expect("times were added");
        let near = |found: f64, true_one: f64| {
            assert!((found / true_one - 1.0).abs() < 0.002, "{found}, not {true_one}");
        };
        near(latency.p50, 5_000.0);
        near(latency.p90, 9_000.0);
        near(latency.p99, 9_900.0);
        near(latency.p999, 9_990.0);
        near(latency.max, 10_000.0);
        assert!(latency.steps.len() > 30, "{} steps", latency.steps.len());
        assert!(latency.steps.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
        for (bound, count) in &latency.steps {
            near(*bound, *count as f64);
        }
        assert_eq!(latency.steps.last().map(|step| step.1), Some(10_000));
        assert_eq!(Times::new().latency(), None);
    }

    #[test]
    fn errors_are_their_own_kind() {
        let mut errors = Errors::default();
        for (at, kind) in ErrorKind::ALL.into_iter().enumerate() {
            errors.add(kind, at as u64 + 1);
        }
        let names: std::collections::BTreeSet<String> =
            errors.iter().map(|(kind, _)| kind.to_string()).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
        assert_eq!(errors.of(ErrorKind::Refused), 1);
        assert_eq!(errors.of(ErrorKind::Other), 11);
        assert_eq!(errors.total(), 66);
    }
}
