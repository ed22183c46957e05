//! Learning: what a changed fact changes, and what is due later because of it.
//!
//! News are put into the facts, the rules that they concern are planned afresh, and each engine carries out its part.
//! Only then are flows ended: a flow that begins anew must not meet the backend that it was taken from.

use std::collections::{BTreeMap, BTreeSet};

use portway_core::effects::{self, Ended, Standing};
use portway_core::engine::{Engine, EngineError};
use portway_core::facts::{Answer, Health, Lookup, Moment, Order, Probe};
use portway_core::flow::FlowFilter;
use portway_core::members;
use portway_core::plan::{Changes, nftables, proxy};
use portway_core::ruleset::{BackendName, RuleName};

use super::{Applied, Controller};
use crate::concern::Concern;

/// How long until an engine that could not carry out a change is asked again.
const RETRY: Moment = Moment::from_secs(1);

/// Something that the world says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A probe's verdict.
    Health(Probe, Health),
    /// A resolver's answer.
    Names(Lookup, Answer),
    /// The operator's order for a backend; `None` takes it back.
    Order(RuleName, BackendName, Option<Order>),
}

/// What is due later.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Flows that end at a time, unless their backend is back by then.
    ending: Vec<(Moment, Ended)>,
    /// When a rule's members change by time alone (slow start).
    steps: BTreeMap<usize, Moment>,
    /// When the whole is applied again because an engine could not carry out a change.
    retry: Option<Moment>,
}

impl<N, P> Controller<N, P>
where
    N: Engine<Plan = nftables::Plan, Change = nftables::Change>,
    P: Engine<Plan = proxy::Plan, Change = proxy::Change>,
{
    /// Takes note of news and brings the engines to what follows from them.
    ///
    /// # Errors
    /// The engine that could not; it is asked again by [`Controller::tick`]. The facts are noted all the same.
    pub fn learn(&mut self, news: Vec<News>, now: Moment) -> Result<(), EngineError> {
        let mut rules = BTreeSet::new();
        let mut renamed = BTreeSet::new();
        for item in &news {
            match item {
                News::Health(probe, health) => {
                    // A verdict that says what is known already changes no member.
                    let known = self.facts.health.get(probe).map_or(true, |known| known.up);
                    if known != health.up || !self.facts.health.contains_key(probe) {
                        rules.extend(self.concern.of_probe(probe));
                    }
                }
                News::Names(lookup, answer) => {
                    if self.facts.names.get(lookup) != Some(answer) {
                        renamed.extend(self.concern.of_lookup(lookup));
                    }
                }
                News::Order(rule, ..) => rules.extend(self.index_of(rule)),
            }
        }
        rules.extend(&renamed);
        let before = self.standing(&rules);
        for item in news {
            match item {
                // What is no longer watched was on its way when the rules changed.
                News::Health(probe, health) if self.concern.has_probe(&probe) => {
                    self.facts.health.insert(probe, health);
                }
                News::Names(lookup, answer) if self.concern.has_lookup(&lookup) => {
                    self.facts.names.insert(lookup, answer);
                }
                News::Order(rule, backend, Some(order)) => {
                    self.facts.orders.insert((rule, backend), order);
                }
                News::Order(rule, backend, None) => {
                    self.facts.orders.remove(&(rule, backend));
                }
                News::Health(..) | News::Names(..) => {}
            }
        }
        if let Some(applied) = &self.applied {
            for nth in renamed {
                self.concern.enter(nth, &applied.candidate.ruleset.rules[nth], &self.facts);
            }
        }
        self.replan(&rules, &before, now)
    }

    /// Does what is due by time alone.
    ///
    /// # Errors
    /// The engine that could not; it is asked again.
    pub fn tick(&mut self, now: Moment) -> Result<(), EngineError> {
        if self.pending.retry.is_some_and(|at| at <= now) {
            self.reapply(now)?;
        }
        let due: BTreeSet<usize> =
            self.pending.steps.iter().filter(|(_, at)| **at <= now).map(|(nth, _)| *nth).collect();
        if !due.is_empty() {
            let before = self.standing(&due);
            self.replan(&due, &before, now)?;
        }
        let ending = std::mem::take(&mut self.pending.ending);
        let (due, later): (Vec<_>, Vec<_>) = ending.into_iter().partition(|(at, _)| *at <= now);
        self.pending.ending = later;
        for (_, ended) in due {
            self.end(&ended)?;
        }
        Ok(())
    }

    /// When [`Controller::tick`] has something to do next.
    pub fn due(&self) -> Option<Moment> {
        let pending = &self.pending;
        let ending = pending.ending.iter().map(|(at, _)| *at);
        ending.chain(pending.steps.values().copied()).chain(pending.retry).min()
    }

    /// After an apply: what is watched, forgotten and due follows from the new rules.
    pub(super) fn note_applied(&mut self, now: Moment) {
        let Some(applied) = &self.applied else { return };
        let ruleset = &applied.candidate.ruleset;
        self.concern = Concern::new(ruleset, &self.facts);
        let concern = &self.concern;
        self.facts.health.retain(|probe, _| concern.has_probe(probe));
        self.facts.names.retain(|lookup, _| concern.has_lookup(lookup));
        self.facts.orders.retain(|(rule, backend), _| {
            let rule = ruleset.rules.iter().find(|known| known.name == *rule);
            rule.is_some_and(|rule| {
                rule.pool.has_names() || rule.pool.backends.iter().any(|known| known.name == *backend)
            })
        });
        self.pending.retry = None;
        self.pending.steps.clear();
        let rules = (0..ruleset.rules.len()).filter(|nth| ruleset.rules[*nth].pool.slow_start.is_some());
        self.note_steps(&rules.collect(), now);
    }
}

