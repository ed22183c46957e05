//! The daemon: `portway run` and `portway forward` in the foreground. Turns signals and requests into events
//! and hands them to the controller one after the other.
//!
//! Deliberately absent: forking, pid files and log files. A service supervisor does these better.

mod running;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use portway_core::caps::Caps;
use portway_core::diagnostic::Source;
use portway_core::facts::Facts;
use portway_core::plan::nftables::Ids;
use portway_core::ruleset::EngineKind;
use portway_ebpf::EbpfEngine;
use portway_nftables::NftablesEngine;
use portway_proxy::ProxyEngine;
use portway_watch::Watch;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::running::{Parts, Running, explain};
use crate::cli::report;
use crate::control::server::{Asked, Server};
use crate::controller::{Candidate, Controller};
use crate::host::sysctl::Sysctls;
use crate::news::Waiting;
use crate::remembered::Remembered;
use crate::state_dir::{self, LockError, StateDir};
use crate::table_lock::TableLock;

/// What moves the daemon.
#[derive(Debug)]
pub enum Event {
    /// A client of the control socket asks.
    Asked(Asked),
    /// SIGHUP.
    Reload,
    /// News wait to be taken.
    News,
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

/// Runs until SIGTERM or SIGINT. `candidate` is what `source`, the file of `options` or the command line, says.
///
/// # Errors
/// Why nothing was started. Whatever had been set up is taken down.
pub fn run(options: &Options, caps: Caps, source: Source, candidate: Candidate) -> Result<(), Failure> {
    let state = match StateDir::lock(&options.state_dir) {
        Ok(state) => Some(state),
        // A second `portway forward` beside a daemon is fine as long as it shares nothing with it.
        Err(LockError::Held(pid)) if options.file.is_none() && !uses_kernel(&candidate) => {
            report::note(&format!("another portway{} has the control socket", of_pid(pid)));
            None
        }
        Err(LockError::Held(pid)) => {
            let hint = "add the rule to its file and `portway reload`, or stop it first";
            return Err(format!("portway is already running{} ({hint})", of_pid(pid)));
        }
        Err(LockError::Io(error)) => {
            let dir = options.state_dir.display();
            return Err(format!(
                "cannot make the state directory {dir}: {error} (--state-dir names another)"
            ));
        }
    };
    let result = serve(options, caps, source, candidate, state.as_ref());
    let kept = options.keep && result.is_ok();
    if let Some(Err(error)) = state.filter(|_| !kept).map(StateDir::remove) {
        report::warning(&format!("state directory: {error}"));
    }
    result?;
    report::log(if kept {
        "stopped; the kernel's rules forward on, `portway clear` removes them"
    } else if Remembered::new(&options.state_dir).is_there() {
        "stopped; nothing is left but what was to be remembered, `portway clear` forgets it"
    } else {
        "stopped; every trace removed"
    });
    Ok(())
}

/// Sets up, serves events until told to stop, and clears unless the rules are to be kept. The state directory
/// is the caller's; without one this daemon owns nothing of the host.
fn serve(
    options: &Options,
    mut caps: Caps,
    source: Source,
    candidate: Candidate,
    state: Option<&StateDir>,
) -> Result<(), Failure> {
    let candidate = Arc::new(candidate);
    let uses_kernel = uses_kernel(&candidate);
    let sysctls = state.map(open_sysctls).transpose()?;
    let any = caps.nftables.is_ok() || caps.ebpf.is_ok();
    let lock = match state.filter(|_| any).map(|_| TableLock::take()) {
        Some(Err(reason)) if uses_kernel => return Err(reason),
        Some(Err(reason)) => {
            report::note(&format!("{reason}; no rule here needs it"));
            // A reload must not count on an engine that this daemon does not have.
            (caps.nftables, caps.ebpf) = (Err(reason.clone()), Err(reason));
            None
        }
        taken => taken.transpose()?,
    };
    let (nftables, ids, ebpf) = match &lock {
        Some(_) => {
            let (nftables, ids) = open_nftables(&caps)?;
            (nftables, ids, open_ebpf(&caps)?)
        }
        None => (None, Ids::default(), None),
    };
    let proxy = ProxyEngine::new(report::log);
    // Rules of a command line are not the ones that an earlier run knew.
    let remembered = state.filter(|_| options.file.is_some()).map(|state| Remembered::new(state.path()));
    let facts =
        remembered.as_ref().map_or_else(|| Ok(Facts::default()), |files| files.load(&candidate.ruleset));
    let facts = facts.map_err(|error| format!("what an earlier run was told to remember: {error}"))?;
    let controller = Controller::new(nftables, ebpf, proxy, sysctls, ids, facts);

    // Signals are caught and the control socket is there before anything is changed: from here on every end
    // is an orderly one, and a socket that cannot be made costs no forwarding. The queue is short: whoever
    // sends more than the daemon follows, waits.
    let (events, inbox) = sync_channel(16);
    forward_signals(events.clone()).map_err(|error| format!("signals: {error}"))?;
    let started = Instant::now();
    let waiting = Arc::<Waiting>::default();
    let watch = Watch::start(started, {
        let (waiting, events) = (waiting.clone(), events.clone());
        move |event| {
            // A full queue is no loss: the daemon looks for news after every event.
            if waiting.put(event) {
                let _ = events.try_send(Event::News);
            }
        }
    });
    let watch = watch.map_err(|error| format!("checks and names: {error}"))?;
    let parts = Parts { controller, caps, watch, waiting, remembered, started };
    let mut daemon = Running::new(parts, source, options.file.clone());
    let server = match state {
        None => None,
        Some(state) => {
            let group = candidate.ruleset.control.group.as_deref();
            let ask = move |asked| events.send(Event::Asked(asked)).is_ok();
            let server = Server::start(&state_dir::socket(state.path()), group, ask);
            Some(server.map_err(|error| format!("control socket: {error}"))?)
        }
    };
    let applied = match daemon.apply(candidate.clone()) {
        Ok(report) => report,
        Err(reason) => {
            explain(&daemon.source, &candidate);
            return Err(reason);
        }
    };
    if let Some(applied_now) = daemon.applied() {
        report::forwarding(&applied_now.candidate, &applied);
    }
    daemon.warnings.iter().for_each(|warning| report::warning(warning));
    daemon.tell_orders();
    report::ready();
    notify(NotifyState::Ready);

    while let Some(event) = next(&inbox, &daemon) {
        match event {
            Event::Stop => break,
            Event::News => {}
            Event::Reload => match daemon.reload() {
                Ok(lines) => lines.iter().for_each(|line| report::log(line)),
                Err(reason) => report::log(&reason),
            },
            Event::Asked(asked) => daemon.answer(asked),
        }
        daemon.learn();
    }
    notify(NotifyState::Stopping);
    drop(server);
    if options.keep { Ok(()) } else { daemon.clear().map_err(|failures| failures.join("; ")) }
}

/// The next event; [`Event::News`] when something is due by time alone. `None` when nobody can send any more.
fn next(inbox: &Receiver<Event>, daemon: &Running) -> Option<Event> {
    match daemon.wait() {
        None => inbox.recv().ok(),
        Some(wait) => match inbox.recv_timeout(wait) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => Some(Event::News),
            Err(RecvTimeoutError::Disconnected) => None,
        },
    }
}

