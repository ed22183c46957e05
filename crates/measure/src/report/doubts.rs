//! What a reader must know of whole lanes before believing their figures: that much of what was asked failed, that they were
//! measured in fewer rounds than others.
//!
//! One sentence for each doubt, however many lanes it is of. Deliberately absent: marks beside single figures
//! ([`super::marks`]).

use std::collections::{BTreeMap, BTreeSet};

use super::words;
use crate::load::Load;
use crate::record::{Lane, Point, Record};
use crate::rounds::{FEW_FAILURES, QUIET};

/// Loads in which failures are what is looked at.
const MEANT_TO_FAIL: [Load; 2] = [Load::Churn, Load::Flood];

/// From so many lanes on of which all are meant, they are not named.
const MANY: usize = 4;

/// Lanes that others are compared to, and that have carried nothing.
pub fn idle_bases(record: &Record) -> Vec<String> {
    let mut doubts = Vec::new();
    for load in record.loads() {
        for base in record.lanes_at(load, None).filter(|lane| lane.base.is_none()) {
            if record.runs_of(&base.name, load, None).all(|run| run.figures.done == 0) {
                doubts.push(format!(
                    "{}, to which others are compared, has carried nothing under {load}: what they add is not known.",
                    base.name
                ));
            }
        }
    }
    doubts
}

/// That the machine was another's for so much of the time that times are doubtful.
pub fn stolen(record: &Record) -> Option<String> {
    let stolen = record.stolen().filter(|stolen| stolen.high > QUIET)?;
    Some(format!(
        "the hypervisor gave {} CPUs to others while there was work for them (steal; middle half {} to {}). Rates and times \
         suffer; it is left out of the CPU time of the whole machine.",
        words::figure(stolen.median),
        words::figure(stolen.low),
        words::figure(stolen.high),
    ))
}

/// Where more failed than may: of the lanes, and of what load.
pub fn failed(record: &Record) -> Option<String> {
    let mut items = Vec::new();
    for (load, at) in places(record) {
        if MEANT_TO_FAIL.iter().any(|each| each.name() == load) {
            continue;
        }
        let shares: Vec<(&str, f64)> = record
            .lanes
            .iter()
            .filter_map(|lane| Some((lane.name.as_str(), record.failed(&lane.name, load, at.as_ref())?)))
            .collect();
        let tried = record.lanes_at(load, at.as_ref()).count();
        let percents = || shares.iter().map(|(_, share)| *share);
        let which = match shares.len() {
            0 => continue,
            all if all == tried && all >= MANY => {
                let (least, most) = (percents().fold(100.0, f64::min), percents().fold(0.0, f64::max));
                let [least, most] = [least, most].map(words::percent);
                let range = if least == most { most } else { format!("{least} to {most}") };
                format!("all {all} lanes {range}")
            }
            _ => {
                let each = shares.iter().map(|(lane, share)| format!("{lane} {}", words::percent(*share)));
                each.collect::<Vec<_>>().join(", ")
            }
        };
        items.push(format!("under {} {which}", place(load, at.as_ref())));
    }
    (!items.is_empty()).then(|| {
        format!(
            "more than {FEW_FAILURES} % failed, here in the worst round, and costs are divided by what succeeded: {}.",
            items.join("; ")
        )
    })
}

/// Which lanes were measured in fewer rounds than others of the same load.
pub fn fewer_rounds(record: &Record) -> Option<String> {
    let mut items = Vec::new();
    for (load, at) in places(record) {
        let rounds = |lane: &Lane| {
            let runs = record.runs_of(&lane.name, load, at.as_ref());
            runs.map(|run| run.round).collect::<BTreeSet<_>>().len()
        };
        let counted: Vec<(&str, usize)> =
            record.lanes_at(load, at.as_ref()).map(|lane| (lane.name.as_str(), rounds(lane))).collect();
        let most = counted.iter().map(|(_, rounds)| *rounds).max().unwrap_or(0);
        let mut by_rounds: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (lane, rounds) in counted.into_iter().filter(|(_, rounds)| *rounds < most) {
            by_rounds.entry(rounds).or_default().push(lane);
        }
        let each = by_rounds.iter().map(|(rounds, lanes)| format!("{} {rounds}", lanes.join(", ")));
        let which = each.collect::<Vec<_>>().join(", ");
        if !which.is_empty() {
            items.push(format!("under {} {which} of {most}", place(load, at.as_ref())));
        }
    }
    (!items.is_empty())
        .then(|| format!("not all lanes were measured in all rounds of a load: {}.", items.join("; ")))
}

/// Loads, and the places of series, in the order of a report.
fn places(record: &Record) -> Vec<(&str, Option<Point>)> {
    let mut places: Vec<(&str, Option<Point>)> =
        record.runs.iter().map(|run| (run.load.as_str(), run.at.clone())).collect();
    places.sort_by_cached_key(|(load, at)| {
        let at = at.as_ref().map(|at| (at.of.clone(), at.count));
        (at.is_some(), crate::subject::place(load), (*load).to_owned(), at)
    });
    places.dedup();
    places
}

fn place(load: &str, at: Option<&Point>) -> String {
    at.map_or_else(|| load.to_owned(), |at| format!("{load} at {} {}", at.of, words::count(at.count)))
}
