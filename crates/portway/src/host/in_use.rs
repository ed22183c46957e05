//! What it means that someone else holds a listener's port: a mistake in the file's terms, with a place.

use std::collections::{BTreeMap, BTreeSet};

use portway_core::diagnostic::Diagnostic;
use portway_core::ruleset::EngineKind;

use super::ports::{self, Held, Owner};
use crate::controller::Candidate;

/// Listeners whose port another process holds. The proxy cannot bind it; nftables and ebpf would take its
/// traffic.
/// `daemon` is our own process, whose sockets are no mistake.
pub fn diagnose(candidate: &Candidate, daemon: Option<u32>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut by_port: BTreeMap<u16, Vec<Held>> = BTreeMap::new();
    for held in ports::held() {
        by_port.entry(held.address.port()).or_default().push(held);
    }
    let assigned = candidate.ruleset.rules.iter().zip(&candidate.assignment.rules);
    let mut collisions = Vec::new();
    for (rule, assigned) in assigned {
        for (listener, span) in rule.listeners.iter().zip(&rule.origin.listeners) {
            let ports = listener.ports.first()..=listener.ports.last();
            // The backend itself, on this host behind an any listener, is where the traffic shall go.
            let backend = |held: &Held| {
                let port = held.address.port();
                rule.pool.targets().any(|target| held.address == target.socket(listener.ports, port))
            };
            let held = by_port.range(ports).flat_map(|(_, held)| held);
            let held = held.filter(|held| held.collides(listener) && !backend(held));
            collisions.extend(held.map(|held| (assigned.engine, rule, span, held)));
        }
    }
    let owners = ports::owners(collisions.iter().map(|(.., held)| *held));
    // A server with a socket for each of its threads is one server.
    let mut told = BTreeSet::new();
    for (engine, rule, span, held) in collisions {
        let owner = owners.get(&held.inode());
        if owner.is_some_and(|owner| u32::try_from(owner.pid).ok() == daemon) {
            continue;
        }
        let who = owner.map_or_else(
            || "another process (run as root to see which)".to_owned(),
            |Owner { pid, name }| format!("{name} (pid {pid})"),
        );
        let held_by = format!("{} is held by {who}", ports::shown(held));
        if !told.insert((span.start, held_by.clone())) {
            continue;
        }
        found.push(match engine {
            EngineKind::Proxy => {
                Diagnostic::error(span.clone(), format!("rule `{}`: the port is in use", rule.name))
                    .label(held_by)
                    .hint("stop that process, or listen on another port or address")
            }
            EngineKind::Nftables | EngineKind::Ebpf => {
                let message = format!("rule `{}` takes the traffic of a process on this host", rule.name);
                Diagnostic::warning(span.clone(), message)
                    .label(held_by)
                    .hint("new connections will reach the rule's backend, not that process")
            }
        });
    }
    found
}