/// Whether a rule is served by what there is one of in a network namespace.
fn uses_kernel(candidate: &Candidate) -> bool {
    candidate.assignment.rules.iter().any(|rule| match rule.engine {
        EngineKind::Nftables | EngineKind::Ebpf => true,
        EngineKind::Proxy => false,
    })
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
    let any = caps.nftables.is_ok() || caps.ebpf.is_ok();
    let _lock = any.then(TableLock::take).transpose()?;
    let (nftables, ids) = open_nftables(caps)?;
    let ebpf = open_ebpf(caps)?;
    let proxy = ProxyEngine::new(report::log);
    let mut controller = Controller::new(nftables, ebpf, proxy, sysctls, ids, Facts::default());
    controller.clear().map_err(|failures| failures.join("; "))?;
    Remembered::new(state.path()).forget().map_err(|error| format!("what was remembered: {error}"))?;
    state.remove().map_err(|error| format!("state directory: {error}"))
}

fn open_sysctls(state: &StateDir) -> Result<Sysctls, Failure> {
    Sysctls::open(state.path())
        .map_err(|error| format!("the record of host settings cannot be read: {error}"))
}

/// The ebpf engine, where the host allows it. It looks for what an earlier run has pinned and makes nothing: that is for
/// rules.
fn open_ebpf(caps: &Caps) -> Result<Option<EbpfEngine>, Failure> {
    if caps.ebpf.is_err() {
        return Ok(None);
    }
    EbpfEngine::open(report::log).map(Some).map_err(|error| error.to_string())
}

fn open_nftables(caps: &Caps) -> Result<(Option<NftablesEngine>, Ids), Failure> {
    if caps.nftables.is_err() {
        return Ok((None, Ids::default()));
    }
    let mut engine = NftablesEngine::open().map_err(|error| error.to_string())?;
    let ids = engine.previous_ids().map_err(|error| error.to_string())?;
    Ok((Some(engine), ids))
}

fn forward_signals(events: SyncSender<Event>) -> io::Result<()> {
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

fn of_pid(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}
