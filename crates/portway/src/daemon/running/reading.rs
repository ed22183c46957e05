//! Reading: the rules, their backends, the engines and the flows as they are now, for `status` and its kin.
//!
//! With ten thousand rules this takes its time, and nothing that the daemon does may wait for it. So a reading holds
//! all that it needs and goes on a thread of its own. A rate needs two readings some time apart; without an earlier one
//! there is none, and whoever asks again a little later gets it. Nothing is read in the background.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portway_core::engine::EngineError;
use portway_core::facts::{Facts, Lookup, Moment};
use portway_core::flow::{FlowFilter, Flows};
use portway_core::members::{self, MemberState, MemberView};
use portway_core::ruleset::{EngineKind, Target, WhenEmpty};
use portway_core::snapshot::{self, EngineSnapshot, MemberCounters, RuleCounters, flows_per_second};

use portway_watch::Report;

use super::Running;
use crate::control::{BackendStatus, FactsStatus, NameStatus, RuleStatus, Status};
use crate::controller::{Candidate, Observers};

/// Totals of flows by rule, and when they were read.
pub(super) type Sample = (Instant, BTreeMap<String, u64>);

/// How old the totals may be from which a rate is made.
const FRESH: Range<Duration> = Duration::from_millis(200)..Duration::from_secs(10);

/// All that is needed to read.
pub(super) struct Reading {
    observers: Observers,
    candidate: Option<Arc<Candidate>>,
    facts: Arc<Facts>,
    now: Moment,
    /// What is known without reading.
    known: Status,
    /// What the watchers have done.
    report: Box<dyn FnOnce() -> Report + Send>,
    /// The last totals, left for the next reading.
    sample: Arc<Mutex<Option<Sample>>>,
}

impl Running {
    /// A reading of what is now, of all engines or of one.
    pub(super) fn reading(&mut self, only: Option<EngineKind>) -> Result<Reading, EngineError> {
        let observers = self.parts.controller.observers(only)?;
        let (probes, names) = self.parts.controller.concern().counts();
        let known = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: self.source.name().to_owned(),
            uptime_seconds: self.parts.started.elapsed().as_secs(),
            applied_seconds: self.applied_at.elapsed().as_secs(),
            rules: Vec::new(),
            names: Vec::new(),
            facts: FactsStatus { probes: probes as u64, names: names as u64, ..self.facts.clone() },
            engines: BTreeMap::new(),
            flow_table: None,
            source_ports: Vec::new(),
            warnings: self
                .warnings
                .iter()
                .chain(&self.stuck)
                .cloned()
                .chain(self.parts.controller.notes())
                .collect(),
        };
        Ok(Reading {
            observers,
            candidate: self.applied().map(|applied| Arc::clone(&applied.candidate)),
            facts: Arc::clone(self.parts.controller.facts()),
            now: self.now(),
            known,
            report: Box::new(self.parts.watch.reporter()),
            sample: Arc::clone(&self.sample),
        })
    }
}

