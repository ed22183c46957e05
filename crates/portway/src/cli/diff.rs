//! `portway diff`: what a changed file would change.

use std::path::Path;

use portway_core::caps::Caps;
use portway_core::compare::compare;
use portway_core::diagnostic::Source;

use super::{Failure, ask, report, unexpected};
use crate::control::{Request, Response};
use crate::load;

/// The text that the running daemon has applied.
pub(super) fn applied(state_dir: &Path) -> Result<Source, Failure> {
    match ask(state_dir, Request::Applied)? {
        Response::Applied { name, text } => Ok(Source::new(name, text)),
        other => Err(unexpected(other)),
    }
}

/// Prints the changes from one text to another.
pub(super) fn run(old: Source, new: Source, caps: &Caps, json: bool) -> Result<(), Failure> {
    let mut candidates = Vec::new();
    for source in [old, new] {
        let loaded = load::load(source, caps);
        report::diagnostics(&loaded);
        candidates.push(loaded.candidate.ok_or(Failure::Said)?);
    }
    let [old, new] = &candidates[..] else { unreachable!("one candidate for each of two sources") };
    let changes = compare((&old.ruleset, &old.assignment), (&new.ruleset, &new.assignment));
    if json {
        report::json(&changes);
    } else if changes.is_empty() {
        report::say("no rule changes");
    } else {
        changes.iter().for_each(|change| report::say(&change.to_string()));
    }
    Ok(())
}
