//! Advice from measured figures: how many CPUs a demand takes with each lane, and which to take.
//!
//! What is asked of a gateway lies between two bounds. A lane's added cost is the least: what forwarding takes beyond routing.
//! All that was measured is the most: client and server were on the machine as well. Deliberately absent: guesses. What was not
//! measured is said to be unknown, what lies beyond the measured is said to be extrapolated. What follows without a demand is
//! `report::conclusions`.

use crate::quantity::{Part, Quantity};
use crate::record::{Kind, Lane, Record};
use crate::report::document::{Block, NOTHING, Table};
use crate::report::{series, words};
use crate::stats::Summary;

/// What a gateway is to carry.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// New connections a second.
    pub connections: Option<f64>,
    /// Payload, in 10^9 bit/s, both directions together.
    pub gbit: Option<f64>,
    /// How many rules.
    pub rules: Option<u64>,
}

/// What a lane needs for a demand.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// The lane.
    pub lane: String,
    /// Its kind.
    pub kind: Kind,
    /// The least and the most CPUs; nothing if nothing that is asked for was measured.
    pub cpus: Option<(f64, f64)>,
    /// What lies beyond what was measured.
    pub extrapolated: Vec<String>,
    /// What was not measured.
    pub unknown: Vec<String>,
}

/// Cost as it was measured: what was added, and all of it.
#[derive(Clone, Copy)]
struct Cost {
    added: f64,
    all: f64,
}

