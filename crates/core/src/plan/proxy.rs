//! The proxy plan: which sockets the user-space relay listens on and where each one leads.
//!
//! Port ranges are expanded here, one [`Socket`] per port, so that the engine has nothing left to decide.
//! Deliberately absent: the limits that depend on this host (open files, cores); where the file sets none,
//! the plan says `None` and the engine chooses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::address::{PortRange, Protocol};
use crate::members::{Meets, Member};
use crate::ruleset::{
    Backend, Balance, HashKey, Listener, Passive, Pool, ProxySettings, Rule, RuleName, Scope, SourceMode,
    Target, TargetPorts, Timeouts,
};

/// The longest port range that one listener of a proxied rule may have: every port costs one socket per
/// worker. Longer ranges need an engine that matches ranges in the kernel.
pub const MAX_PORTS_PER_RANGE: u32 = 1024;

/// Everything the proxy engine shall do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Settings of the engine as a whole.
    pub settings: Settings,
    /// The rules by name.
    pub rules: BTreeMap<RuleName, RulePlan>,
}

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
            meets,
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

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = PortRange::single(self.port).ok_or(fmt::Error)?;
        Listener { protocol: self.protocol, scope: self.scope.clone(), ports }.fmt(f)
    }
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
        let mut change = Change::default();
        for (name, rule) in Self::new(rules, settings).rules {
            if let Some(planned) = self.rules.get_mut(&name).filter(|planned| **planned != rule) {
                planned.clone_from(&rule);
                change.changed.insert(name, rule);
            }
        }
        change
    }

    /// What leads from `old` to `new`.
    pub fn diff(old: &Self, new: &Self) -> Change {
        let mut change = Change {
            settings: (old.settings != new.settings).then_some(new.settings),
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
    pub fn apply(mut self, change: &Change) -> Self {
        if let Some(settings) = change.settings {
            self.settings = settings;
        }
        for name in &change.removed {
            self.rules.remove(name);
        }
        let set = change.added.iter().chain(&change.changed);
        self.rules.extend(set.map(|(name, rule)| (name.clone(), rule.clone())));
        self
    }
}

fn sockets(listener: &Listener) -> impl Iterator<Item = (Socket, PortRange)> {
    listener.ports.iter().map(|port| {
        let socket = Socket { protocol: listener.protocol, scope: listener.scope.clone(), port };
        (socket, listener.ports)
    })
}

/// The difference of two plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The new settings, where they differ.
    pub settings: Option<Settings>,
    /// Rules that only the new plan has.
    pub added: BTreeMap<RuleName, RulePlan>,
    /// Rules that only the old plan has.
    pub removed: Vec<RuleName>,
    /// Rules that both have and that differ, as the new plan has them.
    pub changed: BTreeMap<RuleName, RulePlan>,
}

impl Change {
    /// Whether the two plans are equal.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Change {
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

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_host = |value: Option<NonZeroU32>| value.map_or("by host".to_owned(), |v| v.to_string());
        write!(f, "workers {}", or_host(self.workers))?;
        write!(f, ", max-connections {}", or_host(self.max_connections))?;
        write!(f, ", max-flows {}", or_host(self.max_flows))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("masquerade"),
            Self::Pool(pool) => {
                let pool: Vec<_> = pool.iter().map(IpAddr::to_string).collect();
                write!(f, "snat {}", pool.join(", "))
            }
        }
    }
}

