//! Advice from measured figures: how many CPUs a demand takes with each lane, and which to take.
//!
//! What is asked of a gateway lies between two bounds. A lane's added cost is the least: what forwarding takes beyond routing.
//! All that was measured is the most: client and server were on the machine as well. Deliberately absent: guesses. What was not
//! measured is said to be unknown, what lies beyond the measured is said to be extrapolated. What follows without a demand is
//! `report::conclusions`.

use crate::quantity::{Part, Quantity};
use crate::record::{Kind, Lane, Record};
use crate::report::document::{Block, NOTHING, Table};
use crate::report::marks::{self, Cell};
use crate::report::{series, words};
use crate::rounds::Rounds;
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
    /// The least CPUs, by round; of no round if nothing that is asked for was measured.
    pub least: Rounds,
    /// The most CPUs, the same.
    pub most: Rounds,
    /// How much failed, in percent, under the loads that it is reckoned from, if so much did that it matters.
    pub failed: Option<f64>,
    /// What lies beyond what was measured.
    pub extrapolated: Vec<String>,
    /// What was not measured.
    pub unknown: Vec<String>,
}

/// Cost as it was measured, by round: what was added, and all of it.
struct Cost {
    added: Rounds,
    all: Rounds,
}

impl Cost {
    /// CPUs for so many of what it is the cost of, in seconds of a CPU each, and something that each costs more.
    fn cpus(&self, each: f64, more: f64) -> Self {
        let of = |rounds: &Rounds| {
            // What saves here makes up for no cost elsewhere. Else a round below zero is the noise, which is to be seen.
            let saves = rounds.summary().is_some_and(|cost| cost.median + more <= 0.0);
            let least = if saves { 0.0 } else { f64::NEG_INFINITY };
            rounds.iter().map(|(round, cost)| (round, each * (cost + more).max(least))).collect()
        };
        Self { added: of(&self.added), all: of(&self.all) }
    }

    /// Joined with another's of the same rounds.
    fn with(&self, other: &Self, join: impl Fn(f64, f64) -> f64) -> Self {
        Self { added: self.added.with(&other.added, &join), all: self.all.with(&other.all, &join) }
    }
}

/// What every lane but the bases needs, the cheapest first.
pub fn needs(record: &Record, demand: &Demand) -> Vec<Need> {
    let lanes = record.lanes.iter().filter(|lane| lane.kind != Kind::Routing);
    let mut needs: Vec<Need> = lanes.map(|lane| need(record, lane, demand)).collect();
    let most = |need: &Need| (need.unknown.len(), need.cpus().map_or(f64::INFINITY, |(_, most)| most));
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
        least: Rounds::default(),
        most: Rounds::default(),
        failed: None,
        extrapolated: Vec::new(),
        unknown: Vec::new(),
    };
    let mut parts: Vec<Cost> = Vec::new();
    let mut loads = Vec::new();
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
                parts.push(cost.cpus(rate / 1e6, growth));
                loads.push("connections");
                let measured = record.rounds(&lane.name, "connections", None, Quantity::Rate).summary();
                beyond(&mut need.extrapolated, rate, measured, "connections/s");
            }
        }
    }
    if let Some(gbit) = demand.gbit {
        let ways =
            ["bulk-up", "bulk-down"].into_iter().filter_map(|load| Some((load, cost(record, lane, load)?)));
        let (ways, costs): (Vec<&str>, Vec<Cost>) = ways.unzip();
        match costs.into_iter().reduce(|up, down| up.with(&down, f64::midpoint)) {
            None => need.unknown.push("bulk".to_owned()),
            Some(mean) => {
                // 8 Gbit are a GB; its cost is in milliseconds.
                parts.push(mean.cpus(gbit / 8.0 / 1e3, 0.0));
                loads.extend(ways);
                let measured = record.rounds(&lane.name, "bulk-up", None, Quantity::Throughput).summary();
                beyond(&mut need.extrapolated, gbit, measured, "Gbit/s");
            }
        }
    }
    if let Some(all) = parts.into_iter().reduce(|all, part| all.with(&part, |all, part| all + part)) {
        (need.least, need.most) = (all.added, all.all);
    }
    need.failed = loads.into_iter().filter_map(|load| record.failed(&lane.name, load, None)).reduce(f64::max);
    need
}

fn cost(record: &Record, lane: &Lane, load: &str) -> Option<Cost> {
    let all = record.rounds(&lane.name, load, None, Quantity::Cpu(Part::Total));
    let added = record.added(lane, load, None, Quantity::Cpu(Part::Total));
    (!all.is_empty() && !added.is_empty()).then_some(Cost { added, all })
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
    /// The least and the most CPUs, the medians of the rounds.
    pub fn cpus(&self) -> Option<(f64, f64)> {
        Some((self.least.summary()?.median, self.most.summary()?.median))
    }

    /// Whether so many CPUs are enough.
    fn verdict(&self, cpus: u32) -> &'static str {
        match self.cpus() {
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
    let table = Table::new(
        format!("CPUs for {}, of {} here", asked(demand), host.cpus),
        &["lane", "CPUs, at least", "at most", "verdict", "extrapolated", "not known"],
    );
    let row = |need: &Need| {
        let list = |items: &[String]| if items.is_empty() { NOTHING.to_owned() } else { items.join("; ") };
        let cells = vec![
            Cell::added(record, &need.least),
            Cell::figure(record, &need.most).with_failures(need.failed),
            Cell::plain(need.verdict(host.cpus).to_owned()),
            Cell::plain(list(&need.extrapolated)),
            Cell::plain(list(&need.unknown)),
        ];
        (need.lane.clone(), cells)
    };
    let table = marks::filled(record, table, needs.iter().map(row).collect());
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
    let known = || needs.iter().filter(|need| need.cpus().is_some());
    let Some(best) = known().find(|need| need.kind == Kind::Portway) else {
        return "None of Portway's engines was measured under any of this: no advice.".to_owned();
    };
    let (least, most) = best.cpus().unwrap_or_default();
    let mut text = format!(
        "Of Portway's engines {} takes the fewest CPUs, {} to {}: {}.",
        best.lane,
        words::figure(least),
        words::figure(most),
        best.verdict(record.host.cpus)
    );
    if let Some(other) = known().find(|need| need.kind != Kind::Portway) {
        let (least, most) = other.cpus().unwrap_or_default();
        text += &format!(
            " Of the others {} takes {} to {}.",
            other.lane,
            words::figure(least),
            words::figure(most)
        );
    }
    text
}
