//! Addresses and interfaces that the rules name and this host does not have. Warnings, not errors: an address
//! may be routed here, moved here by a failover, or come up later.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};

use portway_core::diagnostic::Diagnostic;
use portway_core::ruleset::{EngineKind, Scope, SourceMode};

use crate::controller::Candidate;

/// What the rules name and the host has not, each at its place.
pub fn diagnose(candidate: &Candidate) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut known = BTreeMap::new();
    // The kernel lets a socket bind to the addresses that it has, and tells with one call.
    let mut here =
        |address: IpAddr| *known.entry(address).or_insert_with(|| UdpSocket::bind((address, 0)).is_ok());
    for rule in &candidate.ruleset.rules {
        for (listener, span) in rule.listeners.iter().zip(&rule.origin.listeners) {
            let absent = match &listener.scope {
                Scope::Address(address) if !here(*address) => format!("address {address}"),
                Scope::Interface(name, _) if !interface_is_here(name.as_str()) => format!("interface {name}"),
                _ => continue,
            };
            let message = format!("rule `{}` listens on {absent}, which this host does not have", rule.name);
            found.push(Diagnostic::warning(span.clone(), message).label("not here now"));
        }
        if let SourceMode::Snat(pool) = &rule.source {
            for address in pool.iter().filter(|address| !here(**address)) {
                let message =
                    format!("rule `{}` sends from {address}, which this host does not have", rule.name);
                found.push(
                    Diagnostic::warning(rule.origin.rule.clone(), message)
                        .hint("replies come back only if that address is this host's or is routed to it"),
                );
            }
        }
    }
    found.extend(not_served(candidate));
    found
}

/// Interfaces that the file lists for the ebpf engine, told at the first rule that it serves.
fn not_served(candidate: &Candidate) -> Vec<Diagnostic> {
    let Candidate { ruleset, assignment } = candidate;
    let mut assigned = ruleset.rules.iter().zip(&assignment.rules);
    let Some((rule, _)) = assigned.find(|(_, assigned)| assigned.engine == EngineKind::Ebpf) else {
        return Vec::new();
    };
    let absent = ruleset.ebpf.interfaces.iter().filter(|name| !interface_is_here(name.as_str()));
    let said = absent.map(|name| {
        let message = format!("`interfaces` of [ebpf] lists {name}, which this host does not have");
        Diagnostic::warning(rule.origin.rule.clone(), message)
            .label("served there only")
            .hint("it is served when it comes; `portway probe` lists those that are here")
    });
    said.collect()
}

fn interface_is_here(name: &str) -> bool {
    // Any socket will do; where none can be made, nothing is known and nothing is said.
    UdpSocket::bind(("127.0.0.1", 0))
        .or_else(|_| UdpSocket::bind(("::1", 0)))
        .map_or(true, |socket| rustix::net::netdevice::name_to_index(&socket, name).is_ok())
}
