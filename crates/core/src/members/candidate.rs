//! Candidates: the addresses of a pool, its names resolved as they are known now, whatever their state.
//!
//! What a resolver says is foreign: an address that cannot be sent to, that the engine does not reach or that leads
//! back to the rule is set aside with the reason. Deliberately absent: health and orders ([`super::standing`]).

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use super::{Reach, watch};
use crate::address::{Family, is_one_host};
use crate::facts::{Facts, Resolved};
use crate::ruleset::{Backend, BackendHost, BackendName, Pool, Resolve, Rule, Scope, Target, TargetPorts};

/// The share of a candidate that has all of its backend's weight: the others are parts of it.
pub(crate) const WHOLE: u32 = 4096;

/// One address of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    /// The backend that it belongs to.
    pub backend: &'a Backend,
    /// Where it is.
    pub target: Target,
    /// 0 for primaries; a level is used only while none below it is live.
    pub level: u32,
    /// How much of the backend's weight it has: 1 to [`WHOLE`].
    pub share: u32,
    /// Why it is set aside.
    pub aside: Option<Aside<'a>>,
}

/// Why an address cannot be a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aside<'a> {
    /// Nothing can be sent there.
    NoDestination,
    /// The engine does not translate into this family.
    Family(Family),
    /// The engine does not reach loopback for this rule.
    Loopback,
    /// The rule would forward to itself.
    Itself,
    /// Another backend has it already.
    Double(&'a BackendName),
    /// More than [`Pool::MOST_MEMBERS`].
    TooMany,
}

impl fmt::Display for Aside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDestination => f.write_str("not an address that can be sent to"),
            Self::Family(family) => write!(f, "{family}, which this rule's engine does not translate to"),
            Self::Loopback => f.write_str("a loopback address, which this rule's engine does not reach"),
            Self::Itself => f.write_str("leads back to this rule"),
            Self::Double(name) => write!(f, "the same address as {name}"),
            Self::TooMany => write!(f, "a pool has at most {} members", Pool::MOST_MEMBERS),
        }
    }
}

/// The addresses of a rule's pool, in the order of the file and within a name in numerical order (of a service: by
/// priority first). An address that several backends have is the one's that prefers it, else the first one's.
pub(crate) fn candidates<'a>(rule: &'a Rule, facts: &Facts, reach: Reach) -> Vec<Candidate<'a>> {
    let mut all = Vec::with_capacity(rule.pool.backends.len());
    for backend in &rule.pool.backends {
        if let Some(target) = backend.target() {
            let other = reach.family.is_some_and(|family| family != target.family());
            let aside = other.then_some(Aside::Family(target.family()));
            all.push(Candidate { backend, target, level: u32::from(backend.backup), share: WHOLE, aside });
        } else if let Some(answer) = watch::lookup(backend).and_then(|lookup| facts.names.get(&lookup)) {
            all.extend(resolved(rule, backend, answer, reach));
        }
    }
    set_doubles_aside(&mut all);
    all
}

/// The addresses of a name or service. Of a service, each priority is a level of its own (RFC 2782: a client must try
/// the lowest-numbered that it can reach), and weights are parts of the highest in their level.
fn resolved<'a>(
    rule: &'a Rule,
    backend: &'a Backend,
    answer: &[Resolved],
    reach: Reach,
) -> impl Iterator<Item = Candidate<'a>> {
    let mut found: Vec<(&Resolved, Candidate<'a>)> = answer
        .iter()
        .filter_map(|record| {
            let target = target(backend, record)?;
            let aside = obstacle(rule, target, reach);
            Some((record, Candidate { backend, target, level: 0, share: WHOLE, aside }))
        })
        .collect();
    // Addresses have neither priorities nor weights, and stay as they are: in numerical order.
    found.sort_by_key(|(record, candidate)| (record.priority, candidate.target, Reverse(record.weight)));
    if backend.resolve == Resolve::First && !found.is_empty() {
        let first = found.iter().position(|(_, candidate)| candidate.aside.is_none()).unwrap_or(0);
        found = vec![found.swap_remove(first)];
    }
    let mut level = u32::from(backend.backup);
    for group in found.chunk_by_mut(|(a, _), (b, _)| a.priority == b.priority) {
        let usable = group.iter().filter(|(_, candidate)| candidate.aside.is_none());
        let Some(highest) = usable.map(|(record, _)| u32::from(record.weight)).max() else { continue };
        for (record, candidate) in group {
            candidate.level = level;
            // Weights that are all 0 say nothing. One of 0 among others has a very small chance (RFC 2782), the
            // smallest there is here.
            let part = (u32::from(record.weight) * WHOLE + highest / 2).checked_div(highest).unwrap_or(WHOLE);
            candidate.share = part.clamp(1, WHOLE);
        }
        level += 1;
    }
    found.into_iter().map(|(_, candidate)| candidate)
}

/// Where a record leads; nowhere when it has no port and needs one.
fn target(backend: &Backend, record: &Resolved) -> Option<Target> {
    let ports = match backend.host {
        BackendHost::Service(_) => TargetPorts::One(record.port.filter(|port| *port != 0)?),
        BackendHost::Address(_) | BackendHost::Name(_) => backend.ports,
    };
    Some(Target { address: record.address, ports })
}

/// What keeps an address that a resolver gave from being used; for written ones [`crate::build`] and
/// [`crate::assign`] have said the same as mistakes.
fn obstacle(rule: &Rule, target: Target, reach: Reach) -> Option<Aside<'static>> {
    if !can_be_sent_to(target.address) {
        return Some(Aside::NoDestination);
    }
    if reach.family.is_some_and(|family| family != target.family()) {
        return Some(Aside::Family(target.family()));
    }
    if target.address.is_loopback() && !reach.loopback {
        return Some(Aside::Loopback);
    }
    let itself = |scope: &Scope| match scope {
        Scope::Address(address) => *address == target.address,
        Scope::Any(family) => reach.relay && target.address.is_loopback() && *family == target.family(),
        Scope::Interface(..) => false,
    };
    let back =
        rule.listeners.iter().any(|listener| itself(&listener.scope) && target.ports.meet(listener.ports));
    back.then_some(Aside::Itself)
}

/// The rule of `config::endpoint` for written addresses.
fn can_be_sent_to(address: IpAddr) -> bool {
    let scoped =
        matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() || v6.is_unicast_link_local());
    is_one_host(address) && !scoped
}

/// Leaves each target to one candidate, and no more candidates than a pool may have.
fn set_doubles_aside(all: &mut [Candidate<'_>]) {
    if all.len() < 2 {
        return;
    }
    let mut order: Vec<usize> = (0..all.len()).filter(|nth| all[*nth].aside.is_none()).collect();
    order.sort_by_key(|nth| all[*nth].level);
    let mut owners: HashMap<Target, &BackendName> = HashMap::with_capacity(order.len());
    for nth in order {
        let candidate = &mut all[nth];
        if let Some(owner) = owners.get(&candidate.target) {
            candidate.aside = Some(Aside::Double(owner));
        } else if owners.len() == Pool::MOST_MEMBERS {
            candidate.aside = Some(Aside::TooMany);
        } else {
            owners.insert(candidate.target, &candidate.backend.name);
        }
    }
}
