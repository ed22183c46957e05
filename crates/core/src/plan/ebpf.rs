//! The ebpf plan: what the programs on the interfaces look up, before anything has a number.
//!
//! Slots are [`crate::balance`]'s, so that a client meets the same backend on every engine. Deliberately absent: ids and
//! the layout of maps, which are the engine's and outlive the daemon; interfaces and routes, which the engine follows; the
//! source address of a rule that leaves it to the route, which is found for each member at run time.

#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::address::{Family, PortRange};
use crate::balance;
use crate::members::{Meets, Member};
use crate::plan::by_rule;
use crate::ruleset::{
    Balance, ClientAddress, EbpfSettings, HashKey, Listener, Rule, SourceMode, Target, WhenEmpty,
};

/// Everything the ebpf engine shall do. Without rules it holds nothing, whatever the settings.
pub type Plan = by_rule::Plan<EbpfSettings, RulePlan>;

/// The difference of two plans.
pub type Change = by_rule::Change<EbpfSettings, RulePlan>;

/// What one rule needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePlan {
    /// Where traffic comes in.
    pub listeners: BTreeSet<Listener>,
    /// How a new flow finds its slot.
    pub choose: Choose,
    /// Which of [`Self::members`] each slot leads to; empty when there are none.
    pub slots: Vec<u16>,
    /// The members that new flows go to, in the order of the file.
    pub members: Vec<Target>,
    /// What has counters: the members, and what the file writes while it is down.
    pub targets: BTreeSet<Target>,
    /// What new flows meet while there are no members.
    pub empty: Empty,
    /// A client comes back to its member for this long after its last new flow; whole seconds.
    pub persist: Option<Duration>,
    /// Which source address the backend sees.
    pub source: Source,
    /// Whether the client's address goes to the backend in TCP option 254.
    pub toa: bool,
    /// The most new flows a second.
    pub new_flow_rate: Option<NonZeroU32>,
    /// The SYNs a second above which they are answered by cookies; 0 for always.
    pub cookies_above: Option<u32>,
    /// The families of its traffic on either side, whoever is up.
    pub families: BTreeSet<Family>,
}

/// How a slot is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choose {
    /// Each in its turn.
    InTurn,
    /// By [`balance::client_hash`] of the client's address, seeded with [`balance::SEED`].
    Source,
    /// The same of the client's address and port.
    SourcePort,
    /// The first one: there is no choice.
    First,
}

/// What is done with new flows that meet nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Empty {
    /// A TCP reset, an ICMP port unreachable for UDP.
    Refuse,
    /// Silence.
    Drop,
}

/// Which source address a member sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This host's on the way to it.
    Route,
    /// One of these that has its family; this host's on the way where none has.
    Pool(Vec<IpAddr>),
}

impl RulePlan {
    /// The plan of a rule that meets this now. It has been assigned to the engine: it asks for no policy that counts
    /// live flows.
    pub fn new(rule: &Rule, meets: &Meets) -> Self {
        let (members, empty) = match meets {
            Meets::Members(members) => (members.as_slice(), empty(rule)),
            Meets::Refuse => (&[][..], Empty::Refuse),
            Meets::Drop => (&[][..], Empty::Drop),
        };
        let slots = match members {
            [] => Vec::new(),
            [_] => vec![0],
            members => balance::table(rule.pool.balance, rule.pool.places(), members),
        };
        let targets: Vec<Target> = members.iter().map(|member| member.target).collect();
        Self {
            listeners: rule.listeners.iter().cloned().collect(),
            choose: choose(rule, slots.len()),
            slots,
            targets: rule.pool.targets().chain(targets.iter().copied()).collect(),
            members: targets,
            empty,
            persist: rule.pool.persist.filter(|_| in_pool(rule, members)).map(whole_seconds),
            source: match &rule.source {
                SourceMode::Snat(pool) => Source::Pool(pool.clone()),
                SourceMode::Masquerade | SourceMode::Preserve => Source::Route,
            },
            toa: rule.client_address == Some(ClientAddress::Toa),
            new_flow_rate: rule.new_flow_rate,
            cookies_above: rule.syn_cookies,
            families: families(rule),
        }
    }
}

/// What the file asks for should the members go; while there are any it is of no consequence, and one value keeps plans
/// comparable.
fn empty(rule: &Rule) -> Empty {
    match rule.pool.when_empty {
        WhenEmpty::Drop => Empty::Drop,
        WhenEmpty::Refuse | WhenEmpty::Sorry(_) => Empty::Refuse,
    }
}

fn choose(rule: &Rule, slots: usize) -> Choose {
    match (rule.pool.balance, rule.pool.hash) {
        _ if slots < 2 => Choose::First,
        (Balance::First, _) => Choose::First,
        (Balance::SourceHash | Balance::ConsistentHash, HashKey::SourcePort) => Choose::SourcePort,
        (Balance::SourceHash | Balance::ConsistentHash, HashKey::Source | HashKey::Sni) => Choose::Source,
        (Balance::RoundRobin | Balance::LeastConnections | Balance::Random, _) => Choose::InTurn,
    }
}

/// The backend that says sorry is not to be remembered.
fn in_pool(rule: &Rule, members: &[Member]) -> bool {
    members.iter().all(|member| rule.pool.backends.iter().any(|backend| backend.name == member.backend))
}

/// Rounded up: the maps count in seconds.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// The families of the listeners and of everything the rule could ever lead to. A name may become an address of either.
fn families(rule: &Rule) -> BTreeSet<Family> {
    let listeners = rule.listeners.iter().map(|listener| listener.scope.family());
    let targets = rule.pool.targets().map(|target| target.family());
    let names = if rule.pool.has_names() { &[Family::V4, Family::V6][..] } else { &[] };
    listeners.chain(targets).chain(names.iter().copied()).collect()
}

impl Plan {
    /// The plan for these rules, all assigned to the engine.
    pub fn new(rules: &[(&Rule, Meets)], settings: &EbpfSettings) -> Self {
        let planned = rules.iter().map(|(rule, meets)| (rule.name.clone(), RulePlan::new(rule, meets)));
        Self { settings: settings.clone(), rules: planned.collect() }
    }

    /// Whether there is nothing to serve.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the host must forward packets of `family`: the kernel's route look-up for programs says no else
    /// (`BPF_FIB_LKUP_RET_FWD_DISABLED`, `net/core/filter.c`).
    pub fn needs_forwarding(&self, family: Family) -> bool {
        self.rules.values().any(|rule| rule.families.contains(&family))
    }

    /// The ports that the host's own sockets must keep out of.
    pub fn reserved_ports(&self) -> Option<PortRange> {
        (!self.is_empty()).then_some(self.settings.source_ports)
    }

    /// Plans these rules afresh, whose facts have changed, and says what that changes; the plan has it afterwards.
    pub fn adjust(&mut self, rules: &[(&Rule, Meets)]) -> Change {
        self.replace(rules.iter().map(|(rule, meets)| (rule.name.clone(), RulePlan::new(rule, meets))))
    }
}
