//! Which rules a fact concerns: by probe, by name, by the operator's words. Kept beside the facts so that a changed
//! verdict is looked up, not searched for among ten thousand rules.
//!
//! Deliberately absent: the facts themselves and what follows from them (`portway_core::members`).

use std::collections::{BTreeMap, BTreeSet};

use portway_core::assign::Assignment;
use portway_core::facts::{Facts, Lookup, Probe};
use portway_core::members::{self, Reach};
use portway_core::ruleset::{Rule, Ruleset};

/// The rules, by index, that each probe and each name concerns.
#[derive(Debug, Default)]
pub struct Concern {
    probes: BTreeMap<Probe, BTreeSet<usize>>,
    lookups: BTreeMap<Lookup, BTreeSet<usize>>,
    /// What each rule is entered under, to be taken out again.
    of_rule: BTreeMap<usize, (BTreeSet<Probe>, BTreeSet<Lookup>)>,
}

impl Concern {
    /// Enters every rule. Which probes a rule has depends on what its names stand for.
    pub fn new(ruleset: &Ruleset, assignment: &Assignment, facts: &Facts) -> Self {
        let mut concern = Self::default();
        for (nth, (rule, assigned)) in ruleset.rules.iter().zip(&assignment.rules).enumerate() {
            concern.enter(nth, rule, Reach::of(rule, assigned.engine), facts);
        }
        concern
    }

    /// Enters a rule afresh after its names have changed.
    pub fn enter(&mut self, nth: usize, rule: &Rule, reach: Reach, facts: &Facts) {
        if let Some((probes, lookups)) = self.of_rule.remove(&nth) {
            probes.iter().for_each(|probe| leave(&mut self.probes, probe, nth));
            lookups.iter().for_each(|lookup| leave(&mut self.lookups, lookup, nth));
        }
        let probes: BTreeSet<Probe> = members::probes([(rule, reach)], facts).into_keys().collect();
        let lookups: BTreeSet<Lookup> = members::lookups([rule]).into_keys().collect();
        if probes.is_empty() && lookups.is_empty() {
            return;
        }
        for probe in &probes {
            self.probes.entry(probe.clone()).or_default().insert(nth);
        }
        for lookup in &lookups {
            self.lookups.entry(lookup.clone()).or_default().insert(nth);
        }
        self.of_rule.insert(nth, (probes, lookups));
    }

    /// The rules that a probe's verdict concerns.
    pub fn of_probe(&self, probe: &Probe) -> impl Iterator<Item = usize> {
        self.probes.get(probe).into_iter().flatten().copied()
    }

    /// The rules that a name's answer concerns.
    pub fn of_lookup(&self, lookup: &Lookup) -> impl Iterator<Item = usize> {
        self.lookups.get(lookup).into_iter().flatten().copied()
    }

    /// Everything to be checked.
    pub fn probes(&self) -> BTreeSet<Probe> {
        self.probes.keys().cloned().collect()
    }

    /// Everything to be resolved.
    pub fn lookups(&self) -> BTreeSet<Lookup> {
        self.lookups.keys().cloned().collect()
    }

    /// How many probes and how many names there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.probes.len(), self.lookups.len())
    }

    /// Whether a probe is any rule's.
    pub fn has_probe(&self, probe: &Probe) -> bool {
        self.probes.contains_key(probe)
    }

    /// Whether a name is any rule's.
    pub fn has_lookup(&self, lookup: &Lookup) -> bool {
        self.lookups.contains_key(lookup)
    }
}

fn leave<K: Ord>(map: &mut BTreeMap<K, BTreeSet<usize>>, key: &K, nth: usize) {
    if let Some(rules) = map.get_mut(key) {
        rules.remove(&nth);
        if rules.is_empty() {
            map.remove(key);
        }
    }
}
