//! The thread: what all tasks share, and the one that starts and ends the others.
//!
//! Deliberately absent: what a task does ([`crate::probe`], [`crate::lookup`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use portway_core::check::Pattern;
use portway_core::facts::{Lookup, Moment, Probe};
use portway_core::ruleset::{Check, Dns};
use rustix::process::{Resource, getrlimit};
use tokio::sync::{Notify, Semaphore};
use tokio::task;

use crate::lookup::Last;
use crate::resolver::Resolver;
use crate::tls::{READING, Tls};
use crate::{Event, Report, lookup, probe};

/// The most checks at the same time; each holds one descriptor.
const CHECKS: usize = 1000;
/// Checks hold at most one in so many of the process's descriptors: the rest is for traffic.
const SHARE: usize = 8;
/// The most programs at the same time.
const COMMANDS: usize = 8;
/// The most lookups at the same time; each asks at most [`crate::resolver::QUESTIONS`] questions at a time.
const LOOKUPS: usize = 64;
/// Threads for what blocks: programs, and the certificate files of checks.
const BLOCKING: usize = COMMANDS + READING;
/// New checks start this far apart, so that 10,000 of them do not start in one instant.
const APART: Duration = Duration::from_micros(100);
/// How long the end of the thread waits for programs that were killed.
const LAST_WAIT: Duration = Duration::from_secs(1);

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
    pub(crate) random: crate::random::Random,
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
            random: crate::random::Random::new(),
        }
    }

    /// Tells the thread what to watch. Only the last word counts.
    pub(crate) fn want(&self, wanted: Wanted) {
        locked(&self.orders).wanted = Some(wanted);
        self.told.notify_one();
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

/// A lock whose holders do not panic half-way: what they guard is whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread.
pub(crate) fn start(context: Arc<Context>) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING)
        .thread_name("portway-watch+")
        .build()?;
    thread::Builder::new().name("portway-watch".to_owned()).spawn(move || {
        runtime.block_on(run(&context));
        runtime.shutdown_timeout(LAST_WAIT);
    })
}

/// A task that ends with its owner.
struct Task(task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does what the owner says, until the end.
async fn run(context: &Arc<Context>) {
    let mut probes = BTreeMap::new();
    let mut lookups = BTreeMap::new();
    let mut asked: Option<Dns> = None;
    let mut resolver = Arc::new(Resolver::new(&Dns::default()));
    loop {
        context.told.notified().await;
        let (wanted, closed) = {
            let mut orders = locked(&context.orders);
            (orders.wanted.take(), orders.closed)
        };
        if closed {
            return;
        }
        let Some(wanted) = wanted else { continue };
        // Certificate files may have changed since the last configuration.
        context.tls.forget();
        watch_probes(context, &mut probes, wanted.probes);
        let anew = asked.as_ref() != Some(&wanted.dns);
        if anew {
            resolver = Arc::new(Resolver::new(&wanted.dns));
        }
        watch_lookups(context, &mut lookups, wanted.lookups, &resolver, anew);
        asked = Some(wanted.dns);
    }
}

fn watch_probes(context: &Arc<Context>, tasks: &mut BTreeMap<Probe, Task>, wanted: BTreeSet<Probe>) {
    tasks.retain(|probe, _| wanted.contains(probe));
    context.note(|report| report.probes.retain(|probe, _| wanted.contains(probe)));
    let fresh: Vec<Probe> = wanted.into_iter().filter(|probe| !tasks.contains_key(probe)).collect();
    // One pattern for all backends of a pool: a compiled expression is large.
    let mut patterns: BTreeMap<Arc<Check>, Result<Option<Pattern>, String>> = BTreeMap::new();
    let count = u32::try_from(fresh.len()).unwrap_or(u32::MAX).max(1);
    for (nth, probe) in (0_u32..).zip(fresh) {
        let check = &probe.check;
        let pattern = patterns.entry(Arc::clone(check)).or_insert_with(|| Pattern::of(&check.kind)).clone();
        let delay = APART.min(check.interval / count) * nth;
        let task = probe::watch(Arc::clone(context), probe.clone(), pattern, delay);
        tasks.insert(probe, Task(task::spawn(task)));
    }
}

/// Those that are watched already go on as they are, or are asked for `anew`, with the answer that they have.
fn watch_lookups(
    context: &Arc<Context>,
    tasks: &mut BTreeMap<Lookup, (Task, Last)>,
    wanted: BTreeSet<Lookup>,
    resolver: &Arc<Resolver>,
    anew: bool,
) {
    tasks.retain(|lookup, _| wanted.contains(lookup));
    context.note(|report| report.lookups.retain(|lookup, _| wanted.contains(lookup)));
    for lookup in wanted {
        let last = match tasks.remove(&lookup) {
            Some(task) if !anew => {
                tasks.insert(lookup, task);
                continue;
            }
            Some((_, last)) => last,
            None => Last::default(),
        };
        let task =
            lookup::watch(Arc::clone(context), lookup.clone(), Arc::clone(resolver), Arc::clone(&last));
        tasks.insert(lookup, (Task(task::spawn(task)), last));
    }
}
