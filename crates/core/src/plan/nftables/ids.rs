//! Rule ids: the short numbers by which the kernel knows the rules. They live in the conntrack mark of every
//! flow, so a rule keeps its number as long as it lives, across reloads and restarts of the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::ruleset::RuleName;

/// The conntrack mark of a Portway flow without its rule's id: the top byte of the mark.
pub const MARK: u32 = 0x5000_0000;

/// The bits of a conntrack mark that say that the flow is Portway's.
pub const MARK_MASK: u32 = 0xff00_0000;

/// The number of a rule in the kernel: 1 to 2^24 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u32);

impl RuleId {
    /// The highest id.
    pub const MAX: u32 = !MARK_MASK;

    /// The id, or `None` when it is 0 or does not fit in 24 bits.
    pub const fn new(id: u32) -> Option<Self> {
        if id == 0 || id > Self::MAX { None } else { Some(Self(id)) }
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The conntrack mark of the rule's flows.
    pub const fn mark(self) -> u32 {
        MARK | self.0
    }

    /// The rule of a flow with this conntrack mark, or `None` when the flow is not Portway's.
    pub const fn of_mark(mark: u32) -> Option<Self> {
        if mark & MARK_MASK == MARK { Self::new(mark & !MARK_MASK) } else { None }
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which rule has which id, and which ids were never used. No two rules share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    of: BTreeMap<RuleName, RuleId>,
    /// Rules that have gone, whose flows may live on. One that comes back is the same rule, and they are its own again.
    gone: BTreeMap<RuleName, RuleId>,
    /// Above every id that was in use, as far as is known.
    fresh: u32,
}

impl Default for Ids {
    fn default() -> Self {
        Self { of: BTreeMap::new(), gone: BTreeMap::new(), fresh: 1 }
    }
}

impl Ids {
    /// The most rules that have gone and are remembered.
    const MOST_GONE: usize = 65_536;

    /// The ids for `names`: a name known to `previous`, or once known to it, has its id; a new one gets the lowest that
    /// was never used. The flows of a rule that has gone live on under its id, and must not be taken for another
    /// rule's; so a used id goes to another name only when all others are spent, and then not in the step that frees it.
    /// A name is left out only when all 2^24 - 1 ids are taken.
    pub fn allocate<'a>(previous: &Self, names: impl Iterator<Item = &'a RuleName>) -> Self {
        let names: BTreeSet<&RuleName> = names.collect();
        let back: BTreeSet<RuleId> =
            names.iter().filter_map(|name| previous.gone.get(*name)).copied().collect();
        let used: BTreeSet<RuleId> = previous.of.values().copied().chain(back).collect();
        let round = (previous.fresh..=RuleId::MAX).chain(1..previous.fresh);
        let mut free = round.filter_map(RuleId::new).filter(|id| !used.contains(id));
        let mut id_of = |name: &RuleName| previous.known(name).or_else(|| free.next());
        let of: BTreeMap<_, _> =
            names.into_iter().filter_map(|name| Some((name.clone(), id_of(name)?))).collect();
        let fresh = previous.fresh.max(above(&of));
        Self { of, gone: BTreeMap::new(), fresh }.after(previous)
    }

    /// These ids with the memory of `previous` and of those before it, as far as their ids are nobody else's now.
    #[must_use]
    pub fn after(self, previous: &Self) -> Self {
        let Self { of, fresh, .. } = self;
        let taken: BTreeSet<RuleId> = of.values().copied().collect();
        let before = previous.gone.iter().chain(&previous.of);
        let gone = before.filter(|(name, id)| !of.contains_key(*name) && !taken.contains(id));
        let mut gone: BTreeMap<_, _> = gone.map(|(name, id)| (name.clone(), *id)).collect();
        while gone.len() > Self::MOST_GONE {
            gone.pop_first();
        }
        Self { of, gone, fresh: fresh.max(previous.fresh) }
    }

    /// The id of a rule, also of one that has gone.
    pub fn known(&self, name: &RuleName) -> Option<RuleId> {
        self.get(name).or_else(|| self.gone.get(name).copied())
    }

    /// The names by id, those of rules that have gone as well: for flows.
    pub fn names(&self) -> BTreeMap<RuleId, &RuleName> {
        self.gone.iter().chain(&self.of).map(|(name, id)| (*id, name)).collect()
    }

    /// The id of a rule.
    pub fn get(&self, name: &RuleName) -> Option<RuleId> {
        self.of.get(name).copied()
    }

    /// All names with their ids, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&RuleName, RuleId)> {
        self.of.iter().map(|(name, id)| (name, *id))
    }

    /// How many rules have an id.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether no rule has an id.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

impl FromIterator<(RuleName, RuleId)> for Ids {
    /// Of two rules with one id the first by iteration keeps it.
    fn from_iter<I: IntoIterator<Item = (RuleName, RuleId)>>(pairs: I) -> Self {
        let mut taken = BTreeSet::new();
        let of: BTreeMap<_, _> = pairs.into_iter().filter(|(_, id)| taken.insert(*id)).collect();
        let fresh = above(&of);
        Self { of, gone: BTreeMap::new(), fresh }
    }
}

/// The number above the highest id; past the last one, all numbers have been used.
fn above(of: &BTreeMap<RuleName, RuleId>) -> u32 {
    of.values().map(|id| id.get() + 1).max().unwrap_or(1)
}
