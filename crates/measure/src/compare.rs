//! Two records: what got better or worse from one to the other, and what the noise does not tell.
//!
//! A figure counts as changed when the interval of its ratio ([`Interval`]) excludes one and the ratio itself is off by more
//! than a least size. Times are taken relative to the base lane's in the same round, where both records have one: a machine
//! that was slower on the second day is not a regression. Deliberately absent: judging by absolute figures.

mod unlike;

use crate::interval::Interval;
use crate::quantity::{Better, Busy, Part, Percentile, Quantity};
use crate::record::{Kind, Lane, Mode, Point, Record};
use crate::rounds::Rounds;
use crate::subject::{Unit, subject};

/// The level of the intervals, where there are rounds enough for it.
const LEVEL: f64 = 0.99;
/// A lower one tells nothing for certain.
const SURE: f64 = 0.95;
/// A lower one tells nothing at all.
const LIKELY: f64 = 0.9;
/// Failures, in percent, that are added on both sides so that none and one in a million have a ratio.
const FEW: f64 = 0.1;

/// Why two records are not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incomparable {
    /// One is of times, the other of instructions.
    Modes(Mode, Mode),
    /// Their forms differ.
    Versions(u32, u32),
    /// One is of a program that was built with optimisation, the other's was not.
    Builds,
}

impl std::fmt::Display for Incomparable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |mode: &Mode| match mode {
            Mode::Time => "time (this machine's)",
            Mode::Exact => "exact (instructions)",
        };
        match self {
            Self::Modes(a, b) => {
                write!(f, "the first record's mode is {}, the second's is {}", name(a), name(b))
            }
            Self::Versions(a, b) => {
                write!(f, "the first record is of version {a}, the second of version {b}")
            }
            Self::Builds => f.write_str("only one of the records is of a program built with optimisation"),
        }
    }
}

impl std::error::Error for Incomparable {}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is worse.
    Worse,
    /// It may be worse: too few rounds to be sure.
    PerhapsWorse,
    /// It is better.
    Better,
    /// It may be better: too few rounds to be sure.
    PerhapsBetter,
    /// It differs, which is neither good nor bad.
    Different,
    /// The noise is as large as the difference, or the difference is small.
    Same,
    /// Too few rounds to tell.
    TooFew,
}

impl Change {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::PerhapsWorse => "perhaps worse",
            Self::Better => "better",
            Self::PerhapsBetter => "perhaps better",
            Self::Different => "different",
            Self::Same => "no change that can be told",
            Self::TooFew => "too few rounds to tell",
        }
    }
}

/// A figure that both records have.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The lane.
    pub lane: String,
    /// Its kind.
    pub kind: Kind,
    /// The load.
    pub load: String,
    /// Where on a series.
    pub at: Option<Point>,
    /// Which figure.
    pub quantity: Quantity,
    /// The medians, as they were measured.
    pub medians: (f64, f64),
    /// The ratio of the second to the first, relative to the base where there is one.
    pub interval: Interval,
    /// What to make of it.
    pub change: Change,
}

/// Two records compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What else differs, and may be why.
    pub warnings: Vec<String>,
    /// All figures that both have.
    pub compared: Vec<Compared>,
    /// Where Portway's own lanes were measured in the first and not in the second.
    pub gone: Vec<String>,
    /// A smaller difference is none: 0.05 for 5 %.
    pub least: f64,
    /// What the figures are of.
    pub mode: Mode,
}

/// The least size of a difference that counts, if nothing else is said: times vary by more than instructions.
pub fn usual_least(mode: Mode) -> f64 {
    match mode {
        Mode::Time => 0.05,
        Mode::Exact => 0.02,
    }
}

