//! `portway check`: every mistake in a file at once, ports that someone else holds included.

use std::path::Path;

use portway_core::diagnostic::Source;

use super::{Failure, caps, report};
use crate::host::{absent, in_use};
use crate::{load, state_dir};

/// Checks a text; fails when it has errors.
pub(super) fn run(source: Source, offline: bool, json: bool, state_dir: &Path) -> Result<(), Failure> {
    let mut loaded = load::load(source, &caps(offline));
    if let Some(candidate) = &loaded.candidate
        && !offline
    {
        let daemon = state_dir::holder(state_dir);
        loaded.diagnostics.extend(in_use::diagnose(candidate, daemon));
        loaded.diagnostics.extend(absent::diagnose(candidate));
    }
    let errors = loaded.diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = loaded.diagnostics.len() - errors;
    if json {
        let all: Vec<_> = loaded.diagnostics.iter().map(|d| d.located(&loaded.source)).collect();
        report::json(&all);
    } else {
        report::diagnostics(&loaded);
        match (errors, loaded.candidate.as_ref()) {
            (0, Some(candidate)) => {
                let rules = report::counted(candidate.ruleset.rules.len() as u64, "rule");
                let warnings = report::counted(warnings as u64, "warning");
                report::say(&format!("{}: {rules}, no errors, {warnings}", loaded.source.name()));
            }
            _ => {
                let (errors, warnings) =
                    (report::counted(errors as u64, "error"), report::counted(warnings as u64, "warning"));
                report::error(&format!("{}: {errors}, {warnings}", loaded.source.name()));
            }
        }
    }
    if errors > 0 { Err(Failure::Said) } else { Ok(()) }
}
