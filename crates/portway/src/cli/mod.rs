//! The command line: arguments in, an exit status out.
//!
//! Exit status: 0 done, 1 refused or failed (said on standard error), 2 the command line itself is wrong.

mod args;
mod bench;
mod check;
mod conns;
mod diff;
mod lab;
mod orders;
mod plan;
mod probe;
pub mod report;
mod status;
mod toa;

use std::process::ExitCode;

use clap::Parser;
use portway_core::caps::Caps;
use portway_core::config;

use crate::control::{Ordered, Request, Response, client};
use crate::host;
use crate::{daemon, load, state_dir};
use args::{Args, Command, Weight};

/// Why a command did not do what it was asked: said already, or to be said.
pub(crate) enum Failure {
    /// The user has seen it.
    Said,
    /// To be printed.
    Say(String),
}

impl<T: ToString> From<T> for Failure {
    fn from(reason: T) -> Self {
        Self::Say(reason.to_string())
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Said) => ExitCode::FAILURE,
        Err(Failure::Say(reason)) => {
            report::error(&reason);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Forward { pairs, engine, source, state } => {
            let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
            let (text, built) = config::from_command_line(&pairs, engine.as_deref(), source.as_deref());
            let caps = host::probe::caps();
            let loaded = load::finish(text, built, &caps);
            start(&daemon::Options { file: None, state_dir: state.dir(), keep: false }, caps, loaded)
        }
        Command::Run { file, keep, state } => {
            let caps = host::probe::caps();
            let loaded = load::load(load::read(&file)?, &caps);
            start(&daemon::Options { file: Some(file), state_dir: state.dir(), keep }, caps, loaded)
        }
        Command::Check { text, offline, output, state } => {
            check::run(load::read(&text.file)?, offline, output.json, &state.dir())
        }
        Command::Plan { text, offline, output } => {
            plan::run(load::read(&text.file)?, &caps(offline), output.json)
        }
        Command::Probe { file, output } => probe::run(file.as_deref(), output.json),
        Command::Diff { text, against, output, state } => {
            let old = match against {
                Some(path) => load::read(&path)?,
                None => diff::applied(&state.dir())?,
            };
            diff::run(old, load::read(&text.file)?, &caps(false), output.json)
        }
        Command::Status { output, state } => status::run(&state.dir(), output.json),
        Command::Drain { backend, wait, state } => match wait {
            None => orders::run(&state.dir(), &backend, Ordered::Drain),
            Some(most) => orders::drain(&state.dir(), &backend, most),
        },
        Command::Undrain { backend, state } => orders::run(&state.dir(), &backend, Ordered::Undrain),
        Command::Disable { backend, state } => orders::run(&state.dir(), &backend, Ordered::Disable),
        Command::Enable { backend, state } => orders::run(&state.dir(), &backend, Ordered::Enable),
        Command::Weight { backend, weight: Weight(weight), state } => {
            orders::run(&state.dir(), &backend, Ordered::Weight(weight))
        }
        Command::Conns { filter, limit, output, state } => {
            conns::list(&state.dir(), filter, limit, output.json)
        }
        Command::Kill { filter, all, state } => conns::kill(&state.dir(), filter, all),
        Command::Reload { state } => match ask(&state.dir(), Request::Reload)? {
            Response::Reloaded(lines) => {
                lines.iter().for_each(|line| report::say(line));
                Ok(())
            }
            other => Err(unexpected(other)),
        },
        Command::Toa(words) => toa::run(&words),
        Command::Lab(words) => lab::run(words),
        Command::Bench(words) => bench::run(&words),
        Command::Clear { state } => {
            daemon::clear(&state.dir(), &host::probe::caps())?;
            report::say("cleared");
            Ok(())
        }
    }
}

/// Shows what loading said and runs, unless there is nothing to run.
fn start(options: &daemon::Options, caps: Caps, loaded: load::Loaded) -> Result<(), Failure> {
    report::diagnostics(&loaded);
    let candidate = loaded.candidate.ok_or(Failure::Said)?;
    Ok(daemon::run(options, caps, loaded.source, candidate)?)
}

/// The host's capabilities, or those of a host that can do everything.
fn caps(offline: bool) -> Caps {
    if offline { Caps::all() } else { host::probe::caps() }
}

/// Asks the daemon of a state directory.
pub(crate) fn ask(dir: &std::path::Path, request: Request) -> Result<Response, Failure> {
    let socket = state_dir::socket(dir);
    client::ask(&socket, request).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "only its owner and the group in [control] may ask",
            _ => "no daemon runs with this state directory; --state-dir names another",
        };
        Failure::Say(format!("{}: {error} ({hint})", socket.display()))
    })
}

pub(crate) fn unexpected(response: Response) -> Failure {
    match response {
        Response::Refused(reason) => Failure::Say(reason),
        other => Failure::Say(format!("the daemon answered something else: {other:?}")),
    }
}
