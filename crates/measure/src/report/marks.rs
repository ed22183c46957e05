//! How far a figure can be believed, said beside it: of how few rounds it is, that it is lost in the noise, how much failed.
//!
//! A mark is short, so that a table stays one, and what it means is said once, below. Deliberately absent: what is said of all
//! of a run before its figures ([`super::doubts`]).

use super::document::{NOTHING, Table};
use super::words;
use crate::record::Record;
use crate::rounds::Rounds;

/// Stands beside an added cost whose middle half reaches over zero.
pub const WIDE: &str = "?";

/// A figure as text, and what is to be said of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    text: String,
    /// How many rounds it is of, if any.
    rounds: usize,
    /// They are too few to decide anything.
    is_few: bool,
    /// It is a difference that may as well be none.
    is_wide: bool,
    /// How much failed, in percent, if so much did that it matters.
    failed: Option<f64>,
}

impl Cell {
    /// Text of which nothing is to be said.
    pub fn plain(text: String) -> Self {
        Self { text, ..Self::default() }
    }

    /// A figure as it was measured.
    pub fn figure(record: &Record, rounds: &Rounds) -> Self {
        let is_few = !rounds.is_empty() && rounds.len() < record.least_rounds();
        Self { text: words::spread(rounds), rounds: rounds.len(), is_few, ..Self::default() }
    }

    /// A figure that is a difference: what something adds.
    pub fn added(record: &Record, rounds: &Rounds) -> Self {
        let figure = Self::figure(record, rounds);
        let is_over_zero = rounds.summary().is_some_and(|middle| middle.low <= 0.0 && middle.high > 0.0);
        Self { is_wide: is_over_zero && !figure.is_few, ..figure }
    }

    /// With what failed, in percent, where it matters.
    pub fn with_failures(self, failed: Option<f64>) -> Self {
        Self { failed, ..self }
    }

    /// In the unit, with its marks.
    pub fn marked(&self, unit: &str) -> String {
        let text = if self.failed.is_some() && self.text == NOTHING { "" } else { &self.text };
        let wide = if self.is_wide { format!(" {WIDE}") } else { String::new() };
        let failed = self.failed.map_or(String::new(), |share| format!(", {} failed", words::percent(share)));
        let marked = format!("{}{wide}{}{failed}", words::counted(text, unit), self.few());
        marked.trim_start_matches(", ").to_owned()
    }

    fn few(&self) -> String {
        match self.rounds {
            _ if !self.is_few => String::new(),
            1 => ", one round".to_owned(),
            rounds => format!(", {}", words::number(rounds, "round")),
        }
    }
}

/// A marked figure for where no line below says what its mark means.
pub fn spoken(marked: &str) -> String {
    match marked.strip_suffix(WIDE) {
        Some(figure) => format!("{}, too wide to tell", figure.trim_end()),
        None => marked.to_owned(),
    }
}

