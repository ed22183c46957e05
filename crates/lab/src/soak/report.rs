//! The report: traffic and its errors, troubles, and what is left.

use std::fmt::Write;
use std::time::Duration;

use portway_lab::Engine;

use crate::lane::End;
use crate::leak::{Machine, Share};

/// What a report of a soak that found something has in it.
pub const FAULT: &str = "**fault**";

/// Renders it.
pub fn render(
    machine: &str,
    took: Duration,
    pause: Duration,
    engine: Engine,
    ends: &[End],
    [before, after]: [Machine; 2],
) -> String {
    let hook = if engine == Engine::Xdp { "XDP" } else { "TC" };
    let mut out = format!(
        "# Data path: soak\n\n{machine} {:.1} minutes at {hook}, something done to each lane every {:.0} s.\n",
        took.as_secs_f64() / 60.0,
        pause.as_secs_f64()
    );
    for end in ends {
        let _ = write!(
            out,
            "\n## {}\n\n",
            if end.killed { "A daemon that is killed" } else { "A daemon that lives" }
        );
        traffic(&mut out, end);
        out += "\n| what was done | times |\n|---|---|\n";
        for (what, times) in &end.troubles {
            let _ = writeln!(out, "| {what} | {times} |");
        }
        shares(&mut out, end.shares);
        for error in end.errors[1].iter().take(20) {
            let [from, to] = error.during.map(|at| at.as_secs_f64());
            let _ = writeln!(out, "\n{FAULT} {from:.3} to {to:.3} s, {}: {}", error.kind.words(), error.what);
        }
        for fault in &end.faults {
            let _ = writeln!(out, "\n{FAULT} {fault}");
        }
    }
    let _ = writeln!(
        out,
        "\nOn the whole machine, whoever's, before and after: programs {} and {}, maps {} and {}, links {} and {}.",
        before.programs, after.programs, before.maps, after.maps, before.links, after.links
    );
    out
}

fn traffic(out: &mut String, end: &End) {
    *out += "| traffic | answers | MB back | errors by what was done | errors by nothing | |\n|---|---|---|---|---|---|\n";
    for (kind, done) in &end.done {
        let [explained, others] = &end.errors;
        let count = |errors: &[crate::log::Error]| errors.iter().filter(|error| error.kind == *kind).count();
        let verdict = if count(others) == 0 { "none lost" } else { FAULT };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {verdict} |",
            kind.words(),
            done.answers,
            done.bytes / 1_000_000,
            count(explained),
            count(others)
        );
    }
}

fn shares(out: &mut String, [first, last]: [Share; 2]) {
    *out += "\n| of the daemon | after the first round | after the last |\n|---|---|---|\n";
    for (what, first, last) in [
        ("own memory, KiB", first.memory, last.memory),
        ("descriptors", first.descriptors, last.descriptors),
        ("threads", first.threads, last.threads),
        ("pins", first.pins, last.pins),
        ("programs", first.programs, last.programs),
        ("maps", first.maps, last.maps),
        ("flows alive", first.flows, last.flows),
    ] {
        let _ = writeln!(out, "| {what} | {first} | {last} |");
    }
}
