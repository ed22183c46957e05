//! What the engine and its workers share: counters, limits and the log.
//!
//! Counters are relaxed atomics: nothing is decided by their order. Totals are per worker and cache line, so
//! that workers do not slow each other down; only what a limit is checked against is one number.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portway_core::ruleset::RuleName;
use portway_core::snapshot::RuleCounters;

/// How often a message of one kind is passed on at most.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// State of the whole engine.
pub struct Shared {
    /// Monotonic time zero of all workers.
    pub start: Instant,
    /// TCP connections now, and the most that may be.
    pub connections: Gauge,
    /// UDP flows now, and the most that may be.
    pub flows: Gauge,
    /// Pipes open now, and the most that may be.
    pub pipes: Gauge,
    /// Listening sockets whose accept is paused now.
    pub paused: AtomicUsize,
    /// How often accept was paused.
    pub paused_total: AtomicU64,
    /// When (ms since start) a listener was paused last, to tell episodes apart.
    pub paused_last: AtomicU64,
    /// Workers that have listeners or connections waiting for room.
    pub wanting: AtomicUsize,
    /// What wakes each worker.
    pub wakers: Mutex<Vec<Arc<OwnedFd>>>,
    /// Datagrams that were dropped: socket buffer full, too long for the path, or cut off.
    pub udp_dropped: AtomicU64,
    /// Refusals by UDP backends passed on to clients by ICMP.
    pub icmp_sent: AtomicU64,
    /// Connections that were begun anew with another member.
    pub retries: AtomicU64,
    /// Workers that ended by a panic.
    pub workers_failed: AtomicUsize,
    /// Where messages go.
    pub log: Log,
}

impl Shared {
    /// Has the workers but `id` look whether there is room now.
    pub fn wake_others(&self, id: usize) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.iter().enumerate().filter(|(other, _)| *other != id).for_each(|(_, waker)| wake(waker));
    }

    /// Milliseconds since [`Shared::start`].
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX / 4)
    }

    /// Everything at zero, limits not yet set.
    pub fn new(log: Log) -> Self {
        Self {
            start: Instant::now(),
            connections: Gauge::default(),
            flows: Gauge::default(),
            pipes: Gauge::default(),
            paused: AtomicUsize::new(0),
            paused_total: AtomicU64::new(0),
            paused_last: AtomicU64::new(0),
            wanting: AtomicUsize::new(0),
            wakers: Mutex::new(Vec::new()),
            udp_dropped: AtomicU64::new(0),
            icmp_sent: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            workers_failed: AtomicUsize::new(0),
            log,
        }
    }
}

/// Wakes the worker of this eventfd.
pub fn wake(waker: &OwnedFd) {
    // Fails only when the counter is at its end, and then the worker is being woken anyway.
    _ = rustix::io::write(waker, &1u64.to_ne_bytes());
}

/// A number with a bound.
#[derive(Default)]
pub struct Gauge {
    now: AtomicUsize,
    max: AtomicUsize,
}

impl Gauge {
    /// A bounded number, at 0.
    pub fn new(max: usize) -> Self {
        Self { now: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// The number.
    pub fn get(&self) -> usize {
        self.now.load(Relaxed)
    }

    /// The bound.
    pub fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// Sets the bound. What is above it already stays.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Whether one more fits.
    pub fn has_room(&self) -> bool {
        self.get() < self.max()
    }

    /// Adds one, unless that would pass the bound.
    pub fn enter(&self) -> bool {
        let fits = self.now.fetch_add(1, Relaxed) < self.max();
        if !fits {
            self.leave();
        }
        fits
    }

    /// Takes one away.
    pub fn leave(&self) {
        self.now.fetch_sub(1, Relaxed);
    }
}

/// Totals of one rule in one worker.
#[derive(Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections and flows begun.
    pub flows: AtomicU64,
    /// Bytes from clients.
    pub bytes_in: AtomicU64,
    /// Bytes from the backend.
    pub bytes_out: AtomicU64,
    /// Connections and flows that could not be carried.
    pub failed: AtomicU64,
}

/// The counters and the limit of one rule; it outlives changes of the rule.
pub struct RuleState {
    /// The rule's name.
    pub name: RuleName,
    /// Connections and flows alive.
    pub live: Gauge,
    workers: Vec<Counters>,
}

impl RuleState {
    /// Everything at zero.
    pub fn new(name: RuleName, workers: usize) -> Self {
        Self {
            name,
            live: Gauge::new(usize::MAX),
            workers: (0..workers).map(|_| Counters::default()).collect(),
        }
    }

    /// One worker's totals.
    pub fn counters(&self, worker: usize) -> &Counters {
        &self.workers[worker]
    }

    /// The sums over all workers.
    pub fn snapshot(&self) -> RuleCounters {
        let sum =
            |field: fn(&Counters) -> &AtomicU64| self.workers.iter().map(|w| field(w).load(Relaxed)).sum();
        RuleCounters {
            live: self.live.get() as u64,
            flows: sum(|c| &c.flows),
            packets_in: None,
            packets_out: None,
            bytes_in: sum(|c| &c.bytes_in),
            bytes_out: sum(|c| &c.bytes_out),
            failed: Some(sum(|c| &c.failed)),
        }
    }
}

/// A duration in ms, cut so that sums of a few do not overflow.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

/// Passes messages on, each kind at most once in ten seconds.
pub struct Log {
    sink: Box<dyn Fn(&str) + Send + Sync>,
    last: Mutex<BTreeMap<&'static str, (Instant, u64)>>,
}

impl Log {
    /// Messages go to `sink`.
    pub fn new(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { sink: Box::new(sink), last: Mutex::new(BTreeMap::new()) }
    }

    /// Passes a message on.
    pub fn always(&self, message: &str) {
        (self.sink)(message);
    }

    /// Passes a message on unless one of its kind was within the last ten seconds.
    pub fn seldom(&self, kind: &'static str, message: impl FnOnce() -> String) {
        let now = Instant::now();
        let left_out = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            match last.get_mut(kind) {
                Some((at, left_out)) if now.duration_since(*at) < LOG_PAUSE => {
                    *left_out += 1;
                    return;
                }
                _ => last.insert(kind, (now, 0)).map_or(0, |(_, left_out)| left_out),
            }
        };
        let message = message();
        if left_out == 0 {
            (self.sink)(&message);
        } else {
            (self.sink)(&format!("{message} ({left_out} more like this were not printed)"));
        }
    }
}
