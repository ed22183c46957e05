//! `portway plan`: what would be applied, per engine, and the reason for each rule's engine.

use portway_core::compare::{Fields, backends, settings};
use portway_core::diagnostic::Source;
use portway_core::facts::Facts;
use portway_core::plan::{Plans, World, nftables};
use serde::Serialize;
use std::time::Duration;

use super::{Failure, report};
use crate::controller::{Candidate, needs};
use crate::host::sysctl::{Needs, dotted};
use crate::load;
use portway_core::caps::Caps;

#[derive(Serialize)]
struct Row {
    rule: String,
    listen: Vec<String>,
    forward: String,
    source: String,
    engine: String,
    reason: String,
    /// What else the rule says, without the defaults.
    settings: Fields,
}

#[derive(Serialize)]
struct Printed {
    rules: Vec<Row>,
    host_settings: Vec<String>,
    nftables: String,
    ebpf: String,
    proxy: String,
}

/// Prints the plans of a text.
pub(super) fn run(source: Source, caps: &Caps, json: bool) -> Result<(), Failure> {
    let loaded = load::load(source, caps);
    report::diagnostics(&loaded);
    let Some(candidate) = loaded.candidate else { return Err(Failure::Said) };
    let plans = Plans::new(
        World {
            ruleset: &candidate.ruleset,
            assignment: &candidate.assignment,
            facts: &Facts::default(),
            now: Duration::ZERO,
        },
        &nftables::Ids::default(),
    );
    let wanted = needs(&plans, &candidate.ruleset, caps.nftables.is_ok());
    let printed = Printed {
        rules: rows(&candidate),
        host_settings: host_settings(&wanted),
        nftables: if plans.nftables.is_empty() { String::new() } else { plans.nftables.to_string() },
        ebpf: if plans.ebpf.is_empty() { String::new() } else { plans.ebpf.to_string() },
        proxy: if plans.proxy.rules.is_empty() { String::new() } else { plans.proxy.to_string() },
    };
    if json {
        report::json(&printed);
        return Ok(());
    }
    for row in &printed.rules {
        report::say(&format!(
            "{}: {} -> {}, source {}",
            row.rule,
            row.listen.join(", "),
            row.forward,
            row.source
        ));
        report::say(&format!("    {}: {}", row.engine, row.reason));
        row.settings.iter().for_each(|(key, value)| report::say(&format!("    {key} = {value}")));
    }
    for (name, text) in [
        ("host", printed.host_settings.join("\n")),
        ("nftables", printed.nftables),
        ("ebpf", printed.ebpf),
        ("proxy", printed.proxy),
    ] {
        if !text.is_empty() {
            report::say(&format!("\n# {name}\n{}", text.trim_end()));
        }
    }
    Ok(())
}

fn rows(candidate: &Candidate) -> Vec<Row> {
    let assigned = candidate.ruleset.rules.iter().zip(&candidate.assignment.rules);
    let row = |(rule, assigned): (&portway_core::ruleset::Rule, &portway_core::assign::Assigned)| Row {
        rule: rule.name.to_string(),
        listen: rule.listeners.iter().map(ToString::to_string).collect(),
        forward: rule.pool.to_string(),
        source: rule.source.to_string(),
        engine: assigned.engine.to_string(),
        reason: assigned.reason.clone(),
        settings: said(rule),
    };
    assigned.map(row).collect()
}

/// The settings of a rule, and its backends where they have settings of their own.
fn said(rule: &portway_core::ruleset::Rule) -> Fields {
    let mut said = settings(rule);
    let with_settings = backends(&rule.pool);
    if with_settings != rule.pool.to_string() {
        said.insert("backends", with_settings);
    }
    said
}

/// The settings that a host would need, whatever this one has: a plan is the same everywhere.
fn host_settings(needs: &Needs) -> Vec<String> {
    needs.told().into_iter().map(|(key, value, why)| format!("{} = {value}  # {why}", dotted(key))).collect()
}
