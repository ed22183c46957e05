//! What a running daemon does when something happens: apply, reload, learn, answer.
//!
//! Deliberately absent: where the events come from and how the daemon ends (`daemon`).

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portway_core::address::Family;
use portway_core::caps::Caps;
use portway_core::compare::compare;
use portway_core::diagnostic::{Diagnostic, Source};
use portway_core::engine::{Changed, EngineError};
use portway_core::facts::Moment;
use portway_core::flow::FlowFilter;
use portway_core::plan::nftables::{MARK, MARK_MASK};
use portway_core::ruleset::{EngineKind, HostSettings};
use portway_ebpf::EbpfEngine;
use portway_nftables::NftablesEngine;
use portway_proxy::ProxyEngine;
use portway_watch::Watch;

use super::Failure;
use crate::cli::report;
use crate::control::server::Asked;
use crate::control::{FactsStatus, Request, Response};
use crate::controller::{Applied, Candidate, Controller, News, Report};
use crate::host::sysctl::dotted;
use crate::host::{absent, in_use};
use crate::load;
use crate::news::Waiting;
use crate::remembered::Remembered;

mod orders;
mod reading;

/// The most flows that one answer lists.
const MOST_FLOWS: usize = 100_000;
/// The most rules that a line of the log names.
const NAMED: usize = 3;

/// What a daemon is made of.
pub(super) struct Parts {
    pub(super) controller: Controller<NftablesEngine, EbpfEngine, ProxyEngine>,
    pub(super) caps: Caps,
    pub(super) watch: Watch,
    /// Where what it finds waits.
    pub(super) waiting: Arc<Waiting>,
    /// Absent where the daemon keeps nothing: rules of a command line, or no state directory.
    pub(super) remembered: Option<Remembered>,
    /// Moments count from here.
    pub(super) started: Instant,
}

/// A daemon whose rules are applied, or about to be.
pub(super) struct Running {
    parts: Parts,
    pub(super) source: Source,
    file: Option<PathBuf>,
    pub(super) warnings: Vec<String>,
    applied_at: Instant,
    facts: FactsStatus,
    /// What stands in the way of bringing the facts into force, if anything does.
    stuck: Option<String>,
    sample: Arc<Mutex<Option<reading::Sample>>>,
}

impl Running {
    /// A daemon that has applied nothing yet. `file` is read again on reload.
    pub(super) fn new(parts: Parts, source: Source, file: Option<PathBuf>) -> Self {
        let (warnings, facts) = (Vec::new(), FactsStatus::default());
        let applied_at = parts.started;
        Self { parts, source, file, warnings, applied_at, facts, stuck: None, sample: Arc::default() }
    }

    /// What is applied now.
    pub(super) fn applied(&self) -> Option<&Applied> {
        self.parts.controller.applied()
    }

    /// Removes every trace.
    pub(super) fn clear(&mut self) -> Result<(), Vec<String>> {
        self.parts.controller.clear()
    }

    fn now(&self) -> Moment {
        self.parts.started.elapsed()
    }

    /// How long until something is due by time alone.
    pub(super) fn wait(&self) -> Option<Duration> {
        let due = self.parts.controller.due();
        due.map(|due| due.saturating_sub(self.now()))
    }

    /// Takes in what the watchers have found and does what is due.
    pub(super) fn learn(&mut self) {
        let Parts { controller, waiting, .. } = &mut self.parts;
        if let Some((news, since)) = waiting.take() {
            for line in news.iter().filter_map(|item| told(item, controller)) {
                report::log(&line);
            }
            let names = news.iter().any(|item| matches!(item, News::Names(..)));
            let now = self.now();
            let learned = self.parts.controller.learn(news, now);
            self.note(learned, since);
            if names {
                self.watch();
                self.keep_names();
            }
        }
        let now = self.now();
        if self.parts.controller.due().is_some_and(|due| due <= now) {
            let since = Instant::now();
            let done = self.parts.controller.tick(now);
            self.note(done, since);
        }
    }

