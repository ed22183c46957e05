//! A comparison in words: what got better or worse, and how sure that is.
//!
//! Deliberately absent: what counts as a change ([`crate::compare`]).

use super::document::{Block, Table};
use super::words;
use crate::compare::{Change, Compared, Comparison};
use crate::interval::Interval;
use crate::plot::bars::tick;
use crate::record::{Kind, Mode};
use crate::subject::subject;

/// As text: what changed, or all.
pub fn blocks(comparison: &Comparison, all: bool) -> Vec<Block> {
    let warnings = comparison.cannot_tell().into_iter().chain(comparison.warnings.iter().cloned());
    let mut blocks: Vec<Block> = warnings.map(|warning| Block::Warning(words::sentence(&warning))).collect();
    let mut shown: Vec<&Compared> =
        comparison.compared.iter().filter(|each| all || each.change < Change::Same).collect();
    shown.sort_by_key(|each| each.change);
    let caption = "Ratio of the second to the first, in brackets its interval; first and second are medians as measured";
    let mut table = Table::new(caption, &["lane", "load", "figure", "first", "second", "ratio", "verdict"]);
    table.rows = shown.into_iter().map(|each| row(each, comparison.mode)).collect();
    if !table.rows.is_empty() {
        blocks.push(Block::Table(table));
    }
    let count = |change| comparison.compared.iter().filter(|each| each.change == change).count();
    blocks.push(Block::Paragraph(format!(
        "{} figures compared: {} worse and {} perhaps, {} better and {} perhaps, {} without a change that can be told, {} \
         with too few rounds. A difference counts from {} % on, and if the interval of its ratio, from the ranks of the rounds, excludes 1; \
         perhaps: three rounds on each side are sure to 90 % only.",
        comparison.compared.len(),
        count(Change::Worse),
        count(Change::PerhapsWorse),
        count(Change::Better),
        count(Change::PerhapsBetter),
        count(Change::Same),
        count(Change::TooFew),
        tick(comparison.least * 100.0)
    )));
    if comparison.mode == Mode::Time {
        blocks.push(Block::Paragraph(
            "Rates, times and CPU are compared relative to the base lane of the same round; bases themselves show how the \
             machine has changed."
                .to_owned(),
        ));
    }
    blocks
}

fn row(compared: &Compared, mode: Mode) -> Vec<String> {
    let unit = subject(&compared.load).unit;
    let load = match &compared.at {
        Some(at) => format!("{}, {} {}", compared.load, words::count(at.count), at.of),
        None => compared.load.clone(),
    };
    let counted_in = compared.quantity.counted_in(unit, mode);
    let verdict = match (compared.kind, compared.change) {
        (Kind::Routing, change) if change < Change::Same => format!("{}: the machine", change.words()),
        (_, change) => change.words().to_owned(),
    };
    let Interval { ratio, low, high, level } = compared.interval;
    let interval = match mode {
        Mode::Time => format!("{ratio:.3} ({low:.3}–{high:.3} at {:.0} %)", level * 100.0),
        Mode::Exact => format!("{ratio:.3} ({low:.3}–{high:.3})"),
    };
    vec![
        compared.lane.clone(),
        load,
        words::column(&compared.quantity.title(unit), counted_in),
        words::figure(compared.medians.0),
        words::figure(compared.medians.1),
        interval,
        verdict,
    ]
}
