//! From one plan to another: the elements, objects and chains to remove and to add, and nothing else.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::element::{HelperObject, Key, Set};
use super::{Elements, Plan};

/// What turns one plan into another. Removals come before additions: a changed element is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Elements to remove.
    pub remove: BTreeMap<Set, BTreeSet<Key>>,
    /// Elements to add.
    pub add: BTreeMap<Set, Elements>,
    /// Helper objects to add, before the elements that refer to them.
    pub add_helpers: BTreeSet<HelperObject>,
    /// Helper objects to remove, after the elements that referred to them.
    pub remove_helpers: BTreeSet<HelperObject>,
    /// Whether the guard chain comes or goes.
    pub guard: Option<bool>,
}

impl Change {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many elements are added, a replaced one included.
    pub fn added(&self) -> usize {
        self.add.values().map(BTreeMap::len).sum()
    }

    /// How many elements are removed, a replaced one included.
    pub fn removed(&self) -> usize {
        self.remove.values().map(BTreeSet::len).sum()
    }
}

impl Plan {
    /// The smallest change that turns `old` into `new`.
    pub fn diff(old: &Self, new: &Self) -> Change {
        let mut change = Change {
            add_helpers: new.helpers.difference(&old.helpers).copied().collect(),
            remove_helpers: old.helpers.difference(&new.helpers).copied().collect(),
            guard: (old.guard != new.guard).then_some(new.guard),
            ..Change::default()
        };
        let none = Elements::new();
        for set in Set::ALL {
            let (gone, come) = diff_elements(
                old.elements.get(&set).unwrap_or(&none),
                new.elements.get(&set).unwrap_or(&none),
            );
            if !gone.is_empty() {
                change.remove.insert(set, gone);
            }
            if !come.is_empty() {
                change.add.insert(set, come);
            }
        }
        change
    }

    /// The plan after a change.
    #[must_use]
    pub fn apply(mut self, change: &Change) -> Self {
        for (set, keys) in &change.remove {
            if let Some(elements) = self.elements.get_mut(set) {
                keys.iter().for_each(|key| drop(elements.remove(key)));
            }
        }
        for (set, added) in &change.add {
            let added = added.iter().map(|(key, entry)| (key.clone(), entry.clone()));
            self.elements.entry(*set).or_default().extend(added);
        }
        self.elements.retain(|_, elements| !elements.is_empty());
        self.helpers.retain(|object| !change.remove_helpers.contains(object));
        self.helpers.extend(&change.add_helpers);
        self.guard = change.guard.unwrap_or(self.guard);
        self
    }
}

/// What goes and what comes, by one walk over both, which are in the same order.
fn diff_elements(old: &Elements, new: &Elements) -> (BTreeSet<Key>, Elements) {
    let (mut gone, mut come) = (BTreeSet::new(), Elements::new());
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return (gone, come),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((left, _)), Some((right, _))) => left.cmp(right),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        if before == after {
            continue;
        }
        gone.extend(before.map(|(key, _)| key.clone()));
        come.extend(after.map(|(key, entry)| (key.clone(), entry.clone())));
    }
}
