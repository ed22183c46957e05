//! From one plan to the next: made ready where nobody looks, switched, and what is left of the former let go of.
//!
//! Deliberately absent: how one rule is placed ([`crate::state`]), and interfaces ([`crate::serve`]).

use std::collections::BTreeMap;

use portway_core::engine::{Changed, EngineError};
use portway_core::plan::ebpf::{Change, Plan, RulePlan};
use portway_core::ruleset::RuleName;
use portway_datapath::sweep::sizes;

use crate::config;
use crate::held::Held;
use crate::host::Host;
use crate::refusal::{failure, no_room, refused};
use crate::state::{self, Allocations, RuleState, Steps};
use crate::value::Key;
use crate::write::{self, Write};

/// A plan for which everything stands ready.
pub struct Prepared {
    plan: Plan,
    allocations: Allocations,
    states: BTreeMap<RuleName, RuleState>,
    ready: Vec<Write>,
    switch: Vec<Write>,
    gone: Vec<RuleName>,
    epoch: u64,
}

impl Held {
    /// Makes everything ready for `plan` where nobody looks.
    ///
    /// # Errors
    /// A map has no room, or the kernel's.
    pub fn prepare(&mut self, plan: &Plan) -> Result<Prepared, EngineError> {
        self.looks += 1;
        self.host = Host::look(&mut self.route).map_err(|error| failure("list the interfaces", &error))?;
        self.load_programs(&plan.settings)?;
        let mut prepared = Prepared {
            plan: plan.clone(),
            allocations: self.allocations.clone(),
            states: BTreeMap::new(),
            ready: Vec::new(),
            switch: Vec::new(),
            epoch: self.epoch,
            gone: self
                .rules
                .iter()
                .filter(|(name, rule)| rule.value.is_some() && !plan.rules.contains_key(*name))
                .map(|(name, _)| name.clone())
                .collect(),
        };
        for (name, rule) in &plan.rules {
            let before = self.rules.get(name);
            let is_held = before.is_some_and(|before| before.value.is_some());
            if is_held && self.plan.rules.get(name) == Some(rule) {
                continue;
            }
            let placed = state::place(name, rule, before, &mut prepared.allocations, &mut self.host);
            let (state, steps) = match placed {
                // What flows have held until now may be free.
                Err(_) if self.collect()? > 0 || self.grow(plan)? => return self.prepare(plan),
                other => other?,
            };
            prepared.ready.extend(steps.ready);
            prepared.switch.extend(steps.switch);
            prepared.states.insert(name.clone(), state);
        }
        match self.check_listeners(&prepared) {
            Err(_) if self.grow(plan)? => return self.prepare(plan),
            other => other?,
        }
        write::carry_out(&self.maps, &prepared.ready).map_err(|error| failure("write the maps", &error))?;
        Ok(prepared)
    }

    /// What is to be said where the file asks for a flow table of another size than there is.
    pub fn size_kept(&self) -> Option<String> {
        let there = self.maps.flows.records.len() as u32;
        let wanted = sizes(self.plan.settings.max_flows).records;
        (there != wanted && !self.plan.is_empty()).then(|| {
            format!(
                "max-flows: the flow table stays at {there} flows until `portway clear`: one of {wanted} would begin \
                 without those that live"
            )
        })
    }

    /// Whether there is room for all that listens, what leaves included.
    fn check_listeners(&self, prepared: &Prepared) -> Result<(), EngineError> {
        let (mut ones, mut ranges) = (0u32, 0u32);
        for key in self.listening.keys() {
            *if matches!(key, Key::One(_)) { &mut ones } else { &mut ranges } += 1;
        }
        for (name, state) in &prepared.states {
            for key in state.keys.keys().filter(|key| !self.listening.contains_key(*key)) {
                *if matches!(key, Key::One(_)) { &mut ones } else { &mut ranges } += 1;
            }
            if ones > self.maps.listeners.capacity() || ranges > self.maps.ranges.capacity() {
                return Err(no_room(name, "listeners"));
            }
        }
        Ok(())
    }

    /// Forgets what was prepared.
    pub fn abort(&mut self, prepared: &Prepared) {
        let undo: Vec<Write> = prepared
            .ready
            .iter()
            .filter_map(|write| match write {
                Write::Name(id, _) => Some(Write::Name(*id, None)),
                Write::Member(id, _) => Some(Write::Member(*id, None)),
                _ => None,
            })
            .collect();
        // What stays is seen by nobody, and is written over when its id is given out again.
        let _ = write::carry_out(&self.maps, &undo);
    }

