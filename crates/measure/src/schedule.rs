//! The order of the runs: rounds, in each of which every load meets every lane, one lane after the other.
//!
//! A machine that slows down slows all lanes, and figures are compared within a round. Which lane is first changes from round to
//! round, so that none always runs when the machine has just rested. Before the first round every pair has a short run that is
//! not kept: caches fill, and so do tables. Pure: what is there is an argument.

use crate::flows;
use crate::lane::Scheme;
use crate::lane::setup::Setting;
use crate::load::{self, Load, Terms};
use crate::options::{Scale, Series};
use crate::record::{Kind, Mode, Point};

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
/// How long it takes to set a lane up.
pub const SET_UP: f64 = 1.0;
/// How long a warm-up runs, or how many it asks for.
const WARM_UP: (f64, u64) = (0.2, 200);

impl Step {
    /// How long it takes in all, in seconds.
    pub fn takes(&self) -> f64 {
        duration(self.terms) + AROUND
    }
}

/// How long a load takes, in seconds: a connection about 300,000 instructions, where they are counted.
fn duration(terms: Terms) -> f64 {
    terms.count.map_or(terms.seconds, |count| terms.seconds.min(count as f64 * 3e-4))
}

/// The runs of some rounds.
pub fn rounds(lanes: &[Scheme], loads: &[Load], rounds: u32, (scale, mode): (Scale, Mode)) -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 0..=rounds {
        for load in loads {
            for place in 0..lanes.len() {
                let lane = (place + round as usize) % lanes.len();
                let mut terms = Terms::of(*load, scale, mode);
                if round == 0 {
                    terms.seconds = terms.seconds.min(WARM_UP.0);
                    terms.count = terms.count.map(|count| count.min(WARM_UP.1));
                }
                let takes_part = if round == 0 { load.is_warmed_up() } else { round <= load.rounds(rounds) };
                if takes_part && !load.is_apart() && load.suits(&lanes[lane]).is_ok() {
                    steps.push(Step { lane, load: *load, round, terms });
                }
            }
        }
    }
    steps
}

/// A lane that is set up for one purpose, and the runs there.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Which lane.
    pub scheme: Scheme,
    /// Under which load.
    pub load: Load,
    /// What the lane has.
    pub setting: Setting,
    /// What the load is.
    pub terms: Terms,
    /// Where on a series.
    pub at: Option<Point>,
}

impl Trial {
    /// `nft with 1000 rules, connections`.
    pub fn title(&self) -> String {
        let at = self.at.as_ref().map(|at| format!(" at {} {}", at.of, at.count)).unwrap_or_default();
        format!("{}{at}, {}", self.scheme.name(), self.load.name())
    }

    /// How long it takes in all, in seconds: setting it up, and so many runs.
    pub fn takes(&self, rounds: u32) -> f64 {
        let made = f64::from(self.setting.rules) * PER_RULE + f64::from(self.setting.flows) * PER_FLOW;
        SET_UP + made + f64::from(rounds) * (duration(self.terms) + AROUND)
    }

    /// Whether it can be.
    ///
    /// # Errors
    /// Why not, as a sentence without a full stop.
    pub fn possible(&self) -> Result<(), String> {
        self.load.suits(&self.scheme)?;
        let pooled = self.setting.backends > 0;
        let one_target = matches!(self.scheme, Scheme::Realm | Scheme::Socat | Scheme::Peer(_));
        if one_target && (pooled || self.setting.rules > 0) {
            return Err("it is set up with one target".to_owned());
        }
        if self.terms.flows > 0 && !self.scheme.takes_udp() {
            return Err("the flows are UDP, which it does not forward".to_owned());
        }
        if self.terms.flows > 0 && self.scheme.is_relay() {
            return flows::fit_sockets(self.terms.flows);
        }
        if self.terms.flows > 0 && self.scheme.has_conntrack() {
            return flows::fit_conntrack(self.terms.flows);
        }
        let sockets = if pooled { 0 } else { self.at.as_ref().map_or(0, |at| at.count) };
        if self.scheme.is_relay() && sockets > load::at_a_time() {
            return Err(format!(
                "it needs two sockets for each, or one for each listener, and a process may have {} of them here (ulimit -Hn)",
                2 * load::at_a_time()
            ));
        }
        Ok(())
    }
}

