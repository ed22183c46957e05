//! Effects: which flows must end because a member went down.
//!
//! A member is down when its checks say so or the operator has disabled it; `on-down` of its rule says what becomes of
//! its TCP flows, and UDP flows always end, so that their clients reach another member. A member that has gone from the
//! pool (a reload, another answer of a resolver) keeps its flows, and so does one that the operator drains. Deliberately
//! absent: waiting and ending, which are the caller's and the engines' ([`crate::engine::Engine::end_flows`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::address::Protocol;
use crate::facts::{Facts, Moment};
use crate::flow::FlowFilter;
use crate::members::Reach;
use crate::members::candidate::candidates;
use crate::members::standing::Judge;
use crate::ruleset::{OnDown, Rule, RuleName, Target, TargetPorts};

/// The flows of one rule to one of its members.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberFlows {
    /// Other rules may lead to the same backend; their flows are not meant.
    pub rule: RuleName,
    /// The member's address.
    pub address: IpAddr,
    /// Its port; all of them where it has a range.
    pub port: Option<u16>,
    /// TCP or UDP; both where not given.
    pub protocol: Option<Protocol>,
}

impl MemberFlows {
    /// The filter that finds them.
    pub fn filter(&self) -> FlowFilter {
        FlowFilter::of_backend(&self.rule, self.address, self.port, self.protocol)
    }
}

/// Flows that must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub flows: MemberFlows,
    /// How long they still have; nothing for at once.
    pub after: Duration,
}

/// What changed facts mean for the flows of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Flows to end.
    pub ended: Vec<Ended>,
    /// Of members that are there again: what was to end later is not to end any more.
    pub spared: Vec<MemberFlows>,
}

/// The members of a rule, and whether each is down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downs(BTreeMap<Target, bool>);

/// What the change from one state of the members of `rule` to another means for its flows.
pub fn effects(rule: &Rule, Downs(before): &Downs, Downs(after): &Downs) -> Effects {
    let known: BTreeSet<Target> =
        before.keys().chain(after.keys()).copied().chain(rule.pool.targets()).collect();
    let mut effects = Effects::default();
    for (target, down) in after {
        let was_down = before.get(target);
        let flows = |protocol: Option<Protocol>| {
            let ports = ports(rule, *target, &known).into_iter();
            let (rule, address) = (&rule.name, target.address);
            ports.map(move |port| MemberFlows { rule: rule.clone(), address, port, protocol })
        };
        match (was_down, down) {
            (Some(false), true) => {
                for (protocol, after) in ends(rule) {
                    effects.ended.extend(flows(protocol).map(|flows| Ended { flows, after }));
                }
            }
            (Some(true) | None, false) => effects.spared.extend(flows(Some(Protocol::Tcp))),
            (Some(_), _) | (None, true) => {}
        }
    }
    effects
}

/// How the members of `rule` stand on an engine that has this reach.
pub fn downs(rule: &Rule, facts: &Facts, reach: Reach) -> Downs {
    // No verdict and no order depends on the time.
    let judge = Judge::new(rule, facts, Moment::ZERO);
    let candidates = candidates(rule, facts, reach);
    let used = candidates.iter().filter(|candidate| candidate.aside.is_none());
    Downs(used.map(|candidate| (candidate.target, judge.standing(candidate).is_down())).collect())
}

/// Which of a member's flows end, and when.
fn ends(rule: &Rule) -> Vec<(Option<Protocol>, Duration)> {
    let carries = |protocol: Protocol| rule.listeners.iter().any(|listener| listener.protocol == protocol);
    let udp = carries(Protocol::Udp).then_some((Some(Protocol::Udp), Duration::ZERO));
    match rule.pool.on_down {
        OnDown::Reset => vec![(None, Duration::ZERO)],
        OnDown::Keep => udp.into_iter().collect(),
        OnDown::Drain(time) => {
            let tcp = carries(Protocol::Tcp).then_some((Some(Protocol::Tcp), time));
            udp.into_iter().chain(tcp).collect()
        }
    }
}

/// The ports by which a member's flows are told from those of others of the rule: one by one where another member has
/// the same address, and where they are few.
fn ports(rule: &Rule, target: Target, known: &BTreeSet<Target>) -> BTreeSet<Option<u16>> {
    if let TargetPorts::One(port) = target.ports {
        return [Some(port)].into();
    }
    let shared = known.iter().any(|other| other.address == target.address && *other != target);
    let few = rule.listeners.iter().all(|listener| listener.ports.is_single());
    if !shared && !few {
        return [None].into();
    }
    let all = rule.listeners.iter().flat_map(|listener| {
        let ports = listener.ports;
        ports.iter().map(move |port| Some(target.ports.of(ports, port)))
    });
    all.collect()
}
