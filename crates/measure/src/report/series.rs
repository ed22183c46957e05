//! Cost along what grows: rules, flows, connections at a time, backends. The section, its drawing and its table.
//!
//! Cost is divided by what succeeded, so beside each stands how much did not. Deliberately absent: how lines are drawn
//! ([`crate::plot::lines`]).

use super::document::{Block, NOTHING, Table};
use super::figures::slug;
use super::marks::{self, Cell};
use super::words;
use crate::plot::Drawing;
use crate::plot::lines::{Ground, Line, lines};
use crate::quantity::{Part, Quantity};
use crate::record::{Lane, Point, Record};
use crate::subject::subject;

/// All series of a record; nothing without one.
pub fn section(record: &Record) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (of, load) in record.series() {
        let table = table(record, of, load);
        if table.rows.is_empty() {
            continue;
        }
        blocks.push(Block::Heading(3, format!("{} by {of}", subject(load).title)));
        blocks.push(match drawing(record, of, load) {
            Some(drawing) => Block::Figure(vec![drawing], table),
            None => Block::Table(table),
        });
    }
    if !blocks.is_empty() {
        blocks.insert(0, Block::Heading(2, "What grows with what".to_owned()));
    }
    blocks
}

/// CPU time along a series, for one of the load's units.
fn drawing(record: &Record, of: &str, load: &str) -> Option<Drawing> {
    let drawn: Vec<Line> = record
        .lanes
        .iter()
        .map(|lane| Line {
            name: lane.name.clone(),
            kind: lane.kind,
            points: along(record, lane, of, load),
            doubts: failed_along(record, lane, of, load)
                .into_iter()
                .map(|(count, share)| (count as f64, format!("{} failed", words::percent(share))))
                .collect(),
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    let title = format!("CPU per {} by {of}", subject(load).unit.word());
    let ends = drawn.iter().filter_map(|line| {
        let (first, last) = (line.points.first()?, line.points.last()?);
        Some(format!("{} from {} to {}", line.name, words::figure(first.1), words::figure(last.1)))
    });
    let up = subject(load).unit.cost(record.mode);
    let ends = ends.collect::<Vec<_>>().join("; ");
    let failed = record.lanes.iter().flat_map(|lane| {
        let along = failed_along(record, lane, of, load).into_iter();
        along.map(|(count, share)| {
            format!("{} {} at {}", lane.name, words::percent(share), words::count(count))
        })
    });
    let failed: Vec<String> = failed.collect();
    let failed =
        if failed.is_empty() { String::new() } else { format!(" Some failed: {}.", failed.join("; ")) };
    let alt = format!("{title}, in {up}, from the fewest {of} to the most: {ends}.{failed}");
    let file = format!("series-{}-{}", slug(of), slug(load));
    (!drawn.is_empty()).then(|| lines(&file, &title, alt, (Ground::Counts, of), up, &drawn))
}

/// A lane's medians along a series.
pub fn along(record: &Record, lane: &Lane, of: &str, load: &str) -> Vec<(f64, f64)> {
    let at = |point: Point| {
        let rounds = record.rounds(&lane.name, load, Some(&point), Quantity::Cpu(Part::Total));
        Some((point.count as f64, rounds.summary()?.median))
    };
    record.points(&lane.name, of, load).into_iter().filter(|point| point.count > 0).filter_map(at).collect()
}

/// Where along a series more failed than may, and how much in percent.
fn failed_along(record: &Record, lane: &Lane, of: &str, load: &str) -> Vec<(u64, f64)> {
    let points = record.points(&lane.name, of, load).into_iter();
    points.filter_map(|point| Some((point.count, record.failed(&lane.name, load, Some(&point))?))).collect()
}

/// Cost along a series, and what failed.
fn table(record: &Record, of: &str, load: &str) -> Table {
    let unit = subject(load).unit;
    let points = record.lanes.iter().flat_map(|lane| record.points(&lane.name, of, load));
    let mut counts: Vec<u64> = points.map(|point| point.count).collect();
    counts.sort_unstable();
    counts.dedup();
    let caption = format!("CPU per {}, {}, by {of}", unit.word(), unit.cost(record.mode));
    let mut table = Table::new(caption, &["lane"]);
    table.head.extend(counts.iter().map(|count| words::count(*count)));
    let row = |lane: &Lane| {
        let cell = |count: &u64| {
            let point = Point { of: of.to_owned(), count: *count };
            let rounds = record.rounds(&lane.name, load, Some(&point), Quantity::Cpu(Part::Total));
            Cell::figure(record, &rounds).with_failures(record.failed(&lane.name, load, Some(&point)))
        };
        (lane.name.clone(), counts.iter().map(cell).collect())
    };
    let mut table = marks::filled(record, table, record.lanes.iter().map(row).collect());
    table.rows.retain(|row| row.iter().skip(1).any(|cell| cell != NOTHING));
    table
}
