//! Finds facts: makes the health checks and asks the resolvers, on threads of its own.
//!
//! [`Watch::set`] says what to watch, events say what was found. Verdicts and schedules are the core's
//! ([`portway_core::health`], [`portway_core::names`]), and so are the bytes of each protocol
//! ([`portway_core::check`]); here are sockets, TLS, the resolver, programs and the clock. Deliberately absent: what
//! follows from a fact.
//!
//! One thread runs everything (a current-thread runtime); only programs and certificate files, which block, get a few
//! more. Bounded are: checks at the same time (1,000, less where the open-file limit is low), programs (8), lookups
//! (64). Where more is due than fits, it waits its turn, and detection takes longer than
//! [`portway_core::health::detection_time`] says.
//!
//! A backend whose process is frozen (SIGSTOP) or hangs still accepts connections: the kernel does that for it. It
//! passes a bare `tcp` check and fails every check that expects an answer.

#![forbid(unsafe_code)]

mod command;
mod context;
mod fault;
mod lock;
mod lookup;
mod probe;
mod random;
mod report;
mod resolver;
mod socket;
mod thread;
mod tls;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use portway_core::facts::{Answer, Health, Lookup, Probe};
use portway_core::ruleset::Dns;

use context::{Context, Wanted};
pub use report::{LookupReport, ProbeReport, Report};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The verdict on a probe is another one than before, or the first.
    Health {
        /// Which probe.
        probe: Probe,
        /// The verdict.
        health: Health,
        /// When it was reached.
        at: Instant,
    },
    /// The answer to a lookup is another one than before, or the first.
    Names {
        /// Which lookup.
        lookup: Lookup,
        /// The answer.
        answer: Answer,
        /// When it came.
        at: Instant,
    },
}

/// Watches probes and names until it is dropped.
pub struct Watch {
    context: Arc<Context>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread; it watches nothing yet. `start` is the caller's time zero, from which
    /// [`portway_core::facts::Moment`]s count. `send` is called on the thread with everything that is found, and
    /// must not block.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub fn start(start: Instant, send: impl Fn(Event) + Send + Sync + 'static) -> io::Result<Self> {
        let context = Arc::new(Context::new(start, Box::new(send)));
        let thread = thread::start(Arc::clone(&context))?;
        Ok(Self { context, thread: Some(thread) })
    }

    /// What to watch from now on. What was watched already keeps its state and schedule, what is gone is forgotten; no
    /// event of it is sent once the thread has taken notice. Other settings of `dns` have all names asked for at once.
    pub fn set(&self, probes: BTreeSet<Probe>, lookups: BTreeSet<Lookup>, dns: &Dns) {
        self.context.want(Wanted { probes, lookups, dns: dns.clone() });
    }

    /// What was done so far, for people.
    pub fn report(&self) -> Report {
        self.context.report()
    }

    /// The same for another thread: with ten thousand probes a report is worth one.
    pub fn reporter(&self) -> impl FnOnce() -> Report + Send + use<> {
        let context = Arc::clone(&self.context);
        move || context.report()
    }
}

impl Drop for Watch {
    /// Ends the thread, the checks under way and their programs.
    fn drop(&mut self) {
        self.context.close();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; there is nothing to add.
            _ = thread.join();
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
