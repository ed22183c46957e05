//! The daemon: `portway run` and `portway forward` in the foreground. Turns signals and requests into events
//! and hands them to the controller one after the other.
//!
//! Deliberately absent: forking, pid files and log files. A service supervisor does these better.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use portway_core::caps::Caps;
use portway_core::compare::compare;
use portway_core::diagnostic::{Diagnostic, Source};
use portway_core::plan::nftables::{Ids, MARK, MARK_MASK};
use portway_core::ruleset::{EngineKind, HostSettings};
use portway_core::snapshot::{EngineSnapshot, flows_per_second};
use portway_nftables::NftablesEngine;
use portway_proxy::ProxyEngine;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::report;
use crate::control::server::{Asked, Server};
use crate::control::{Request, Response, RuleStatus, Status};
use crate::controller::{Candidate, Controller, Report};
use crate::host::in_use;
use crate::host::sysctl::{Sysctls, dotted};
use crate::load::{self, Loaded};
use crate::state_dir::{self, LockError, StateDir};

/// What moves the daemon.
#[derive(Debug)]
pub enum Event {
    /// A client of the control socket asks.
    Asked(Asked),
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// The file to read again on reload; none for `portway forward`.
    pub file: Option<PathBuf>,
    /// Where the socket, the lock and the record of host settings live.
    pub state_dir: PathBuf,
    /// Leave the kernel's rules and the host settings as they are when stopped by SIGTERM or SIGINT.
    pub keep: bool,
}

/// Why the daemon ended early or could not start. Ready to be shown; a diagnostic is rendered already.
pub type Failure = String;

/// Runs until SIGTERM or SIGINT. `loaded` is what `options.file` (or the command line) says.
///
/// # Errors
/// Why nothing was started. Whatever had been set up is taken down.
pub fn run(options: &Options, caps: Caps, loaded: Loaded) -> Result<(), Failure> {
    report::diagnostics(&loaded);
    let Some(candidate) = loaded.candidate else { return Err("nothing was started".to_owned()) };
    let uses_kernel = candidate.assignment.rules.iter().any(|rule| rule.engine == EngineKind::Nftables);
    let state = match StateDir::lock(&options.state_dir) {
        Ok(state) => Some(state),
        // A second `portway forward` beside a daemon is fine as long as it shares nothing with it.
        Err(LockError::Held(pid)) if options.file.is_none() && !uses_kernel => {
            report::note(&format!("another portway{} has the control socket", of_pid(pid)));
            None
        }
        Err(LockError::Held(pid)) => {
            let hint = "add the rule to its file and `portway reload`, or stop it first";
            return Err(format!("portway is already running{} ({hint})", of_pid(pid)));
        }
        Err(LockError::Io(error)) => {
            return Err(format!(
                "{}: {error} (--state-dir names another directory)",
                options.state_dir.display()
            ));
        }
    };
    let sysctls = state.as_ref().map(open_sysctls).transpose()?;
    let owns_kernel = state.is_some() && caps.nftables.is_ok();
    let (nftables, ids) = if owns_kernel { open_nftables()? } else { (None, Ids::default()) };
    let proxy = ProxyEngine::new(report::log);
    let controller = Controller::new(nftables, proxy, sysctls, ids);
    let mut daemon = Daemon {
        controller,
        caps,
        source: loaded.source,
        file: options.file.clone(),
        warnings: Vec::new(),
        started: Instant::now(),
        applied_at: Instant::now(),
        sample: None,
    };

    // Signals are caught before anything is set up: from here on every end is an orderly one.
    let (events, inbox) = channel();
    forward_signals(events.clone()).map_err(|error| format!("signals: {error}"))?;
    let group = candidate.ruleset.control.group.clone();
    let applied = match daemon.apply(candidate.clone()) {
        Ok(report) => report,
        Err(reason) => {
            explain(&daemon.source, &candidate);
            drop(state.map(StateDir::remove));
            return Err(reason);
        }
    };
    let server = match &state {
        None => None,
        Some(state) => match Server::start(&state_dir::socket(state.path()), group.as_deref(), move |asked| {
            events.send(Event::Asked(asked)).is_ok()
        }) {
            Ok(server) => Some(server),
            Err(error) => {
                drop(daemon.controller.clear());
                return Err(format!("control socket: {error}"));
            }
        },
    };
    if let Some(applied_now) = daemon.controller.applied() {
        report::forwarding(&applied_now.candidate, &applied);
    }
    daemon.warnings.iter().for_each(|warning| report::warning(warning));
    report::ready();
    notify(NotifyState::Ready);

    for event in inbox {
        match event {
            Event::Stop => break,
            Event::Reload => match daemon.reload() {
                Ok(lines) => lines.iter().for_each(|line| report::log(line)),
                Err(reason) => report::log(&reason),
            },
            Event::Asked(asked) => {
                let response = daemon.answer(asked.request);
                // The client may have gone; its answer goes with it.
                let _ = asked.answer.send(response);
            }
        }
    }
    notify(NotifyState::Stopping);
    drop(server);
    if options.keep {
        report::log("stopped; the kernel's rules forward on, `portway clear` removes them");
        return Ok(());
    }
    daemon.controller.clear().map_err(|failures| failures.join("; "))?;
    if let Some(state) = state {
        state.remove().map_err(|error| format!("state directory: {error}"))?;
    }
    report::log("stopped; every trace removed");
    Ok(())
}