    /// Notes how long facts took to be in force, or why they are not.
    fn note(&mut self, learned: Result<(), EngineError>, since: Instant) {
        let stuck = learned.err().map(|error| format!("what has changed is not in force: {error}"));
        if let Some(reason) = stuck.as_ref().filter(|_| stuck != self.stuck) {
            report::warning(reason);
        }
        // Another rule's change that went well puts nothing right for those that wait.
        if stuck.is_some() || !self.parts.controller.lags() {
            self.stuck = stuck;
        }
        for (rule, live) in self.parts.controller.turns() {
            let turn = if live { "a backend is live again" } else { "no backend is live" };
            report::log(&format!("rule {rule}: {turn}"));
        }
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.facts.applied += 1;
        self.facts.last_apply_us = micros;
        self.facts.max_apply_us = self.facts.max_apply_us.max(micros);
    }

    /// Tells the watchers what the rules and the names have come to ask for.
    fn watch(&self) {
        let Parts { controller, watch, .. } = &self.parts;
        let Some(applied) = controller.applied() else { return };
        let concern = controller.concern();
        watch.set(concern.probes(), concern.lookups(), &applied.candidate.ruleset.dns);
    }

    fn keep_orders(&self) -> std::io::Result<()> {
        let Parts { controller, remembered, .. } = &self.parts;
        remembered.as_ref().map_or(Ok(()), |files| files.keep_orders(&controller.facts().orders))
    }

    fn keep_names(&self) {
        let Parts { controller, remembered, .. } = &self.parts;
        let files = remembered.as_ref().zip(controller.applied());
        let kept = files
            .map(|(files, applied)| files.keep_names(&applied.candidate.ruleset, &controller.facts().names));
        if let Some(Err(error)) = kept {
            report::warning(&format!("names are not remembered: {error}"));
        }
    }

