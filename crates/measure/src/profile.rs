//! Where the work of a lane under a load goes: a run of its own, apart from the rounds, in which all processors are sampled.
//!
//! To sample costs something, so of this run only the shares are kept; a report has them of the median of the rounds. What is counted
//! is what the rounds count: client, server, forwarder, and the kernel's threads for packets. Deliberately absent: how samples are
//! taken ([`portway_lab::perf`]).

pub mod areas;
pub mod tally;

use std::collections::HashMap;

use portway_lab::perf;
use portway_lab::perf::symbols::Symbols;

use crate::lane::setup::Lane;
use crate::load::{Load, Terms};
use crate::record::{Mode, Profile};
use crate::{flows, meter};
use tally::{Tally, Whose};

/// Nanoseconds from one sample to the next; instructions, where those are counted. No round figures, lest what is done in turn be seen
/// always at the same place.
const fn period(mode: Mode) -> u64 {
    match mode {
        Mode::Time => 99_991,
        Mode::Exact => 24_989,
    }
}

/// Runs a load in a lane and says where its work went.
///
/// # Errors
/// The kernel does not sample, or nothing was seen.
///
/// # Panics
/// When the load does.
pub fn take(lane: &Lane, load: Load, terms: Terms, mode: Mode, symbols: &Symbols) -> Result<Profile, String> {
    // As before a round.
    if lane.scheme.has_conntrack() {
        flows::forget(&lane.net.gateway)?;
    }
    let servers = lane.servers().into_iter().map(|group| (group, Whose::Server));
    let forwarders = lane.forwarder().map(|process| (process.id(), Whose::Forwarder));
    let mut processes = HashMap::from([(std::process::id(), Whose::Lab)]);
    for (group, whose) in servers.chain(forwarders) {
        processes.extend(meter::members(group).map(|process| (process, whose)));
    }
    let (figures, sampled) = perf::during(period(mode), || load.run(lane, terms))?;
    let counts_forwarder = meter::counts_forwarder(mode, &lane.scheme);
    let tally = Tally::of(&sampled.bytes, &processes, counts_forwarder, |at| symbols.function(at));
    if tally.samples() == 0 {
        return Err(format!("nothing of it was seen in {} samples", tally.elsewhere));
    }
    Ok(Profile {
        lane: lane.scheme.name(),
        load: load.name().to_owned(),
        done: figures.done,
        period: period(mode),
        samples: tally.samples(),
        elsewhere: tally.elsewhere,
        lost: tally.lost.saturating_add(sampled.lost),
        areas: tally.areas.iter().map(|(area, samples)| (area.name().to_owned(), *samples)).collect(),
        functions: tally.functions(),
    })
}
