//! What follows from a record: figures by round, what a lane adds to its base in the same round, ratios within rounds,
//! what stands out, and whether the rounds tell at all.
//!
//! Figures are only ever joined within a round: a machine that slows down from one round to the next slows all lanes, and
//! what it did to the figures falls out of differences and ratios. Deliberately absent: words and pictures (`report`).

use std::collections::BTreeMap;

use crate::quantity::{Part, Quantity};
use crate::record::{Lane, Mode, Point, Record, Run};
use crate::stats::{Summary, summary};

/// Fewer rounds than these decide nothing about times, however close together they lie.
const LEAST_ROUNDS: usize = 3;

/// More CPUs than this kept busy by others make times doubtful.
pub const QUIET: f64 = 0.1;

/// More failures than these, in percent of what was tried, are said beside what succeeded.
pub const FEW_FAILURES: f64 = 0.1;

/// How far outside the middle half a figure stands out, in widths of that half (Tukey, Exploratory Data Analysis, 1977, 2C).
const FENCE: f64 = 1.5;

/// One figure of each round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rounds(BTreeMap<u32, f64>);

impl FromIterator<(u32, f64)> for Rounds {
    /// Figures of the same round become their mean, those that are no number nothing.
    fn from_iter<I: IntoIterator<Item = (u32, f64)>>(figures: I) -> Self {
        let mut by_round: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (round, figure) in figures.into_iter().filter(|(_, figure)| figure.is_finite()) {
            by_round.entry(round).or_default().push(figure);
        }
        // Sorted, so that the sum does not depend on the order in which they came.
        let mean = |mut figures: Vec<f64>| {
            figures.sort_by(f64::total_cmp);
            figures.iter().sum::<f64>() / figures.len() as f64
        };
        Self(by_round.into_iter().map(|(round, figures)| (round, mean(figures))).collect())
    }
}

impl Rounds {
    /// The figures, by round.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        self.0.iter().map(|(round, figure)| (*round, *figure))
    }

    /// Without the rounds' numbers.
    pub fn figures(&self) -> impl Iterator<Item = f64> + '_ {
        self.0.values().copied()
    }

    /// How many rounds have the figure.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No round has the figure.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middle and the middle half.
    pub fn summary(&self) -> Option<Summary> {
        summary(self.figures())
    }

    /// Joins two lanes' figures of the same rounds; a result that is no number is left out.
    pub fn with(&self, other: &Self, join: impl Fn(f64, f64) -> f64) -> Self {
        let paired =
            self.iter().filter_map(|(round, figure)| Some((round, join(figure, *other.0.get(&round)?))));
        paired.collect()
    }

    /// The ratio to another lane's figures of the same rounds. Rounds in which either is not above zero have none: cost that
    /// drowned in the noise has no ratio.
    pub fn over(&self, other: &Self) -> Self {
        self.with(other, |a, b| if a > 0.0 && b > 0.0 { a / b } else { f64::NAN })
    }

    /// The rounds that stand out from the others: more than one and a half widths of the middle half outside of it. Of fewer
    /// than four rounds none does.
    pub fn outliers(&self) -> Vec<(u32, f64)> {
        let Some(middle) = self.summary().filter(|_| self.len() > LEAST_ROUNDS) else { return Vec::new() };
        let reach = FENCE * (middle.high - middle.low);
        let outside = |figure: f64| figure < middle.low - reach || figure > middle.high + reach;
        self.iter().filter(|(_, figure)| outside(*figure)).collect()
    }
}

/// Whether a figure is at most another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The middle half of the rounds is.
    Met,
    /// The middle half of the rounds is above.
    Missed,
    /// The middle half reaches over it.
    TooWide,
    /// There are not rounds enough.
    TooFew,
}

impl Verdict {
    /// The verdict on figures that should be at most `target`, of at least `least` rounds.
    pub fn at_most(rounds: &Rounds, target: f64, least: usize) -> Self {
        match rounds.summary() {
            _ if rounds.len() < least => Self::TooFew,
            Some(middle) if middle.high <= target => Self::Met,
            Some(middle) if middle.low > target => Self::Missed,
            _ => Self::TooWide,
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::TooWide => "too wide to tell",
            Self::TooFew => "too few rounds to tell",
        }
    }
}

