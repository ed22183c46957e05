//! The form of a plan that is an entry for each rule beside settings of the engine as a whole, and of the difference of two.
//!
//! Deliberately absent: what an entry says, and the plan of nf_tables, whose elements belong to no one rule.

use std::collections::BTreeMap;
use std::fmt;

use crate::ruleset::RuleName;

/// What an engine shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<S, R> {
    /// Settings of the engine as a whole.
    pub settings: S,
    /// The rules by name.
    pub rules: BTreeMap<RuleName, R>,
}

/// The difference of two plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<S, R> {
    /// The new settings, where they differ.
    pub settings: Option<S>,
    /// Rules that only the new plan has.
    pub added: BTreeMap<RuleName, R>,
    /// Rules that only the old plan has.
    pub removed: Vec<RuleName>,
    /// Rules that both have and that differ, as the new plan has them.
    pub changed: BTreeMap<RuleName, R>,
}

impl<S: Default, R> Default for Plan<S, R> {
    fn default() -> Self {
        Self { settings: S::default(), rules: BTreeMap::new() }
    }
}

impl<S, R> Default for Change<S, R> {
    fn default() -> Self {
        Self { settings: None, added: BTreeMap::new(), removed: Vec::new(), changed: BTreeMap::new() }
    }
}

impl<S: Clone + PartialEq, R: Clone + PartialEq> Plan<S, R> {
    /// What leads from `old` to `new`.
    pub fn diff(old: &Self, new: &Self) -> Change<S, R> {
        let mut change = Change {
            settings: (old.settings != new.settings).then(|| new.settings.clone()),
            removed: old.rules.keys().filter(|name| !new.rules.contains_key(*name)).cloned().collect(),
            ..Change::default()
        };
        for (name, rule) in &new.rules {
            match old.rules.get(name) {
                None => _ = change.added.insert(name.clone(), rule.clone()),
                Some(before) if before != rule => _ = change.changed.insert(name.clone(), rule.clone()),
                Some(_) => {}
            }
        }
        change
    }

    /// The plan with a change carried out: `old.apply(&Plan::diff(&old, &new)) == new`.
    #[must_use]
    pub fn apply(mut self, change: &Change<S, R>) -> Self {
        if let Some(settings) = &change.settings {
            self.settings.clone_from(settings);
        }
        for name in &change.removed {
            self.rules.remove(name);
        }
        let set = change.added.iter().chain(&change.changed);
        self.rules.extend(set.map(|(name, rule)| (name.clone(), rule.clone())));
        self
    }

    /// Puts these rules, planned afresh, in the place of what is planned for them, and says what that changes. Rules that
    /// are not planned are left out: a changed fact adds none.
    pub(super) fn replace(&mut self, rules: impl IntoIterator<Item = (RuleName, R)>) -> Change<S, R> {
        let mut change = Change::default();
        for (name, rule) in rules {
            if let Some(planned) = self.rules.get_mut(&name).filter(|planned| **planned != rule) {
                planned.clone_from(&rule);
                change.changed.insert(name, rule);
            }
        }
        change
    }
}

impl<S: PartialEq, R: PartialEq> Change<S, R> {
    /// Whether the two plans are equal.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl<S: fmt::Display, R> fmt::Display for Change<S, R> {
    /// One line per rule: `+ added`, `- removed`, `~ changed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(settings) = &self.settings {
            writeln!(f, "~ {settings}")?;
        }
        for name in &self.removed {
            writeln!(f, "- rule {name}")?;
        }
        for name in self.added.keys() {
            writeln!(f, "+ rule {name}")?;
        }
        for name in self.changed.keys() {
            writeln!(f, "~ rule {name}")?;
        }
        Ok(())
    }
}