impl Reading {
    /// What runs and how it does.
    pub(super) fn status(mut self) -> Result<Status, EngineError> {
        let snapshots = self.observe()?;
        let totals = totals(&snapshots);
        let now = Instant::now();
        let before = self.sample.lock().unwrap_or_else(PoisonError::into_inner).take();
        let age = before.as_ref().map(|(then, _)| now - *then);
        let rate_of = |name: &str| {
            let (_, before) = before.as_ref()?;
            let elapsed = age.filter(|age| FRESH.contains(age))?;
            let total = |totals: &BTreeMap<String, u64>| totals.get(name).copied().unwrap_or(0);
            Some(flows_per_second(total(before), total(&totals), elapsed))
        };
        let assigned = self.candidate.iter().flat_map(|candidate| &candidate.assignment.rules);
        let rows = assigned.enumerate().map(|(nth, assigned)| {
            let seen = Seen::of(self.name(nth), assigned.engine, &snapshots);
            let mut row = self.row(nth, &seen);
            row.flows_per_second = rate_of(&row.name);
            row
        });
        let rules = rows.collect();
        // Two readings close together: the older one stays, to be of use to the next.
        let sample = match before.filter(|_| age.is_some_and(|age| age < FRESH.start)) {
            Some(before) => before,
            None => (now, totals),
        };
        self.sample.lock().unwrap_or_else(PoisonError::into_inner).replace(sample);
        let nearly_full: Vec<String> = snapshots
            .iter()
            .flat_map(|(kind, snapshot)| snapshot::warnings(&kind.to_string(), snapshot))
            .collect();
        let flow_table = snapshots.iter().find_map(|(_, snapshot)| snapshot.table);
        let source_ports = snapshots.iter().flat_map(|(_, s)| s.source_ports.iter().copied()).collect();
        let engines = snapshots.into_iter().map(|(kind, s)| (kind.to_string(), s.gauges)).collect();
        let report = (self.report)();
        let names = names(&self.facts, &report);
        let Status { mut facts, mut warnings, .. } = self.known;
        facts.checks_not_made = report.probes.values().filter(|probe| probe.passed.is_none()).count() as u64;
        if facts.checks_not_made > 0 {
            warnings.push(format!(
                "{} checks could not be made, for want of descriptors or memory here",
                facts.checks_not_made
            ));
        }
        warnings.extend(names.iter().filter_map(|name| {
            let error = name.error.as_ref()?;
            let kept = if name.addresses.is_empty() { "" } else { "; its last answer is kept" };
            Some(format!("{} is not resolved: {error}{kept}", name.name))
        }));
        warnings.extend(nearly_full);
        Ok(Status { rules, engines, names, facts, flow_table, source_ports, warnings, ..self.known })
    }

    /// How the backends of the nth rule stand.
    pub(super) fn backends(mut self, nth: usize) -> Result<Vec<BackendStatus>, EngineError> {
        let snapshots = self.observe()?;
        let Some(candidate) = &self.candidate else { return Ok(Vec::new()) };
        let engine = candidate.assignment.rules[nth].engine;
        Ok(self.row(nth, &Seen::of(self.name(nth), engine, &snapshots)).backends)
    }

    /// Live flows that `filter` means, at most `most` of them.
    pub(super) fn flows(mut self, filter: &FlowFilter, most: usize) -> Result<Flows, EngineError> {
        let mut all = Flows::default();
        for (_, observer) in &mut self.observers {
            let more = observer.flows(filter, most.saturating_sub(all.flows.len()))?;
            all.flows.extend(more.flows);
            all.total += more.total;
        }
        Ok(all)
    }

    fn observe(&mut self) -> Result<Vec<(EngineKind, EngineSnapshot)>, EngineError> {
        self.observers.iter_mut().map(|(kind, observer)| Ok((*kind, observer.observe()?))).collect()
    }

    fn name(&self, nth: usize) -> &str {
        self.candidate.as_ref().map_or("", |candidate| candidate.ruleset.rules[nth].name.as_str())
    }

    /// The nth rule, without its rate. Callers have taken `nth` from the candidate.
    fn row(&self, nth: usize, seen: &Seen<'_>) -> RuleStatus {
        let candidate = self.candidate.as_ref().expect("invariant: a rule is a candidate's");
        let (rule, reach) = candidate.rule(nth);
        let assigned = &candidate.assignment.rules[nth];
        let views = members::view(rule, &self.facts, self.now, reach);
        let total: f64 = views.iter().map(|view| view.effective).sum();
        let sorry = match rule.pool.when_empty {
            WhenEmpty::Sorry(target) => Some(target),
            WhenEmpty::Refuse | WhenEmpty::Drop => None,
        };
        let mut backends: Vec<_> =
            views.iter().map(|view| self.backend(view, total, views.len(), seen)).collect();
        backends.extend(sorry.map(|target| sorry_row(target, total <= 0.0, seen)));
        let state = match &seen.counters {
            None => "missing",
            Some(_) if total <= 0.0 && sorry.is_some() => "sorry",
            Some(_) if total <= 0.0 => "empty",
            Some(_) => "forwarding",
        };
        RuleStatus {
            name: rule.name.to_string(),
            flows_per_second: None,
            engine: assigned.engine.to_string(),
            reason: assigned.reason.clone(),
            listen: rule.listeners.iter().map(ToString::to_string).collect(),
            forward: rule.pool.to_string(),
            balance: rule.pool.balance.to_string(),
            backends,
            source: rule.source.to_string(),
            state: state.to_owned(),
            drops: seen.drops.cloned().unwrap_or_default(),
            counters: seen.counters.unwrap_or_default(),
        }
    }

