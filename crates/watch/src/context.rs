//! What the owner and all tasks share: the owner's orders, the report, and the places that bound how much goes on at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portway_core::facts::{Lookup, Moment, Probe};
use portway_core::ruleset::Dns;
use rustix::process::{Resource, getrlimit};
use tokio::sync::{Notify, Semaphore};

use crate::lock::locked;
use crate::random::Random;
use crate::tls::Tls;
use crate::{Event, Report};

/// The most checks at the same time; each holds one descriptor.
const CHECKS: usize = 1000;
/// Checks hold at most one in so many of the process's descriptors: the rest is for traffic.
const SHARE: usize = 8;
/// The most programs at the same time.
pub(crate) const COMMANDS: usize = 8;
/// The most lookups at the same time; each asks at most [`crate::resolver::QUESTIONS`] questions at a time.
const LOOKUPS: usize = 64;

/// What is to be watched.
pub(crate) struct Wanted {
    pub(crate) probes: BTreeSet<Probe>,
    pub(crate) lookups: BTreeSet<Lookup>,
    pub(crate) dns: Dns,
}

/// What the owner has said last.
#[derive(Default)]
struct Orders {
    wanted: Option<Wanted>,
    closed: bool,
}

/// What the owner and all tasks share.
pub(crate) struct Context {
    start: Instant,
    send: Box<dyn Fn(Event) + Send + Sync>,
    orders: Mutex<Orders>,
    told: Notify,
    report: Mutex<Report>,
    pub(crate) checks: Arc<Semaphore>,
    pub(crate) commands: Arc<Semaphore>,
    pub(crate) lookups: Semaphore,
    pub(crate) tls: Tls,
    pub(crate) random: Random,
}

impl Context {
    pub(crate) fn new(start: Instant, send: Box<dyn Fn(Event) + Send + Sync>) -> Self {
        let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
        let checks = files.map_or(CHECKS, |files| (files / SHARE).clamp(16, CHECKS));
        Self {
            start,
            send,
            orders: Mutex::default(),
            told: Notify::new(),
            report: Mutex::default(),
            checks: Arc::new(Semaphore::new(checks)),
            commands: Arc::new(Semaphore::new(COMMANDS)),
            lookups: Semaphore::new(LOOKUPS),
            tls: Tls::new(),
            random: Random::new(),
        }
    }

    /// Tells the thread what to watch. Only the last word counts.
    pub(crate) fn want(&self, wanted: Wanted) {
        locked(&self.orders).wanted = Some(wanted);
        self.told.notify_one();
    }

    /// Waits for the next word, and says it: nothing when the thread shall end.
    pub(crate) async fn word(&self) -> Option<Wanted> {
        loop {
            self.told.notified().await;
            let mut orders = locked(&self.orders);
            if orders.closed {
                return None;
            }
            if let Some(wanted) = orders.wanted.take() {
                return Some(wanted);
            }
        }
    }

    /// Tells the thread to end.
    pub(crate) fn close(&self) {
        locked(&self.orders).closed = true;
        self.told.notify_one();
    }

    pub(crate) fn report(&self) -> Report {
        locked(&self.report).clone()
    }

    /// Changes the report.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Report)) {
        note(&mut locked(&self.report));
    }

    pub(crate) fn send(&self, event: Event) {
        (self.send)(event);
    }

    /// The moment of an instant.
    pub(crate) fn moment(&self, at: Instant) -> Moment {
        at.saturating_duration_since(self.start)
    }

    /// The instant of a moment; far away where the clock cannot express it.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.start.checked_add(moment).unwrap_or_else(|| Instant::now() + FAR)
    }
}
