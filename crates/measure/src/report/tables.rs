//! The tables of a report: the same figures as the drawings', and those that nobody draws.

use super::document::{NOTHING, Table};
use super::marks::{self, Cell};
use super::{figures, words};
use crate::quantity::{Busy, Part, Percentile, Quantity};
use crate::record::{Lane, Record};
use crate::rounds::Rounds;
use crate::subject::{Unit, subject};

/// What a lane did under a load: speed, times, cost.
pub fn cost(record: &Record, name: &str) -> Table {
    let unit = subject(name).unit;
    let (cost, each) = (unit.cost(record.mode), unit.word());
    let speed = if unit == Unit::Gigabyte { Quantity::Throughput } else { Quantity::Rate };
    let table = Table::new(
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
    let row = |lane: &Lane| {
        let figure = |quantity| Cell::figure(record, &record.rounds(&lane.name, name, None, quantity));
        let added = |part| Cell::added(record, &record.added(lane, name, None, Quantity::Cpu(part)));
        let cells = vec![
            figure(speed),
            figure(Quantity::Cpu(Part::Total)),
            added(Part::Total),
            added(Part::Kernel),
            added(Part::User),
            figure(Quantity::Failures),
        ];
        (lane.name.clone(), cells)
    };
    marks::filled(record, table, record.lanes_at(name, None).map(row).collect()).compact()
}

/// What the whole machine did under a load: all of it, and over the base.
pub fn machine(record: &Record, name: &str) -> Table {
    let unit = subject(name).unit;
    let (cost, each) = (unit.cost(record.mode), unit.word());
    let table = Table::new(
        format!("{}: CPU of the whole machine, with what others did meanwhile", subject(name).title),
        &[
            "lane",
            &format!("CPU per {each}, {cost}"),
            &format!("added over base, {cost}"),
            &format!("of it kernel, {cost}"),
            &format!("of that softirq and interrupts, {cost}"),
            &format!("of it programs, {cost}"),
        ],
    );
    let row = |lane: &Lane| {
        let added = |part| Cell::added(record, &record.added(lane, name, None, Quantity::MachineCpu(part)));
        let all = record.rounds(&lane.name, name, None, Quantity::MachineCpu(Busy::All));
        let mut cells = vec![Cell::figure(record, &all)];
        cells.extend([Busy::All, Busy::Kernel, Busy::Interrupts, Busy::Programs].map(added));
        (lane.name.clone(), cells)
    };
    marks::filled(record, table, record.lanes_at(name, None).map(row).collect()).compact()
}

/// How long one of a load's units took.
pub fn latency(record: &Record, name: &str) -> Table {
    let mut head = vec!["lane".to_owned()];
    head.extend(Percentile::ALL.map(|percentile| format!("{}, ms", percentile.name())));
    head.push("longest, ms".to_owned());
    let load = subject(name);
    let since = load.since.map_or(String::new(), |since| format!(", {}", since.words()));
    let caption = format!("{}: times{since}", load.title);
    let row = |lane: &Lane| {
        let mut cells = Vec::from(Percentile::ALL.map(|percentile| {
            let rounds = record.rounds(&lane.name, name, None, Quantity::Percentile(percentile));
            Cell::figure(record, &rounds)
        }));
        let longest = record.runs_of(&lane.name, name, None).filter_map(|run| run.figures.latency.as_ref());
        let longest = longest.map(|latency| latency.max / 1e3).filter(|time| time.is_finite());
        let longest = longest.reduce(f64::max).map_or(NOTHING.to_owned(), words::figure);
        cells.push(Cell::plain(longest));
        (lane.name.clone(), cells)
    };
    let table = Table { caption, head, ..Table::default() };
    marks::filled(record, table, record.lanes_at(name, None).map(row).collect()).compact()
}

/// What else was measured under a load.
pub fn rest(record: &Record, name: &str) -> Table {
    let unit = subject(name).unit;
    let quantities = [
        Quantity::ForwarderCpu,
        Quantity::ForwarderMemory,
        Quantity::Packets,
        Quantity::Retransmits,
        Quantity::Conntrack,
        Quantity::SourcePorts,
        Quantity::Flood,
    ];
    let mut head = vec!["lane".to_owned()];
    head.extend(
        quantities
            .map(|quantity| words::column(&quantity.title(unit), quantity.counted_in(unit, record.mode))),
    );
    head.push("failures by kind".to_owned());
    let caption = format!("{}: what else was measured", subject(name).title);
    let row = |lane: &Lane| {
        let figure = |quantity| Cell::figure(record, &record.rounds(&lane.name, name, None, quantity));
        let mut cells = Vec::from(quantities.map(figure));
        cells.push(Cell::plain(failures(record, lane, name)));
        (lane.name.clone(), cells)
    };
    let table = Table { caption, head, ..Table::default() };
    marks::filled(record, table, record.lanes_at(name, None).map(row).collect()).compact()
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
    let table = Table::new(
        "Memory per held connection, in bytes: median of the rounds, in brackets their middle half",
        &["lane", "connections held", "kernel, over base", "forwarder's processes", "processes in all, MiB"],
    );
    let row = |lane: &Lane| {
        let (kernel, user) = figures::held(record, lane, name);
        let held: Rounds =
            record.runs_of(&lane.name, name, None).map(|run| (run.round, run.figures.done as f64)).collect();
        let all = record.rounds(&lane.name, name, None, Quantity::ForwarderMemory);
        let cells = vec![
            Cell::figure(record, &held),
            Cell::added(record, &kernel),
            Cell::added(record, &user),
            Cell::figure(record, &all),
        ];
        (lane.name.clone(), cells)
    };
    marks::filled(record, table, record.lanes_at(name, None).map(row).collect()).compact()
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
