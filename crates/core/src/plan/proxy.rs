//! The proxy plan: which sockets the user-space relay listens on and where each one leads.
//!
//! Port ranges are expanded here, one [`Socket`] per port, so that the engine has nothing left to decide.
//! Deliberately absent: the limits that depend on this host (open files, cores); where the file sets none,
//! the plan says `None` and the engine chooses.

#[cfg(test)]
mod tests;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::address::{PortRange, Protocol};
use crate::members::{Meets, Member};
use crate::plan::by_rule;
use crate::ruleset::{
    Backend, Balance, HashKey, Listener, Passive, Pool, ProxySettings, Rule, Scope, SourceMode, Target,
    TargetPorts, Timeouts,
};

/// The longest port range that one listener of a proxied rule may have: every port costs one socket per
/// worker. Longer ranges need an engine that matches ranges in the kernel.
pub const MAX_PORTS_PER_RANGE: u32 = 1024;

/// Everything the proxy engine shall do.
pub type Plan = by_rule::Plan<Settings, RulePlan>;

/// The difference of two plans.
pub type Change = by_rule::Change<Settings, RulePlan>;

/// Settings of the engine as a whole; `None` leaves the choice to the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Worker threads.
    pub workers: Option<NonZeroU32>,
    /// The most TCP connections at a time.
    pub max_connections: Option<NonZeroU32>,
    /// The most UDP flows at a time.
    pub max_flows: Option<NonZeroU32>,
}

/// What one rule needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePlan {
    /// The sockets to listen on, in order, and the range of the listener that each belongs to: a shifted backend's port
    /// follows from it.
    pub sockets: BTreeMap<Socket, PortRange>,
    /// Where new connections go.
    pub pool: PoolPlan,
    /// Which source address the backend sees.
    pub source: Source,
    /// The clocks.
    pub timeouts: Timeouts,
    /// The most connections and flows of this rule at a time.
    pub max_connections: Option<NonZeroU32>,
}

/// Where the new connections of a rule go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// How they are spread.
    pub balance: Balance,
    /// What is hashed.
    pub hash: HashKey,
    /// A client comes back to its backend for this long.
    pub persist: Option<Duration>,
    /// How often a failed connection is tried with another backend.
    pub retries: u8,
    /// Passive checks.
    pub passive: Option<Passive>,
    /// How many members the pool is made for: [`Pool::places`].
    pub places: usize,
    /// What they meet now.
    pub meets: Meets,
}

impl PoolPlan {
    /// The part of a pool that the engine needs, with what it meets now.
    pub fn new(pool: &Pool, meets: Meets) -> Self {
        Self {
            balance: pool.balance,
            hash: pool.hash,
            persist: pool.persist,
            retries: pool.retries.unwrap_or(Pool::RETRIES),
            passive: pool.passive,
            places: pool.places(),
            meets,
        }
    }

    /// The targets of its members.
    pub fn targets(&self) -> BTreeSet<Target> {
        match &self.meets {
            Meets::Members(members) => members.iter().map(|member| member.target).collect(),
            Meets::Refuse | Meets::Drop => BTreeSet::new(),
        }
    }

    /// A pool of one address.
    pub fn to(address: SocketAddr) -> Self {
        let target = Target { address: address.ip(), ports: TargetPorts::One(address.port()) };
        let backend = Backend::of(target);
        let member = Member { backend: backend.name.clone(), target, weight: 1, max_connections: None };
        Self::new(&Pool::new(vec![backend]), Meets::Members(vec![member]))
    }
}

/// One listening socket (the engine opens one per worker).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Which addresses it answers for.
    pub scope: Scope,
    /// The port, never 0.
    pub port: u16,
}

/// How the socket towards the backend gets its local address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel picks the address of the route (masquerade).
    Kernel,
    /// Bound to these addresses in turn; never empty.
    Pool(Vec<IpAddr>),
}

impl Plan {
    /// The plan for these rules. Every rule has been assigned to the proxy: no range is longer than
    /// [`MAX_PORTS_PER_RANGE`] and no rule preserves the client's address.
    pub fn new(rules: &[(&Rule, Meets)], settings: &ProxySettings) -> Self {
        let rule = |rule: &Rule, meets: &Meets| RulePlan {
            sockets: rule.listeners.iter().flat_map(sockets).collect(),
            pool: PoolPlan::new(&rule.pool, meets.clone()),
            source: match &rule.source {
                SourceMode::Snat(pool) => Source::Pool(pool.clone()),
                SourceMode::Masquerade | SourceMode::Preserve => Source::Kernel,
            },
            timeouts: rule.timeouts.unwrap_or(settings.timeouts),
            max_connections: rule.max_connections,
        };
        Self {
            settings: Settings {
                workers: settings.workers,
                max_connections: settings.max_connections,
                max_flows: settings.max_flows,
            },
            rules: rules.iter().map(|(r, meets)| (r.name.clone(), rule(r, meets))).collect(),
        }
    }

    /// Plans these rules afresh, whose facts have changed, and says what that changes; the plan has it afterwards.
    pub fn adjust(&mut self, rules: &[(&Rule, Meets)], settings: &ProxySettings) -> Change {
        self.replace(Self::new(rules, settings).rules)
    }
}

fn sockets(listener: &Listener) -> impl Iterator<Item = (Socket, PortRange)> {
    listener.ports.iter().map(|port| {
        let socket = Socket { protocol: listener.protocol, scope: listener.scope.clone(), port };
        (socket, listener.ports)
    })
}
