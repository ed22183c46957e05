//! One figure and its bound.

use std::fmt::Write;

use portway_lab::Engine;

/// What a row that misses its bound says.
pub const MISSED: &str = "**missed**";

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// On which engine.
    pub engine: Engine,
    /// The figure.
    pub found: f64,
    /// What it may be at most.
    pub bound: f64,
    /// The unit of both ("ms", "%").
    pub unit: &'static str,
    /// More, for the reader.
    pub remark: String,
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut out = String::from("| what | engine | measured | bound | | |\n|---|---|---|---|---|---|\n");
    for Row { what, engine, found, bound, unit, remark } in rows {
        let verdict = if found <= bound { "met" } else { MISSED };
        let _ = writeln!(
            out,
            "| {what} | {engine} | {found:.2} {unit} | {bound:.2} {unit} | {verdict} | {remark} |"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_kept_or_missed() {
        let row = |found| Row {
            what: "x".to_owned(),
            engine: Engine::Proxy,
            found,
            bound: 2.0,
            unit: "ms",
            remark: String::new(),
        };
        assert!(table(&[row(2.0)]).contains("| x | proxy | 2.00 ms | 2.00 ms | met |"));
        assert!(table(&[row(2.1)]).contains(MISSED));
        assert!(table(&[row(f64::NAN)]).contains(MISSED), "no figure keeps no bound");
    }
}
