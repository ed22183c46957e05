//! What is set up apart from the rounds that all lanes share: for a load that needs a pool, and for what grows along a series.
//!
//! Deliberately absent: the lanes and the loads of those rounds ([`super::rounds`]).

use std::ops::RangeInclusive;

use super::{SET_UP, run, turn, warm_up};
use crate::flows;
use crate::lane::Scheme;
use crate::lane::setup::Setting;
use crate::load::{self, Load, Terms};
use crate::options::{Scale, Series};
use crate::record::{Kind, Mode, Point};

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

    /// How long it takes to set it up, in seconds.
    pub fn set_up(&self) -> f64 {
        SET_UP + f64::from(self.setting.rules) * PER_RULE + f64::from(self.setting.flows) * PER_FLOW
    }

    /// What its load is in a round; 0 is the warm-up.
    pub fn terms(&self, round: u32) -> Terms {
        if round == 0 { warm_up(self.terms) } else { self.terms }
    }

    /// How long a run takes in a round, in seconds.
    pub fn run(&self, round: u32) -> f64 {
        run(self.terms(round), round)
    }

    /// How long it takes in all, in seconds: setting it up, warming up, and so many rounds.
    pub fn takes(&self, rounds: u32) -> f64 {
        self.set_up() + self.rounds(rounds).map(|round| self.run(round)).sum::<f64>()
    }

    /// The rounds in which it runs: in the warm-up as well, where that is short.
    fn rounds(&self, rounds: u32) -> RangeInclusive<u32> {
        u32::from(!self.load.is_warmed_up())..=rounds
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

/// A run of a group to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which trial of the group.
    pub trial: usize,
    /// In which round, from 1; 0 is the warm-up.
    pub round: u32,
}

/// The runs of a group, one after the other: rounds, each of which begins with another trial.
pub fn turns(group: &[Trial], rounds: u32) -> Vec<Turn> {
    let all = (0..=rounds).flat_map(|round| {
        (0..group.len()).map(move |place| Turn { trial: turn(place, round, group.len()), round })
    });
    all.filter(|turn| group[turn.trial].rounds(rounds).contains(&turn.round)).collect()
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
    fn every_round_begins_with_another_trial_and_the_first_is_the_warm_up() {
        let series = apart(&[Scheme::Nft], &[], &[Series::Backends], (Scale::Usual, Mode::Time)).remove(0);
        let trials = series.len();
        let turns_of = |group: &[Trial], round: u32| {
            let all = turns(group, 3).into_iter().filter(|turn| turn.round == round);
            all.map(|turn| turn.trial).collect::<Vec<_>>()
        };
        for round in 0..=3 {
            let mut of = turns_of(&series, round);
            assert_eq!(of[0], round as usize % trials);
            of.sort_unstable();
            assert_eq!(of, (0..trials).collect::<Vec<_>>());
        }
        assert!(turns(&series, 3).windows(2).all(|pair| pair[0].round <= pair[1].round));
        assert!(series.iter().all(|trial| trial.run(0) < trial.run(1)));
        // A backend that dies and comes back takes its time: no run of it is short.
        let churn =
            apart(&[Scheme::Nft, Scheme::Haproxy], &[Load::Churn], &[], (Scale::Usual, Mode::Time)).remove(0);
        assert_eq!([0, 1, 2].map(|round| turns_of(&churn, round)), [vec![], vec![1, 0], vec![0, 1]]);
    }
}
