//! What went wrong and what was done: every error has to lie in the time of something that explains it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Kinds of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Connections that stay, to backends that nothing is done to.
    Held,
    /// Connections that stay, to backends that die to health checks and to new connections only.
    HeldByPool,
    /// A connection for each question, the client closing first.
    Short,
    /// The server closing first.
    ShortByServer,
    /// A connection for each question, to the pool.
    ShortByPool,
    /// Many megabytes on one connection.
    Bulk,
    /// Datagrams.
    Datagrams,
    /// Datagrams to the pool.
    DatagramsByPool,
}

impl Kind {
    pub const fn words(self) -> &'static str {
        match self {
            Self::Held => "TCP, held",
            Self::HeldByPool => "TCP, held, pool",
            Self::Short => "TCP, short, client closes",
            Self::ShortByServer => "TCP, short, server closes",
            Self::ShortByPool => "TCP, short, pool",
            Self::Bulk => "TCP, bulk",
            Self::Datagrams => "UDP",
            Self::DatagramsByPool => "UDP, pool",
        }
    }
}

/// Something that is done to the pool, while which some errors are what should happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A backend takes no new connections; its check has not noticed or has just noticed.
    Dead,
    /// A backend looks dead or well again to its check: its UDP flows are let go, with what is on its way.
    Moved,
}

impl Trouble {
    /// Whether this explains an error of that kind of traffic.
    const fn explains(self, kind: Kind) -> bool {
        match self {
            Self::Dead => matches!(kind, Kind::ShortByPool | Kind::DatagramsByPool),
            Self::Moved => matches!(kind, Kind::DatagramsByPool),
        }
    }
}

/// Answers and bytes of one kind of traffic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Questions that were answered, byte for byte.
    pub answers: u64,
    /// Bytes that came back.
    pub bytes: u64,
}

/// An error.
#[derive(Clone, Debug)]
pub struct Error {
    /// When it began and when it was seen.
    pub during: [Duration; 2],
    pub kind: Kind,
    pub what: String,
}

/// All of it, of one lane.
#[derive(Debug)]
pub struct Log {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    done: BTreeMap<Kind, Done>,
    errors: Vec<Error>,
    troubles: Vec<(Trouble, Duration, Option<Duration>)>,
}

/// What follows a trouble a little later (a reset on its way, a datagram asked for again) is still its.
const AFTER: Duration = Duration::from_millis(1500);

impl Log {
    pub fn new() -> Self {
        Self { start: Instant::now(), inner: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().expect("no holder panics"))
    }

    pub fn answered(&self, kind: Kind, bytes: usize) {
        self.with(|inner| {
            let done = inner.done.entry(kind).or_default();
            done.answers += 1;
            done.bytes += bytes as u64;
        });
    }

    pub fn error(&self, kind: Kind, since: Instant, what: impl Into<String>) {
        let during = [since.saturating_duration_since(self.start), self.start.elapsed()];
        self.with(|inner| inner.errors.push(Error { during, kind, what: what.into() }));
    }

    pub fn begins(&self, trouble: Trouble) {
        let now = self.start.elapsed();
        self.with(|inner| inner.troubles.push((trouble, now, None)));
    }

    pub fn is_over(&self, trouble: Trouble) {
        let now = self.start.elapsed();
        self.with(|inner| {
            let open = inner
                .troubles
                .iter_mut()
                .rev()
                .find(|(which, _, until)| *which == trouble && until.is_none());
            if let Some((_, _, until)) = open {
                *until = Some(now);
            }
        });
    }

    pub fn done(&self) -> BTreeMap<Kind, Done> {
        self.with(|inner| inner.done.clone())
    }

    /// The errors that something explains, and those that nothing does.
    pub fn judged(&self) -> [Vec<Error>; 2] {
        self.with(|inner| {
            let explained = |error: &Error| {
                inner.troubles.iter().any(|(trouble, from, until)| {
                    let [began, seen] = error.during;
                    trouble.explains(error.kind)
                        && seen >= *from
                        && until.is_none_or(|until| began <= until + AFTER)
                })
            };
            let (explained, others) = inner.errors.iter().cloned().partition(explained);
            [explained, others]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_needs_a_trouble_of_its_kind_at_its_time() {
        let log = Log::new();
        let counts = |log: &Log| log.judged().map(|errors| errors.len());
        log.error(Kind::ShortByPool, Instant::now(), "before");
        assert_eq!(counts(&log), [0, 1]);
        log.begins(Trouble::Dead);
        log.error(Kind::ShortByPool, Instant::now(), "meanwhile");
        log.error(Kind::Held, Instant::now(), "held");
        assert_eq!(counts(&log), [1, 2]);
        log.is_over(Trouble::Dead);
        log.error(Kind::ShortByPool, Instant::now() + AFTER * 2, "long after");
        assert_eq!(counts(&log), [1, 3]);
    }
}
