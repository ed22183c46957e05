//! The nftables plan: what the table `inet portway` holds for a ruleset.
//!
//! The table's chains and rules are always the same ([`table`]); a ruleset is only elements of its maps
//! ([`element`]) and, where a rule has a choice of backends, a chain of its own ([`pool`]), so a changed ruleset is a
//! few elements added and removed ([`Change`]) and the counters of everything else live on. Deliberately absent: bytes
//! and sockets (the engine's), and any decision about which rules belong here ([`crate::assign`]).

mod diff;
pub mod element;
mod ids;
pub mod pool;
mod slots;
pub mod statement;
pub mod table;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use diff::Change;
pub use element::{Data, Direction, Entry, HelperObject, Key, Set, Value};
pub use ids::{Ids, MARK, MARK_MASK, RuleId};
pub use text::layout_comment;

use pool::OwnChain;
use table::Chain;

use crate::address::{Family, PortRange};
use crate::members::Meets;
use crate::ruleset::{Listener, Rule, RuleName, Scope, SourceMode, Target, TargetPorts};

/// The elements of one set or map, by key.
pub type Elements = BTreeMap<Key, Entry>;

/// What the table holds. `Display` prints it as `nft -s list table inet portway` does.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The elements by set; a set without elements has no entry here.
    pub elements: BTreeMap<Set, Elements>,
    /// The conntrack helper objects that elements refer to.
    pub helpers: BTreeSet<HelperObject>,
    /// Whether the rules need `route_localnet`, and the table therefore the chain that keeps 127.0.0.0/8
    /// unreachable from outside.
    pub guard: bool,
    /// The chains that are a rule's own.
    pub chains: BTreeMap<Chain, OwnChain>,
    /// The families in which traffic may leave for another host. What the host must do for the rules, and nothing that
    /// the table holds: a plan that is read back from the kernel has none.
    leaves: BTreeSet<Family>,
}

impl PartialEq for Plan {
    /// Whether the table is the same.
    fn eq(&self, other: &Self) -> bool {
        let Self { elements, helpers, guard, chains, leaves: _ } = self;
        (elements, helpers, guard, chains) == (&other.elements, &other.helpers, &other.guard, &other.chains)
    }
}

impl Eq for Plan {}

impl Plan {
    /// The plan of the rules that this engine serves. `ids` holds an id for each of them
    /// ([`Ids::allocate`]); a rule without one is not part of the plan.
    pub fn new(rules: &[(&Rule, Meets)], ids: &Ids) -> Self {
        let mut plan = Self::default();
        for (rule, meets) in rules {
            if let Some(id) = ids.get(&rule.name) {
                plan.add_rule(rule, id);
                plan.add_members(rule, meets, id);
            }
        }
        plan
    }

    /// A table without rules, with or without the guard chain.
    pub fn empty(guard: bool) -> Self {
        Self { guard, ..Self::default() }
    }

    /// Plans these rules afresh, whose facts have changed, and says what that changes; the plan has it afterwards. The
    /// work grows with what the table holds for these rules.
    pub fn adjust(&mut self, rules: &[(&Rule, Meets)], ids: &Ids) -> Change {
        let (mut old, mut new) = (Self::default(), Self::default());
        for (rule, meets) in rules {
            if let Some(id) = ids.get(&rule.name) {
                self.copy_members(id, &mut old);
                new.add_members(rule, meets, id);
            }
        }
        (old.guard, new.guard) = (self.guard, self.guard);
        let change = Self::diff(&old, &new);
        self.change(&change);
        change
    }

    /// Copies what of a rule depends on facts.
    fn copy_members(&self, id: RuleId, to: &mut Self) {
        for set in Set::ALL.into_iter().filter(|set| set.is_of_members()) {
            for (key, entry) in self.elements_of(set, id) {
                to.add(set, key.clone(), entry.data.clone(), entry.comment.clone());
            }
        }
        for chain in [Chain::Pool(id), Chain::Remember(id)] {
            if let Some(own) = self.chains.get(&chain) {
                to.chains.insert(chain, own.clone());
            }
        }
    }

    /// The ids that the plan uses, by the names that its elements carry.
    pub fn ids(&self) -> Ids {
        let named = |(key, entry): (&Key, &Entry)| {
            let name = RuleName::new(entry.comment.as_deref()?)?;
            Some((name, mark_of(key).and_then(RuleId::of_mark)?))
        };
        self.elements(Set::Flows).filter_map(named).collect()
    }

    /// The elements of one set.
    pub fn elements(&self, set: Set) -> impl Iterator<Item = (&Key, &Entry)> {
        self.elements.get(&set).into_iter().flatten()
    }

    /// The elements of one set that are one rule's, for sets that are keyed by the rule first.
    pub fn elements_of(&self, set: Set, id: RuleId) -> impl Iterator<Item = (&Key, &Entry)> {
        let ends = [id.mark(), id.mark() + 1].map(|mark| vec![Value::Mark(mark)]);
        let [first, end] = ends;
        self.elements
            .get(&set)
            .into_iter()
            .flat_map(move |elements| elements.range(first.clone()..end.clone()))
    }

    /// How many elements the plan has in all sets together.
    pub fn len(&self) -> usize {
        self.elements.values().map(BTreeMap::len).sum()
    }

    /// Whether the plan forwards nothing.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Whether traffic from or to 127.0.0.0/8 must cross interfaces (sysctl `route_localnet`).
    pub fn needs_route_localnet(&self) -> bool {
        self.guard
    }

