//! The tables of a report: the same figures as the drawings', and those that nobody draws.

use super::document::{NOTHING, Table};
use super::{figures, words};
use crate::quantity::{Part, Percentile, Quantity};
use crate::record::{Lane, Record};
use crate::subject::{Unit, subject};

/// What a lane did under a load: speed, times, cost.
pub fn cost(record: &Record, name: &str) -> Table {
    let unit = subject(name).unit;
    let (cost, each) = (unit.cost(record.mode), unit.word());
    let speed = if unit == Unit::Gigabyte { Quantity::Throughput } else { Quantity::Rate };
    let mut table = Table::new(
        format!("{}: median of the rounds, in brackets their middle half", subject(name).title),
        &[
            "lane",
            &words::column(&speed.title(unit), speed.counted_in(unit, record.mode)),
            &format!("CPU per {each}, {cost}"),
            &format!("added over base, {cost}"),
            &format!("of it kernel, {cost}"),
            &format!("of it programs, {cost}"),
            "failed, %",
        ],
    );
    for lane in lanes_of(record, name) {
        let rounds = |quantity| words::spread(&record.rounds(&lane.name, name, None, quantity));
        let added = |part| record.added(lane, name, None, Quantity::Cpu(part));
        table.rows.push(vec![
            lane.name.clone(),
            rounds(speed),
            rounds(Quantity::Cpu(Part::Total)),
            told(record, &added(Part::Total)),
            words::spread(&added(Part::Kernel)),
            words::spread(&added(Part::User)),
            rounds(Quantity::Failures),
        ]);
    }
    table.compact()
}

/// Added cost, and that it is lost in the noise where its middle half reaches over zero.
fn told(record: &Record, added: &crate::rounds::Rounds) -> String {
    let text = words::spread(added);
    match added.summary() {
        Some(middle) if added.len() >= record.least_rounds() && middle.low <= 0.0 && middle.high > 0.0 => {
            format!("{text}, too wide to tell")
        }
        _ => text,
    }
}

/// How long one of a load's units took.
pub fn latency(record: &Record, name: &str) -> Table {
    let mut head = vec!["lane".to_owned()];
    head.extend(Percentile::ALL.map(|percentile| format!("{}, ms", percentile.name())));
    head.push("longest, ms".to_owned());
    let caption = format!("{}: times, from when one was due", subject(name).title);
    let mut table = Table { caption, head, rows: Vec::new() };
    for lane in lanes_of(record, name) {
        let mut row = vec![lane.name.clone()];
        row.extend(Percentile::ALL.map(|percentile| {
            words::spread(&record.rounds(&lane.name, name, None, Quantity::Percentile(percentile)))
        }));
        let longest = record.runs_of(&lane.name, name, None).filter_map(|run| run.figures.latency.as_ref());
        let longest = longest.map(|latency| latency.max / 1e3).filter(|time| time.is_finite());
        row.push(longest.reduce(f64::max).map_or(NOTHING.to_owned(), words::figure));
        table.rows.push(row);
    }
    table.compact()
}

/// What else was measured under a load.
pub fn rest(record: &Record, name: &str) -> Table {
    let unit = subject(name).unit;
    let quantities = [
        Quantity::MachineCpu,
        Quantity::ForwarderCpu,
        Quantity::ForwarderMemory,
        Quantity::Packets,
        Quantity::Retransmits,
        Quantity::Conntrack,
        Quantity::SourcePorts,
    ];
    let mut head = vec!["lane".to_owned()];
    head.extend(
        quantities
            .map(|quantity| words::column(&quantity.title(unit), quantity.counted_in(unit, record.mode))),
    );
    head.push("failures by kind".to_owned());
    let caption = format!("{}: what else was measured", subject(name).title);
    let mut table = Table { caption, head, rows: Vec::new() };
    for lane in lanes_of(record, name) {
        let mut row = vec![lane.name.clone()];
        row.extend(
            quantities.map(|quantity| words::spread(&record.rounds(&lane.name, name, None, quantity))),
        );
        row.push(failures(record, lane, name));
        table.rows.push(row);
    }
    table.compact()
}

