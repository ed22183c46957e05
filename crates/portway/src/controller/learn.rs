//! Learning: what a changed fact changes, and what is due later because of it.
//!
//! News are put into the facts, the rules that they concern are planned afresh, and each engine carries out its part.
//! Only then are flows ended: a flow that begins anew must not meet the backend that it was taken from.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portway_core::effects::{self, Downs, MemberFlows};
use portway_core::engine::{Engine, EngineError};
use portway_core::facts::{Answer, Facts, Health, Lookup, Moment, Order, Probe};
use portway_core::members;
use portway_core::plan::{Changes, ebpf, nftables, proxy};
use portway_core::ruleset::{BackendName, RuleName, Ruleset};

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
    /// Flows that end at a time, unless their backend is back by then. What could not be ended is here again.
    ending: Vec<(Moment, MemberFlows)>,
    /// When a rule's members change by time alone (slow start).
    steps: BTreeMap<usize, Moment>,
    /// When the whole is applied again because an engine could not carry out a change.
    retry: Option<Moment>,
}

impl Pending {
    /// The engines are asked again a little later, unless this went well.
    pub(super) fn retry_unless(&mut self, done: &Result<(), EngineError>, now: Moment) {
        self.retry = done.is_err().then_some(now + RETRY);
    }

    /// These members are there again: what was to end of their flows is not to end any more.
    fn spare(&mut self, spared: &[MemberFlows]) {
        let member = |flows: &MemberFlows| (flows.rule.clone(), flows.address, flows.port);
        self.ending.retain(|(_, flows)| !spared.iter().any(|spared| member(spared) == member(flows)));
    }
}

impl<N, E, P> Controller<N, E, P>
where
    N: Engine<Plan = nftables::Plan, Change = nftables::Change>,
    E: Engine<Plan = ebpf::Plan, Change = ebpf::Change>,
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
                    // What was never judged counts as up.
                    let was_up = self.facts.health.get(probe).is_none_or(|known| known.up);
                    if was_up != health.up {
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
        let any_renamed = !renamed.is_empty();
        let before = self.downs(&rules);
        let facts = Arc::make_mut(&mut self.facts);
        for item in news {
            match item {
                // What is no longer watched was on its way when the rules changed.
                News::Health(probe, health) if self.concern.has_probe(&probe) => {
                    facts.health.insert(probe, health);
                }
                News::Names(lookup, answer) if self.concern.has_lookup(&lookup) => {
                    facts.names.insert(lookup, answer);
                }
                News::Order(rule, backend, Some(order)) => {
                    facts.orders.insert((rule, backend), order);
                }
                News::Order(rule, backend, None) => {
                    facts.orders.remove(&(rule, backend));
                }
                News::Health(..) | News::Names(..) => {}
            }
        }
        if let Some(applied) = &self.applied {
            for nth in renamed {
                let (rule, reach) = applied.candidate.rule(nth);
                self.concern.enter(nth, rule, reach, &self.facts);
            }
        }
        if any_renamed {
            // A name may change its addresses for weeks.
            let (facts, concern) = (Arc::make_mut(&mut self.facts), &self.concern);
            facts.health.retain(|probe, _| concern.has_probe(probe));
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
            let before = self.downs(&due);
            self.replan(&due, &before, now)?;
        }
        self.end_due(now)
    }

    /// Whether an engine holds less than what is planned, and is asked again later.
    pub fn lags(&self) -> bool {
        self.pending.retry.is_some()
    }

    /// The rules whose last live backend has gone since this was asked last, or whose first is back.
    pub fn turns(&mut self) -> Vec<(RuleName, bool)> {
        std::mem::take(&mut self.turns)
    }

    /// When [`Controller::tick`] has something to do next.
    pub fn due(&self) -> Option<Moment> {
        let pending = &self.pending;
        let ending = pending.ending.iter().filter(|_| pending.retry.is_none()).map(|(at, _)| *at);
        ending.chain(pending.steps.values().copied()).chain(pending.retry).min()
    }

    /// Of the facts those that are of use for these rules, which ask for what `concern` says.
    pub(super) fn facts_for(&self, ruleset: &Ruleset, concern: &Concern) -> Facts {
        let mut facts = Facts::clone(&self.facts);
        facts.health.retain(|probe, _| concern.has_probe(probe));
        facts.names.retain(|lookup, _| concern.has_lookup(lookup));
        facts.orders.retain(|(rule, backend), _| {
            let rule = ruleset.rules.iter().find(|known| known.name == *rule);
            rule.is_some_and(|rule| {
                rule.pool.has_names() || rule.pool.backends.iter().any(|known| known.name == *backend)
            })
        });
        facts
    }

    /// After an apply: what is due follows from the new rules.
    pub(super) fn note_applied(&mut self, now: Moment) {
        let Some(applied) = &self.applied else { return };
        let rules = &applied.candidate.ruleset.rules;
        // Another check, and with it no verdict yet: such a backend counts as up, and its flows go on.
        for (nth, rule) in rules.iter().enumerate() {
            if self.pending.ending.iter().any(|(_, flows)| flows.rule == rule.name) {
                let (_, reach) = applied.candidate.rule(nth);
                let downs = effects::downs(rule, &self.facts, reach);
                self.pending.spare(&effects::effects(rule, &Downs::default(), &downs).spared);
            }
        }
        self.empty.retain(|name| rules.iter().any(|rule| rule.name == *name));
        self.pending.retry = None;
        self.pending.steps.clear();
        let stepping = (0..rules.len()).filter(|nth| rules[*nth].pool.slow_start.is_some());
        self.note_steps(&stepping.collect(), now);
    }
}