/// Compares the second record with the first.
pub fn compare(first: &Record, second: &Record, least: Option<f64>) -> Result<Comparison, Incomparable> {
    if first.version != second.version {
        return Err(Incomparable::Versions(first.version, second.version));
    }
    if first.mode != second.mode {
        return Err(Incomparable::Modes(first.mode, second.mode));
    }
    if first.optimised != second.optimised {
        return Err(Incomparable::Builds);
    }
    let least = least.unwrap_or_else(|| usual_least(first.mode));
    let mut compared = Vec::new();
    for lane in &first.lanes {
        let Some(other) = second.lane(&lane.name) else { continue };
        for (load, at) in places(first, lane) {
            for quantity in quantities(subject(load).unit, first.mode) {
                let sides = Sides { records: [first, second], lanes: [lane, other], load, at: at.as_ref() };
                compared.extend(sides.compare(quantity, least));
            }
        }
    }
    let gone = unlike::gone(first, second);
    Ok(Comparison { warnings: unlike::warnings(first, second), compared, gone, least, mode: first.mode })
}

/// Where a lane was measured: loads, and places on series.
fn places<'a>(record: &'a Record, lane: &Lane) -> Vec<(&'a str, Option<Point>)> {
    let runs = record.runs.iter().filter(|run| run.lane == lane.name);
    let mut places: Vec<(&str, Option<Point>)> =
        runs.map(|run| (run.load.as_str(), run.at.clone())).collect();
    places.sort_by_cached_key(|(load, at)| {
        (crate::subject::place(load), at.clone().map(|at| (at.of, at.count)), (*load).to_owned())
    });
    places.dedup();
    places
}

/// The figures that are compared for a load. Where instructions are counted rates and times say the same once more, but for
/// what waits meanwhile.
fn quantities(unit: Unit, mode: Mode) -> Vec<Quantity> {
    match unit {
        _ if mode == Mode::Exact && unit != Unit::Held => {
            vec![Quantity::Cpu(Part::Total), Quantity::Packets, Quantity::Failures]
        }
        Unit::Held => vec![Quantity::KernelMemoryEach, Quantity::ForwarderMemoryEach, Quantity::Failures],
        Unit::Gigabyte => vec![
            Quantity::Cpu(Part::Total),
            Quantity::MachineCpu(Busy::All),
            Quantity::Throughput,
            Quantity::ForwarderMemory,
        ],
        _ => vec![
            Quantity::Cpu(Part::Total),
            Quantity::MachineCpu(Busy::All),
            Quantity::Rate,
            Quantity::Percentile(Percentile::P50),
            Quantity::Percentile(Percentile::P99),
            Quantity::Packets,
            Quantity::ForwarderMemory,
            Quantity::Failures,
        ],
    }
}

