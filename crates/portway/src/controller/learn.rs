//! Learning: what a changed fact changes, and what is due later because of it.
//!
//! News are put into the facts, the rules that they concern are planned afresh, and each engine carries out its part.
//! Only then are flows ended: a flow that begins anew must not meet the backend that it was taken from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portway_core::effects::{self, Downs, MemberFlows};
use portway_core::engine::{Engine, EngineError};
use portway_core::facts::{Answer, Facts, Health, Lookup, Moment, Order, Probe};
use portway_core::members;
use portway_core::plan::{Changes, nftables, proxy};
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
    /// These members are there again: what was to end of their flows is not to end any more.
    fn spare(&mut self, spared: &[MemberFlows]) {
        let member = |flows: &MemberFlows| (flows.rule.clone(), flows.address, flows.port);
        self.ending.retain(|(_, flows)| !spared.iter().any(|spared| member(spared) == member(flows)));
    }
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
        self.pending.retry = None;
        self.pending.steps.clear();
        let stepping = (0..rules.len()).filter(|nth| rules[*nth].pool.slow_start.is_some());
        self.note_steps(&stepping.collect(), now);
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use portway_core::facts::Admin;

    use super::super::fake::{Fakes, Script, controller, of_file};
    use super::*;

    const FILE: &str = "
        [[rule]]
        name = 'web'
        listen = 'tcp+udp/192.0.2.1:80'
        [rule.pool]
        backends = ['10.0.0.1:80', '10.0.0.2:80']
        check = 'tcp'
        ON_DOWN
        [[rule]]
        name = 'mail'
        listen = '192.0.2.1:25'
        engine = 'proxy'
        [rule.pool]
        backends = ['10.0.0.1:80', '10.0.0.3:80']
        balance = 'least-connections'
        check = 'tcp'
        [[rule]]
        name = 'named'
        listen = '192.0.2.1:90'
        forward = 'app.example:90'
    ";

    const SECOND: Moment = Moment::from_secs(1);

    fn applied(on_down: &str) -> (Fakes, Rc<Script>) {
        let script = Rc::<Script>::default();
        let mut controller = controller(&script);
        controller.apply(of_file(&FILE.replace("ON_DOWN", on_down)), Moment::ZERO).unwrap();
        script.calls.borrow_mut().clear();
        (controller, script)
    }

    fn verdict(controller: &Fakes, address: &str, up: bool, since: Moment) -> News {
        let address = address.parse().unwrap();
        let probe = controller.concern().probes().into_iter().find(|probe| probe.address == address);
        let health = Health { up, since, recovered: false, reason: String::new() };
        News::Health(probe.expect("the address is checked"), health)
    }

    fn order(rule: &str, backend: &str, admin: Option<Admin>) -> News {
        let order = admin.map(|admin| Order { admin: Some(admin), ..Order::default() });
        News::Order(RuleName::new(rule).unwrap(), BackendName::new(backend).unwrap(), order)
    }

    fn calls(script: &Script) -> Vec<String> {
        std::mem::take(&mut script.calls.borrow_mut())
    }

    /// On both engines: a flow may be on either, for its rule may have moved.
    fn ends(backend: &str) -> Vec<String> {
        ["nftables", "proxy"].map(|engine| format!("{engine} end {backend}")).to_vec()
    }

    #[test]
    fn a_verdict_reaches_the_engines_of_its_rules_and_then_ends_flows() {
        let (mut controller, script) = applied("");
        let down = verdict(&controller, "10.0.0.1:80", false, SECOND);
        controller.learn(vec![down.clone()], SECOND).unwrap();
        // One probe, two rules: each engine is changed before a flow is ended. Only one of the rules has UDP flows.
        let changed = ["nftables adjust", "proxy adjust"].map(str::to_owned);
        assert_eq!(calls(&script), [&changed[..], &ends("10.0.0.1:80 udp")].concat());
        // The same verdict again, and one that concerns one rule only.
        controller.learn(vec![down], SECOND).unwrap();
        assert_eq!(calls(&script), [""; 0]);
        let down = verdict(&controller, "10.0.0.3:80", false, SECOND);
        controller.learn(vec![down], SECOND).unwrap();
        assert_eq!(calls(&script), ["proxy adjust"]);
    }

    #[test]
    fn a_backend_that_comes_back_ends_nothing() {
        let (mut controller, script) = applied("on-down = 'reset'");
        let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
        controller.learn(vec![down], SECOND).unwrap();
        assert_eq!(calls(&script), [&["nftables adjust".to_owned()], &ends("10.0.0.2:80")[..]].concat());
        let up = verdict(&controller, "10.0.0.2:80", true, 2 * SECOND);
        controller.learn(vec![up], 2 * SECOND).unwrap();
        assert_eq!(calls(&script), ["nftables adjust"]);
    }

    #[test]
    fn draining_flows_are_ended_when_their_time_is_over_unless_the_backend_is_back() {
        for back in [false, true] {
            let (mut controller, script) = applied("on-down = 'drain'\ndrain-timeout = '5s'");
            let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
            controller.learn(vec![down], SECOND).unwrap();
            assert_eq!(controller.due(), Some(6 * SECOND));
            if back {
                let up = verdict(&controller, "10.0.0.2:80", true, 3 * SECOND);
                controller.learn(vec![up], 3 * SECOND).unwrap();
            }
            calls(&script);
            controller.tick(5 * SECOND).unwrap();
            assert_eq!(calls(&script), [""; 0]);
            controller.tick(6 * SECOND).unwrap();
            let ended = ["nftables end 10.0.0.2:80 tcp", "proxy end 10.0.0.2:80 tcp"];
            assert_eq!(calls(&script), if back { &ended[..0] } else { &ended[..] });
            assert_eq!(controller.due(), None);
        }
    }

    #[test]
    fn drain_ends_nothing_and_disable_is_down() {
        let (mut controller, script) = applied("on-down = 'reset'");
        controller.learn(vec![order("web", "10.0.0.1:80", Some(Admin::Drain))], SECOND).unwrap();
        assert_eq!(calls(&script), ["nftables adjust"]);
        controller.learn(vec![order("web", "10.0.0.1:80", Some(Admin::Disable))], SECOND).unwrap();
        // Drained before, so nothing of the plan changes; what is left of its flows goes.
        assert_eq!(calls(&script), ends("10.0.0.1:80"));
        controller.learn(vec![order("web", "10.0.0.1:80", None)], SECOND).unwrap();
        assert_eq!(calls(&script), ["nftables adjust"]);
    }

    #[test]
    fn orders_outlive_a_reload_as_long_as_their_backend_does() {
        let (mut controller, _script) = applied("");
        controller.learn(vec![order("web", "10.0.0.1:80", Some(Admin::Drain))], SECOND).unwrap();
        controller.apply(of_file(&FILE.replace("ON_DOWN", "persist = '1m'")), SECOND).unwrap();
        assert_eq!(controller.facts().orders.len(), 1);
        let without = FILE.replace("ON_DOWN", "").replacen("'10.0.0.1:80', ", "", 1);
        controller.apply(of_file(&without), SECOND).unwrap();
        assert_eq!(controller.facts().orders.len(), 0);
    }

    #[test]
    fn an_answer_is_put_in_force_and_what_it_names_is_watched() {
        let checked = FILE
            .replace("forward = 'app.example:90'", "forward = 'app.example:90'\n[rule.pool]\ncheck = 'tcp'");
        let script = Rc::<Script>::default();
        let mut controller = controller(&script);
        controller.apply(of_file(&checked.replace("ON_DOWN", "")), Moment::ZERO).unwrap();
        calls(&script);
        let lookup = Lookup::Addresses("app.example".to_owned());
        assert!(controller.concern().has_lookup(&lookup));
        let before = controller.concern().probes().len();
        let answer = ["10.9.0.1", "10.9.0.2"].map(|address| portway_core::facts::Resolved {
            address: address.parse().unwrap(),
            port: None,
            weight: 0,
            priority: 0,
        });
        controller.learn(vec![News::Names(lookup, answer.to_vec())], SECOND).unwrap();
        assert_eq!(calls(&script), ["nftables adjust"]);
        assert_eq!(controller.concern().probes().len(), before + 2);
        let down = verdict(&controller, "10.9.0.2:90", false, SECOND);
        controller.learn(vec![down], SECOND).unwrap();
        assert_eq!(calls(&script)[0], "nftables adjust");
    }

    #[test]
    fn an_engine_that_cannot_gets_the_whole_plan_and_is_asked_again() {
        let (mut controller, script) = applied("");
        script.fails.replace(vec!["nftables adjust"]);
        let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
        controller.learn(vec![down], SECOND).unwrap();
        let whole = ["nftables prepare", "nftables commit", "proxy prepare", "proxy commit"];
        assert_eq!(calls(&script)[..5], [&["nftables adjust"], &whole[..]].concat());
        assert_eq!(controller.due(), None);
    }

    /// What a change asks for is not lost with an engine that cannot carry it out.
    #[test]
    fn flows_are_ended_once_the_engine_has_followed() {
        let (mut controller, script) = applied("on-down = 'reset'");
        script.fails.replace(vec!["nftables adjust", "nftables prepare"]);
        let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
        controller.learn(vec![down], SECOND).unwrap_err();
        assert_eq!(calls(&script), ["nftables adjust", "nftables prepare"]);
        assert_eq!(controller.due(), Some(2 * SECOND));
        controller.tick(2 * SECOND).unwrap();
        let whole = ["nftables prepare", "nftables commit", "proxy prepare", "proxy commit"];
        assert_eq!(calls(&script), [&whole.map(str::to_owned)[..], &ends("10.0.0.2:80")].concat());
        assert_eq!(controller.due(), None);
    }

    #[test]
    fn flows_that_could_not_be_ended_are_tried_again_until_their_backend_is_back() {
        for back in [false, true] {
            let (mut controller, script) = applied("on-down = 'reset'");
            script.fails.replace(vec!["nftables end 10.0.0.2:80"]);
            let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
            controller.learn(vec![down], SECOND).unwrap_err();
            assert_eq!(controller.due(), Some(2 * SECOND));
            if back {
                let up = verdict(&controller, "10.0.0.2:80", true, SECOND);
                controller.learn(vec![up], SECOND).unwrap();
            }
            calls(&script);
            controller.tick(2 * SECOND).unwrap();
            assert_eq!(calls(&script), if back { Vec::new() } else { ends("10.0.0.2:80") });
            assert_eq!(controller.due(), None);
        }
    }

    /// Its verdict was the old check's. Without one it counts as up, and its clients may not be cut off.
    #[test]
    fn a_drain_is_over_when_a_reload_makes_its_backend_count_as_up() {
        for (file, ends_left) in [("check = 'tcp'", true), ("check = { type = 'tcp', fall = 5 }", false)] {
            let on_down = "on-down = 'drain'\ndrain-timeout = '5s'";
            let (mut controller, script) = applied(on_down);
            let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
            controller.learn(vec![down], SECOND).unwrap();
            let text = FILE.replacen("check = 'tcp'", file, 1).replace("ON_DOWN", on_down);
            controller.apply(of_file(&text), 2 * SECOND).unwrap();
            calls(&script);
            controller.tick(6 * SECOND).unwrap();
            let ended = ["nftables end 10.0.0.2:80 tcp", "proxy end 10.0.0.2:80 tcp"];
            assert_eq!(calls(&script), if ends_left { &ended[..] } else { &[][..] }, "{file}");
        }
    }

    /// What is planned is what the facts say: an order whose backend has gone holds nowhere.
    #[test]
    fn an_order_that_a_reload_forgets_is_not_planned() {
        let (mut controller, _script) = applied("");
        controller.learn(vec![order("web", "10.0.0.1:80", Some(Admin::Drain))], SECOND).unwrap();
        let renamed = FILE
            .replacen("['10.0.0.1:80'", "[{ address = '10.0.0.1:80', name = 'a' }", 1)
            .replace("ON_DOWN", "");
        controller.apply(of_file(&renamed), SECOND).unwrap();
        assert_eq!(controller.facts().orders.len(), 0);
        let applied = controller.applied().unwrap();
        let world = Applied::world(&applied.candidate, controller.facts(), SECOND);
        assert_eq!(applied.plans, portway_core::plan::Plans::new(world, &applied.plans.ids));
    }

    #[test]
    fn verdicts_on_addresses_that_a_name_has_left_are_forgotten() {
        let file = FILE
            .replace("forward = 'app.example:90'", "forward = 'app.example:90'\n[rule.pool]\ncheck = 'tcp'")
            .replace("ON_DOWN", "");
        let script = Rc::<Script>::default();
        let mut controller = controller(&script);
        controller.apply(of_file(&file), Moment::ZERO).unwrap();
        for nth in 1..=5 {
            let address = format!("10.9.0.{nth}");
            let answer = portway_core::facts::Resolved {
                address: address.parse().unwrap(),
                port: None,
                weight: 0,
                priority: 0,
            };
            let lookup = Lookup::Addresses("app.example".to_owned());
            controller.learn(vec![News::Names(lookup, vec![answer])], SECOND).unwrap();
            let down = verdict(&controller, &format!("{address}:90"), false, SECOND);
            controller.learn(vec![down], SECOND).unwrap();
            assert_eq!(controller.facts().health.len(), 1, "{address}");
        }
    }
}
