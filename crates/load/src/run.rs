//! Running a plan: its threads, what is told while they run, and their figures as one.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io, panic};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::context::{Shared, Tally};
use crate::outcome::{Outcome, nanoseconds};
use crate::plan::{Length, Load, Plan, PlanError};
use crate::tcp::Tcp;
use crate::udp::Udp;
use crate::{bulk, drive, idle};

/// How often the progress is told.
const TELL: Duration = Duration::from_millis(100);
/// Descriptors that a process has beside its connections.
const OTHER_FILES: u64 = 64;

/// Stops a load from another thread, within 50 ms. What was done until then is reported.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Not stopped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops it.
    pub fn stop(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it is stopped.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// How far a load is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Since the start, warm-up included.
    pub elapsed: Duration,
    /// Whether what is done counts already.
    pub counting: bool,
    /// What has succeeded; of idle connections, how many are held now.
    pub done: u64,
    /// What has failed.
    pub failed: u64,
    /// Payload of both directions, in bytes.
    pub bytes: u64,
}

/// Why a load could not be run.
#[derive(Debug)]
pub enum Error {
    /// The plan is wrong.
    Plan(PlanError),
    /// More connections than this process may have descriptors.
    Files {
        /// Needed.
        need: u64,
        /// The hard limit.
        most: u64,
    },
    /// A source address that is none of this host's.
    Source {
        /// The address.
        address: IpAddr,
        /// What the kernel said.
        reason: io::Error,
    },
    /// What the kernel said.
    System(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(error) => error.fmt(f),
            Self::Files { need, most } => {
                write!(f, "{need} descriptors are needed, and the limit is {most} (ulimit -Hn)")
            }
            Self::Source { address, reason } => write!(f, "from {address}: {reason}"),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

/// Runs a load on threads of its own, in the network namespace of the calling thread, which waits and hears about the
/// progress ten times a second. Raises the process's soft limit of descriptors as far as the load needs.
///
/// # Errors
/// When it cannot be run. That requests fail is no error, but what the outcome tells.
pub fn run(plan: &Plan, stop: &Stop, mut progress: impl FnMut(&Progress)) -> Result<Outcome, Error> {
    plan.check().map_err(Error::Plan)?;
    allow_files(u64::from(plan.concurrency) + OTHER_FILES)?;
    for address in &plan.from {
        // Asked here, since later the kernel says the same of an address that has no port left.
        let bound = UdpSocket::bind((*address, 0));
        bound.map_err(|reason| Error::Source { address: *address, reason })?;
    }
    let threads = plan.threads.min(plan.concurrency);
    let left = match plan.length {
        Length::Count(count) => count,
        Length::Time(_) | Length::Bytes(_) => 0,
    };
    let shared = Shared {
        origin: Instant::now(),
        stop: stop.0.clone(),
        left: AtomicU64::new(left),
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    let mut tally = Tally::new();
    thread::scope(|scope| {
        let work = |index| {
            let shared = &shared;
            let name = format!("load-{index}");
            thread::Builder::new().name(name).spawn_scoped(scope, move || {
                let result = work(plan, shared, index, threads);
                if result.is_err() {
                    // The others would go on without its part.
                    shared.stop.store(true, Relaxed);
                }
                result
            })
        };
        let mut started = Vec::new();
        for index in 0..threads {
            match work(index) {
                Ok(thread) => started.push(thread),
                Err(error) => {
                    shared.stop.store(true, Relaxed);
                    return Err(Error::System(error));
                }
            }
        }
        while !started.iter().all(ScopedJoinHandle::is_finished) {
            let elapsed = shared.origin.elapsed();
            progress(&Progress {
                elapsed,
                counting: elapsed >= plan.warm_up,
                done: shared.done.load(Relaxed),
                failed: shared.failed.load(Relaxed),
                bytes: shared.bytes.load(Relaxed),
            });
            rest(&started);
        }
        for thread in started {
            let part = thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
            tally.merge(&part);
        }
        Ok(())
    })?;
    Ok(outcome(plan, threads, &tally, shared.now(), stop.is_stopped()))
}

/// Waits until the progress is to be told, or all threads have ended.
fn rest(threads: &[ScopedJoinHandle<'_, Result<Tally, Errno>>]) {
    let until = Instant::now() + TELL;
    while Instant::now() < until && !threads.iter().all(ScopedJoinHandle::is_finished) {
        thread::sleep(TELL / 20);
    }
}

/// The part of thread `index`.
fn work(plan: &Plan, shared: &Shared, index: u32, threads: u32) -> Result<Tally, Errno> {
    let slots = plan.concurrency / threads + u32::from(index < plan.concurrency % threads);
    let place = (index, threads);
    let mut tally = match &plan.load {
        Load::Connections(exchange) => {
            drive::drive(plan, shared, place, slots, &mut Tcp::new(plan, exchange, false, index, slots))
        }
        Load::Keepalive(exchange) => {
            drive::drive(plan, shared, place, slots, &mut Tcp::new(plan, exchange, true, index, slots))
        }
        Load::Udp { size, fresh } => {
            drive::drive(plan, shared, place, slots, &mut Udp::new(plan, *size, *fresh, index, slots))
        }
        Load::Bulk(direction) => bulk::drive(plan, *direction, shared, index, slots),
        Load::Idle => idle::drive(plan, shared, place, slots),
    }?;
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    tally.cpu = cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64;
    Ok(tally)
}

fn outcome(plan: &Plan, threads: u32, tally: &Tally, elapsed: u64, stopped: bool) -> Outcome {
    let warm = nanoseconds(plan.warm_up);
    let counted = match (&plan.load, plan.length) {
        (Load::Idle, _) => tally.last,
        (_, Length::Time(time)) if !stopped => nanoseconds(time),
        (_, Length::Time(_)) => elapsed.saturating_sub(warm),
        (_, Length::Count(_) | Length::Bytes(_)) => tally.last.saturating_sub(warm),
    };
    Outcome {
        seconds: counted as f64 / 1e9,
        done: tally.done,
        sent: tally.sent,
        received: tally.received,
        errors: tally.errors,
        latency: tally.times.latency(),
        cpu: tally.cpu as f64 / 1e9,
        busy: tally.cpu as f64 / (elapsed.max(1) as f64 * f64::from(threads)),
    }
}

/// Raises the soft limit of descriptors as far as needed.
fn allow_files(need: u64) -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= need) {
        return Ok(());
    }
    if let Some(most) = limit.maximum.filter(|most| *most < need) {
        return Err(Error::Files { need, most });
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum: limit.maximum })?;
    Ok(())
}
