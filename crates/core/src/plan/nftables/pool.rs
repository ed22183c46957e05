//! What of the table depends on facts: where a rule's new flows go, as elements and as chains of the rule's own.
//!
//! Where there is nothing to choose, the one member is an element of a backend map, like that of a rule with one
//! backend. A choice needs a chain of the rule's own, because the counter of `numgen` belongs to the expression; the
//! chain finds a slot, a map leads from rule and slot to the member, so that another member in a slot is an element
//! changed and no more. Deliberately absent: how
//! slots are shared out ([`crate::balance`]) and who is a member ([`crate::members`]).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::element::{Data, SHARDS, Set, Value};
use super::ids::RuleId;
use super::slots::slots;
use super::statement::{Hashed, Load, Statement};
use super::table::Chain;
use super::{Plan, address_value, is_loopback4};
use crate::address::{Family, PortRange, Protocol};
use crate::balance;
use crate::members::{Meets, Member};
use crate::ruleset::{Backend, BackendHost, Balance, HashKey, Resolve, Rule, Scope, Target, TargetPorts};

/// How the members of a pool are written into the table: all in one way, because the maps have one shape each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addressing {
    /// The family of the addresses.
    pub family: Family,
    /// Whether a member has a port of its own. Without one, the port that the client asked for stays.
    pub port: bool,
}

impl Addressing {
    /// All there are.
    pub const ALL: [Self; 4] = [
        Self { family: Family::V4, port: true },
        Self { family: Family::V4, port: false },
        Self { family: Family::V6, port: true },
        Self { family: Family::V6, port: false },
    ];

    /// The map from rule to its only member.
    pub const fn backend(self) -> Set {
        self.one_of([Set::Backend4, Set::Backend4SamePort, Set::Backend6, Set::Backend6SamePort])
    }

    /// The map from rule and slot to member, for this rule.
    pub fn slots(self, id: RuleId) -> Set {
        let shard = u8::try_from(id.get() % u32::from(SHARDS)).unwrap_or(0);
        self.one_of([Set::Slots4(shard), Set::Slots4SamePort, Set::Slots6(shard), Set::Slots6SamePort])
    }

    /// The map from rule and client to member.
    pub const fn persist(self) -> Set {
        self.one_of(Set::PERSIST)
    }

    /// The set that counts members' flows.
    pub const fn members(self) -> Set {
        self.one_of(Set::MEMBERS)
    }

    /// Of four sets in the order of [`Self::ALL`].
    const fn one_of(self, sets: [Set; 4]) -> Set {
        match (self.family, self.port) {
            (Family::V4, true) => sets[0],
            (Family::V4, false) => sets[1],
            (Family::V6, true) => sets[2],
            (Family::V6, false) => sets[3],
        }
    }

    /// How a target is written, for a rule with these listeners; `None` for a shifted range, which no pool of several
    /// can have here ([`crate::assign`] refuses it).
    fn of(rule: &Rule, target: Target) -> Option<Self> {
        let port = match target.ports {
            TargetPorts::One(_) => true,
            TargetPorts::Same => only_port(rule).is_some(),
            TargetPorts::Shifted(range) if rule.listeners.iter().all(|listener| listener.ports == range) => {
                false
            }
            TargetPorts::Shifted(_) => return None,
        };
        Some(Self { family: target.family(), port })
    }

    /// The fields of a target; see [`Self::of`].
    fn fields(self, rule: &Rule, target: Target) -> Vec<Value> {
        let one = match target.ports {
            TargetPorts::One(port) => PortRange::single(port),
            TargetPorts::Same | TargetPorts::Shifted(_) => only_port(rule),
        };
        let port = one.filter(|_| self.port).map(Value::Service);
        [address_value(target.address)].into_iter().chain(port).collect()
    }
}

/// The one port that all listeners of a rule share, if they do: "the same port" is this one, then.
fn only_port(rule: &Rule) -> Option<PortRange> {
    let first = rule.listeners.first()?.ports;
    let all = rule.listeners.iter().all(|listener| listener.ports == first);
    (all && first.is_single()).then_some(first)
}

/// How a slot is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Draw {
    /// Each in its turn.
    Turn,
    /// By a hash of the client's address, and of its port where asked for.
    Hash {
        /// Whether the port is hashed as well.
        port: bool,
    },
}

/// A chain of a rule's own. Its name has the rule's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnChain {
    /// Chooses a member.
    Choose {
        /// How members are written.
        addressing: Addressing,
        /// How the slot is found.
        draw: Draw,
        /// How many slots there are: 2 or more, the kernel takes no less.
        slots: u32,
        /// What the rule forwards.
        protocols: BTreeSet<Protocol>,
    },
    /// Remembers the member that was chosen.
    Remember {
        /// How members are written.
        addressing: Addressing,
        /// For how long, in whole seconds.
        timeout: Duration,
    },
}