    /// Whether traffic of this family may leave for another host, for which the host must forward (sysctls
    /// `net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`). It follows from the rules alone, so that no backend that
    /// goes down or comes back changes the host.
    pub fn needs_forwarding(&self, family: Family) -> bool {
        self.leaves.contains(&family)
    }

    /// Adds what of a rule does not depend on facts.
    fn add_rule(&mut self, rule: &Rule, id: RuleId) {
        let mark = id.mark();
        let name = Some(rule.name.as_str().to_owned());
        let rule_key = vec![Value::Mark(mark)];
        self.add(Set::Flows, rule_key.clone(), Data::None, name.clone());
        for direction in [Direction::Original, Direction::Reply] {
            self.add(Set::Traffic, vec![Value::Mark(mark), Value::Direction(direction)], Data::None, None);
        }
        for listener in &rule.listeners {
            let (set, key) = listener_key(listener);
            self.add(set, key, Data::Fields(rule_key.clone()), name.clone());
            if let Some(helper) = rule.helper.filter(|helper| helper.speaks(listener.protocol)) {
                let object = HelperObject { helper, protocol: listener.protocol };
                let key = vec![Value::Mark(mark), Value::Protocol(listener.protocol)];
                self.helpers.insert(object);
                self.add(Set::Helpers, key, Data::Jump(Chain::Attach(object)), None);
            }
        }
        self.guard |= pool::needs_guard(rule);
        self.leaves.extend(pool::leaves_for(rule));
        self.add_source(rule, mark);
    }

    fn add_backend(&mut self, rule: &Rule, target: Target, mark: u32) {
        let address = target.address;
        let (with_port, same_port, shifted) = match Family::of(address) {
            Family::V4 => (Set::Backend4, Set::Backend4SamePort, Set::Backend4Shifted),
            Family::V6 => (Set::Backend6, Set::Backend6SamePort, Set::Backend6Shifted),
        };
        let rule_key = vec![Value::Mark(mark)];
        let one = |port: u16| PortRange::single(port).map(Value::Service);
        match target.ports {
            TargetPorts::Same => self.add(same_port, rule_key, fields([address_value(address)]), None),
            TargetPorts::Shifted(range) if rule.listeners.iter().all(|listener| listener.ports == range) => {
                self.add(same_port, rule_key, fields([address_value(address)]), None);
            }
            TargetPorts::One(port) => {
                if let Some(port) = one(port) {
                    self.add(with_port, rule_key, fields([address_value(address), port]), None);
                }
            }
            // One element per port: the kernel's own port shift (NF_NAT_RANGE_PROTO_OFFSET) cannot be set from
            // nf_tables.
            TargetPorts::Shifted(range) => {
                for listener in &rule.listeners {
                    for (port, target) in listener.ports.iter().zip(range.iter()) {
                        if let (Some(port), Some(target)) = (one(port), one(target)) {
                            let data = fields([address_value(address), target]);
                            self.add(shifted, vec![Value::Mark(mark), port], data, None);
                        }
                    }
                }
            }
        }
    }

    fn add_source(&mut self, rule: &Rule, mark: u32) {
        match &rule.source {
            SourceMode::Masquerade => {}
            SourceMode::Preserve => self.add(Set::Preserve, vec![Value::Mark(mark)], Data::None, None),
            SourceMode::Snat(pool) => {
                // Where backends are names there may be addresses of both families. A flow keeps its listener's, and
                // every slot must have an address of it.
                let family = rule.listeners.first().map(|listener| listener.scope.family());
                let pool: Vec<&IpAddr> =
                    pool.iter().filter(|address| Some(Family::of(**address)) == family).collect();
                for (slot, address) in (0..statement::SLOTS).zip(pool.into_iter().cycle()) {
                    let set = match Family::of(*address) {
                        Family::V4 => Set::Source4,
                        Family::V6 => Set::Source6,
                    };
                    let key = vec![Value::Mark(mark), Value::Slot(slot)];
                    self.add(set, key, fields([address_value(*address)]), None);
                }
            }
        }
    }

    /// Adds an element unless its key is taken: `ruleset::build` has refused rules that claim the same traffic.
    fn add(&mut self, set: Set, key: Key, data: Data, comment: Option<String>) {
        self.elements.entry(set).or_default().entry(key).or_insert(Entry { data, comment });
    }
}

fn fields<const N: usize>(values: [Value; N]) -> Data {
    Data::Fields(values.into())
}

/// The mark that a key begins with.
pub fn mark_of(key: &Key) -> Option<u32> {
    match key.first() {
        Some(Value::Mark(mark)) => Some(*mark),
        _ => None,
    }
}

fn is_loopback4(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_loopback())
}

fn address_value(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => Value::Ipv4(address),
        IpAddr::V6(address) => Value::Ipv6(address),
    }
}

/// The map and the key of a listener.
fn listener_key(listener: &Listener) -> (Set, Key) {
    let (single, range, mut key) = match &listener.scope {
        Scope::Address(address @ IpAddr::V4(_)) => {
            (Set::Address4, Set::Address4Ranges, vec![address_value(*address)])
        }
        Scope::Address(address @ IpAddr::V6(_)) => {
            (Set::Address6, Set::Address6Ranges, vec![address_value(*address)])
        }
        Scope::Any(family) => (Set::Any, Set::AnyRanges, vec![Value::Family(*family)]),
        Scope::Interface(name, family) => {
            let key = vec![Value::Interface(name.clone()), Value::Family(*family)];
            (Set::Interface, Set::InterfaceRanges, key)
        }
    };
    key.extend([Value::Protocol(listener.protocol), Value::Service(listener.ports)]);
    (if listener.ports.is_single() { single } else { range }, key)
}

#[cfg(test)]
mod tests;