/// What every lane but the bases needs, the cheapest first.
pub fn needs(record: &Record, demand: &Demand) -> Vec<Need> {
    let lanes = record.lanes.iter().filter(|lane| lane.kind != Kind::Routing);
    let mut needs: Vec<Need> = lanes.map(|lane| need(record, lane, demand)).collect();
    let most = |need: &Need| (need.unknown.len(), need.cpus.map_or(f64::INFINITY, |(_, most)| most));
    needs.sort_by(|a, b| {
        let (a, b) = (most(a), most(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    needs
}

fn need(record: &Record, lane: &Lane, demand: &Demand) -> Need {
    let mut need = Need {
        lane: lane.name.clone(),
        kind: lane.kind,
        cpus: None,
        extrapolated: Vec::new(),
        unknown: Vec::new(),
    };
    let mut parts: Vec<(f64, f64)> = Vec::new();
    if let Some(rate) = demand.connections {
        match cost(record, lane, "connections") {
            None => need.unknown.push("new connections".to_owned()),
            Some(cost) => {
                let growth = demand
                    .rules
                    .map_or(Some(0.0), |rules| growth(record, lane, rules, &mut need.extrapolated));
                if growth.is_none() {
                    need.unknown.push("growth with rules".to_owned());
                }
                let growth = growth.unwrap_or(0.0);
                parts.push((
                    rate * (cost.added + growth).max(0.0) / 1e6,
                    rate * (cost.all + growth).max(0.0) / 1e6,
                ));
                let measured = record.rounds(&lane.name, "connections", None, Quantity::Rate).summary();
                beyond(&mut need.extrapolated, rate, measured, "connections/s");
            }
        }
    }
    if let Some(gbit) = demand.gbit {
        let ways: Vec<Cost> =
            ["bulk-up", "bulk-down"].into_iter().filter_map(|load| cost(record, lane, load)).collect();
        if ways.is_empty() {
            need.unknown.push("bulk".to_owned());
        } else {
            let mean = |of: fn(&Cost) -> f64| ways.iter().map(of).sum::<f64>() / ways.len() as f64;
            // 8 Gbit are a GB; its cost is in milliseconds.
            let seconds = gbit / 8.0 / 1e3;
            parts
                .push((seconds * mean(|cost| cost.added).max(0.0), seconds * mean(|cost| cost.all).max(0.0)));
            let measured = record.rounds(&lane.name, "bulk-up", None, Quantity::Throughput).summary();
            beyond(&mut need.extrapolated, gbit, measured, "Gbit/s");
        }
    }
    if !parts.is_empty() {
        need.cpus = Some(parts.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1)));
    }
    need
}

fn cost(record: &Record, lane: &Lane, load: &str) -> Option<Cost> {
    let all = record.rounds(&lane.name, load, None, Quantity::Cpu(Part::Total)).summary()?.median;
    let added = record.added(lane, load, None, Quantity::Cpu(Part::Total)).summary()?.median;
    Some(Cost { added, all })
}

/// What a connection costs more with so many rules than with the fewest measured, in microseconds: on the straight line between
/// the places of the series to both sides, beyond the last on the line through the last two.
fn growth(record: &Record, lane: &Lane, rules: u64, extrapolated: &mut Vec<String>) -> Option<f64> {
    let points = series::along(record, lane, "rules", "connections");
    let (first, last) = (points.first()?, points.last()?);
    let rules = rules as f64;
    if rules <= first.0 {
        return Some(0.0);
    }
    let after = points.iter().position(|point| point.0 >= rules);
    if after.is_none() {
        if points.len() < 2 {
            return None;
        }
        extrapolated.push(format!(
            "{} rules, where {} were measured",
            words::figure(rules),
            words::figure(last.0)
        ));
    }
    let after = after.unwrap_or(points.len() - 1);
    let (from, to) = (points[after - 1], points[after]);
    let at = from.1 + (to.1 - from.1) * (rules - from.0) / (to.0 - from.0);
    Some(at - first.1)
}

fn beyond(extrapolated: &mut Vec<String>, asked: f64, measured: Option<Summary>, unit: &str) {
    if let Some(most) = measured.map(|middle| middle.median).filter(|most| asked > *most) {
        extrapolated.push(format!(
            "{} {unit}, where {} were measured",
            words::figure(asked),
            words::figure(most)
        ));
    }
}

impl Need {
    /// Whether so many CPUs are enough.
    fn verdict(&self, cpus: u32) -> &'static str {
        match self.cpus {
            None => NOTHING,
            Some((least, _)) if least > f64::from(cpus) => "beyond this host",
            Some((_, most)) if most <= f64::from(cpus) => "enough here",
            Some(_) => "may not be enough here",
        }
    }
}

/// The answer to a demand.
pub fn answer(record: &Record, demand: &Demand) -> Vec<Block> {
    let needs = needs(record, demand);
    let host = &record.host;
    let mut table = Table::new(
        format!("CPUs for {}, of {} here", asked(demand), host.cpus),
        &["lane", "CPUs, at least", "at most", "verdict", "extrapolated", "not known"],
    );
    for need in &needs {
        let cpus = |bound: fn((f64, f64)) -> f64| {
            need.cpus.map_or(NOTHING.to_owned(), |cpus| words::figure(bound(cpus)))
        };
        let list = |items: &[String]| if items.is_empty() { NOTHING.to_owned() } else { items.join("; ") };
        table.rows.push(vec![
            need.lane.clone(),
            cpus(|cpus| cpus.0),
            cpus(|cpus| cpus.1),
            need.verdict(host.cpus).to_owned(),
            list(&need.extrapolated),
            list(&need.unknown),
        ]);
    }
    let mut blocks = vec![Block::Table(table.compact())];
    blocks.push(Block::Paragraph(
        "At least: what forwarding adds to routing. At most: all that was measured, client and server on the machine included. \
         A gateway of its own lies between. Not in it: what a network card's driver costs, which namespaces do not have."
            .to_owned(),
    ));
    blocks.push(Block::Paragraph(choice(record, &needs)));
    blocks
}

fn asked(demand: &Demand) -> String {
    let connections = demand.connections.map(|rate| format!("{} new connections/s", words::figure(rate)));
    let gbit = demand.gbit.map(|gbit| format!("{gbit} Gbit/s"));
    let rules = demand.rules.map(|rules| format!("{} rules", words::count(rules)));
    [connections, gbit, rules].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Which of Portway's engines to take for a demand.
fn choice(record: &Record, needs: &[Need]) -> String {
    // Those of which most is known come first.
    let known = || needs.iter().filter(|need| need.cpus.is_some());
    let Some(best) = known().find(|need| need.kind == Kind::Portway) else {
        return "None of Portway's engines was measured under any of this: no advice.".to_owned();
    };
    let (least, most) = best.cpus.unwrap_or_default();
    let mut text = format!(
        "Of Portway's engines {} takes the fewest CPUs, {} to {}: {}.",
        best.lane,
        words::figure(least),
        words::figure(most),
        best.verdict(record.host.cpus)
    );
    if let Some(other) = known().find(|need| need.kind != Kind::Portway) {
        let (least, most) = other.cpus.unwrap_or_default();
        text += &format!(
            " Of the others {} takes {} to {}.",
            other.lane,
            words::figure(least),
            words::figure(most)
        );
    }
    text
}
