//! `portway status`: the rules of a running daemon and how they do.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};

use super::{Failure, ask, report, unexpected};
use crate::control::{Request, Response, Status};

/// Asks the daemon and prints its answer.
pub(super) fn run(state_dir: &Path, json: bool) -> Result<(), Failure> {
    let status = match ask(state_dir, Request::Status)? {
        Response::Status(status) => *status,
        other => return Err(unexpected(other)),
    };
    if json {
        report::json(&status);
    } else {
        print(&status);
    }
    Ok(())
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
            format!("{:.1}", rule.flows_per_second),
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
    for (engine, gauges) in &status.engines {
        // Zeros and engines without a rule are for `--json`.
        let shown: Vec<_> = gauges.iter().filter(|(_, value)| **value > 0).collect();
        let shown: Vec<_> =
            shown.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
        if !shown.is_empty() && status.rules.iter().any(|rule| rule.engine == *engine) {
            report::say(&format!("{engine}: {}", shown.join(", ")));
        }
    }
    if status.rules.iter().any(|rule| rule.state == "missing") {
        report::say(
            "some rules are missing from their engine (somebody changed its state?): portway reload puts them back",
        );
    }
    status.warnings.iter().for_each(|warning| report::say(&format!("warning: {warning}")));
}
