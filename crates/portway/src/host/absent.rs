//! Addresses and interfaces that the rules name and this host does not have. Warnings, not errors: an address
//! may be routed here, moved here by a failover, or come up later.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};

use portway_core::diagnostic::Diagnostic;
use portway_core::ruleset::{Scope, SourceMode};

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
    found
}

fn interface_is_here(name: &str) -> bool {
    // Any socket will do; where none can be made, nothing is known and nothing is said.
    UdpSocket::bind(("127.0.0.1", 0))
        .or_else(|_| UdpSocket::bind(("::1", 0)))
        .map_or(true, |socket| rustix::net::netdevice::name_to_index(&socket, name).is_ok())
}