    fn backend(&self, view: &MemberView, total: f64, of: usize, seen: &Seen<'_>) -> BackendStatus {
        let counters = seen.member(view.target.as_deref(), of);
        let ejected = counters.ejected && view.state == MemberState::Up;
        BackendStatus {
            name: view.backend.clone(),
            target: view.target.clone(),
            state: if ejected { "ejected".to_owned() } else { view.state.to_string() },
            weight: view.weight,
            share: if total > 0.0 { view.effective * 100.0 / total } else { 0.0 },
            backup: view.backup,
            reason: view.reason.clone(),
            since_seconds: view.since.map(|since| self.now.saturating_sub(since).as_secs()),
            counters,
            by: view.order.as_ref().map(|order| order.by.clone()),
            at: view.order.as_ref().map(|order| order.at),
            keep: view.order.as_ref().is_some_and(|order| order.keep),
        }
    }
}

/// The backend that says sorry. It is not checked, and not part of the pool.
fn sorry_row(target: Target, serves: bool, seen: &Seen<'_>) -> BackendStatus {
    let target = target.to_string();
    BackendStatus {
        name: "sorry".to_owned(),
        state: if serves { MemberState::Up } else { MemberState::Standby }.to_string(),
        weight: 1,
        share: if serves { 100.0 } else { 0.0 },
        backup: true,
        reason: if serves { "no backend is live" } else { "" }.to_owned(),
        since_seconds: None,
        counters: seen.member(Some(&target), 0),
        by: None,
        at: None,
        keep: false,
        target: Some(target),
    }
}

/// The names and what became of asking for them.
fn names(facts: &Facts, report: &Report) -> Vec<NameStatus> {
    let now = Instant::now();
    let all: BTreeSet<&Lookup> = facts.names.keys().chain(report.lookups.keys()).collect();
    let status = |lookup: &Lookup| {
        let asked = report.lookups.get(lookup);
        NameStatus {
            name: lookup.to_string(),
            addresses: facts.names.get(lookup).into_iter().flatten().map(ToString::to_string).collect(),
            asked: asked.map_or(0, |report| report.asked),
            error: asked.and_then(|report| report.error.clone()),
            next_seconds: asked.map(|report| report.left(now).as_secs()),
        }
    };
    all.into_iter().map(status).collect()
}

/// What an engine saw of one rule.
struct Seen<'a> {
    counters: Option<RuleCounters>,
    members: Option<&'a BTreeMap<String, MemberCounters>>,
    drops: Option<&'a BTreeMap<String, u64>>,
}

impl<'a> Seen<'a> {
    fn of(rule: &str, engine: EngineKind, snapshots: &'a [(EngineKind, EngineSnapshot)]) -> Self {
        let snapshot = snapshots.iter().find(|(kind, _)| *kind == engine).map(|(_, snapshot)| snapshot);
        Self {
            counters: snapshot.and_then(|snapshot| snapshot.rules.get(rule)).copied(),
            members: snapshot.and_then(|snapshot| snapshot.members.get(rule)),
            drops: snapshot.and_then(|snapshot| snapshot.drops.get(rule)),
        }
    }

    /// The counters of one member; of an only one, the rule's.
    fn member(&self, target: Option<&str>, of: usize) -> MemberCounters {
        if let Some(own) = self.members.zip(target).and_then(|(members, target)| members.get(target)) {
            return own.clone();
        }
        let only = self.counters.filter(|_| of == 1 && target.is_some());
        only.map_or_else(MemberCounters::default, |rule| MemberCounters {
            live: rule.live,
            flows: rule.flows,
            packets_in: rule.packets_in,
            packets_out: rule.packets_out,
            bytes_in: Some(rule.bytes_in),
            bytes_out: Some(rule.bytes_out),
            failed: rule.failed,
            ejected: false,
            drops: self.drops.cloned().unwrap_or_default(),
        })
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
