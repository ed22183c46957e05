//! The drawings of a report, and the words of each for those who do not see it.

use super::marks::{self, Cell};
use super::words;
use crate::plot::Drawing;
use crate::plot::bars::{Bar, bars};
use crate::plot::lines::{Ground, Line, lines};
use crate::plot::moments::{Panel, moments};
use crate::quantity::{Part, Percentile, Quantity};
use crate::record::{Lane, Latency, Record, Run};
use crate::rounds::Rounds;
use crate::subject::{Subject, subject};

/// The parts of CPU time: class and meaning.
const PARTS: [(&str, &str); 2] = [("kernel", "kernel"), ("user", "programs")];

/// What each lane adds to its base for one of the load's units. Where some cost so much that the others' bars are stumps, a
/// second drawing shows those others alone.
pub fn added_cost(record: &Record, name: &str) -> Vec<Drawing> {
    let load = subject(name);
    let unit = load.unit;
    let of = |lane: &Lane, part| record.added(lane, name, None, Quantity::Cpu(part));
    let all: Vec<Bar> = record
        .lanes
        .iter()
        .filter_map(|lane| {
            let parts = [("kernel", of(lane, Part::Kernel)), ("user", of(lane, Part::User))];
            bar(record, lane, &of(lane, Part::Total), &parts, unit.cost(record.mode))
        })
        .collect();
    let longest = all.iter().map(|bar| bar.spread.median).fold(0.0, f64::max);
    let short: Vec<Bar> = all.iter().filter(|bar| bar.spread.high * STUMP < longest).cloned().collect();
    let draw = |file: String, title: String, bars_of: &[Bar]| {
        let axis =
            format!("{} per {}, over the base lane of the same round", unit.cost(record.mode), unit.word());
        let alt = described(&title, bars_of);
        bars(&file, &title, alt, &PARTS, &axis, bars_of)
    };
    let title = format!("CPU that forwarding adds per {}", unit.word());
    let file = format!("cost-{}", slug(name));
    let mut drawings = Vec::new();
    if !all.is_empty() {
        drawings.push(draw(file.clone(), title.clone(), &all));
    }
    if short.len() > 1 {
        drawings.push(draw(format!("{file}-close"), format!("{title}: the cheap ones, closer"), &short));
    }
    drawings
}

/// A bar shorter than this part of the longest is a stump.
const STUMP: f64 = 5.0;

/// Memory for each connection that is held.
pub fn held_memory(record: &Record, name: &str) -> Option<Drawing> {
    let drawn: Vec<Bar> = record
        .lanes
        .iter()
        .filter_map(|lane| {
            let (kernel, user) = held(record, lane, name);
            let total = match (kernel.is_empty(), user.is_empty()) {
                (false, false) => kernel.with(&user, |kernel, user| kernel + user),
                (false, true) => kernel.clone(),
                _ => user.clone(),
            };
            bar(record, lane, &total, &[("kernel", kernel), ("user", user)], "bytes")
        })
        .collect();
    let title = "Memory per connection that is held";
    let alt = described(title, &drawn);
    let axis = "bytes per connection; the kernel's over the base lane of the same round";
    (!drawn.is_empty()).then(|| bars(&format!("memory-{}", slug(name)), title, alt, &PARTS, axis, &drawn))
}

/// Memory for each held connection: what the kernel's is above the base's, and the forwarder's processes'.
pub fn held(record: &Record, lane: &Lane, load: &str) -> (Rounds, Rounds) {
    let kernel = record.added(lane, load, None, Quantity::KernelMemoryEach);
    (kernel, record.rounds(&lane.name, load, None, Quantity::ForwarderMemoryEach))
}

