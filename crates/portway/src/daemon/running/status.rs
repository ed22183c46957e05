//! `status`: the rules, their backends and the engines, as they are now.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use portway_core::engine::EngineError;
use portway_core::facts::Facts;
use portway_core::members::{self, Meets, MemberView};
use portway_core::ruleset::{EngineKind, Rule};
use portway_core::snapshot::{EngineSnapshot, MemberCounters, RuleCounters, flows_per_second};

use super::Running;
use crate::control::{BackendStatus, FactsStatus, RuleStatus, Status};
use crate::controller::Candidate;

/// Totals of flows by rule, and when they were read.
pub(super) type Sample = (Instant, BTreeMap<String, u64>);

/// How old the totals may be from which a rate is made.
const FRESH: Range<Duration> = Duration::from_millis(200)..Duration::from_secs(10);

impl Running {
    /// What runs and how it does. A rate needs two readings some time apart; without an earlier one there is none, and
    /// whoever asks again a little later gets it. Nothing is read in the background, where ten thousand rules would cost
    /// something every second, and nothing waits here, where a backend's death would wait as well.
    pub(super) fn status(&mut self) -> Result<Status, EngineError> {
        let snapshots = self.parts.controller.observe()?;
        let totals = totals(&snapshots);
        let now = Instant::now();
        let before = self.sample.take();
        let age = before.as_ref().map(|(then, _)| now - *then);
        let rate_of = |name: &str| {
            let (_, before) = before.as_ref()?;
            let elapsed = age.filter(|age| FRESH.contains(age))?;
            let total = |totals: &BTreeMap<String, u64>| totals.get(name).copied().unwrap_or(0);
            Some(flows_per_second(total(before), total(&totals), elapsed))
        };
        let rules = self.applied().map_or_else(Vec::new, |applied| {
            let Candidate { ruleset, assignment } = &applied.candidate;
            let assigned = ruleset.rules.iter().zip(&assignment.rules);
            assigned
                .map(|(rule, assigned)| {
                    let name = rule.name.to_string();
                    let snapshot = snapshots.iter().find(|(kind, _)| *kind == assigned.engine);
                    let seen = Seen::of(&name, snapshot.map(|(_, snapshot)| snapshot));
                    let (backends, empty) = self.backends(rule, &seen);
                    let state = match (&seen.counters, empty) {
                        (None, _) => "missing",
                        (Some(_), true) => "empty",
                        (Some(_), false) => "forwarding",
                    };
                    RuleStatus {
                        flows_per_second: rate_of(&name),
                        engine: assigned.engine.to_string(),
                        reason: assigned.reason.clone(),
                        listen: rule.listeners.iter().map(ToString::to_string).collect(),
                        forward: rule.pool.to_string(),
                        balance: rule.pool.balance.to_string(),
                        backends,
                        source: rule.source.to_string(),
                        state: state.to_owned(),
                        counters: seen.counters.unwrap_or_default(),
                        name,
                    }
                })
                .collect()
        });
        // Two readings close together: the older one stays, to be of use to the next.
        self.sample = match before.filter(|_| age.is_some_and(|age| age < FRESH.start)) {
            Some(before) => Some(before),
            None => Some((now, totals)),
        };
        let concern = self.parts.controller.concern();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: self.source.name().to_owned(),
            uptime_seconds: self.parts.started.elapsed().as_secs(),
            applied_seconds: self.applied_at.elapsed().as_secs(),
            rules,
            facts: FactsStatus {
                probes: concern.probes().len() as u64,
                names: concern.lookups().len() as u64,
                ..self.facts.clone()
            },
            engines: snapshots.into_iter().map(|(kind, s)| (kind.to_string(), s.gauges)).collect(),
            warnings: self.warnings.iter().chain(&self.stuck).cloned().collect(),
        })
    }

    /// How a rule's backends stand.
    pub(super) fn backends_of(&mut self, rule: &Rule) -> Result<Vec<BackendStatus>, EngineError> {
        let snapshots = self.parts.controller.observe()?;
        let name = rule.name.as_str();
        let snapshot = snapshots.iter().find(|(_, snapshot)| snapshot.rules.contains_key(name));
        let seen = Seen::of(name, snapshot.map(|(_, snapshot)| snapshot));
        Ok(self.backends(rule, &seen).0)
    }

    /// The same from what was read, and whether none of them is live.
    fn backends(&self, rule: &Rule, seen: &Seen<'_>) -> (Vec<BackendStatus>, bool) {
        let (facts, now): (&Facts, _) = (self.parts.controller.facts(), self.now());
        let views = members::view(rule, facts, now);
        let empty = !views.iter().any(|view| view.effective > 0);
        let total: u64 = views.iter().map(|view| u64::from(view.effective)).sum();
        let backends = views.iter().map(|view| {
            let target = view.target.map(|target| target.to_string());
            let counters = seen.member(target.as_deref(), views.len());
            let live = if counters.ejected { "ejected" } else { view.state.word() };
            BackendStatus {
                name: view.backend.to_string(),
                target,
                state: live.to_owned(),
                weight: view.weight,
                share: share(view, total),
                backup: view.backup,
                reason: view.reason.clone(),
                since_seconds: view.since.map(|since| now.saturating_sub(since).as_secs()),
                live: counters.live,
                flows: counters.flows,
                failed: counters.failed,
                by: view.order.as_ref().map(|order| order.by.clone()),
                at: view.order.as_ref().map(|order| order.at),
                keep: view.order.as_ref().is_some_and(|order| order.keep),
            }
        });
        (backends.collect(), empty)
    }
}

fn share(view: &MemberView, total: u64) -> f64 {
    if total == 0 { 0.0 } else { f64::from(view.effective) * 100.0 / total as f64 }
}

/// What an engine saw of one rule.
struct Seen<'a> {
    counters: Option<RuleCounters>,
    members: Option<&'a BTreeMap<String, MemberCounters>>,
}

impl<'a> Seen<'a> {
    fn of(rule: &str, snapshot: Option<&'a EngineSnapshot>) -> Self {
        Self {
            counters: snapshot.and_then(|snapshot| snapshot.rules.get(rule)).copied(),
            members: snapshot.and_then(|snapshot| snapshot.members.get(rule)),
        }
    }

    /// The counters of one member; of an only one, the rule's.
    fn member(&self, target: Option<&str>, of: usize) -> MemberCounters {
        let own = self.members.zip(target).and_then(|(members, target)| members.get(target)).copied();
        let only = self.counters.filter(|_| of == 1 && target.is_some());
        let rules = only.map(|rule| MemberCounters {
            live: rule.live,
            flows: rule.flows,
            failed: rule.failed,
            ejected: false,
        });
        own.or(rules).unwrap_or_default()
    }
}

/// Flows begun, by rule. A rule that moved between engines counts on both.
fn totals(snapshots: &[(EngineKind, EngineSnapshot)]) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for (name, counters) in snapshots.iter().flat_map(|(_, snapshot)| &snapshot.rules) {
        *totals.entry(name.clone()).or_default() += counters.flows;
    }
    totals
}
