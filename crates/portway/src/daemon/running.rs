//! What a running daemon does when something happens: apply, reload, answer.
//!
//! Deliberately absent: where the events come from and how the daemon ends (`daemon`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use portway_core::address::Family;
use portway_core::caps::Caps;
use portway_core::compare::compare;
use portway_core::diagnostic::{Diagnostic, Source};
use portway_core::engine::Changed;
use portway_core::plan::nftables::{MARK, MARK_MASK};
use portway_core::ruleset::{EngineKind, HostSettings};
use portway_core::snapshot::{EngineSnapshot, flows_per_second};
use portway_nftables::NftablesEngine;
use portway_proxy::ProxyEngine;

use super::Failure;
use crate::cli::report;
use crate::control::{Request, Response, RuleStatus, Status};
use crate::controller::{Candidate, Controller, Report};
use crate::host::sysctl::dotted;
use crate::host::{absent, in_use};
use crate::load;

/// A daemon whose rules are applied, or about to be.
pub(super) struct Running {
    pub(super) controller: Controller<NftablesEngine, ProxyEngine>,
    caps: Caps,
    pub(super) source: Source,
    file: Option<PathBuf>,
    pub(super) warnings: Vec<String>,
    started: Instant,
    applied_at: Instant,
    sample: Option<(Instant, BTreeMap<String, u64>)>,
}

impl Running {
    /// A daemon that has applied nothing yet. `file` is read again on reload.
    pub(super) fn new(
        controller: Controller<NftablesEngine, ProxyEngine>,
        caps: Caps,
        source: Source,
        file: Option<PathBuf>,
    ) -> Self {
        let now = Instant::now();
        let warnings = Vec::new();
        Self { controller, caps, source, file, warnings, started: now, applied_at: now, sample: None }
    }

    /// Applies a candidate and notes what the operator should know of it.
    pub(super) fn apply(&mut self, candidate: Candidate) -> Result<Report, Failure> {
        let check_only = candidate.ruleset.host.settings == HostSettings::Check;
        let absent = absent::diagnose(&candidate);
        let report = self.controller.apply(candidate).map_err(|error| error.to_string())?;
        self.applied_at = Instant::now();
        self.warnings = absent.into_iter().map(|diagnostic| diagnostic.message).collect();
        if check_only {
            self.warnings.extend(report.settings.iter().map(|change| {
                format!("{} is {}, should be {}: {}", dotted(&change.key), change.from, change.to, change.why)
            }));
        }
        let forwards = self.controller.applied().is_some_and(|applied| {
            let plan = &applied.plans.nftables;
            [Family::V4, Family::V6].into_iter().any(|family| plan.needs_forwarding(family))
        });
        if forwards {
            match portway_nftables::forward_obstacles() {
                Ok(obstacles) => self.warnings.extend(obstacles.iter().map(ToString::to_string)),
                Err(error) => self.warnings.push(error.to_string()),
            }
            self.warnings.extend(legacy_iptables());
        }
        Ok(report)
    }

    /// Reads the file again and applies it; what changed, a line each.
    pub(super) fn reload(&mut self) -> Result<Vec<String>, Failure> {
        let Some(file) = &self.file else {
            return Err("rules given on the command line cannot be reloaded".to_owned());
        };
        let unchanged = |reason: String| format!("reload refused, nothing was changed: {reason}");
        let source = load::read(file).map_err(|error| unchanged(error.to_string()))?;
        let loaded = load::load(source, &self.caps);
        let Some(candidate) = loaded.candidate else {
            let mistakes = report::rendered(&loaded.source, &loaded.diagnostics, false);
            return Err(unchanged(format!("the file has mistakes\n\n{}", mistakes.trim_end())));
        };
        let changes = self.controller.applied().map_or_else(Vec::new, |applied| {
            let old = &applied.candidate;
            compare((&old.ruleset, &old.assignment), (&candidate.ruleset, &candidate.assignment))
        });
        let report = self.apply(candidate.clone()).inspect_err(|_| explain(&loaded.source, &candidate))?;
        self.source = loaded.source;
        let mut lines: Vec<_> = changes.iter().map(ToString::to_string).collect();
        if lines.is_empty() {
            lines.push("no rule changed".to_owned());
        }
        // Also where no rule changed: an engine that had to change all the same had lost something.
        let by_engine = |(engine, changed): &(EngineKind, Changed)| {
            format!("{engine}: {} added, {} removed", changed.added, changed.removed)
        };
        let worked = report.changed.iter().filter(|(_, changed)| changed.added + changed.removed > 0);
        lines.extend(worked.map(by_engine));
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        Ok(lines)
    }

