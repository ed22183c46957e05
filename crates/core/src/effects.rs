//! Effects: which flows end because a fact has changed.
//!
//! Only a backend that goes down (its checks failed, or the operator disabled it) has its flows ended, and only those of
//! the rule. Deliberately absent: backends that leave a pool (by a reload, or out of a name's answer) and drained ones,
//! whose flows end by themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::Protocol;
use crate::facts::{Facts, Moment};
use crate::members::Reach;
use crate::members::candidate::candidates;
use crate::members::standing::Judge;
use crate::ruleset::{OnDown, Rule, RuleName, Target, TargetPorts};

/// Which addresses of a rule are down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing(BTreeMap<Target, bool>);

/// Flows of one backend that end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The rule that they belong to; other rules may have the same backend.
    pub rule: RuleName,
    /// The backend's address.
    pub address: IpAddr,
    /// Its port; every port where the rule's listeners lead to more than one.
    pub port: Option<u16>,
    /// Only TCP or UDP.
    pub protocol: Option<Protocol>,
    /// How long they have; nothing is at once.
    pub after: Moment,
    target: Target,
}

/// How the addresses of a rule stand.
pub fn standing(rule: &Rule, facts: &Facts) -> Standing {
    // Time changes weights, not who is down.
    let judge = Judge::new(rule, facts, Moment::ZERO);
    let all = candidates(rule, facts, Reach::ANY);
    Standing(all.iter().map(|candidate| (candidate.target, judge.standing(candidate).is_down())).collect())
}

/// What ends because of what has changed since `before`. UDP flows are let go whatever the policy: a client that keeps
/// talking would keep its flow to a dead backend alive for ever.
pub fn ended(rule: &Rule, before: &Standing, facts: &Facts) -> Vec<Ended> {
    let gone_down = |target: &Target| before.0.get(target) == Some(&false);
    let now = standing(rule, facts);
    let down =
        now.0.into_iter().filter(|(target, down)| *down && gone_down(target)).map(|(target, _)| target);
    let part = |target: Target, protocol, after| Ended {
        rule: rule.name.clone(),
        address: target.address,
        port: match target.ports {
            TargetPorts::One(port) => Some(port),
            TargetPorts::Same | TargetPorts::Shifted(_) => None,
        },
        protocol,
        after,
        target,
    };
    let forwards = |protocol| rule.listeners.iter().any(|listener| listener.protocol == protocol);
    let parts = |target| {
        let udp = forwards(Protocol::Udp).then(|| part(target, Some(Protocol::Udp), Moment::ZERO));
        let tcp = match rule.pool.on_down {
            OnDown::Keep => None,
            OnDown::Drain(time) => Some(part(target, Some(Protocol::Tcp), time)),
            OnDown::Reset => Some(part(target, Some(Protocol::Tcp), Moment::ZERO)),
        };
        udp.into_iter().chain(tcp.filter(|_| forwards(Protocol::Tcp)))
    };
    down.flat_map(parts).collect()
}

/// Whether the backend of flows that were to end later is down no longer: they are spared.
pub fn is_back(rule: &Rule, ended: &Ended, facts: &Facts) -> bool {
    standing(rule, facts).0.get(&ended.target) == Some(&false)
}