impl fmt::Display for PoolPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.meets {
            Meets::Refuse => writeln!(f, "  refuse"),
            Meets::Drop => writeln!(f, "  drop"),
            Meets::Members(members) => members
                .iter()
                .try_for_each(|member| writeln!(f, "  -> {} weight {}", member.target, member.weight)),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.settings)?;
        for (name, rule) in &self.rules {
            let t = &rule.timeouts;
            writeln!(f, "rule {name}")?;
            writeln!(f, "  source {}", rule.source)?;
            writeln!(
                f,
                "  timeouts connect {:?}, idle {:?}, half-closed {:?}, udp-idle {:?}",
                t.connect, t.idle, t.half_closed, t.udp_idle
            )?;
            if let Some(max) = rule.max_connections {
                writeln!(f, "  max-connections {max}")?;
            }
            write!(f, "{}", rule.pool)?;
            for socket in rule.sockets.keys() {
                writeln!(f, "  {socket}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;
    use crate::address::Family;
    use crate::facts::Facts;
    use crate::members::{Reach, meets};
    use crate::ruleset::BackendName;

    fn rule(name: &str, first: u16, last: u16, ports: TargetPorts) -> Rule {
        let listener = Listener {
            protocol: Protocol::Tcp,
            scope: Scope::Any(Family::V4),
            ports: PortRange::new(first, last).unwrap(),
        };
        let target = Target { address: "192.0.2.1".parse().unwrap(), ports };
        Rule::new(RuleName::new(name).unwrap(), vec![listener], target)
    }

    fn plan(rules: &[&Rule], settings: &ProxySettings) -> Plan {
        let met = |rule: &&'_ Rule| meets(rule, &Facts::default(), Duration::ZERO, Reach::ANY);
        let rules: Vec<(&Rule, Meets)> = rules.iter().map(|rule| (*rule, met(rule))).collect();
        Plan::new(&rules, settings)
    }

    #[test]
    fn ranges_become_one_socket_per_port() {
        let shifted = TargetPorts::Shifted(PortRange::new(9000, 9002).unwrap());
        let mut web = rule("web", 8000, 8002, shifted);
        web.source = SourceMode::Snat(vec!["192.0.2.7".parse().unwrap()]);
        web.max_connections = NonZeroU32::new(5);
        let plan = plan(&[&web], &ProxySettings::default());
        assert_eq!(
            plan.to_string(),
            "workers by host, max-connections by host, max-flows by host\n\
             rule web\n  source snat 192.0.2.7\n  \
             timeouts connect 5s, idle 3600s, half-closed 60s, udp-idle 60s\n  max-connections 5\n  \
             -> 192.0.2.1:9000-9002 weight 1\n  \
             tcp/0.0.0.0:8000\n  tcp/0.0.0.0:8001\n  tcp/0.0.0.0:8002\n"
        );
    }

    #[test]
    fn a_rule_without_clocks_takes_the_files() {
        let timeouts = Timeouts { idle: Duration::from_secs(7), ..Timeouts::default() };
        let settings = ProxySettings { timeouts, ..ProxySettings::default() };
        let plan = plan(&[&rule("a", 1, 1, TargetPorts::Same)], &settings);
        assert_eq!(plan.rules.values().next().unwrap().timeouts, timeouts);
    }

    #[test]
    fn a_change_prints_names() {
        let settings = ProxySettings::default();
        let (a, b, b2) = (
            rule("a", 1, 1, TargetPorts::Same),
            rule("b", 2, 2, TargetPorts::Same),
            rule("b", 3, 3, TargetPorts::Same),
        );
        let c = rule("c", 4, 4, TargetPorts::Same);
        let old = plan(&[&a, &b], &settings);
        let new = plan(&[&b2, &c], &settings);
        assert_eq!(Plan::diff(&old, &new).to_string(), "- rule a\n+ rule c\n~ rule b\n");
        assert!(Plan::diff(&old, &old).is_empty());
    }

    fn plans() -> impl Strategy<Value = Plan> {
        let rule = (1u16..40, 0u16..4, any::<bool>(), proptest::option::of(1u32..3)).prop_map(
            |(first, more, pool, max)| RulePlan {
                sockets: (first..=first + more)
                    .map(|port| {
                        let scope = Scope::Any(Family::V4);
                        let ports = PortRange::new(first, first + more).unwrap();
                        (Socket { protocol: Protocol::Udp, scope, port }, ports)
                    })
                    .collect(),
                pool: PoolPlan::new(
                    &Pool::new(Vec::new()),
                    Meets::Members(vec![Member {
                        backend: BackendName::new("b").unwrap(),
                        target: Target { address: "192.0.2.1".parse().unwrap(), ports: TargetPorts::Same },
                        weight: first.into(),
                        max_connections: None,
                    }]),
                ),
                source: if pool { Source::Pool(vec!["192.0.2.9".parse().unwrap()]) } else { Source::Kernel },
                timeouts: Timeouts::default(),
                max_connections: max.and_then(NonZeroU32::new),
            },
        );
        let name = "[a-e]".prop_map(|n| RuleName::new(&n).unwrap());
        (proptest::option::of(1u32..3), btree_map(name, rule, 0..5)).prop_map(|(workers, rules)| Plan {
            settings: Settings { workers: workers.and_then(NonZeroU32::new), ..Settings::default() },
            rules,
        })
    }

    proptest! {
        #[test]
        fn old_plus_diff_is_new(old in plans(), new in plans()) {
            let change = Plan::diff(&old, &new);
            prop_assert_eq!(change.is_empty(), old == new);
            prop_assert_eq!(old.apply(&change), new);
        }

        #[test]
        fn equal_plans_print_equal(plan in plans()) {
            prop_assert_eq!(plan.to_string(), plan.clone().to_string());
        }
    }
}