/// Removes what a killed daemon left in the kernel, the host's settings and the state directory.
///
/// # Errors
/// A daemon runs, or something could not be removed.
pub fn clear(state_dir: &Path, caps: &Caps) -> Result<(), Failure> {
    let state = match StateDir::lock(state_dir) {
        Ok(state) => state,
        Err(LockError::Held(pid)) => {
            return Err(format!("portway is running{}: stop it instead, it clears by itself", of_pid(pid)));
        }
        Err(LockError::Io(error)) => return Err(format!("{}: {error}", state_dir.display())),
    };
    let sysctls = Some(open_sysctls(&state)?);
    let (nftables, ids) = match &caps.nftables {
        Ok(_) => open_nftables()?,
        Err(_) => (None, Ids::default()),
    };
    let mut controller = Controller::new(nftables, ProxyEngine::new(report::log), sysctls, ids);
    controller.clear().map_err(|failures| failures.join("; "))?;
    state.remove().map_err(|error| format!("state directory: {error}"))
}

struct Daemon {
    controller: Controller<NftablesEngine, ProxyEngine>,
    caps: Caps,
    source: Source,
    file: Option<PathBuf>,
    warnings: Vec<String>,
    started: Instant,
    applied_at: Instant,
    sample: Option<(Instant, BTreeMap<String, u64>)>,
}

impl Daemon {
    fn apply(&mut self, candidate: Candidate) -> Result<Report, Failure> {
        let check_only = candidate.ruleset.host.settings == HostSettings::Check;
        let report = self.controller.apply(candidate).map_err(|error| error.to_string())?;
        self.applied_at = Instant::now();
        self.warnings.clear();
        if check_only {
            self.warnings.extend(report.settings.iter().map(|change| {
                format!("{} is {}, should be {}: {}", dotted(&change.key), change.from, change.to, change.why)
            }));
        }
        let forwards = self.controller.applied().is_some_and(|applied| {
            let plan = &applied.plans.nftables;
            [portway_core::address::Family::V4, portway_core::address::Family::V6]
                .into_iter()
                .any(|family| plan.needs_forwarding(family))
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

    fn reload(&mut self) -> Result<Vec<String>, Failure> {
        let Some(file) = &self.file else {
            return Err("rules given on the command line cannot be reloaded".to_owned());
        };
        let unchanged = |reason: String| format!("reload refused, nothing was changed: {reason}");
        let source = load::read(file).map_err(|error| unchanged(error.to_string()))?;
        let loaded = load::load(source, &self.caps);
        let Some(candidate) = loaded.candidate else {
            return Err(unchanged(format!(
                "\n{}",
                report::rendered(&loaded.source, &loaded.diagnostics, false)
            )));
        };
        let changes = self.controller.applied().map_or_else(Vec::new, |applied| {
            let old = &applied.candidate;
            compare((&old.ruleset, &old.assignment), (&candidate.ruleset, &candidate.assignment))
        });
        if let Err(reason) = self.apply(candidate.clone()) {
            explain(&loaded.source, &candidate);
            return Err(reason);
        }
        self.source = loaded.source;
        let mut lines: Vec<_> = changes.iter().map(ToString::to_string).collect();
        if lines.is_empty() {
            lines.push("no rule changed".to_owned());
        }
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        Ok(lines)
    }

    fn answer(&mut self, request: Request) -> Response {
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
                    forward: rule.backend.to_string(),
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
fn explain(source: &Source, candidate: &Candidate) {
    let mistakes = in_use::diagnose(candidate, Some(std::process::id()));
    let errors: Vec<_> = mistakes.into_iter().filter(Diagnostic::is_error).collect();
    if !errors.is_empty() {
        report::log(&format!("the ports:\n{}", report::rendered(source, &errors, false)));
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

fn open_sysctls(state: &StateDir) -> Result<Sysctls, Failure> {
    Sysctls::open(state.path())
        .map_err(|error| format!("the record of host settings cannot be read: {error}"))
}

fn open_nftables() -> Result<(Option<NftablesEngine>, Ids), Failure> {
    let mut engine = NftablesEngine::open().map_err(|error| error.to_string())?;
    let ids = engine.previous_ids().map_err(|error| error.to_string())?;
    Ok((Some(engine), ids))
}

fn forward_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in &mut signals {
            let event = if signal == SIGHUP { Event::Reload } else { Event::Stop };
            if events.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Tells a service supervisor, where there is one.
fn notify(state: NotifyState<'_>) {
    // Best effort by the protocol's own rule: a supervisor that does not listen is no reason to stop.
    let _ = sd_notify::notify(&[state]);
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

fn of_pid(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}
