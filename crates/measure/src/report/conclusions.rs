//! What follows from a record for the host that was measured, in words: which of Portway's engines is the cheapest here, by how
//! much, and what to write in the configuration.
//!
//! Deliberately absent: what a demand takes ([`crate::advise`]).

use std::cmp::Ordering;

use super::document::Block;
use super::marks::{self, Cell};
use super::words;
use crate::quantity::{Part, Quantity};
use crate::record::{Kind, Lane, Record};
use crate::rounds::Rounds;
use crate::stats::Summary;

/// What follows from a record for this host, in words: the last lines of a report.
pub fn conclusions(record: &Record) -> Vec<Block> {
    let items: Vec<String> = ["connections", "bulk-up", "bulk-down"]
        .into_iter()
        .filter_map(|load| ranking(record, load))
        .collect();
    let mut blocks = vec![Block::Heading(2, "Which engine fits this host".to_owned())];
    if items.is_empty() {
        blocks.push(Block::Paragraph(
            "Too little was measured to say: it takes at least one of Portway's engines and its base under new connections or bulk."
                .to_owned(),
        ));
        return blocks;
    }
    blocks.push(Block::List(items));
    blocks.push(Block::Paragraph(engine(record)));
    blocks
}

/// Portway's engines under a load, the cheapest first, and what the cheapest of the others costs beside it.
fn ranking(record: &Record, load: &str) -> Option<String> {
    let subject = crate::subject::subject(load);
    let unit = subject.unit.cost(record.mode);
    let mut costs: Vec<(&Lane, Rounds, Summary)> = record
        .lanes
        .iter()
        .filter_map(|lane| {
            let added = record.added(lane, load, None, Quantity::Cpu(Part::Total));
            let middle = added.summary()?;
            Some((lane, added, middle))
        })
        .collect();
    costs.sort_by(|a, b| a.2.median.total_cmp(&b.2.median));
    let (best, cheapest, _) = costs.iter().find(|(lane, ..)| lane.kind == Kind::Portway)?;
    let told = |added| marks::spoken(&Cell::added(record, added).marked(unit));
    let mut text = format!(
        "{}: of Portway's engines {} adds the least CPU per {}, {}",
        subject.title,
        best.name,
        subject.unit.word(),
        told(cheapest)
    );
    for (lane, added, _) in costs.iter().filter(|(lane, ..)| lane.kind == Kind::Portway).skip(1) {
        text += &format!("; {} {}{}", lane.name, told(added), times(record, added, cheapest));
    }
    for kind in [Kind::Kernel, Kind::Program] {
        if let Some((lane, added, _)) = costs.iter().find(|(lane, ..)| lane.kind == kind) {
            let which = if kind == Kind::Kernel { "rules written by hand" } else { "other programs" };
            text += &format!(
                "; of {which} {} adds the least, {}{}",
                lane.name,
                told(added),
                times(record, added, cheapest)
            );
        }
    }
    Some(text + ".")
}

/// How many times as much, if the rounds tell: the middle half of the differences within rounds lies on one side of zero.
fn times(record: &Record, more: &Rounds, less: &Rounds) -> String {
    let differ = tells(record, more, less).is_some();
    match (more.summary(), less.summary()) {
        (Some(more), Some(less)) if differ && less.low > 0.0 => {
            format!(", {} times as much", words::figure(more.median / less.median))
        }
        _ if differ => String::new(),
        _ => ", which the rounds do not tell apart".to_owned(),
    }
}

/// Whether the first costs more than the second, or less; nothing if the rounds do not tell.
fn tells(record: &Record, first: &Rounds, second: &Rounds) -> Option<Ordering> {
    let differences = first.with(second, |first, second| first - second);
    let middle = differences.summary().filter(|_| differences.len() >= record.least_rounds())?;
    match (middle.low > 0.0, middle.high < 0.0) {
        (true, _) => Some(Ordering::Greater),
        (_, true) => Some(Ordering::Less),
        _ => None,
    }
}

/// What to write in the configuration.
fn engine(record: &Record) -> String {
    let added = |name: &str| {
        record.lane(name).map_or_else(Rounds::default, |lane| {
            record.added(lane, "connections", None, Quantity::Cpu(Part::Total))
        })
    };
    let (ebpf, nftables) = (added("portway-ebpf"), added("portway-nftables"));
    let both = ebpf.with(&nftables, |ebpf, _| ebpf).len() >= record.least_rounds();
    let auto = "Leave the choice to Portway: engine auto takes nftables wherever it can serve";
    let choice = match tells(record, &ebpf, &nftables) {
        Some(Ordering::Less) => {
            ". Write engine = \"ebpf\" for rules with so many new connections that they fill the CPUs: it adds less here".to_owned()
        }
        Some(_) => ", and that is cheaper here than ebpf".to_owned(),
        None if both => ". Whether ebpf would be cheaper here, this run does not tell".to_owned(),
        None => {
            let rounds = match record.least_rounds() {
                1 => String::new(),
                rounds => format!(" with {rounds} rounds at least"),
            };
            format!(". Whether ebpf would be cheaper here takes a run of both{rounds}")
        }
    };
    format!(
        "{auto}{choice}. The proxy is for what only it can do: other address families at both ends, limits and clocks of \
         connections, policies that count flows."
    )
}
