//! The figures of a record as a plain table, for a terminal.

use std::fmt::Write;

use crate::record::{Figures, Record, Run};
use crate::stats::summary;

/// A table for each load: medians of the rounds.
pub fn render(record: &Record) -> String {
    let mut out = String::new();
    let mut loads: Vec<&str> = Vec::new();
    for run in &record.runs {
        if !loads.contains(&run.load.as_str()) {
            loads.push(&run.load);
        }
    }
    for load in loads {
        let _ = writeln!(
            out,
            "{load}\n{:<20} {:>12} {:>12} {:>12} {:>12}",
            "", "per second", "Gbit/s", "CPU us each", "CPU ms/GB"
        );
        for lane in &record.lanes {
            let runs: Vec<&Run> =
                record.runs.iter().filter(|run| run.lane == lane.name && run.load == load).collect();
            let median = |figure: fn(&Figures) -> f64| {
                summary(runs.iter().map(|run| figure(&run.figures)))
                    .map_or_else(String::new, |middle| format!("{:.2}", middle.median))
            };
            let cpu = |figures: &Figures| figures.cpu.unwrap_or_default().total();
            let _ = writeln!(
                out,
                "{:<20} {:>12} {:>12} {:>12} {:>12}",
                lane.name,
                median(|f| f.done as f64 / f.seconds),
                median(|f| f.bytes as f64 * 8e-9 / f.seconds),
                summary(runs.iter().map(|run| cpu(&run.figures) * 1e6 / run.figures.done as f64))
                    .map_or_else(String::new, |middle| format!("{:.1}", middle.median)),
                summary(runs.iter().map(|run| cpu(&run.figures) * 1e12 / run.figures.bytes as f64))
                    .map_or_else(String::new, |middle| format!("{:.1}", middle.median)),
            );
        }
        out.push('\n');
    }
    for left_out in &record.left_out {
        let _ = writeln!(out, "without {}: {}", left_out.name, left_out.why);
    }
    out
}