impl OwnChain {
    /// The rules of this rule's chain, each a list of statements.
    pub fn rules(&self, id: RuleId) -> Vec<Vec<Statement>> {
        match self {
            Self::Choose { addressing, draw, slots, protocols } => {
                let set = addressing.slots(id);
                let choose = |protocol: Option<Protocol>| {
                    let header = match protocol {
                        None => "th",
                        Some(Protocol::Tcp) => "tcp",
                        Some(Protocol::Udp) => "udp",
                    };
                    let by = match draw {
                        Draw::Turn => Load::Turn(*slots),
                        Draw::Hash { port } => Load::Hash(Hashed {
                            family: addressing.family,
                            port: port.then_some(header),
                            slots: *slots,
                            seed: Some(balance::SEED),
                        }),
                    };
                    vec![Statement::Choose { slots: set, by, protocol }]
                };
                match addressing.port {
                    // nft reads a rule that writes ports back only where the protocol is matched.
                    true => protocols.iter().map(|protocol| choose(Some(*protocol))).collect(),
                    false => vec![choose(None)],
                }
            }
            Self::Remember { addressing, timeout } => {
                vec![vec![Statement::Remember(*addressing, *timeout)]]
            }
        }
    }

    /// One chain of every form, for the layout's name.
    pub fn samples() -> impl Iterator<Item = Self> {
        let draws = [Draw::Turn, Draw::Hash { port: false }, Draw::Hash { port: true }];
        Addressing::ALL.into_iter().flat_map(move |addressing| {
            let protocols = || [Protocol::Tcp, Protocol::Udp].into();
            let choose = move |draw| Self::Choose { addressing, draw, slots: 2, protocols: protocols() };
            let remember = Self::Remember { addressing, timeout: Duration::from_secs(1) };
            draws.into_iter().map(choose).chain([remember])
        })
    }
}

impl Plan {
    /// Adds what of a rule depends on facts.
    pub(super) fn add_members(&mut self, rule: &Rule, meets: &Meets, id: RuleId) {
        let members = match meets {
            Meets::Members(members) => members.as_slice(),
            Meets::Refuse => {
                self.add(Set::Refused, vec![Value::Mark(id.mark())], Data::None, None);
                &[]
            }
            // What nothing catches is dropped.
            Meets::Drop => &[],
        };
        self.add_choice(rule, members, id);
        let fixed = rule.pool.single();
        if fixed.is_none_or(|fixed| members.iter().any(|member| member.target != fixed)) {
            self.add_notes(rule, members, id);
        }
    }

    /// Adds the chain of a rule that has a choice, and where its slots lead; or the way to the only member.
    fn add_choice(&mut self, rule: &Rule, members: &[Member], id: RuleId) {
        let own = addressing(rule).filter(|_| chooses(rule));
        let like = |member: &&Member| own.is_some() && Addressing::of(rule, member.target) == own;
        let members_alike: Vec<Member> = members.iter().filter(like).cloned().collect();
        if let Some(addressing) = own {
            self.add_slots(rule, &members_alike, addressing, id);
        }
        if let Some(first) = members.first().filter(|_| members_alike.is_empty()) {
            match Addressing::of(rule, first.target).filter(|_| rule.pool.single().is_none()) {
                Some(addressing) => {
                    let data = Data::Fields(addressing.fields(rule, first.target));
                    self.add(addressing.backend(), vec![Value::Mark(id.mark())], data, None);
                }
                None => self.add_backend(rule, first.target, id.mark()),
            }
        }
    }

    fn add_slots(&mut self, rule: &Rule, members: &[Member], addressing: Addressing, id: RuleId) {
        let table = match members {
            [] => Vec::new(),
            members => balance::table(rule.pool.balance, rule.pool.places(), members),
        };
        let slots = slots(rule, members.len(), table.len());
        let draw = match (rule.pool.balance, rule.pool.hash) {
            (Balance::SourceHash | Balance::ConsistentHash, key) => {
                Draw::Hash { port: key == HashKey::SourcePort }
            }
            _ => Draw::Turn,
        };
        for slot in (0..slots).take_while(|_| !table.is_empty()) {
            // As many rounds of turns; or each slot as many times wider, so that a hash leads where it would in `table`.
            let nth = match draw {
                Draw::Turn => table[slot % table.len()],
                Draw::Hash { .. } => table[slot / (slots / table.len())],
            };
            if let (Some(member), Ok(slot)) = (members.get(usize::from(nth)), u32::try_from(slot)) {
                let key = vec![Value::Mark(id.mark()), Value::Slot(slot)];
                let data = Data::Fields(addressing.fields(rule, member.target));
                self.add(addressing.slots(id), key, data, None);
            }
        }
        let protocols = rule.listeners.iter().map(|listener| listener.protocol).collect();
        let protocols = if addressing.port { protocols } else { BTreeSet::new() };
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        let chain = Chain::Pool(id);
        self.chains.insert(chain, OwnChain::Choose { addressing, draw, slots, protocols });
        self.add(Set::Pools, vec![Value::Mark(id.mark())], Data::Jump(chain), None);
    }