/// One place in both records.
struct Sides<'a> {
    records: [&'a Record; 2],
    lanes: [&'a Lane; 2],
    load: &'a str,
    at: Option<&'a Point>,
}

impl Sides<'_> {
    fn compare(&self, quantity: Quantity, least: f64) -> Option<Compared> {
        let plain = self.both(&|record, lane| record.rounds(&lane.name, self.load, self.at, quantity));
        let medians = (plain[0].summary()?.median, plain[1].summary()?.median);
        let relative = self.both(&|record, lane| self.relative(record, lane, quantity));
        // Instructions are the same on a slow day, but not with another kernel.
        let [first, second] = self.records;
        let is_other_machine = first.mode == Mode::Time || first.host.kernel != second.host.kernel;
        let by_base = is_other_machine && relative.iter().all(|rounds| !rounds.is_empty());
        let sides = if by_base { relative } else { plain };
        let raised = if quantity == Quantity::Failures { FEW } else { 0.0 };
        let [first, second] =
            sides.map(|rounds| rounds.figures().map(|figure| figure + raised).collect::<Vec<_>>());
        let interval = Interval::of(&first, &second, LEVEL)?;
        let change = change(&interval, self.better(quantity), least, self.records[0].mode);
        let [lane, _] = self.lanes;
        Some(Compared {
            lane: lane.name.clone(),
            kind: lane.kind,
            load: self.load.to_owned(),
            at: self.at.cloned(),
            quantity,
            medians,
            interval,
            change,
        })
    }

    /// Which way a figure gets better. How many packets something takes says nothing where it depends on who had the time to
    /// acknowledge several at once. A machine that counts instructions does the same again: there more packets for the same are
    /// more work, on wires and at neighbours that are not counted as well. Not so of streams, whose segments are as long as they
    /// happen to be cut, nor where segments were sent again, which a clock decides.
    fn better(&self, quantity: Quantity) -> Better {
        let is_counted = quantity == Quantity::Packets
            && self.records[0].mode == Mode::Exact
            && subject(self.load).unit != Unit::Gigabyte;
        let again = || {
            self.both(&|record, lane| record.rounds(&lane.name, self.load, self.at, Quantity::Retransmits))
        };
        if is_counted && again().iter().all(|rounds| rounds.figures().all(|again| again == 0.0)) {
            Better::Lower
        } else {
            quantity.better()
        }
    }

    fn both(&self, figures: &dyn Fn(&Record, &Lane) -> Rounds) -> [Rounds; 2] {
        [0, 1].map(|side| figures(self.records[side], self.lanes[side]))
    }

    /// Figures relative to the base's of the same round; none of what a slower machine does not change.
    fn relative(&self, record: &Record, lane: &Lane, quantity: Quantity) -> Rounds {
        let changes_with_the_machine = matches!(
            quantity,
            Quantity::Cpu(_)
                | Quantity::MachineCpu(_)
                | Quantity::Rate
                | Quantity::Throughput
                | Quantity::Percentile(_)
        );
        let Some(base) = lane.base.as_deref().filter(|_| changes_with_the_machine) else {
            return Rounds::default();
        };
        let mut under = record.rounds(base, self.load, self.at, quantity);
        if under.is_empty() {
            under = record.rounds(base, self.load, None, quantity);
        }
        record.rounds(&lane.name, self.load, self.at, quantity).over(&under)
    }
}

fn change(interval: &Interval, better: Better, least: f64, mode: Mode) -> Change {
    // A machine that counts instructions does the same again: one run is as good as many.
    let level = if mode == Mode::Exact { 1.0 } else { interval.level };
    if level < LIKELY - 1e-9 {
        return Change::TooFew;
    }
    let is_large = interval.ratio > 1.0 + least || interval.ratio < 1.0 / (1.0 + least);
    if !interval.excludes_one() || !is_large {
        return Change::Same;
    }
    let is_worse = match better {
        Better::Lower => interval.ratio > 1.0,
        Better::Higher => interval.ratio < 1.0,
        Better::Neither => return Change::Different,
    };
    match (is_worse, level >= SURE) {
        (true, true) => Change::Worse,
        (true, false) => Change::PerhapsWorse,
        (false, true) => Change::Better,
        (false, false) => Change::PerhapsBetter,
    }
}

impl Comparison {
    /// Why no figure of Portway's own lanes could be worse for certain, if none could.
    pub fn cannot_tell(&self) -> Option<String> {
        let mut own = self.compared.iter().filter(|each| each.kind == Kind::Portway).peekable();
        if own.peek().is_none() {
            return Some("the two records have no figure of Portway's own lanes in common".to_owned());
        }
        if !self.gone.is_empty() {
            return Some(format!("the second record has no figure of {}", self.gone.join(", ")));
        }
        let level = own.map(|each| each.interval.level).fold(0.0, f64::max);
        (self.mode == Mode::Time && level < SURE).then(|| {
            format!(
                "no figure can be worse for certain: the rounds of these records make sure to {:.0} %, and it takes {:.0}. \
                 Measure both with four rounds at least (portway lab --rounds 4)",
                level * 100.0,
                SURE * 100.0
            )
        })
    }

    /// Figures of Portway's own lanes that are worse for certain.
    pub fn regressions(&self) -> impl Iterator<Item = &Compared> {
        self.compared.iter().filter(|each| each.kind == Kind::Portway && each.change == Change::Worse)
    }
}
