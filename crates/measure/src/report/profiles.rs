//! Where the work goes: what a lane costs, divided by the areas of its profile; what of that is beyond its base; the functions.
//!
//! The whole is the median of the rounds, which were measured without sampling, so the parts add up to the figure that the rest of the
//! report has. Nothing of a lane that has no such figure.

use super::document::{Block, NOTHING, Table};
use super::words;
use crate::plot::Drawing;
use crate::plot::bars::{Bar, bars, present};
use crate::profile::areas::Area;
use crate::quantity::{Part, Quantity};
use crate::record::{Mode, Profile, Record};
use crate::stats::Summary;
use crate::subject::{Subject, subject};

/// What bars are divided into: class, meaning, the areas.
const PARTS: [(&str, &str, &[Area]); 8] = [
    ("user", "client, server", &[Area::Client, Area::Server]),
    ("f-program", "forwarder's program", &[Area::Forwarder]),
    ("kernel", "system calls, TCP, UDP", &[Area::Calls, Area::Transport]),
    ("softirq", "IP, devices", &[Area::Ip, Area::Devices]),
    ("f-rules", "netfilter, conntrack, IPVS", &[Area::Netfilter, Area::Conntrack, Area::Ipvs]),
    ("f-portway", "BPF", &[Area::Bpf]),
    ("f-routing", "buffers, memory, copies", &[Area::Memory]),
    ("rest", "scheduling and the rest", &[Area::Tasks, Area::Other]),
];
/// Functions of each lane that are shown.
const FUNCTIONS: usize = 10;

/// A lane's cost for one of the load's units, by area.
struct Divided<'a> {
    profile: &'a Profile,
    /// All of it.
    cost: f64,
}

impl<'a> Divided<'a> {
    fn of(record: &'a Record, load: &str) -> Vec<Self> {
        let cost = |lane: &str| record.rounds(lane, load, None, Quantity::Cpu(Part::Total)).summary();
        let of_lane = |lane: &str| record.profiles.iter().find(|each| each.lane == lane && each.load == load);
        let lanes = record.lanes.iter().filter_map(|lane| {
            let profile = of_lane(&lane.name).filter(|profile| profile.samples > 0)?;
            Some(Self { profile, cost: cost(&lane.name)?.median })
        });
        lanes.collect()
    }

    /// What so many of its samples are.
    fn each(&self, samples: u64) -> f64 {
        self.cost * samples as f64 / self.profile.samples as f64
    }

    fn area(&self, area: Area) -> f64 {
        let of = self.profile.areas.iter().filter(|(name, _)| Area::named(name) == area);
        of.map(|(_, samples)| self.each(*samples)).sum()
    }

    /// How far off a part of a tenth of the whole is, as a share of the whole: a standard deviation.
    fn doubt(&self) -> f64 {
        (0.1 * 0.9 / self.profile.samples as f64).sqrt()
    }
}

/// The section; nothing without profiles.
pub fn blocks(record: &Record) -> Vec<Block> {
    let mut blocks = Vec::new();
    for load in record.loads() {
        let lanes = Divided::of(record, load);
        if !lanes.is_empty() {
            blocks.extend(of_load(record, &subject(load), &lanes));
        }
    }
    if blocks.is_empty() {
        return blocks;
    }
    let of = match record.mode {
        Mode::Time => "time",
        Mode::Exact => "instructions",
    };
    let head = [
        Block::Heading(2, "Where it goes".to_owned()),
        Block::Paragraph(format!(
            "Each lane had a run of its own under each load in which all processors were sampled: which program, or which function of \
             the kernel. The shares of the samples are shares of {of}; the whole is the median of the rounds. What everybody calls \
             (locks, checksums, lists) counts as its caller's. The kernel's work for packets is done in passing by whoever sends \
             or waits, so its areas are of client, gateway and server together: what a lane adds is what is beyond its base."
        )),
    ];
    head.into_iter().chain(blocks).collect()
}

