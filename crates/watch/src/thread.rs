//! The thread: the task that starts and ends the others, as the owner says.
//!
//! Deliberately absent: what a task does ([`crate::probe`], [`crate::lookup`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portway_core::check::Pattern;
use portway_core::facts::{Lookup, Probe};
use portway_core::ruleset::{Check, Dns};
use tokio::task;

use crate::context::{COMMANDS, Context};
use crate::lookup::Last;
use crate::resolver::Resolver;
use crate::tls::READING;
use crate::{lookup, probe};

/// Threads for what blocks: programs, and the certificate files of checks.
const BLOCKING: usize = COMMANDS + READING;
/// New checks start this far apart, so that 10,000 of them do not start in one instant.
const APART: Duration = Duration::from_micros(100);
/// How long the end of the thread waits for programs that were killed.
const LAST_WAIT: Duration = Duration::from_secs(1);

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
    while let Some(wanted) = context.word().await {
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