    /// Applies a candidate and notes what the operator should know of it.
    pub(super) fn apply(&mut self, candidate: Arc<Candidate>) -> Result<Report, Failure> {
        let check_only = candidate.ruleset.host.settings == HostSettings::Check;
        let absent = absent::diagnose(&candidate);
        let now = self.now();
        let report = self.parts.controller.apply(candidate, now).map_err(|error| error.to_string())?;
        self.applied_at = Instant::now();
        self.keep_names();
        // Those of backends that have left the file would be back with the next start.
        if let Err(error) = self.keep_orders() {
            report::warning(&format!("orders are not remembered: {error}"));
        }
        self.warnings = absent.into_iter().map(|diagnostic| diagnostic.message).collect();
        if check_only {
            self.warnings.extend(report.settings.iter().map(|change| {
                format!("{} is {}, should be {}: {}", dotted(&change.key), change.from, change.to, change.why)
            }));
        }
        self.stuck = report.left.as_ref().map(|error| format!("old rules are still served: {error}"));
        self.stuck.iter().for_each(|reason| report::warning(reason));
        let forwards = self.applied().is_some_and(|applied| {
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
        // Last: what the watchers find shall not wait for the rest.
        self.watch();
        Ok(report)
    }

    /// Reads the file again and applies it; what changed, a line each.
    pub(super) fn reload(&mut self) -> Result<Vec<String>, Failure> {
        let Some(file) = &self.file else {
            return Err("rules given on the command line cannot be reloaded".to_owned());
        };
        let unchanged = |reason: String| format!("reload refused, nothing was changed: {reason}");
        let source = load::read(file).map_err(|error| unchanged(error.to_string()))?;
        let loaded = load::load(source, &self.parts.caps);
        let Some(candidate) = loaded.candidate.map(Arc::new) else {
            let mistakes = report::rendered(&loaded.source, &loaded.diagnostics, false);
            return Err(unchanged(format!("the file has mistakes\n\n{}", mistakes.trim_end())));
        };
        let changes = self.applied().map_or_else(Vec::new, |applied| {
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
        let of_file = loaded.diagnostics.into_iter().map(|diagnostic| diagnostic.message);
        let warnings = of_file.chain(self.warnings.iter().cloned()).chain(self.parts.controller.notes());
        lines.extend(warnings.map(|warning| format!("warning: {warning}")));
        Ok(lines)
    }

    /// What to say of a filter that names a rule that does not exist.
    fn misspelt(&self, filter: &FlowFilter) -> Option<String> {
        let rule = filter.rule.as_ref().filter(|rule| !rule.starts_with('#'))?;
        let rules = self.applied().map_or(&[][..], |applied| &applied.candidate.ruleset.rules);
        let known = rules.iter().any(|known| known.name.as_str() == rule);
        (!known).then(|| orders::no_rule(rule, rules))
    }

    /// Answers a client of the control socket. What has to be read is read on a thread of its own: the control server
    /// waits for one answer at a time, so there is one such thread at most.
    pub(super) fn answer(&mut self, asked: Asked) {
        let Asked { request, by, answer } = asked;
        let refused = |error: EngineError| Response::Refused(error.to_string());
        let response = match request {
            Request::Status => match self.reading(None) {
                Ok(reading) => {
                    return aside(answer, move || reading.status().map(Box::new).map(Response::Status));
                }
                Err(error) => refused(error),
            },
            Request::Order { rule, backend, order, keep } => {
                match self.order(&rule, &backend, order, keep, &by) {
                    Ok(read) => return aside(answer, move || read().map(Response::Ordered)),
                    Err(reason) => Response::Refused(reason),
                }
            }
            Request::Conns { filter, engine, most } => match self.reading(engine) {
                Ok(reading) => {
                    let (most, misspelt) = (most.min(MOST_FLOWS), self.misspelt(&filter));
                    return aside(answer, move || {
                        let flows = reading.flows(&filter, most)?;
                        // A rule that has gone may have flows.
                        let misspelt = misspelt.filter(|_| flows.total == 0);
                        Ok(misspelt.map_or(Response::Conns(flows), Response::Refused))
                    });
                }
                Err(error) => refused(error),
            },
            Request::Kill { filter, engine } => match self.parts.controller.end_flows(&filter, engine) {
                Ok(count) => match self.misspelt(&filter).filter(|_| count == 0) {
                    Some(reason) => Response::Refused(reason),
                    None => {
                        report::log(&format!("{by} ended {}", report::counted(count, "flow")));
                        Response::Killed(count)
                    }
                },
                Err(error) => refused(error),
            },
            Request::Reload => self.reload().map_or_else(Response::Refused, Response::Reloaded),
            Request::Applied => {
                Response::Applied { name: self.source.name().to_owned(), text: self.source.text().to_owned() }
            }
        };
        // The client may have gone; its answer goes with it.
        let _ = answer.send(response);
    }
}

/// Reads and answers on a thread of its own.
fn aside(
    answer: SyncSender<Response>,
    read: impl FnOnce() -> Result<Response, EngineError> + Send + 'static,
) {
    let work = {
        let answer = answer.clone();
        move || {
            let _ = answer.send(read().unwrap_or_else(|error| Response::Refused(error.to_string())));
        }
    };
    if let Err(error) = thread::Builder::new().name("reading".to_owned()).spawn(work) {
        let _ = answer.send(Response::Refused(format!("no thread to read on: {error}")));
    }
}

/// What the operator should hear of, a line: a backend that comes or goes.
fn told(item: &News, controller: &Controller<NftablesEngine, EbpfEngine, ProxyEngine>) -> Option<String> {
    let names = |rules: Vec<usize>| {
        let ruleset = controller.applied().map_or(&[][..], |applied| &applied.candidate.ruleset.rules);
        let known = rules.iter().filter_map(|nth| ruleset.get(*nth));
        let mut names: Vec<String> = known.take(NAMED).map(|rule| rule.name.to_string()).collect();
        if rules.len() > NAMED {
            names.push(format!("{} more", rules.len() - NAMED));
        }
        names.join(", ")
    };
    match item {
        News::Health(probe, health) => {
            let known = controller.facts().health.get(probe);
            // The first verdict is news only when it is bad.
            if known.map_or(health.up, |known| known.up == health.up) {
                return None;
            }
            let rules = names(controller.concern().of_probe(probe).collect());
            let state = if health.up { "up" } else { "down" };
            let (address, check) = (probe.address, &probe.check.kind);
            Some(format!("{address} is {state} ({check} check, rules {rules}): {}", health.reason))
        }
        News::Names(lookup, answer) => {
            let rules = names(controller.concern().of_lookup(lookup).collect());
            let addresses: Vec<String> = answer.iter().take(8).map(ToString::to_string).collect();
            let stands = if addresses.is_empty() {
                "has no addresses".to_owned()
            } else {
                format!("is {}", addresses.join(", "))
            };
            Some(format!("{lookup} {stands} (rules {rules})"))
        }
        News::Order(..) => None,
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