impl Record {
    /// The lane of that name.
    pub fn lane(&self, name: &str) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.name == name)
    }

    /// The lanes that were asked under a load, at a place of a series or outside of all.
    pub fn lanes_at<'a>(&'a self, load: &'a str, at: Option<&'a Point>) -> impl Iterator<Item = &'a Lane> {
        self.lanes.iter().filter(move |lane| self.runs_of(&lane.name, load, at).next().is_some())
    }

    /// The runs of a lane under a load, at a place of a series or outside of all.
    pub fn runs_of<'a>(
        &'a self,
        lane: &'a str,
        load: &'a str,
        at: Option<&'a Point>,
    ) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.lane == lane && run.load == load && run.at.as_ref() == at)
    }

    /// A figure of a lane under a load, by round. How the kernel divides instructions among programs and itself is sampled at
    /// ticks, of which runs of instructions have too few.
    pub fn rounds(&self, lane: &str, load: &str, at: Option<&Point>, quantity: Quantity) -> Rounds {
        if self.mode == Mode::Exact && matches!(quantity, Quantity::Cpu(Part::User | Part::Kernel)) {
            return Rounds::default();
        }
        let runs = self.runs_of(lane, load, at);
        runs.filter_map(|run| Some((run.round, quantity.of(run)?))).collect()
    }

    /// How much failed in a lane's worst round, in percent, if it is more than [`FEW_FAILURES`]. Where nothing succeeded all has
    /// failed, whether or not somebody counted.
    pub fn failed(&self, lane: &str, load: &str, at: Option<&Point>) -> Option<f64> {
        let shares = self.runs_of(lane, load, at).filter_map(|run| match run.figures.done {
            0 => Some(100.0),
            _ => Quantity::Failures.of(run),
        });
        shares.reduce(f64::max).filter(|share| *share > FEW_FAILURES)
    }

    /// What a lane's figure is above its base's in the same round; nothing of a base itself. A base that was not measured at
    /// a place of a series, since what grows there does not touch it, stands in with what it did outside.
    pub fn added(&self, lane: &Lane, load: &str, at: Option<&Point>, quantity: Quantity) -> Rounds {
        let Some(base) = &lane.base else { return Rounds::default() };
        let mut under = self.rounds(base, load, at, quantity);
        if under.is_empty() {
            under = self.rounds(base, load, None, quantity);
        }
        self.rounds(&lane.name, load, at, quantity).with(&under, |lane, base| lane - base)
    }

    /// The loads that were run outside of series, in the order of a report.
    pub fn loads(&self) -> Vec<&str> {
        let runs = self.runs.iter().filter(|run| run.at.is_none());
        let mut names: Vec<&str> = runs.map(|run| run.load.as_str()).collect();
        names.sort_by_key(|name| (crate::subject::place(name), *name));
        names.dedup();
        names
    }

    /// The series that were run: what grows and under which load.
    pub fn series(&self) -> Vec<(&str, &str)> {
        let points =
            self.runs.iter().filter_map(|run| Some((run.at.as_ref()?.of.as_str(), run.load.as_str())));
        let mut series: Vec<(&str, &str)> = points.collect();
        series.sort_unstable();
        series.dedup();
        series
    }

    /// Where on a series a lane was measured, growing.
    pub fn points(&self, lane: &str, of: &str, load: &str) -> Vec<Point> {
        let runs = self.runs.iter().filter(|run| run.lane == lane && run.load == load);
        let mut points: Vec<Point> = runs.filter_map(|run| run.at.clone()).filter(|at| at.of == of).collect();
        points.sort_unstable_by_key(|point| point.count);
        points.dedup();
        points
    }

    /// How many rounds it takes to decide. An emulated machine that counts instructions does the same again.
    pub fn least_rounds(&self) -> usize {
        match self.mode {
            Mode::Time => LEAST_ROUNDS,
            Mode::Exact => 1,
        }
    }

    /// CPUs that others kept busy before the runs.
    pub fn background(&self) -> Option<Summary> {
        summary(self.runs.iter().map(|run| run.figures.background).filter(|busy| busy.is_finite()))
    }

    /// CPUs that the hypervisor gave to others during the runs while there was work for them here.
    pub fn stolen(&self) -> Option<Summary> {
        let each = |run: &Run| Some(run.figures.machine_parts?.stolen / run.figures.seconds);
        summary(self.runs.iter().filter_map(each).filter(|stolen| stolen.is_finite()))
    }

    /// Whether others were so busy that times are doubtful. An emulated machine does not mind.
    pub fn is_disturbed(&self) -> bool {
        self.mode == Mode::Time && self.background().is_some_and(|busy| busy.high > QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(figures: &[f64]) -> Rounds {
        (0..).zip(figures.iter().copied()).collect()
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let a: Rounds = [(0, 10.0), (1, 40.0), (3, 1.0)].into_iter().collect();
        let b: Rounds = [(1, 20.0), (0, 10.0), (2, 7.0)].into_iter().collect();
        assert_eq!(a.over(&b).iter().collect::<Vec<_>>(), [(0, 1.0), (1, 2.0)]);
    }

    #[test]
    fn figures_of_one_round_are_their_mean_in_whatever_order() {
        let mean = |figures: [f64; 3]| figures.map(|figure| (7, figure)).into_iter().collect::<Rounds>();
        assert_eq!(mean([0.1, 0.2, 0.3]), mean([0.3, 0.2, 0.1]));
        assert_eq!(mean([1.0, 2.0, 3.0]).iter().collect::<Vec<_>>(), [(7, 2.0)]);
    }

    #[test]
    fn cost_below_zero_has_no_ratio() {
        assert!(rounds(&[-1.0]).over(&rounds(&[2.0])).is_empty());
        assert!(rounds(&[1.0]).over(&rounds(&[0.0])).is_empty());
    }

    #[test]
    fn one_that_stands_out_is_named_and_stays() {
        let figures = rounds(&[10.0, 11.0, 10.5, 10.2, 90.0]);
        assert_eq!(figures.outliers(), [(4, 90.0)]);
        assert_eq!(figures.summary().unwrap().median, 10.5);
        assert!(rounds(&[1.0, 1.0, 90.0]).outliers().is_empty());
    }

    #[test]
    fn a_verdict_needs_the_middle_half_on_one_side_and_three_rounds() {
        assert_eq!(Verdict::at_most(&rounds(&[0.4, 0.45, 0.5, 0.9]), 0.7, 3), Verdict::Met);
        assert_eq!(Verdict::at_most(&rounds(&[0.4, 0.8, 0.9]), 0.7, 3), Verdict::TooWide);
        assert_eq!(Verdict::at_most(&rounds(&[0.8, 0.8, 0.9]), 0.7, 3), Verdict::Missed);
        assert_eq!(Verdict::at_most(&rounds(&[0.1, 0.1]), 0.7, 3), Verdict::TooFew);
        assert_eq!(Verdict::at_most(&rounds(&[]), 0.7, 3), Verdict::TooFew);
    }
}
