//! `portway check`: every mistake in a file at once, ports that someone else holds included.

use std::collections::BTreeMap;
use std::path::Path;

use portway_core::diagnostic::{Diagnostic, Source};
use portway_core::ruleset::EngineKind;

use super::{Failure, caps, report};
use crate::controller::Candidate;
use crate::host::ports::{self, Held, Owner};
use crate::{load, state_dir};

/// Checks a text; fails when it has errors.
pub(super) fn run(source: Source, offline: bool, json: bool, state_dir: &Path) -> Result<(), Failure> {
    let mut loaded = load::load(source, &caps(offline));
    if let Some(candidate) = &loaded.candidate
        && !offline
    {
        let daemon = state_dir::holder(state_dir);
        loaded.diagnostics.extend(held_ports(candidate, daemon));
    }
    let errors = loaded.diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = loaded.diagnostics.len() - errors;
    if json {
        let all: Vec<_> = loaded.diagnostics.iter().map(|d| d.located(&loaded.source)).collect();
        report::json(&all);
    } else {
        report::diagnostics(&loaded);
        match (errors, loaded.candidate.as_ref()) {
            (0, Some(candidate)) => {
                let rules = candidate.ruleset.rules.len();
                println!("{}: {rules} rules, no errors, {warnings} warnings", loaded.source.name());
            }
            _ => report::error(&format!("{}: {errors} errors, {warnings} warnings", loaded.source.name())),
        }
    }
    if errors > 0 { Err(Failure::Said) } else { Ok(()) }
}

/// Listeners whose port another process holds. The proxy cannot bind it; nftables would take its traffic.
fn held_ports(candidate: &Candidate, daemon: Option<u32>) -> Vec<Diagnostic> {
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
            let held = by_port.range(ports).flat_map(|(_, held)| held).filter(|held| held.collides(listener));
            collisions.extend(held.map(|held| (assigned.engine, rule, span, held)));
        }
    }
    let owners = ports::owners(collisions.iter().map(|(.., held)| *held));
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
        found.push(match engine {
            EngineKind::Proxy => {
                Diagnostic::error(span.clone(), format!("rule `{}`: the port is in use", rule.name))
                    .label(held_by)
                    .hint("stop that process, or listen on another port or address")
            }
            EngineKind::Nftables => {
                let message = format!("rule `{}` takes the traffic of a process on this host", rule.name);
                Diagnostic::warning(span.clone(), message)
                    .label(held_by)
                    .hint("new connections will reach the rule's backend, not that process")
            }
        });
    }
    found
}
