//! What keeps the ebpf engine from serving a rule. It sees packets on interfaces, not sockets, and gives every flow a
//! source address of this host. Families, ranges and ports of any kind are no obstacle to it.

use std::net::IpAddr;

use super::{Obstacle, policy};
use crate::caps::Caps;
use crate::ruleset::{EbpfSettings, Listener, Rule, Scope, SourceMode};

/// Everything that keeps it from serving `rule`; empty when it can.
pub fn obstacles(rule: &Rule, settings: &EbpfSettings, caps: &Caps) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if rule.source == SourceMode::Preserve {
        found.push(Obstacle::new(
            "source = \"preserve\" leaves the client's address, and the ebpf engine puts one of this host's in its place",
        ));
    }
    if let Some(helper) = rule.helper {
        found.push(Obstacle::new(format!(
            "helper = \"{helper}\" is a conntrack helper, and conntrack does not see the ebpf engine's flows"
        )));
    }
    if rule.timeouts.is_some() {
        found.push(
            Obstacle::new("the rule sets timeouts, which are the proxy's")
                .remedy("write the clocks of all rules in [ebpf.timeouts]"),
        );
    }
    if rule.max_connections.is_some() {
        found.push(Obstacle::new("the rule sets max-connections, which needs a socket in the middle"));
    }
    found.extend(policy(&rule.pool));
    found.extend(rule.listeners.iter().find_map(|listener| unmet(listener, settings)));
    found.extend(rule.pool.targets().find_map(|target| unreached(target.address, caps)));
    if let Err(reason) = &caps.ebpf {
        found.push(Obstacle::new(format!("eBPF cannot be used here: {reason}")));
    }
    found
}

/// A listener whose packets no program meets.
fn unmet(listener: &Listener, settings: &EbpfSettings) -> Option<Obstacle> {
    match &listener.scope {
        Scope::Address(address) if address.is_loopback() => Some(Obstacle::new(format!(
            "the listener is {address}, and the ebpf engine does not serve the loopback interface"
        ))),
        Scope::Interface(name, _) if name.as_str() == "lo" => Some(Obstacle::new(
            "the listener is lo, and the ebpf engine does not serve the loopback interface",
        )),
        Scope::Interface(name, _)
            if !settings.interfaces.is_empty() && !settings.interfaces.contains(name) =>
        {
            Some(
                Obstacle::new(format!("the listener is {name}, which is not among `interfaces` of [ebpf]"))
                    .remedy(format!("add \"{name}\" to `interfaces`")),
            )
        }
        Scope::Address(_) | Scope::Any(_) | Scope::Interface(..) => None,
    }
}

/// A backend that packets do not leave for by an interface.
fn unreached(address: IpAddr, caps: &Caps) -> Option<Obstacle> {
    if address.is_loopback() {
        return Some(Obstacle::new(format!(
            "the backend is {address}, and the ebpf engine sends out of interfaces only"
        )));
    }
    caps.addresses.contains(&address).then(|| {
        Obstacle::new(format!(
            "the backend {address} is this host, and the ebpf engine sends out of interfaces only"
        ))
    })
}