    /// Answers a client of the control socket.
    pub(super) fn answer(&mut self, request: Request) -> Response {
        match request {
            Request::Status => match self.status() {
                Ok(status) => Response::Status(Box::new(status)),
                Err(error) => Response::Refused(error.to_string()),
            },
            Request::Reload => self.reload().map_or_else(Response::Refused, Response::Reloaded),
            Request::Applied => {
                Response::Applied { name: self.source.name().to_owned(), text: self.source.text().to_owned() }
            }
        }
    }

    /// A rate needs two readings: the last one is used while it is fresh, otherwise a short wait makes one.
    /// Nothing is read in the background, where ten thousand rules would cost something every second.
    fn status(&mut self) -> Result<Status, portway_core::engine::EngineError> {
        const FRESH: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_secs(10);
        let fresh = |sample: &(Instant, _)| FRESH.contains(&sample.0.elapsed());
        let (then, before) = match self.sample.take().filter(fresh) {
            Some(sample) => sample,
            None => {
                let first = (Instant::now(), totals(&self.controller.observe()?));
                thread::sleep(FRESH.start);
                first
            }
        };
        let snapshots = self.controller.observe()?;
        let (now, totals) = (Instant::now(), totals(&snapshots));
        let rules = self.controller.applied().map_or_else(Vec::new, |applied| {
            let Candidate { ruleset, assignment } = &applied.candidate;
            let assigned = ruleset.rules.iter().zip(&assignment.rules);
            let row = |(rule, assigned): (&portway_core::ruleset::Rule, &portway_core::assign::Assigned)| {
                let name = rule.name.to_string();
                let snapshot = snapshots.iter().find(|(kind, _)| *kind == assigned.engine);
                let counters = snapshot.and_then(|(_, snapshot)| snapshot.rules.get(&name)).copied();
                let total = |totals: &BTreeMap<String, u64>| totals.get(&name).copied().unwrap_or(0);
                RuleStatus {
                    flows_per_second: flows_per_second(total(&before), total(&totals), now - then),
                    engine: assigned.engine.to_string(),
                    reason: assigned.reason.clone(),
                    listen: rule.listeners.iter().map(ToString::to_string).collect(),
                    forward: rule.pool.to_string(),
                    source: rule.source.to_string(),
                    state: if counters.is_some() { "forwarding" } else { "missing" }.to_owned(),
                    counters: counters.unwrap_or_default(),
                    name,
                }
            };
            assigned.map(row).collect()
        });
        self.sample = Some((now, totals));
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: self.source.name().to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            applied_seconds: self.applied_at.elapsed().as_secs(),
            rules,
            engines: snapshots.into_iter().map(|(kind, s)| (kind.to_string(), s.gauges)).collect(),
            warnings: self.warnings.clone(),
        })
    }
}

/// Who holds the ports of a candidate that could not be applied, if that is why.
pub(super) fn explain(source: &Source, candidate: &Candidate) {
    let mistakes = in_use::diagnose(candidate, Some(std::process::id()));
    let errors: Vec<_> = mistakes.into_iter().filter(Diagnostic::is_error).collect();
    if !errors.is_empty() {
        report::log(&format!("ports in use:\n\n{}", report::rendered(source, &errors, false).trim_end()));
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

/// The legacy iptables filter table, where it is in use: nf_tables cannot see what it drops.
fn legacy_iptables() -> Option<String> {
    let in_use = |(names, command): (&str, &'static str)| {
        let names = std::fs::read_to_string(names).ok()?;
        names.lines().any(|name| name == "filter").then_some(command)
    };
    let legacy = [
        ("/proc/net/ip_tables_names", "iptables-legacy"),
        ("/proc/net/ip6_tables_names", "ip6tables-legacy"),
    ];
    let command = legacy.into_iter().find_map(in_use)?;
    Some(format!(
        "the filter table of {command} is in use and cannot be seen from here; if its FORWARD chain drops: \
         {command} -I FORWARD -m connmark --mark {MARK:#x}/{MARK_MASK:#x} -j ACCEPT"
    ))
}
