//! Assignment: each rule's engine, and the reason in words.
//!
//! Every engine names what stands in its way for a rule; `auto` takes the first engine of
//! [`EngineKind::ALL`] (the cheapest first) for which nothing does. A new engine is one more entry in
//! `obstacles`. Deliberately absent: measuring or guessing load. The order is fixed, so that the same file
//! on the same host always gives the same assignment.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::Serialize;

use crate::address::PortRange;
use crate::caps::Caps;
use crate::diagnostic::Diagnostic;
use crate::plan::proxy::MAX_PORTS_PER_RANGE;
use crate::ruleset::{EngineKind, Listener, Rule, Ruleset, Scope, SourceMode};

/// One rule's engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assigned {
    /// The engine that serves the rule.
    pub engine: EngineKind,
    /// Why this one, in words, without the engine's name in front.
    pub reason: String,
}

impl fmt::Display for Assigned {
    /// `nftables: cheapest engine here, …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.engine, self.reason)
    }
}

/// Every rule's engine, in the order of [`Ruleset::rules`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Assignment {
    /// One per rule.
    pub rules: Vec<Assigned>,
}

/// Something that keeps an engine from serving a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Obstacle {
    /// What it is, as a clause: "NAT cannot translate between families".
    why: String,
    /// What the user can do about it.
    remedy: Option<String>,
}

impl Obstacle {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: None }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Gives each rule the cheapest engine that can do all it asks for, or the one it pins.
///
/// # Errors
/// One diagnostic per rule that no engine can serve, or whose pinned engine cannot; each names everything
/// that stands in the way.
pub fn assign(ruleset: &Ruleset, caps: &Caps) -> Result<Assignment, Vec<Diagnostic>> {
    let mut rules = Vec::with_capacity(ruleset.rules.len());
    let mut mistakes = Vec::new();
    for rule in &ruleset.rules {
        match assign_rule(rule, caps) {
            Ok(assigned) => rules.push(assigned),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(Assignment { rules }) } else { Err(mistakes) }
}

fn assign_rule(rule: &Rule, caps: &Caps) -> Result<Assigned, Diagnostic> {
    if let Some(engine) = rule.engine {
        let obstacles = obstacles(engine, rule, caps);
        if obstacles.is_empty() {
            return Ok(Assigned { engine, reason: "the rule asks for it".to_owned() });
        }
        let span = rule.origin.engine.clone().unwrap_or_else(|| rule.origin.rule.clone());
        let able = EngineKind::ALL.into_iter().find(|other| self::obstacles(*other, rule, caps).is_empty());
        let hint = match able {
            Some(able) => {
                Some(format!("the {able} engine can serve it: write engine = \"{able}\", or leave it out"))
            }
            None => remedy(&obstacles),
        };
        return Err(Diagnostic::error(
            span,
            format!("rule {}: the {engine} engine cannot serve it: {}", rule.name, clauses(&obstacles)),
        )
        .label("pinned here")
        .maybe_hint(hint));
    }
    let mut passed: Vec<(EngineKind, Vec<Obstacle>)> = Vec::new();
    for engine in EngineKind::ALL {
        let obstacles = obstacles(engine, rule, caps);
        if obstacles.is_empty() {
            let reason = match passed.as_slice() {
                [] => format!("cheapest engine here, and the rule asks for nothing that {}", beyond(engine)),
                passed => {
                    passed.iter().map(|(_, obstacles)| clauses(obstacles)).collect::<Vec<_>>().join("; ")
                }
            };
            return Ok(Assigned { engine, reason });
        }
        passed.push((engine, obstacles));
    }
    let per_engine: Vec<_> =
        passed.iter().map(|(engine, obstacles)| format!("{engine}: {}", clauses(obstacles))).collect();
    let remedies: Vec<String> = passed
        .iter()
        .filter_map(|(engine, obstacles)| Some(format!("for {engine}, {}", remedy(obstacles)?)))
        .collect();
    Err(Diagnostic::error(
        rule.origin.rule.clone(),
        format!("rule {}: no engine here can serve it ({})", rule.name, per_engine.join("; ")),
    )
    .maybe_hint((!remedies.is_empty()).then(|| remedies.join("; "))))
}

/// What would take a rule away from an engine that is chosen first.
fn beyond(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Nftables => "needs a socket",
        EngineKind::Proxy => "needs the kernel",
    }
}