/// Fills a table with rows of figures, each with a name, and says below it what the marks of those figures mean.
pub fn filled(record: &Record, mut table: Table, rows: Vec<(String, Vec<Cell>)>) -> Table {
    let cells = || rows.iter().flat_map(|(_, cells)| cells).filter(|cell| cell.rounds > 0);
    let mut notes = Vec::new();
    if cells().any(|cell| cell.is_wide) {
        notes.push(format!(
            "{WIDE}: too wide to tell from nothing, since the middle half of the rounds reaches over zero."
        ));
    }
    // Said of each, where it is the same of all, it would hide the figures.
    let first = cells().next().map_or(0, |cell| cell.rounds);
    let all_few = cells().all(|cell| cell.is_few && cell.rounds == first);
    let least = record.least_rounds();
    match first {
        0 => (),
        1 if all_few => notes.push(format!("All of one round: it takes {least} to decide anything.")),
        _ if all_few => {
            notes.push(format!("All of {first} rounds: it takes {least} to decide anything."));
        }
        _ if cells().any(|cell| cell.is_few) => {
            notes.push(format!("Fewer than {least} rounds decide nothing."));
        }
        _ => (),
    }
    if rows.iter().flat_map(|(_, cells)| cells).any(|cell| cell.failed.is_some()) {
        notes.push(
            "Failed: the share of all that was tried, in the worst round. Costs are divided by what succeeded."
                .to_owned(),
        );
    }
    let shown = |cell: Cell| if all_few { Cell { is_few: false, ..cell } } else { cell }.marked("");
    table.rows = rows
        .into_iter()
        .map(|(name, cells)| std::iter::once(name).chain(cells.into_iter().map(shown)).collect())
        .collect();
    table.note = notes.join(" ");
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Host, Mode, VERSION};

    fn record(mode: Mode) -> Record {
        Record {
            version: VERSION,
            portway: String::new(),
            started: String::new(),
            seconds: 0.0,
            command: Vec::new(),
            mode,
            optimised: true,
            host: Host::default(),
            lanes: Vec::new(),
            left_out: Vec::new(),
            runs: Vec::new(),
            captures: Vec::new(),
            profiles: Vec::new(),
        }
    }

    fn rounds(figures: &[f64]) -> Rounds {
        (1..).zip(figures.iter().copied()).collect()
    }

    #[test]
    fn only_a_difference_can_be_lost_in_the_noise_and_one_round_is_named() {
        let record = record(Mode::Time);
        let wide = rounds(&[-10.0, 1.0, 20.0]);
        assert_eq!(Cell::added(&record, &wide).marked(""), "1.00 (−4.50–10.50) ?");
        assert_eq!(
            spoken(&Cell::added(&record, &wide).marked("µs")),
            "1.00 (−4.50–10.50) µs, too wide to tell"
        );
        assert_eq!(Cell::figure(&record, &wide).marked(""), "1.00 (−4.50–10.50)");
        assert_eq!(Cell::added(&record, &rounds(&[-9.0, -8.0, -7.0])).marked("µs"), "−8.00 (−8.50–−7.50) µs");
        assert_eq!(Cell::added(&record, &rounds(&[5.0])).marked("µs"), "5.00 µs, one round");
        assert_eq!(Cell::added(&record, &rounds(&[-5.0, 5.0])).marked(""), "0.00 (−2.50–2.50), 2 rounds");
        assert_eq!(Cell::added(&record, &Rounds::default()).marked(""), NOTHING);
    }

    #[test]
    fn instructions_of_one_round_are_as_good_as_many() {
        assert_eq!(Cell::added(&self::record(Mode::Exact), &rounds(&[5.0])).marked(""), "5.00");
    }

    #[test]
    fn failures_stand_beside_the_cost_or_in_its_place() {
        let record = record(Mode::Time);
        let cell = |figures: &[f64], failed| Cell::figure(&record, &rounds(figures)).with_failures(failed);
        assert_eq!(cell(&[5.0, 5.0, 5.0], Some(3.21)).marked(""), "5.00 (5.00–5.00), 3.2 % failed");
        assert_eq!(cell(&[5.0], Some(0.15)).marked(""), "5.00, one round, 0.15 % failed");
        assert_eq!(cell(&[], Some(100.0)).marked(""), "100 % failed");
        assert_eq!(cell(&[], None).marked(""), NOTHING);
    }

    #[test]
    fn what_is_the_same_of_all_is_said_once_below() {
        let record = record(Mode::Time);
        let row = |name: &str, figures: &[&[f64]]| {
            let cells = figures.iter().map(|figures| Cell::figure(&record, &rounds(figures))).collect();
            (name.to_owned(), cells)
        };
        let all =
            filled(&record, Table::default(), vec![row("a", &[&[1.0], &[2.0]]), row("b", &[&[3.0], &[]])]);
        assert_eq!(all.rows, [["a", "1.00", "2.00"], ["b", "3.00", NOTHING]]);
        assert_eq!(all.note, "All of one round: it takes 3 to decide anything.");
        let some = filled(&record, Table::default(), vec![row("a", &[&[1.0], &[2.0, 2.0, 2.0]])]);
        assert_eq!(some.rows, [["a", "1.00, one round", "2.00 (2.00–2.00)"]]);
        assert_eq!(some.note, "Fewer than 3 rounds decide nothing.");
        let none = filled(&record, Table::default(), vec![row("a", &[&[2.0, 2.0, 2.0]]), row("b", &[&[]])]);
        assert_eq!(none.note, "");
    }
}
