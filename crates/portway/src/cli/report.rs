//! What the commands say to people. One place, so that they all speak alike.

use std::io::{IsTerminal, Write};

use portway_core::diagnostic::{Diagnostic, Source, render};

use crate::controller::{Candidate, Report};
use crate::host::sysctl::dotted;
use crate::load::Loaded;

/// A line of the daemon's log, on standard error.
pub fn log(line: &str) {
    // Standard error may be a closed pipe; a daemon does not end over that, so no eprintln.
    let _ = writeln!(std::io::stderr(), "portway: {line}");
}

/// Something the operator should know.
pub fn warning(line: &str) {
    log(&format!("warning: {line}"));
}

/// Something of interest, no more.
pub fn note(line: &str) {
    log(&format!("note: {line}"));
}

/// Why a command failed.
pub fn error(line: &str) {
    log(&format!("error: {line}"));
}

/// Diagnostics as text.
pub fn rendered(source: &Source, diagnostics: &[Diagnostic], color: bool) -> String {
    render(source, diagnostics, color)
}

/// Shows what loading said, on standard error.
pub fn diagnostics(loaded: &Loaded) {
    if !loaded.diagnostics.is_empty() {
        let color = std::io::stderr().is_terminal();
        let _ = write!(std::io::stderr(), "{}", rendered(&loaded.source, &loaded.diagnostics, color));
    }
}

/// Says what listens where, where it goes, by which engine and why.
pub fn forwarding(candidate: &Candidate, report: &Report) {
    let Candidate { ruleset, assignment } = candidate;
    /// Ten thousand lines help nobody.
    const SHOWN: usize = 20;
    for (rule, assigned) in ruleset.rules.iter().zip(&assignment.rules).take(SHOWN) {
        let listeners: Vec<_> = rule.listeners.iter().map(ToString::to_string).collect();
        say(&format!("{} -> {} by {assigned}", listeners.join(", "), rule.pool));
    }
    if ruleset.rules.len() > SHOWN {
        say(&format!("and {} more rules (portway status shows all)", ruleset.rules.len() - SHOWN));
    }
    if ruleset.host.settings == portway_core::ruleset::HostSettings::Set {
        for change in &report.settings {
            say(&format!(
                "set {} = {} (was {}): {}",
                dotted(&change.key),
                change.to,
                change.from,
                change.why
            ));
        }
    }
    for (engine, changed) in &report.changed {
        if changed.adopted {
            say(&format!(
                "{engine}: adopted what an earlier run left; {} added, {} removed",
                changed.added, changed.removed
            ));
        }
    }
}

/// The line that says every rule forwards.
pub fn ready() {
    say("ready");
}

/// A line on standard output.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // As with the log: a reader that has gone is no reason to stop forwarding.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints a value as JSON, one document.
pub fn json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).expect("plain data with text keys is valid JSON");
    say(&text);
}

/// A number of things: "1 flow", "2 flows".
pub fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Bytes for people: 4 significant characters and a binary unit.
pub fn bytes(count: u64) -> String {
    if count < 1024 {
        format!("{count} B")
    } else {
        shortened(count, 1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB"])
    }
}

/// A number of packets for people: exact below a hundred thousand.
pub fn count(count: u64) -> String {
    if count < 100_000 { count.to_string() } else { shortened(count, 1000.0, ["k", "M", "G", "T", "P"]) }
}

/// In the largest of the units that leaves no 0 in front; each is `step` of the one before.
fn shortened(count: u64, step: f64, units: [&str; 5]) -> String {
    let mut value = count as f64 / step;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_for_people() {
        assert_eq!(super::bytes(1023), "1023 B");
        assert_eq!(super::bytes(1024), "1.0 KiB");
        assert_eq!(super::bytes(3 << 29), "1.5 GiB");
        assert!(super::bytes(u64::MAX).ends_with("PiB"));
    }

    #[test]
    fn packets_for_people() {
        assert_eq!(super::count(99_999), "99999");
        assert_eq!(super::count(100_000), "100.0 k");
        assert_eq!(super::count(12_345_678), "12.3 M");
    }
}