/// A bar of what rounds say: as long as the median, divided as the medians of the parts are.
fn bar(
    record: &Record,
    lane: &Lane,
    total: &Rounds,
    parts: &[(&'static str, Rounds)],
    unit: &str,
) -> Option<Bar> {
    let spread = total.summary()?;
    let medians: Vec<(&'static str, f64)> =
        parts.iter().filter_map(|(class, rounds)| Some((*class, rounds.summary()?.median))).collect();
    let sum: f64 = medians.iter().map(|(_, median)| median).sum();
    let divides = sum > 0.0 && spread.median > 0.0 && medians.iter().all(|(_, median)| *median >= 0.0);
    let parts = match divides {
        true => medians.iter().map(|(class, median)| (*class, spread.median * median / sum)).collect(),
        false => vec![("total", spread.median)],
    };
    let rounds = total.iter().map(|(round, figure)| {
        (format!("{}, round {}: {} {unit}", lane.name, round, words::figure(figure)), figure)
    });
    Some(Bar {
        name: lane.name.clone(),
        figure: Cell::added(record, total).marked(unit),
        parts,
        spread,
        rounds: rounds.collect(),
    })
}

fn described(title: &str, bars: &[Bar]) -> String {
    let each: Vec<String> =
        bars.iter().map(|bar| format!("{}: {}", bar.name, marks::spoken(&bar.figure))).collect();
    format!("{title}, the median of the rounds and in brackets their middle half. {}.", each.join("; "))
}

/// How long requests took: each lane's distribution, the median over the rounds at each share.
pub fn latency(record: &Record, name: &str) -> Option<Drawing> {
    let load = subject(name);
    let drawn: Vec<Line> = record
        .lanes
        .iter()
        .map(|lane| Line {
            name: lane.name.clone(),
            kind: lane.kind,
            points: distribution(record, lane, name),
            doubts: Vec::new(),
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    let title = format!("How long a {} took", load.unit.word());
    let tail = drawn.iter().filter_map(|line| {
        let rounds = record.rounds(&line.name, name, None, Quantity::Percentile(Percentile::P99));
        Some(format!("{} {} ms", line.name, words::figure(rounds.summary()?.median)))
    });
    let alt = format!("{title}, by percentile. At p99: {}.", tail.collect::<Vec<_>>().join("; "));
    (!drawn.is_empty()).then(|| {
        let along = (Ground::Shares, "of all took at most so long");
        lines(&format!("latency-{}", slug(name)), &title, alt, along, "ms", &drawn)
    })
}

/// Shares and milliseconds.
fn distribution(record: &Record, lane: &Lane, load: &str) -> Vec<(f64, f64)> {
    let runs: Vec<&Latency> =
        record.runs_of(&lane.name, load, None).filter_map(|run| run.figures.latency.as_ref()).collect();
    // Eight to each nine, where the rounds know the distribution; else the four that they do know.
    let shares: Vec<f64> = if runs.iter().any(|latency| !latency.steps.is_empty()) {
        (0..=32).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 8.0)).collect()
    } else {
        Percentile::ALL.map(Percentile::share).to_vec()
    };
    let at = |share: f64| {
        let rounds: Rounds = (0..)
            .zip(&runs)
            .filter_map(|(round, latency)| Some((round, quantile(latency, share)?)))
            .collect();
        // Of all rounds or of none: with one round less the median would step back where it can only rise.
        Some((share, rounds.summary().filter(|_| rounds.len() == runs.len())?.median / 1e3))
    };
    shares.into_iter().filter_map(at).filter(|(_, time)| *time > 0.0).collect()
}

/// The time within which that share of all was done, in microseconds; nothing if so few were that none stands for it.
fn quantile(latency: &Latency, share: f64) -> Option<f64> {
    let Some((_, all)) = latency.steps.last() else {
        let known = Percentile::ALL.into_iter().find(|percentile| percentile.share() == share);
        return known.map(|percentile| percentile.of(latency)).filter(|time| time.is_finite());
    };
    let wanted = (share * *all as f64).max(1.0);
    if (1.0 - share) * (*all as f64) < 1.0 {
        return None;
    }
    let step = latency.steps.iter().find(|(_, count)| *count as f64 >= wanted)?;
    Some(step.0).filter(|time| time.is_finite())
}

/// What the CPUs did in the round that is each lane's median by CPU time.
pub fn cpu_over_time(record: &Record, name: &str) -> Option<Drawing> {
    let panels: Vec<Panel> = record
        .lanes
        .iter()
        .filter_map(|lane| {
            let moments = median_run(record, lane, name)?.moments.clone();
            Some(Panel { name: lane.name.clone(), moments })
        })
        .collect();
    let title = "CPUs over time";
    let alt = format!(
        "CPUs busy over the time of the load, of {}: programs, kernel and softirq stacked, the forwarder's processes as a line. {}.",
        record.host.cpus,
        panels.iter().map(mean).collect::<Vec<_>>().join("; ")
    );
    (!panels.is_empty())
        .then(|| moments(&format!("cpu-{}", slug(name)), title, alt, record.host.cpus, &panels))
}

fn mean(panel: &Panel) -> String {
    let count = panel.moments.len().max(1) as f64;
    let busy: f64 = panel.moments.iter().map(|each| each.user + each.kernel + each.softirq).sum();
    let forwarder: f64 = panel.moments.iter().map(|each| each.forwarder).sum();
    format!(
        "{}: {} busy on average, the forwarder {}",
        panel.name,
        words::figure(busy / count),
        words::figure(forwarder / count)
    )
}

/// The round whose moments are shown: the median by the CPU time that they add up to.
pub fn median_run<'a>(record: &'a Record, lane: &'a Lane, load: &'a str) -> Option<&'a Run> {
    let sound = |run: &&Run| {
        !run.moments.is_empty()
            && run.moments.iter().all(|each| {
                [each.at, each.user, each.kernel, each.softirq, each.forwarder]
                    .iter()
                    .all(|part| part.is_finite())
            })
    };
    let mut runs: Vec<(f64, &Run)> = record
        .runs_of(&lane.name, load, None)
        .filter(sound)
        .map(|run| (run.moments.iter().map(|each| each.user + each.kernel + each.softirq).sum(), run))
        .collect();
    runs.sort_by(|(a, one), (b, other)| a.total_cmp(b).then(one.round.cmp(&other.round)));
    Some(runs.get(runs.len().checked_sub(1)? / 2)?.1)
}

/// A name as part of a file's: letters, digits and hyphens.
pub(super) fn slug(name: &str) -> String {
    let letter = |each: char| if each.is_ascii_alphanumeric() { each.to_ascii_lowercase() } else { '-' };
    name.chars().take(40).map(letter).collect()
}

/// Whether a load is drawn as memory rather than as cost.
pub fn is_held(load: &Subject<'_>) -> bool {
    load.unit == crate::subject::Unit::Held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Figures, Host, Kind, Mode, VERSION};

    #[test]
    fn a_distribution_ends_where_a_round_is_too_short_for_it() {
        let lane = Lane {
            name: "a".into(),
            title: String::new(),
            kind: Kind::Kernel,
            base: None,
            configuration: String::new(),
        };
        // A short round that was slow and a long one that was fast: without the slow one the line would step back.
        let run = |round, steps: Vec<(f64, u64)>| {
            let latency = Some(Latency { steps, ..Latency::default() });
            let figures = Figures { latency, ..Figures::default() };
            Run {
                lane: "a".into(),
                load: "connections".into(),
                round,
                at: None,
                figures,
                moments: Vec::new(),
            }
        };
        let record = Record {
            version: VERSION,
            portway: String::new(),
            started: String::new(),
            seconds: 0.0,
            command: Vec::new(),
            mode: Mode::Time,
            optimised: true,
            host: Host::default(),
            lanes: vec![lane.clone()],
            left_out: Vec::new(),
            captures: Vec::new(),
            profiles: Vec::new(),
            runs: vec![run(1, vec![(9000.0, 100)]), run(2, vec![(1000.0, 99_000), (2000.0, 100_000)])],
        };
        let line = distribution(&record, &lane, "connections");
        assert!(line.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{line:?}");
        assert!((line.last().unwrap().0 - 0.99).abs() < 1e-9, "{line:?}");
    }
}