/// All failures of all rounds, by kind.
fn failures(record: &Record, lane: &Lane, load: &str) -> String {
    let mut kinds = std::collections::BTreeMap::<&str, u64>::new();
    for (kind, count) in record.runs_of(&lane.name, load, None).flat_map(|run| &run.figures.errors) {
        let all = kinds.entry(kind).or_default();
        *all = all.saturating_add(*count);
    }
    let kinds = kinds.into_iter().filter(|(_, count)| *count > 0);
    let text: Vec<String> = kinds.map(|(kind, count)| format!("{kind} {count}")).collect();
    if text.is_empty() { NOTHING.to_owned() } else { text.join(", ") }
}

/// Memory for each held connection.
pub fn held(record: &Record, name: &str) -> Table {
    let mut table = Table::new(
        "Memory per held connection, in bytes: median of the rounds, in brackets their middle half",
        &["lane", "connections held", "kernel, over base", "forwarder's processes", "processes in all, MiB"],
    );
    for lane in lanes_of(record, name) {
        let (kernel, user) = figures::held(record, lane, name);
        let held: crate::rounds::Rounds =
            record.runs_of(&lane.name, name, None).map(|run| (run.round, run.figures.done as f64)).collect();
        let all = record.rounds(&lane.name, name, None, Quantity::ForwarderMemory);
        let [kernel, user, held, all] = [&kernel, &user, &held, &all].map(words::spread);
        table.rows.push(vec![lane.name.clone(), held, kernel, user, all]);
    }
    table.compact()
}

/// What the CPUs did on average in the round that is drawn.
pub fn cpu(record: &Record, name: &str) -> Table {
    let mut table = Table::new(
        format!("{}: CPUs busy, the mean of the round that is drawn", subject(name).title),
        &["lane", "round", "programs", "kernel", "softirq", "forwarder"],
    );
    for lane in &record.lanes {
        let Some(run) = figures::median_run(record, lane, name) else { continue };
        let mean = |part: fn(&crate::record::Moment) -> f64| {
            words::figure(run.moments.iter().map(part).sum::<f64>() / run.moments.len() as f64)
        };
        table.rows.push(vec![
            lane.name.clone(),
            (run.round).to_string(),
            mean(|m| m.user),
            mean(|m| m.kernel),
            mean(|m| m.softirq),
            mean(|m| m.forwarder),
        ]);
    }
    table
}

/// Cost along a series.
pub fn series(record: &Record, of: &str, name: &str) -> Table {
    let unit = subject(name).unit;
    let mut counts: Vec<u64> = record
        .lanes
        .iter()
        .flat_map(|lane| record.points(&lane.name, of, name))
        .map(|point| point.count)
        .collect();
    counts.sort_unstable();
    counts.dedup();
    let caption = format!("CPU per {}, {}, by {of}", unit.word(), unit.cost(record.mode));
    let head = std::iter::once("lane".to_owned());
    let head = head.chain(counts.iter().map(|count| words::count(*count))).collect();
    let mut table = Table { caption, head, rows: Vec::new() };
    for lane in &record.lanes {
        let cell = |count: &u64| {
            let point = crate::record::Point { of: of.to_owned(), count: *count };
            words::spread(&record.rounds(&lane.name, name, Some(&point), Quantity::Cpu(Part::Total)))
        };
        let cells: Vec<String> = counts.iter().map(cell).collect();
        if cells.iter().any(|cell| cell != NOTHING) {
            table.rows.push(std::iter::once(lane.name.clone()).chain(cells).collect());
        }
    }
    table
}

fn lanes_of<'a>(record: &'a Record, load: &'a str) -> impl Iterator<Item = &'a Lane> {
    record.lanes.iter().filter(move |lane| record.runs_of(&lane.name, load, None).next().is_some())
}