fn clauses(obstacles: &[Obstacle]) -> String {
    obstacles.iter().map(|obstacle| obstacle.why.as_str()).collect::<Vec<_>>().join("; ")
}

/// What would remove all of the obstacles, where each can be removed.
fn remedy(obstacles: &[Obstacle]) -> Option<String> {
    let all: Option<Vec<&str>> = obstacles.iter().map(|obstacle| obstacle.remedy.as_deref()).collect();
    all.map(|remedies| remedies.join(", and "))
}

/// Everything that keeps `engine` from serving `rule` on a host with `caps`; empty when it can.
fn obstacles(engine: EngineKind, rule: &Rule, caps: &Caps) -> Vec<Obstacle> {
    match engine {
        EngineKind::Nftables => nftables(rule, caps),
        EngineKind::Proxy => proxy(rule, caps),
    }
}

fn nftables(rule: &Rule, caps: &Caps) -> Vec<Obstacle> {
    const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut found = Vec::new();
    let crossing = rule.pool.targets().find_map(|target| {
        let crosses = |listener: &&Listener| listener.scope.family() != target.family();
        rule.listeners.iter().find(crosses).map(|listener| (listener.scope.family(), target.family()))
    });
    if let Some((listener, backend)) = crossing {
        found.push(Obstacle::new(format!(
            "{listener} listener to an {backend} backend, and NAT cannot translate between families"
        )));
    }
    // RFC 4291 2.5.3; the kernel drops a packet to ::1 that came over another interface (ip6_rcv_core), and
    // IPv6 has no counterpart of route_localnet.
    if rule.pool.targets().any(|target| target.address == LOOPBACK6) {
        found.push(Obstacle::new("the backend is [::1], which the kernel delivers only to local senders"));
    }
    if rule.listeners.iter().any(|listener| listener.scope == Scope::Address(LOOPBACK6)) {
        found.push(Obstacle::new("the listener is [::1], whose traffic the kernel does not route elsewhere"));
    }
    if rule.timeouts.is_some() {
        found.push(Obstacle::new("the rule sets timeouts, which need a socket in the middle"));
    }
    if rule.max_connections.is_some() {
        found.push(Obstacle::new("the rule sets max-connections, which needs a socket in the middle"));
    }
    match &caps.nftables {
        Err(reason) => found.push(Obstacle::new(format!("nf_tables cannot be used here: {reason}"))),
        Ok(offered) => {
            if let Some(helper) = rule.helper.filter(|helper| !offered.helpers.contains(helper)) {
                found.push(
                    Obstacle::new(format!("this kernel has no conntrack helper for {helper}"))
                        .remedy(format!("load it (modprobe nf_nat_{helper})")),
                );
            }
        }
    }
    found
}

fn proxy(rule: &Rule, caps: &Caps) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if rule.source == SourceMode::Preserve {
        found.push(Obstacle::new("source = \"preserve\" needs NAT, a relay's connections are its own"));
    }
    if let Some(helper) = rule.helper {
        found.push(Obstacle::new(format!(
            "helper = \"{helper}\" is a conntrack helper, which a relay has not"
        )));
    }
    let largest: Option<PortRange> =
        rule.listeners.iter().map(|listener| listener.ports).max_by_key(|ports| ports.count());
    if let Some(ports) = largest.filter(|ports| ports.count() > MAX_PORTS_PER_RANGE) {
        found.push(Obstacle::new(format!(
            "{} ports are one socket each, and the proxy takes at most {MAX_PORTS_PER_RANGE} in a listener",
            ports.count()
        )));
    }
    let lowest = rule.listeners.iter().map(|listener| listener.ports.first()).min();
    if let Some(port) = lowest.filter(|port| *port < caps.first_port) {
        found.push(
            Obstacle::new(format!("port {port} needs privileges (CAP_NET_BIND_SERVICE)"))
                .remedy(format!("run as root or listen on port {} or higher", caps.first_port)),
        );
    }
    let itself = |listener: &&Listener| {
        rule.pool.targets().any(|target| {
            target.address.is_loopback()
                && listener.scope == Scope::Any(target.family())
                && target.ports.meet(listener.ports)
        })
    };
    if let Some(listener) = rule.listeners.iter().find(itself) {
        found.push(
            Obstacle::new(format!(
                "{listener} answers for the backend as well, so a relay would call itself"
            ))
            .remedy("listen on the one address that clients use, or on another port"),
        );
    }
    found
}
