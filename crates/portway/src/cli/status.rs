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
        "RULE", "ENGINE", "STATE", "LISTEN", "FORWARD", "LIVE", "NEW/S", "FLOWS", "PACKETS", "IN", "OUT",
        "FAILED",
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
            or_dash(rule.flows_per_second, |rate| format!("{rate:.1}")),
            counters.flows.to_string(),
            packets(counters.packets_in, counters.packets_out),
            report::bytes(counters.bytes_in),
            report::bytes(counters.bytes_out),
            or_dash(counters.failed, |failed| failed.to_string()),
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
        report::say(&format!("{}: packets not carried: {}", rule.name, drops(rule)));
    }
    if status.rules.iter().any(|rule| rule.state == "missing") {
        report::say(
            "some rules are missing from their engine (somebody changed its state?): portway reload puts them back",
        );
    }
    status.warnings.iter().for_each(|warning| report::say(&format!("warning: {warning}")));
}

/// What is counted, or a dash.
fn or_dash<T>(count: Option<T>, shown: impl FnOnce(T) -> String) -> String {
    count.map_or_else(|| "-".to_owned(), shown)
}

/// Packets in and out.
fn packets(packets_in: Option<u64>, packets_out: Option<u64>) -> String {
    or_dash(packets_in.zip(packets_out), |(packets_in, packets_out)| {
        format!("{}/{}", report::count(packets_in), report::count(packets_out))
    })
}

/// What of a rule was not carried, by reason; of a rule with several backends with those that most of it had.
fn drops(rule: &RuleStatus) -> String {
    /// Backends that are named for one reason.
    const NAMED: usize = 3;
    let reason = |(why, count): (&String, &u64)| {
        let counts = rule.backends.iter().filter_map(|row| Some((row.counters.drops.get(why)?, &row.name)));
        let mut counts: Vec<_> = counts.filter(|_| rule.backends.len() > 1).collect();
        counts.sort_by_key(|(count, _)| std::cmp::Reverse(**count));
        let more = if counts.len() > NAMED { ", ..." } else { "" };
        let named: Vec<_> =
            counts.iter().take(NAMED).map(|(count, name)| format!("{name} {count}")).collect();
        match named.as_slice() {
            [] => format!("{why} {count}"),
            named => format!("{why} {count} ({}{more})", named.join(", ")),
        }
    };
    rule.drops.iter().map(reason).collect::<Vec<_>>().join(", ")
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
        "BACKEND", "TARGET", "STATE", "FOR", "WEIGHT", "SHARE", "LIVE", "FLOWS", "PACKETS", "IN", "OUT",
        "FAILED", "WHY",
    ]);
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
            or_dash(row.target.clone(), |target| target),
            row.state.clone(),
            or_dash(row.since_seconds, |since| format!("{since}s")),
            row.weight.to_string(),
            format!("{:.1} %", row.share),
            row.counters.live.to_string(),
            row.counters.flows.to_string(),
            packets(row.counters.packets_in, row.counters.packets_out),
            or_dash(row.counters.bytes_in, report::bytes),
            or_dash(row.counters.bytes_out, report::bytes),
            or_dash(row.counters.failed, |failed| failed.to_string()),
            why.collect::<Vec<_>>().join("; "),
        ]);
    }
    for column in table.column_iter_mut().skip(3).take(9) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    report::say("");
    report::say(&table.trim_fmt());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn backend(name: &str, drops: &Value) -> Value {
        json!({
            "name": name, "target": null, "state": "up", "weight": 1, "share": 0.0, "backup": false, "reason": "",
            "since_seconds": null, "live": 0, "flows": 0, "ejected": false, "drops": drops, "by": null, "at": null,
            "keep": false,
        })
    }

    fn rule(backends: &[Value], drops: &Value) -> RuleStatus {
        let rule = json!({
            "name": "r", "engine": "ebpf", "reason": "", "listen": [], "forward": "", "backends": backends, "source": "",
            "state": "forwarding", "balance": "", "flows_per_second": null, "drops": drops, "live": 0, "flows": 0,
            "bytes_in": 0, "bytes_out": 0,
        });
        serde_json::from_value(rule).expect("a rule")
    }

    #[test]
    fn drops_name_the_backends_that_most_were_for() {
        let only =
            rule(&[backend("a", &json!({ "no route": 2 }))], &json!({ "no route": 2, "new-flow rate": 1 }));
        assert_eq!(drops(&only), "new-flow rate 1, no route 2");
        let of = |name: &str, count: u64| backend(name, &json!({ "no route": count }));
        let two = rule(&[of("a", 1), of("b", 7)], &json!({ "no route": 8, "no backend": 3 }));
        assert_eq!(drops(&two), "no backend 3, no route 8 (b 7, a 1)");
        let five =
            rule(&[of("a", 1), of("b", 2), of("c", 3), of("d", 4), of("e", 5)], &json!({ "no route": 15 }));
        assert_eq!(drops(&five), "no route 15 (e 5, d 4, c 3, ...)");
    }

    #[test]
    fn what_is_not_counted_is_a_dash() {
        assert_eq!((packets(None, None), packets(Some(1), Some(2_000_000))), ("-".into(), "1/2.0 M".into()));
    }
}
