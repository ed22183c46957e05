//! `portway drain` and its kin: an order for one backend, and how it stands then.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use portway_core::config::value::format_duration;
use portway_core::flow::{FlowFilter, Place};

use super::args::Backend;
use super::{Failure, ask, report, unexpected};
use crate::control::{BackendStatus, Ordered, Request, Response};

/// Between two looks at whether a backend has drained.
const LOOK: Duration = Duration::from_millis(500);

/// Gives the order and prints how the backend stands.
pub(super) fn run(state_dir: &Path, backend: &Backend, order: Ordered) -> Result<(), Failure> {
    let rows = ordered(state_dir, backend, order)?;
    rows.iter().for_each(|row| report::say(&line(&backend.backend.0, row)));
    Ok(())
}

/// Drains a backend and waits until its last flow has ended.
pub(super) fn drain(state_dir: &Path, backend: &Backend, most: Duration) -> Result<(), Failure> {
    let rows = ordered(state_dir, backend, Ordered::Drain)?;
    rows.iter().for_each(|row| report::say(&line(&backend.backend.0, row)));
    let targets = rows.iter().filter_map(|row| row.target.as_deref()?.parse::<Place>().ok());
    let targets: Vec<Place> = targets.collect();
    let start = Instant::now();
    loop {
        let mut left = 0;
        for target in &targets {
            let filter = FlowFilter {
                rule: Some(backend.backend.0.clone()),
                backend: target.address(),
                backend_port: target.port,
                ..FlowFilter::default()
            };
            left += match ask(state_dir, Request::Conns { filter, engine: None, most: 0 })? {
                Response::Conns(flows) => flows.total,
                other => return Err(unexpected(other)),
            };
        }
        if left == 0 {
            report::say("drained");
            return Ok(());
        }
        if start.elapsed() >= most {
            return Err(Failure::Say(format!(
                "{} left after {}",
                report::counted(left, "flow"),
                format_duration(most)
            )));
        }
        thread::sleep(LOOK.min(most));
    }
}

fn ordered(state_dir: &Path, backend: &Backend, order: Ordered) -> Result<Vec<BackendStatus>, Failure> {
    let (rule, name) = backend.backend.clone();
    match ask(state_dir, Request::Order { rule, backend: name, order, keep: backend.keep })? {
        Response::Ordered(rows) => Ok(rows),
        other => Err(unexpected(other)),
    }
}

fn line(rule: &str, row: &BackendStatus) -> String {
    let target = row.target.as_ref().filter(|target| **target != row.name);
    let target = target.map_or_else(String::new, |target| format!(" ({target})"));
    let BackendStatus { name, state, weight, counters, .. } = row;
    format!(
        "{rule}/{name}{target}: {state}, weight {weight}, {}",
        report::counted(counters.live, "live flow")
    )
}
