//! `portway status`: the rules of a running daemon and how they do.

use std::path::Path;
use std::thread;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::{Failure, ask, report, unexpected};
use crate::control::{BackendStatus, Request, Response, RuleStatus, Status};

/// How far two readings lie apart that make a rate; the daemon takes no less than 200 ms.
const APART: Duration = Duration::from_millis(220);

/// Asks the daemon and prints its answer.
pub(super) fn run(state_dir: &Path, json: bool) -> Result<(), Failure> {
    let mut status = read(state_dir)?;
    if status.rules.iter().any(|rule| rule.flows_per_second.is_none()) {
        thread::sleep(APART);
        status = read(state_dir)?;
    }
    if json {
        report::json(&status);
    } else {
        print(&status);
    }
    Ok(())
}

fn read(state_dir: &Path) -> Result<Status, Failure> {
    match ask(state_dir, Request::Status)? {
        Response::Status(status) => Ok(*status),
        other => Err(unexpected(other)),
    }
}

fn print(status: &Status) {
    report::say(&format!(
        "portway {} (pid {}), {}, up {} s, applied {} s ago",
        status.version, status.pid, status.config, status.uptime_seconds, status.applied_seconds
    ));
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "RULE", "ENGINE", "STATE", "LISTEN", "FORWARD", "LIVE", "NEW/S", "FLOWS", "IN", "OUT", "FAILED",
    ]);
    for rule in &status.rules {
        let counters = &rule.counters;
        table.add_row([
            rule.name.clone(),
            rule.engine.clone(),
            rule.state.clone(),
            rule.listen.join(", "),
            rule.forward.clone(),
            counters.live.to_string(),
            rule.flows_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
            counters.flows.to_string(),
            report::bytes(counters.bytes_in),
            report::bytes(counters.bytes_out),
            counters.failed.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    report::say(&table.trim_fmt());
    backends(status);
    for (engine, gauges) in &status.engines {
        // Zeros and engines without a rule are for `--json`.
        let shown: Vec<_> = gauges.iter().filter(|(_, value)| **value > 0).collect();
        let shown: Vec<_> =
            shown.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
        if !shown.is_empty() && status.rules.iter().any(|rule| rule.engine == *engine) {
            report::say(&format!("{engine}: {}", shown.join(", ")));
        }
    }
    for rule in status.rules.iter().filter(|rule| !rule.drops.is_empty()) {
        let drops: Vec<String> = rule.drops.iter().map(|(why, count)| format!("{why} {count}")).collect();
        report::say(&format!("{}: packets not carried: {}", rule.name, drops.join(", ")));
    }
    if status.rules.iter().any(|rule| rule.state == "missing") {
        report::say(
            "some rules are missing from their engine (somebody changed its state?): portway reload puts them back",
        );
    }
    status.warnings.iter().for_each(|warning| report::say(&format!("warning: {warning}")));
}

/// The backends of rules that have several, or of which there is something to say.
fn backends(status: &Status) {
    let plain = |row: &BackendStatus| row.by.is_none() && row.reason.is_empty() && row.state == "up";
    let told = |rule: &&RuleStatus| rule.backends.len() != 1 || !rule.backends.iter().all(plain);
    let mut rules = status.rules.iter().filter(told).peekable();
    if rules.peek().is_none() {
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "BACKEND", "TARGET", "STATE", "FOR", "WEIGHT", "SHARE", "LIVE", "FLOWS", "FAILED", "WHY",
    ]);
    let unknown = || "-".to_owned();
    for (rule, row) in rules.flat_map(|rule| rule.backends.iter().map(move |row| (rule, row))) {
        let order = row.by.as_ref().map(|by| {
            let kept = if row.keep { ", kept" } else { "" };
            format!("by {by}{kept}")
        });
        // The reason of an ordered state is the order itself.
        let reason =
            Some(row.reason.clone()).filter(|reason| !reason.is_empty() && !reason.starts_with("by "));
        let why = order.into_iter().chain(reason);
        table.add_row([
            format!("{}/{}", rule.name, row.name),
            row.target.clone().unwrap_or_else(unknown),
            row.state.clone(),
            row.since_seconds.map_or_else(unknown, |since| format!("{since}s")),
            row.weight.to_string(),
            format!("{:.1} %", row.share),
            row.live.to_string(),
            row.flows.to_string(),
            row.failed.to_string(),
            why.collect::<Vec<_>>().join("; "),
        ]);
    }
    for column in table.column_iter_mut().skip(3).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    report::say("");
    report::say(&table.trim_fmt());
}