    /// Switches to what was prepared. What the plan has no longer goes on until [`Self::retire`].
    ///
    /// # Errors
    /// The kernel's; the old state is still whole.
    pub fn commit(&mut self, mut prepared: Prepared) -> Result<Changed, EngineError> {
        if prepared.epoch != self.epoch {
            self.abort(&prepared);
            prepared = self.prepare(&prepared.plan)?;
        }
        let Prepared { plan, allocations, states, switch: mut writes, gone, .. } = prepared;
        let rules = writes.len();
        for state in states.values() {
            for (key, value) in &state.keys {
                let before = self.listening.get(key).copied();
                if before != Some(*value) {
                    writes.push(Write::Listener(*key, Some(*value), before));
                }
            }
        }
        let added = writes.len() - rules;
        // What the programs ask is set before there is something to find.
        let flags =
            config::flags(self.listening.keys().chain(states.values().flat_map(|state| state.keys.keys())))
                | config::asked_by(self.rules.values().chain(states.values()));
        config::set(&self.maps.flows, &plan.settings, flags);
        if let Err(error) = write::carry_out(&self.maps, &writes) {
            config::set(&self.maps.flows, &self.plan.settings, flags);
            return Err(failure("change the maps", &error));
        }
        for write in &writes {
            if let Write::Listener(key, Some(value), _) = write {
                self.listening.insert(*key, *value);
            }
        }
        let former = states.keys().chain(&gone).filter_map(|name| self.rules.get(name));
        self.leaving.extend(former.flat_map(|state| state.keys.keys().copied()));
        for key in states.values().flat_map(|state| state.keys.keys()) {
            self.leaving.remove(key);
        }
        self.allocations = allocations;
        self.epoch += 1;
        self.rules.extend(states);
        let told = self.size_kept();
        self.plan = plan;
        if let Some(kept) = self.size_kept().filter(|kept| told.as_ref() != Some(kept)) {
            (self.log)(&format!("ebpf: {kept}"));
        }
        self.known = None;
        self.is_new = false;
        self.serve();
        self.report_unreached(None);
        let removed = self.leaving.len();
        Ok(Changed { added, removed, adopted: std::mem::take(&mut self.adopted) })
    }

    /// Lets go of what the plan has no longer.
    ///
    /// # Errors
    /// The kernel's; what could not be let go of stays.
    pub fn retire(&mut self) -> Result<(), EngineError> {
        let mut writes: Vec<Write> = self
            .leaving
            .iter()
            .map(|key| Write::Listener(*key, None, self.listening.get(key).copied()))
            .collect();
        let mut allocations = self.allocations.clone();
        let mut left = BTreeMap::new();
        for (name, rule) in &self.rules {
            if rule.value.is_some() && !self.plan.rules.contains_key(name) {
                let (state, steps) = state::leave(rule, &mut allocations);
                writes.extend(steps);
                left.insert(name.clone(), state);
            }
        }
        write::carry_out(&self.maps, &writes).map_err(|error| failure("change the maps", &error))?;
        for key in std::mem::take(&mut self.leaving) {
            self.listening.remove(&key);
        }
        self.allocations = allocations;
        self.epoch += 1;
        // Those that left before this time: a program that still saw one has ended long since.
        self.collect_rules()?;
        self.rules.extend(left);
        self.known = None;
        let flags = config::flags(self.listening.keys()) | config::asked_by(self.rules.values());
        config::set(&self.maps.flows, &self.plan.settings, flags);
        Ok(())
    }

    /// Carries out a change of members.
    ///
    /// # Errors
    /// It changes more than members, or the kernel's; the old state is still whole.
    pub fn adjust(&mut self, change: &Change) -> Result<(), EngineError> {
        let fits = |name: &RuleName| {
            let (planned, wanted) = (self.plan.rules.get(name), change.changed.get(name));
            planned.zip(wanted).is_some_and(|(planned, wanted)| planned.listeners == wanted.listeners)
        };
        let only_members = change.settings.is_none() && change.added.is_empty() && change.removed.is_empty();
        if !only_members || !change.changed.keys().all(fits) {
            return Err(refused("change members", "more than the members differs from the plan in force"));
        }
        self.host.forget_sources();
        let mut allocations = self.allocations.clone();
        let (mut all, mut states) = (Steps::default(), BTreeMap::new());
        for (name, rule) in &change.changed {
            let placed = state::place(name, rule, self.rules.get(name), &mut allocations, &mut self.host);
            let (state, steps) = match placed {
                Err(_) if self.collect()? > 0 || self.grow(&self.plan.clone().apply(change))? => {
                    return self.adjust(change);
                }
                other => other?,
            };
            all.ready.extend(steps.ready);
            all.switch.extend(steps.switch);
            states.insert(name.clone(), state);
        }
        all.ready.append(&mut all.switch);
        write::carry_out(&self.maps, &all.ready).map_err(|error| failure("change members", &error))?;
        self.allocations = allocations;
        self.epoch += 1;
        // A verdict changes who is a member, not who has an id.
        let new_ids = all.ready.iter().any(|write| matches!(write, Write::FreshMember(_)));
        let targets = |(name, rule): (&RuleName, &RulePlan)| {
            self.plan.rules.get(name).map(|before| &before.targets) != Some(&rule.targets)
        };
        if new_ids || change.changed.iter().any(targets) {
            self.known = None;
        }
        self.rules.extend(states);
        self.plan.rules.extend(change.changed.iter().map(|(name, rule)| (name.clone(), rule.clone())));
        self.report_unreached(Some(&change.changed.keys().collect::<Vec<_>>()));
        Ok(())
    }
}
