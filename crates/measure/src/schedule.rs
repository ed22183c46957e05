//! The order of the runs: rounds, in each of which every load meets every lane, one lane after the other.
//!
//! A machine that slows down slows all lanes, and figures are compared within a round. Which lane is first changes from round to
//! round, so that none always runs when the machine has just rested. Before the first round every pair has a short run that is
//! not kept: caches fill, and so do tables. Pure: what is there is an argument.

use crate::lane::Scheme;
use crate::load::Load;
use crate::options::Scale;

/// A run to come.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Which of the lanes.
    pub lane: usize,
    /// Under which load.
    pub load: Load,
    /// In which round, from 1; 0 is the warm-up.
    pub round: u32,
    /// How long the load runs, in seconds.
    pub seconds: f64,
}

/// What a run takes besides its load: reading figures, starting programs, waiting for silence.
const AROUND: f64 = 0.3;
/// How long it takes to set a lane up.
pub const SET_UP: f64 = 1.0;
/// How long a warm-up runs.
const WARM_UP: f64 = 0.2;

impl Step {
    /// How long it takes in all, in seconds.
    pub fn takes(&self) -> f64 {
        self.seconds + AROUND
    }
}

/// The runs of some rounds.
pub fn rounds(lanes: &[Scheme], loads: &[Load], rounds: u32, scale: Scale) -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 0..=rounds {
        for load in loads {
            for place in 0..lanes.len() {
                let lane = (place + round as usize) % lanes.len();
                let seconds = load.seconds(scale);
                let seconds = if round == 0 { seconds.min(WARM_UP) } else { seconds };
                let takes_part = if round == 0 { load.is_warmed_up() } else { round <= load.rounds(rounds) };
                if takes_part && load.suits(&lanes[lane]).is_ok() {
                    steps.push(Step { lane, load: *load, round, seconds });
                }
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANES: [Scheme; 3] = [Scheme::Routing, Scheme::Iptables, Scheme::Nft];

    #[test]
    fn every_round_has_every_pair_once_and_another_lane_first() {
        let steps = rounds(&LANES, &[Load::Connections, Load::BulkUp], 3, Scale::Usual);
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
        let steps = rounds(&LANES, &[Load::Connections], 1, Scale::Long);
        assert!(steps.iter().all(|step| (step.round == 0) == (step.seconds <= WARM_UP)));
    }
}