fn of_load(record: &Record, load: &Subject<'_>, lanes: &[Divided<'_>]) -> Vec<Block> {
    let unit = format!("{} per {}", load.unit.cost(record.mode), load.unit.word());
    let mut all = table(format!("By where it goes, {unit}"));
    let mut beyond = table("The same beyond the base lane".to_owned());
    for lane in lanes {
        let row = |figure: &dyn Fn(Area) -> f64, whole: f64| {
            let cells = Area::ALL.map(|area| match figure(area) {
                0.0 => NOTHING.to_owned(),
                figure => words::figure(figure),
            });
            let name = lane.profile.lane.clone();
            std::iter::once(name).chain(cells).chain([words::figure(whole)]).collect::<Vec<_>>()
        };
        all.rows.push(row(&|area| lane.area(area), lane.cost));
        let base = record.lane(&lane.profile.lane).and_then(|lane| lane.base.as_deref());
        if let Some(base) = lanes.iter().find(|other| Some(other.profile.lane.as_str()) == base) {
            beyond.rows.push(row(&|area| lane.area(area) - base.area(area), lane.cost - base.cost));
        }
    }
    let doubt = lanes.iter().map(Divided::doubt).fold(0.0, f64::max);
    let (fewest, most) = lanes.iter().fold((u64::MAX, 0), |(fewest, most), lane| {
        (fewest.min(lane.profile.samples), most.max(lane.profile.samples))
    });
    all.note = format!(
        "Of {} to {} samples a lane: a part of a tenth is known to {} of the whole (standard deviation).",
        words::count(fewest),
        words::count(most),
        words::percent(100.0 * doubt),
    );
    let lost: Vec<String> = lanes
        .iter()
        .filter(|lane| lane.profile.lost > 0)
        .map(|lane| format!("{} {}", lane.profile.lane, words::count(lane.profile.lost)))
        .collect();
    if !lost.is_empty() {
        all.note += &format!(" Samples that found no room: {}.", lost.join(", "));
    }
    let mut blocks = vec![
        Block::Heading(3, load.title.to_owned()),
        Block::Figure(vec![drawing(load, &unit, lanes)], all.compact()),
    ];
    if !beyond.rows.is_empty() {
        blocks.push(Block::Table(beyond.compact()));
    }
    let functions: Vec<String> = lanes.iter().filter_map(|lane| functions(lane)).collect();
    if !functions.is_empty() {
        blocks.push(Block::Details(
            format!("Functions of the kernel with most of it, {unit}"),
            vec![Block::List(functions)],
        ));
    }
    blocks
}

fn table(caption: String) -> Table {
    let mut table = Table::new(caption, &["lane"]);
    table.head.extend(Area::ALL.map(|area| area.title().to_owned()));
    table.head.push("in all".to_owned());
    table
}

/// A lane's functions as a sentence.
fn functions(lane: &Divided<'_>) -> Option<String> {
    let all = lane.profile.functions.iter().take(FUNCTIONS);
    let each: Vec<String> =
        all.map(|each| format!("{} {}", each.name, words::figure(lane.each(each.samples)))).collect();
    (!each.is_empty()).then(|| format!("{}: {}.", lane.profile.lane, each.join(", ")))
}

/// Every lane's cost by area.
fn drawing(load: &Subject<'_>, unit: &str, lanes: &[Divided<'_>]) -> Drawing {
    let drawn: Vec<Bar> = lanes
        .iter()
        .map(|lane| Bar {
            name: lane.profile.lane.clone(),
            figure: words::figure(lane.cost),
            parts: PARTS
                .iter()
                .map(|(class, _, areas)| (*class, areas.iter().map(|area| lane.area(*area)).sum()))
                .collect(),
            spread: Summary { median: lane.cost, low: lane.cost, high: lane.cost },
            rounds: Vec::new(),
        })
        .collect();
    let title = format!("Where the cost of a {} goes", load.unit.word());
    let said = |bar: &Bar| {
        let parts = bar.parts.iter().zip(PARTS).filter(|((_, size), _)| *size > 0.0);
        let parts: Vec<String> =
            parts.map(|((_, size), (_, meaning, _))| format!("{meaning} {}", words::figure(*size))).collect();
        format!("{} {}: {}", bar.name, bar.figure, parts.join(", "))
    };
    let alt = format!("{title}, {unit}. {}.", drawn.iter().map(said).collect::<Vec<_>>().join("; "));
    let parts = present(&PARTS, &drawn);
    bars(&format!("where-{}", load.name), &title, alt, &parts, unit, &drawn)
}
