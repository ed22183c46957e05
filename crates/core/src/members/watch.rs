//! What must be watched: the probes and lookups of the rules, and which rules each concerns.
//!
//! Deliberately absent: when they are due ([`crate::health`], [`crate::names`]) and doing them (the `portway-watch`
//! crate).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Reach;
use super::candidate::candidates;
use crate::address::Family;
use crate::facts::{Facts, Lookup, Probe};
use crate::ruleset::{Backend, BackendHost, Check, CheckKind, Rule, SourceMode, Target, Tls};

/// What is asked of a resolver for a backend.
pub(super) fn lookup(backend: &Backend) -> Option<Lookup> {
    match &backend.host {
        BackendHost::Address(_) => None,
        BackendHost::Name(name) => Some(Lookup::Addresses(name.to_string())),
        BackendHost::Service(name) => Some(Lookup::Service(name.to_string())),
    }
}

/// Whether a name of the pool was never answered.
pub(super) fn awaits_an_answer(rule: &Rule, facts: &Facts) -> bool {
    rule.pool.backends.iter().filter_map(lookup).any(|lookup| !facts.names.contains_key(&lookup))
}

/// Everything that must be resolved, and the rules (by their place) that each lookup concerns.
pub fn lookups<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> BTreeMap<Lookup, Vec<usize>> {
    let mut all = BTreeMap::new();
    for (nth, rule) in rules.into_iter().enumerate() {
        note(&mut all, nth, rule.pool.backends.iter().filter_map(lookup));
    }
    all
}

/// Everything that must be checked, and the rules (by their place) that each probe concerns: every address of every
/// pool with a check, those of names as they are resolved now, whatever the operator has said of it.
pub fn probes<'a>(
    rules: impl IntoIterator<Item = (&'a Rule, Reach)>,
    facts: &Facts,
) -> BTreeMap<Probe, Vec<usize>> {
    let mut all = BTreeMap::new();
    for (nth, (rule, reach)) in
        rules.into_iter().enumerate().filter(|(_, (rule, _))| rule.pool.check.is_some())
    {
        let candidates = candidates(rule, facts, reach);
        let used = candidates.iter().filter(|candidate| candidate.aside.is_none());
        note(&mut all, nth, used.filter_map(|candidate| probe(rule, candidate.backend, candidate.target)));
    }
    all
}

fn note<K: Ord>(all: &mut BTreeMap<K, Vec<usize>>, rule: usize, keys: impl Iterator<Item = K>) {
    for key in keys {
        let rules = all.entry(key).or_default();
        if rules.last() != Some(&rule) {
            rules.push(rule);
        }
    }
}

/// The probe that decides on `target`, an address of `backend`, where the rule has a check. Of a range of ports the one
/// that the first port of the rule's first listener leads to is checked, where the check names none.
pub fn probe(rule: &Rule, backend: &Backend, target: Target) -> Option<Probe> {
    let check = rule.pool.check.as_ref()?;
    let ports = rule.listeners.first()?.ports;
    let port = check.port.unwrap_or_else(|| target.ports.of(ports, ports.first()));
    let address = check.address.unwrap_or(target.address);
    let host = match &backend.host {
        BackendHost::Name(name) if speaks_of_the_host(&check.kind) => Some(name.clone()),
        // The name of a service is no host's.
        _ => None,
    };
    Some(Probe { address: SocketAddr::new(address, port), check: with_source(check, rule, address), host })
}

/// Whether a check says the backend's name; others of one address are one check, whatever names lead there.
fn speaks_of_the_host(kind: &CheckKind) -> bool {
    let asks_for = |tls: &Tls| tls.server_name.is_none();
    match kind {
        CheckKind::Http { tls, host, .. } => host.is_none() || tls.as_ref().is_some_and(asks_for),
        CheckKind::Tls(tls) => asks_for(tls),
        _ => false,
    }
}

/// The check with the address that it is made from: its own, else the first that flows to the backend come from,
/// where there is one of the family.
fn with_source(check: &Arc<Check>, rule: &Rule, to: IpAddr) -> Arc<Check> {
    let fits = |source: &IpAddr| Family::of(*source) == Family::of(to);
    let pool: &[IpAddr] = match &rule.source {
        SourceMode::Snat(pool) => pool,
        SourceMode::Masquerade | SourceMode::Preserve => &[],
    };
    let source = check.source.filter(fits).or_else(|| pool.iter().copied().find(fits));
    if source == check.source { Arc::clone(check) } else { Arc::new(Check { source, ..(**check).clone() }) }
}
