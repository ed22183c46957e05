//! Assignment: each rule's engine, and the reason in words.
//!
//! Every engine names what stands in its way for a rule (`obstacle`); `auto` takes the first engine of
//! [`EngineKind::ALL`] (the cheapest first) for which nothing does, and passes by `ebpf` unless the rule asks for
//! something that no other has: it does not serve clients on this host itself, and a rule must not lose them because a
//! key was added elsewhere in the file. Deliberately absent: measuring or guessing load. The order is fixed, so that the
//! same file on the same host always gives the same assignment.

mod obstacle;

use std::fmt;

use serde::Serialize;

use crate::caps::Caps;
use crate::diagnostic::Diagnostic;
use crate::ruleset::{EbpfSettings, EngineKind, Rule, Ruleset};
use obstacle::{Obstacle, obstacles};

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

/// Gives each rule the cheapest engine that can do all it asks for, or the one it pins.
///
/// # Errors
/// One diagnostic per rule that no engine can serve, or whose pinned engine cannot; each names everything
/// that stands in the way.
pub fn assign(ruleset: &Ruleset, caps: &Caps) -> Result<Assignment, Vec<Diagnostic>> {
    let mut rules = Vec::with_capacity(ruleset.rules.len());
    let mut mistakes = Vec::new();
    for rule in &ruleset.rules {
        match assign_rule(rule, &ruleset.ebpf, caps) {
            Ok(assigned) => rules.push(assigned),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(Assignment { rules }) } else { Err(mistakes) }
}

/// What works, and will yet surprise whoever runs it here.
pub fn warnings(ruleset: &Ruleset, assignment: &Assignment, caps: &Caps) -> Vec<Diagnostic> {
    let mut assigned = ruleset.rules.iter().zip(&assignment.rules);
    let (taken, own) = (ruleset.ebpf.source_ports, caps.ephemeral_ports);
    let takes_all = taken.first() <= own.first() && own.last() <= taken.last();
    let first = assigned.find(|(_, assigned)| assigned.engine == EngineKind::Ebpf).filter(|_| takes_all);
    let warning = first.map(|(rule, _)| {
        Diagnostic::warning(
            rule.origin.engine.clone().unwrap_or_else(|| rule.origin.rule.clone()),
            format!(
                "source-ports = \"{taken}\" of [ebpf] leaves this host no port for connections of its own, which the \
                 kernel takes from {own} (net.ipv4.ip_local_port_range)"
            ),
        )
        .label("the first rule of the engine")
        .hint("leave out a part of these ports, or widen the kernel's range")
    });
    warning.into_iter().collect()
}

/// The engines that `auto` tries for a rule, in order.
fn by_itself(rule: &Rule) -> impl Iterator<Item = EngineKind> {
    let asks = rule.client_address.is_some() || rule.syn_cookies.is_some() || rule.new_flow_rate.is_some();
    EngineKind::ALL.into_iter().filter(move |engine| *engine != EngineKind::Ebpf || asks)
}

fn assign_rule(rule: &Rule, settings: &EbpfSettings, caps: &Caps) -> Result<Assigned, Diagnostic> {
    let obstacles = |engine| obstacles(engine, rule, settings, caps);
    if let Some(engine) = rule.engine {
        let obstacles_here = obstacles(engine);
        if obstacles_here.is_empty() {
            return Ok(Assigned { engine, reason: "the rule asks for it".to_owned() });
        }
        let span = rule.origin.engine.clone().unwrap_or_else(|| rule.origin.rule.clone());
        let able = |engine: &EngineKind| obstacles(*engine).is_empty();
        let hint = match (by_itself(rule).find(able), able(&EngineKind::Ebpf)) {
            (Some(able), _) => {
                Some(format!("the {able} engine can serve it: write engine = \"{able}\", or leave it out"))
            }
            (None, true) => Some(EBPF_CAN.to_owned()),
            (None, false) => remedy(&obstacles_here),
        };
        return Err(Diagnostic::error(
            span,
            format!("rule {}: the {engine} engine cannot serve it: {}", rule.name, clauses(&obstacles_here)),
        )
        .label("pinned here")
        .maybe_hint(hint));
    }
    let mut passed: Vec<(EngineKind, Vec<Obstacle>)> = Vec::new();
    for engine in by_itself(rule) {
        let obstacles = obstacles(engine);
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
    let ebpf = passed.iter().all(|(engine, _)| *engine != EngineKind::Ebpf)
        && obstacles(EngineKind::Ebpf).is_empty();
    let mut remedies: Vec<String> = passed
        .iter()
        .filter_map(|(engine, obstacles)| Some(format!("for {engine}, {}", remedy(obstacles)?)))
        .collect();
    if ebpf {
        remedies.insert(0, EBPF_CAN.to_owned());
    }
    Err(Diagnostic::error(
        rule.origin.rule.clone(),
        format!("rule {}: no engine here can serve it ({})", rule.name, per_engine.join("; ")),
    )
    .maybe_hint((!remedies.is_empty()).then(|| remedies.join("; "))))
}

/// What is said where `auto` has passed by the engine that could.
const EBPF_CAN: &str =
    "the ebpf engine can serve it, except to clients on this host itself: write engine = \"ebpf\"";

/// What would take a rule away from an engine that is chosen first.
fn beyond(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Nftables | EngineKind::Ebpf => "needs a socket",
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