    /// The map in which clients of a rule are remembered, and what they may be remembered for; `None` for a rule that
    /// remembers nobody.
    pub fn remembered(&self, id: RuleId) -> Option<(Set, BTreeSet<&Data>)> {
        let OwnChain::Remember { addressing, .. } = self.chains.get(&Chain::Remember(id))? else {
            return None;
        };
        let members = [addressing.backend(), addressing.slots(id)]
            .into_iter()
            .flat_map(|set| self.elements_of(set, id).map(|(_, entry)| &entry.data));
        Some((addressing.persist(), members.collect()))
    }

    /// Adds what takes note of the member that was chosen: counters, and the memory for clients that come back.
    fn add_notes(&mut self, rule: &Rule, members: &[Member], id: RuleId) {
        // Members that are addresses in the file are counted also while they are down.
        let here = rule.pool.targets().chain(members.iter().map(|member| member.target));
        for target in here {
            if let Some(addressing) = Addressing::of(rule, target) {
                let key = [Value::Mark(id.mark())].into_iter().chain(addressing.fields(rule, target));
                self.add(addressing.members(), key.collect(), Data::None, Some(target.to_string()));
            }
        }
        let mark = || vec![Value::Mark(id.mark())];
        self.add(Set::Noted, mark(), Data::None, None);
        if let (Some(time), Some(addressing)) = (rule.pool.persist, self::addressing(rule)) {
            let timeout = Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0));
            let chain = Chain::Remember(id);
            self.chains.insert(chain, OwnChain::Remember { addressing, timeout });
            // The backend that says sorry is not to be remembered.
            let in_pool =
                |member: &Member| rule.pool.backends.iter().any(|backend| backend.name == member.backend);
            if members.iter().all(in_pool) {
                self.add(Set::Remembered, mark(), Data::Jump(chain), None);
            }
        }
    }
}

/// Whether a rule may have a choice, whoever is up: it has a chain for that.
fn chooses(rule: &Rule) -> bool {
    let several = |backend: &Backend| match backend.host {
        BackendHost::Address(_) => false,
        BackendHost::Name(_) => backend.resolve == Resolve::All,
        BackendHost::Service(_) => true,
    };
    let backends = &rule.pool.backends;
    rule.pool.balance != Balance::First && (backends.len() > 1 || backends.iter().any(several))
}

/// How the members of a rule's pool are written, whoever is up: a service's records have ports, and everything else is
/// as the backend says.
fn addressing(rule: &Rule) -> Option<Addressing> {
    let backend = rule.pool.backends.first()?;
    let family = rule.listeners.first()?.scope.family();
    let address = match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0; 16]),
    };
    let written = Addressing::of(rule, Target { address, ports: backend.ports })?;
    Some(Addressing { port: written.port || matches!(backend.host, BackendHost::Service(_)), ..written })
}

/// Whether a rule is reached from, or leads to, 127.0.0.0/8, whoever is up.
pub(super) fn needs_guard(rule: &Rule) -> bool {
    let listens = rule.listeners.iter().any(|listener| match &listener.scope {
        Scope::Address(address) => is_loopback4(*address),
        Scope::Any(family) => *family == Family::V4,
        Scope::Interface(..) => false,
    });
    listens || rule.pool.targets().any(|target| is_loopback4(target.address))
}

/// The families in which a rule may lead to another host, whoever is up. A backend that is this host by another address
/// than loopback counts too: only the host knows its addresses.
pub(super) fn leaves_for(rule: &Rule) -> BTreeSet<Family> {
    let named = rule.pool.has_names().then(|| rule.listeners.first()).flatten();
    let written = rule.pool.targets().filter(|target| !target.address.is_loopback());
    let written = written.map(|target| target.family());
    written.chain(named.map(|listener| listener.scope.family())).collect()
}