impl<N, P> Controller<N, P>
where
    N: Engine<Plan = nftables::Plan, Change = nftables::Change>,
    P: Engine<Plan = proxy::Plan, Change = proxy::Change>,
{
    fn index_of(&self, rule: &RuleName) -> Option<usize> {
        let applied = self.applied.as_ref()?;
        applied.candidate.ruleset.rules.iter().position(|known| known.name == *rule)
    }

    /// Which backends of these rules may have flows, before the facts change.
    fn standing(&self, rules: &BTreeSet<usize>) -> Vec<(usize, Standing)> {
        let Some(applied) = &self.applied else { return Vec::new() };
        let rule = |nth: &usize| &applied.candidate.ruleset.rules[*nth];
        rules.iter().map(|nth| (*nth, effects::standing(rule(nth), &self.facts))).collect()
    }

    /// Plans these rules afresh, has the engines carry out what that changes, and ends the flows that shall end.
    fn replan(
        &mut self,
        rules: &BTreeSet<usize>,
        before: &[(usize, Standing)],
        now: Moment,
    ) -> Result<(), EngineError> {
        let Some(applied) = &mut self.applied else { return Ok(()) };
        if rules.is_empty() {
            return Ok(());
        }
        let Applied { candidate, plans } = applied;
        let indices: Vec<usize> = rules.iter().copied().collect();
        let changes = plans.adjust(Applied::world(candidate, &self.facts, now), &indices);
        let mut ended = Vec::new();
        for (nth, before) in before {
            ended.extend(effects::ended(&candidate.ruleset.rules[*nth], before, &self.facts));
        }
        self.note_steps(rules, now);
        self.carry_out(&changes, now)?;
        for ended in ended {
            if ended.after.is_zero() {
                self.end(&ended)?;
            } else {
                self.pending.ending.push((now + ended.after, ended));
            }
        }
        Ok(())
    }

    /// The engines' part of a change. An engine that could not is brought to the whole plan, now or a little later.
    fn carry_out(&mut self, changes: &Changes, now: Moment) -> Result<(), EngineError> {
        let mut result = Ok(());
        if let Some(engine) = self.nftables.as_mut().filter(|_| !changes.nftables.is_empty()) {
            result = engine.adjust(&changes.nftables);
        }
        if !changes.proxy.is_empty() {
            result = result.and(self.proxy.adjust(&changes.proxy));
        }
        result.or_else(|_| self.reapply(now))
    }

    /// Brings the engines to the plans as they are, whatever they hold.
    fn reapply(&mut self, now: Moment) -> Result<(), EngineError> {
        self.pending.retry = Some(now + RETRY);
        let Some(applied) = &self.applied else { return Ok(()) };
        let plans = &applied.plans;
        if let Some(engine) = &mut self.nftables {
            engine.prepare(&plans.nftables)?;
            engine.commit()?;
        }
        self.proxy.prepare(&plans.proxy)?;
        self.proxy.commit()?;
        self.pending.retry = None;
        Ok(())
    }

    /// Ends flows of a backend, unless it has come back.
    fn end(&mut self, ended: &Ended) -> Result<(), EngineError> {
        let rule = self.index_of(&ended.rule).zip(self.applied.as_ref());
        let back = rule.is_some_and(|(nth, applied)| {
            effects::is_back(&applied.candidate.ruleset.rules[nth], ended, &self.facts)
        });
        if back {
            return Ok(());
        }
        let filter = FlowFilter::of_backend(&ended.rule, ended.address, ended.port, ended.protocol);
        self.end_flows(&filter, None).map(|_| ())
    }

    fn note_steps(&mut self, rules: &BTreeSet<usize>, now: Moment) {
        let Some(applied) = &self.applied else { return };
        for nth in rules {
            match members::next_change(&applied.candidate.ruleset.rules[*nth], &self.facts, now) {
                Some(at) => _ = self.pending.steps.insert(*nth, at),
                None => _ = self.pending.steps.remove(nth),
            }
        }
    }
}
