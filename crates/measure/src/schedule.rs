//! The order of the runs: rounds, in each of which every load meets every lane, one lane after the other.
//!
//! A machine that slows down slows all lanes, and figures are compared within a round. Which lane is first changes from round to
//! round, so that none always runs when the machine has just rested. Before the first round every pair has a short run that is
//! neither measured nor kept: caches fill, and so do tables. The same holds of what is set up apart from these rounds ([`apart`]).
//! Pure: what is there is an argument.

mod apart;

use std::collections::BTreeSet;

pub use apart::{Trial, Turn, apart, turns};

use crate::lane::Scheme;
use crate::load::{Load, Terms, terms};
use crate::options::Scale;
use crate::record::Mode;

/// A run to come.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Which of the lanes.
    pub lane: usize,
    /// Under which load.
    pub load: Load,
    /// In which round, from 1; 0 is the warm-up.
    pub round: u32,
    /// How much of it.
    pub terms: Terms,
}

/// What a run takes besides its load: reading figures, starting programs, waiting for silence.
const AROUND: f64 = 0.3;
/// The same of a warm-up, of which nothing is read.
const AROUND_WARM_UP: f64 = 0.15;
/// How long it takes to set a lane up.
pub const SET_UP: f64 = 1.0;
/// How long a warm-up runs, or how many it asks for.
const WARM_UP: (f64, u64) = (0.2, 200);

impl Step {
    /// How long it takes in all, in seconds.
    pub fn takes(&self) -> f64 {
        run(self.terms, self.round)
    }
}

/// How long a run takes in all, in seconds.
fn run(terms: Terms, round: u32) -> f64 {
    duration(terms) + if round == 0 { AROUND_WARM_UP } else { AROUND }
}

/// So much of a load that it is a warm-up.
fn warm_up(terms: Terms) -> Terms {
    Terms {
        seconds: terms.seconds.min(WARM_UP.0),
        count: terms.count.map(|count| count.min(WARM_UP.1)),
        bytes: terms.bytes.map(|bytes| bytes.min(terms::WARM_UP_BYTES)),
        ..terms
    }
}

/// Which of so many is at a place in a round: each round begins with another.
fn turn(place: usize, round: u32, of: usize) -> usize {
    (place + round as usize) % of
}

/// How many rounds those have that are set up apart, where the others have so many.
pub fn rounds_apart(rounds: u32) -> u32 {
    rounds.div_ceil(2)
}

/// How long all of it takes, in seconds: setting up the lanes of the steps, the steps, and what is apart.
pub fn planned(steps: &[Step], groups: &[Vec<Trial>], rounds: u32) -> f64 {
    let lanes: BTreeSet<usize> = steps.iter().map(|step| step.lane).collect();
    let apart = groups.iter().flatten().map(|trial| trial.takes(rounds_apart(rounds)));
    SET_UP * lanes.len() as f64 + steps.iter().map(Step::takes).sum::<f64>() + apart.sum::<f64>()
}

/// How long a load takes, in seconds: a connection about 300,000 instructions and a byte about 7, where they are counted.
fn duration(terms: Terms) -> f64 {
    match (terms.count, terms.bytes) {
        (Some(count), _) => terms.seconds.min(count as f64 * 3e-4),
        (None, Some(bytes)) => bytes as f64 * 7e-9,
        (None, None) => terms.seconds,
    }
}

/// The runs of some rounds.
pub fn rounds(lanes: &[Scheme], loads: &[Load], rounds: u32, (scale, mode): (Scale, Mode)) -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 0..=rounds {
        for load in loads {
            for place in 0..lanes.len() {
                let lane = turn(place, round, lanes.len());
                let terms = Terms::of(*load, scale, mode);
                let terms = if round == 0 { warm_up(terms) } else { terms };
                let takes_part = if round == 0 { load.is_warmed_up() } else { round <= load.rounds(rounds) };
                if takes_part && !load.is_apart() && load.suits(&lanes[lane]).is_ok() {
                    steps.push(Step { lane, load: *load, round, terms });
                }
            }
        }
    }
    steps
}

/// The runs in which it is seen where the work goes: one of each pair, as long as those of the rounds.
pub fn profiles(lanes: &[Scheme], loads: &[Load], terms: (Scale, Mode)) -> Vec<Step> {
    rounds(lanes, loads, 1, terms).into_iter().filter(|step| step.round == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Options, Series};

    const LANES: [Scheme; 3] = [Scheme::Routing, Scheme::Iptables, Scheme::Nft];

    #[test]
    fn every_round_has_every_pair_once_and_another_lane_first() {
        let steps = rounds(&LANES, &[Load::Connections, Load::BulkUp], 3, (Scale::Usual, Mode::Time));
        assert_eq!(steps.len(), 4 * 6);
        for round in 0..=3_u32 {
            let of: Vec<&Step> = steps.iter().filter(|step| step.round == round).collect();
            assert_eq!(of[0].lane, round as usize % 3);
            let mut pairs: Vec<_> = of.iter().map(|step| (step.load.name(), step.lane)).collect();
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len(), 6);
        }
    }

    #[test]
    fn a_warm_up_is_short() {
        for mode in [Mode::Time, Mode::Exact] {
            let steps = rounds(&LANES, &[Load::Connections], 1, (Scale::Long, mode));
            let is_short =
                |terms: Terms| terms.count.map_or(terms.seconds <= WARM_UP.0, |count| count <= WARM_UP.1);
            assert!(steps.iter().all(|step| (step.round == 0) == is_short(step.terms)));
        }
    }

    /// What docs/lab.md says of a run of which nothing more is said, were all lanes on this host.
    #[test]
    fn the_usual_run_takes_less_than_five_minutes() {
        let options = Options::default();
        let (terms, rounds) = ((options.scale, options.mode()), options.rounds());
        assert_eq!(options.lanes(), Scheme::ALL);
        let steps = super::rounds(&Scheme::ALL, &options.loads(), rounds, terms);
        let groups = apart(&Scheme::ALL, &options.loads(), &options.series(), terms);
        let seconds = planned(&steps, &groups, rounds);
        assert!((100.0..300.0).contains(&seconds), "{seconds}");
        // Those that decide something have rounds enough for it.
        let in_rounds =
            |load: Load| steps.iter().filter(|step| step.load == load).map(|step| step.round).max();
        assert!(
            [Load::Connections, Load::Paced, Load::BulkUp].map(in_rounds).iter().all(|most| *most >= Some(3))
        );
    }

    #[test]
    fn what_is_planned_is_the_sum_of_what_passes() {
        let terms = (Scale::Long, Mode::Time);
        let steps = rounds(&LANES, &[Load::Connections, Load::Churn], 3, terms);
        let groups = apart(&LANES, &[Load::Connections, Load::Churn], &[Series::Concurrency], terms);
        let of_group = |group: &Vec<Trial>| {
            let runs =
                turns(group, rounds_apart(3)).into_iter().map(|turn| group[turn.trial].run(turn.round));
            group.iter().map(Trial::set_up).sum::<f64>() + runs.sum::<f64>()
        };
        let passed = 3.0 * SET_UP
            + steps.iter().map(Step::takes).sum::<f64>()
            + groups.iter().map(of_group).sum::<f64>();
        assert!((planned(&steps, &groups, 3) - passed).abs() < 1e-6, "{passed}");
    }
}
