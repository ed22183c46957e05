//! The sections of a report that hold figures.

use super::document::{Block, NOTHING, Table};
use super::marks::{self, Cell};
use super::{facts, figures, tables, words};
use crate::quantity::{Busy, Part, Percentile, Quantity};
use crate::record::{Lane, Mode, Record};
use crate::subject;
use crate::targets::TARGETS;

/// The few figures that most want, of all lanes.
pub fn glance(record: &Record) -> Vec<Block> {
    let (time, bulk) =
        (subject::Unit::Connection.cost(record.mode), subject::Unit::Gigabyte.cost(record.mode));
    let table = Table::new(
        "Median of the rounds, in brackets their middle half",
        &[
            "lane",
            &format!("added CPU per new connection, {time}"),
            &format!("added CPU per GB up, {bulk}"),
            &format!("added CPU per GB down, {bulk}"),
            "p99 of new connections at a rate, ms",
            "throughput up, Gbit/s",
            "forwarder's memory, MiB",
        ],
    );
    let row = |lane: &Lane| {
        let added = |load| Cell::added(record, &record.added(lane, load, None, Quantity::Cpu(Part::Total)));
        let plain = |load, quantity| Cell::figure(record, &record.rounds(&lane.name, load, None, quantity));
        // A closed loop's would hide what stalls, and of one processor that is always busy, how long something waits says nothing
        // of another machine.
        let timed = |load, quantity| match record.mode {
            Mode::Time => plain(load, quantity),
            Mode::Exact => Cell::plain(NOTHING.to_owned()),
        };
        let cells = vec![
            added("connections"),
            added("bulk-up"),
            added("bulk-down"),
            timed("paced", Quantity::Percentile(Percentile::P99)),
            timed("bulk-up", Quantity::Throughput),
            plain("connections", Quantity::ForwarderMemory),
        ];
        (lane.name.clone(), cells)
    };
    let table = marks::filled(record, table, record.lanes.iter().map(row).collect()).compact();
    if table.head.len() < 2 {
        return Vec::new();
    }
    let mut blocks = vec![Block::Heading(2, "At a glance".to_owned()), Block::Table(table)];
    let table = machine(record);
    if table.head.len() > 1 {
        blocks.push(Block::Paragraph(facts::MACHINE.to_owned()));
        blocks.push(Block::Table(table));
    }
    blocks
}

/// What each lane adds to the time of the whole machine, for the few loads that most want.
fn machine(record: &Record) -> Table {
    let (time, bulk) =
        (subject::Unit::Connection.cost(record.mode), subject::Unit::Gigabyte.cost(record.mode));
    let table = Table::new(
        "Added CPU of the whole machine",
        &[
            "lane",
            &format!("per new connection, {time}"),
            &format!("of it kernel, {time}"),
            &format!("of it programs, {time}"),
            &format!("per GB up, {bulk}"),
            &format!("of it kernel, {bulk}"),
            &format!("of it programs, {bulk}"),
            &format!("per GB down, {bulk}"),
        ],
    );
    let row = |lane: &Lane| {
        let added =
            |(load, part)| Cell::added(record, &record.added(lane, load, None, Quantity::MachineCpu(part)));
        let columns = [
            ("connections", Busy::All),
            ("connections", Busy::Kernel),
            ("connections", Busy::Programs),
            ("bulk-up", Busy::All),
            ("bulk-up", Busy::Kernel),
            ("bulk-up", Busy::Programs),
            ("bulk-down", Busy::All),
        ];
        (lane.name.clone(), columns.map(added).to_vec())
    };
    let lanes = record.lanes.iter().filter(|lane| lane.base.is_some());
    marks::filled(record, table, lanes.map(row).collect()).compact()
}

/// All about a load.
pub fn load(record: &Record, name: &str) -> Vec<Block> {
    let load = subject::subject(name);
    let mut blocks = vec![Block::Heading(2, load.title.to_owned())];
    let bases: Vec<String> = record
        .lanes
        .iter()
        .filter(|lane| lane.base.is_none())
        .filter_map(|lane| {
            let cost = record.rounds(&lane.name, name, None, Quantity::Cpu(Part::Total)).summary()?.median;
            Some(format!("{} {} {}", lane.name, words::figure(cost), load.unit.cost(record.mode)))
        })
        .collect();
    let mut text = if load.what.is_empty() { String::new() } else { words::sentence(load.what) };
    if !bases.is_empty() && !figures::is_held(&load) {
        text += &format!(" Without a forwarder a {} costs: {}.", load.unit.word(), bases.join(", "));
    }
    if !text.is_empty() {
        blocks.push(Block::Paragraph(text.trim().to_owned()));
    }
    let (drawings, table) = if figures::is_held(&load) {
        (Vec::from_iter(figures::held_memory(record, name)), tables::held(record, name))
    } else {
        (figures::added_cost(record, name), tables::cost(record, name))
    };
    blocks.push(if drawings.is_empty() { Block::Table(table) } else { Block::Figure(drawings, table) });
    let machine = tables::machine(record, name);
    if machine.head.len() > 1 {
        blocks.push(Block::Table(machine));
    }
    if let Some(drawing) = figures::latency(record, name) {
        blocks.push(Block::Figure(vec![drawing], tables::latency(record, name)));
    }
    if let Some(drawing) = figures::cpu_over_time(record, name) {
        blocks.push(Block::Figure(vec![drawing], tables::cpu(record, name)));
    }
    let rest = tables::rest(record, name);
    if rest.head.len() > 1 {
        blocks.push(Block::Table(rest));
    }
    blocks
}

/// What Portway promises, and whether this run shows it.
pub fn targets(record: &Record) -> Vec<Block> {
    let mut table = Table::new(
        "Ratios within rounds: the median, in brackets the middle half",
        &["what", "ratio", "at most", "verdict"],
    );
    for target in TARGETS {
        let ratio = target.ratio(record);
        if !ratio.is_empty() {
            let verdict = target.verdict(record).words().to_owned();
            table.rows.push(vec![target.title(), words::spread(&ratio), target.most.to_string(), verdict]);
        }
    }
    if table.rows.is_empty() {
        return Vec::new();
    }
    vec![Block::Heading(2, "What Portway promises".to_owned()), Block::Table(table)]
}

/// The rounds that stand out.
pub fn outliers(record: &Record) -> Vec<Block> {
    let mut items = Vec::new();
    for load in record.loads() {
        let unit = subject::subject(load).unit;
        let quantity = Quantity::Cpu(Part::Total);
        for lane in &record.lanes {
            let rounds = record.rounds(&lane.name, load, None, quantity);
            for (round, figure) in rounds.outliers() {
                let middle =
                    rounds.summary().map_or(NOTHING.to_owned(), |middle| words::figure(middle.median));
                items.push(format!(
                    "{}, {load}, round {}: {} {} per {}, where the median is {middle}.",
                    lane.name,
                    round,
                    words::figure(figure),
                    unit.cost(record.mode),
                    unit.word(),
                ));
            }
        }
    }
    if items.is_empty() {
        return Vec::new();
    }
    vec![Block::Heading(2, "Rounds that stand out".to_owned()), Block::List(items)]
}