impl<N, E, P> Controller<N, E, P>
where
    N: Engine<Plan = nftables::Plan, Change = nftables::Change>,
    E: Engine<Plan = ebpf::Plan, Change = ebpf::Change>,
    P: Engine<Plan = proxy::Plan, Change = proxy::Change>,
{
    fn index_of(&self, rule: &RuleName) -> Option<usize> {
        let applied = self.applied.as_ref()?;
        applied.candidate.ruleset.rules.iter().position(|known| known.name == *rule)
    }

    /// Which members of these rules are down.
    fn downs(&self, rules: &BTreeSet<usize>) -> Vec<(usize, Downs)> {
        let Some(applied) = &self.applied else { return Vec::new() };
        let downs = |nth: usize| {
            let (rule, reach) = applied.candidate.rule(nth);
            (nth, effects::downs(rule, &self.facts, reach))
        };
        rules.iter().map(|nth| downs(*nth)).collect()
    }

    /// Plans these rules afresh, has the engines carry out what that changes, and ends the flows that shall end.
    fn replan(
        &mut self,
        rules: &BTreeSet<usize>,
        before: &[(usize, Downs)],
        now: Moment,
    ) -> Result<(), EngineError> {
        let Some(applied) = &mut self.applied else { return Ok(()) };
        if rules.is_empty() {
            return Ok(());
        }
        let Applied { candidate, plans } = applied;
        let indices: Vec<usize> = rules.iter().copied().collect();
        let changes = plans.adjust(Applied::world(candidate, &self.facts, now), &indices);
        for (nth, before) in before {
            let (rule, reach) = candidate.rule(*nth);
            let effects = effects::effects(rule, before, &effects::downs(rule, &self.facts, reach));
            self.pending.spare(&effects.spared);
            let ended = effects.ended.into_iter().map(|ended| (now + ended.after, ended.flows));
            self.pending.ending.extend(ended);
        }
        for (rule, live) in &changes.live {
            let changed = if *live { self.empty.remove(rule) } else { self.empty.insert(rule.clone()) };
            if changed {
                self.turns.push((rule.clone(), *live));
            }
        }
        self.note_steps(rules, now);
        self.carry_out(&changes, now)?;
        self.end_due(now)
    }

    /// Ends the flows whose time is over; not while an engine lags behind, for they would begin anew where they were.
    fn end_due(&mut self, now: Moment) -> Result<(), EngineError> {
        if self.pending.retry.is_some() {
            return Ok(());
        }
        let ending = std::mem::take(&mut self.pending.ending);
        let (due, later): (Vec<_>, Vec<_>) = ending.into_iter().partition(|(at, _)| *at <= now);
        self.pending.ending = later;
        let mut result = Ok(());
        for (_, flows) in due {
            if let Err(error) = self.end_flows(&flows.filter(), None) {
                self.pending.ending.push((now + RETRY, flows));
                result = result.and(Err(error));
            }
        }
        result
    }

    /// The engines' part of a change. An engine that could not is brought to the whole plan, now or a little later.
    fn carry_out(&mut self, changes: &Changes, now: Moment) -> Result<(), EngineError> {
        let mut result = Ok(());
        if let Some(engine) = self.nftables.as_mut().filter(|_| !changes.nftables.is_empty()) {
            result = engine.adjust(&changes.nftables);
        }
        if let Some(engine) = self.ebpf.as_mut().filter(|_| !changes.ebpf.is_empty()) {
            result = result.and(engine.adjust(&changes.ebpf));
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
        if let Some(engine) = &mut self.ebpf {
            engine.prepare(&plans.ebpf)?;
            engine.commit()?;
        }
        self.proxy.prepare(&plans.proxy)?;
        self.proxy.commit()?;
        self.retire(now)
    }

    fn note_steps(&mut self, rules: &BTreeSet<usize>, now: Moment) {
        let Some(applied) = &self.applied else { return };
        for nth in rules {
            let (rule, reach) = applied.candidate.rule(*nth);
            match members::next_change(rule, &self.facts, now, reach) {
                Some(at) => _ = self.pending.steps.insert(*nth, at),
                None => _ = self.pending.steps.remove(nth),
            }
        }
    }
}