/// What a lane with many rules takes longer to set up, for each.
const PER_RULE: f64 = 0.0001;
/// From so many connections at a time on a run ends after a number of them rather than after a time.
const MANY: u64 = 1000;
/// How many times as many connections that is.
const TURNS: u64 = 5;
/// How long a connection takes then.
const PER_TURN: f64 = 0.000_15;
/// And what making a flow takes.
const PER_FLOW: f64 = 0.000_02;

/// The lanes that are set up apart from the rounds: for loads that need a pool, and for series. Those of one group are set up
/// together, and their rounds interleaved.
pub fn apart(
    lanes: &[Scheme],
    loads: &[Load],
    series: &[Series],
    (scale, mode): (Scale, Mode),
) -> Vec<Vec<Trial>> {
    let forwarders = || lanes.iter().filter(|scheme| scheme.kind() != Kind::Routing);
    let mut groups = Vec::new();
    if loads.contains(&Load::Churn) {
        let setting = Setting { backends: 2, checked: true, ..Setting::default() };
        let terms = Terms::of(Load::Churn, scale, mode);
        let trial =
            |scheme: &Scheme| Trial { scheme: scheme.clone(), load: Load::Churn, setting, terms, at: None };
        groups.push(forwarders().map(trial).collect());
    }
    for series in series {
        let mut group = Vec::new();
        for scheme in lanes.iter().filter(|scheme| series.has_zero_line() || scheme.kind() != Kind::Routing) {
            for count in series.counts() {
                let mut trial = Trial {
                    scheme: scheme.clone(),
                    load: Load::Connections,
                    setting: Setting::default(),
                    terms: Terms::of(Load::Connections, scale, mode),
                    at: Some(Point { of: series.name().to_owned(), count }),
                };
                let few = u32::try_from(count).unwrap_or(u32::MAX);
                match series {
                    // One of them is the one that is used.
                    Series::Rules => {
                        trial.setting.rules = few - 1;
                        // Where rules are asked one after the other the slowest takes milliseconds for each connection.
                        trial.terms.seconds = trial.terms.seconds.max(f64::from(few) * 2e-5);
                    }
                    Series::Flows => {
                        trial.terms.flows = count;
                        trial.setting.flows = few;
                    }
                    Series::Concurrency => {
                        trial.terms.concurrency = Some(few);
                        // So many at a time take longer than a run to begin: all of them, and all of them again.
                        if count >= MANY {
                            trial.terms.count = Some(TURNS * count);
                            trial.terms.seconds = trial.terms.seconds.max((TURNS * count) as f64 * PER_TURN);
                        }
                    }
                    Series::Backends => {
                        trial.setting.backends = u8::try_from(count).unwrap_or(u8::MAX);
                        trial.terms.pooled = true;
                    }
                }
                group.push(trial);
            }
        }
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_is_apart_is_possible_or_says_why_not() {
        let groups = apart(&Scheme::ALL, &[Load::Churn], &Series::ALL, (Scale::Long, Mode::Time));
        assert_eq!(groups.len(), 1 + Series::ALL.len());
        for trial in groups.iter().flatten() {
            let engine = matches!(trial.scheme, Scheme::Portway(_)) && !trial.scheme.is_relay();
            // How many flows conntrack may hold is the machine's.
            let fits = engine && !(trial.scheme.has_conntrack() && trial.terms.flows > 10_000);
            assert!(trial.possible().is_ok() || !fits, "{}: {:?}", trial.title(), trial.possible());
        }
        // Where Portway promises that many rules cost no more than one, both are measured.
        let rules = |count: u64| {
            let at = Point { of: "rules".to_owned(), count };
            groups
                .iter()
                .flatten()
                .any(|trial| trial.at.as_ref() == Some(&at) && trial.scheme.name() == "portway-nftables")
        };
        assert!(rules(1) && rules(10_000));
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
}
