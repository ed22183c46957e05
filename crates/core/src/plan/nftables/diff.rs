//! From one plan to another: the elements, objects and chains to remove and to add, and nothing else.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::element::{HelperObject, Key, Set};
use super::ids::RuleId;
use super::pool::OwnChain;
use super::statement::{Field, nat_of};
use super::table::Chain;
use super::{Elements, Plan, mark_of};

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
    /// Chains of rules to make, before the elements that lead there.
    pub add_chains: BTreeMap<Chain, OwnChain>,
    /// Chains of rules to remove, after the elements that led there. One that is added as well stays, with other rules.
    pub remove_chains: BTreeSet<Chain>,
    /// The rules that remember clients and have lost a member, or remember no longer: clients that are remembered for
    /// what is gone are to be forgotten.
    pub forget: BTreeSet<RuleId>,
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

    /// The rules of which an element that leads to a member goes.
    fn losers(&self) -> impl Iterator<Item = RuleId> {
        let members = self
            .remove
            .iter()
            .filter(|(set, _)| set.is_of_members() && matches!(nat_of(**set), Some((_, Field::Destination))));
        members.flat_map(|(_, keys)| keys).filter_map(|key| mark_of(key).and_then(RuleId::of_mark))
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
        (change.remove_chains, change.add_chains) = diff_entries(&old.chains, &new.chains);
        let none = Elements::new();
        for set in Set::ALL {
            let (gone, come) = diff_entries(
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
        let remembers = |id: &RuleId| old.chains.contains_key(&Chain::Remember(*id));
        let changed = change.remove_chains.iter().filter_map(|chain| match chain {
            Chain::Remember(id) => Some(*id),
            _ => None,
        });
        change.forget = change.losers().filter(remembers).chain(changed).collect();
        change
    }

    /// The plan after a change.
    #[must_use]
    pub fn apply(mut self, change: &Change) -> Self {
        self.change(change);
        self
    }

    /// Carries out a change.
    pub fn change(&mut self, change: &Change) {
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
        change.remove_chains.iter().for_each(|chain| drop(self.chains.remove(chain)));
        self.chains.extend(change.add_chains.iter().map(|(chain, own)| (*chain, own.clone())));
    }
}

/// What goes and what comes, by one walk over both, which are in the same order.
fn diff_entries<K: Clone + Ord, V: Clone + PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> (BTreeSet<K>, BTreeMap<K, V>) {
    let (mut gone, mut come) = (BTreeSet::new(), BTreeMap::new());
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
