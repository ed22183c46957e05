//! What a report consists of, whatever it is written as: headings, paragraphs, tables, drawings.
//!
//! Text is plain here, and what it must be escaped for is known only where it is written (`html`, `markdown`).

use crate::plot::Drawing;

/// A part of a report.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Begins a section; the level is 1 for the title, 2 or 3 below it.
    Heading(u8, String),
    /// A paragraph.
    Paragraph(String),
    /// A paragraph that must not be missed.
    Warning(String),
    /// Items.
    List(Vec<String>),
    /// What is typed or read by a program.
    Code(String),
    /// A table.
    Table(Table),
    /// Drawings with the same in figures.
    Figure(Vec<Drawing>, Table),
    /// Files beside the report: what each is, and where.
    Files(Vec<(String, String)>),
    /// What few need: a heading for it, and what it holds.
    Details(String, Vec<Block>),
}

impl Block {
    /// The drawings that it holds.
    pub fn drawings(&self) -> &[Drawing] {
        match self {
            Self::Figure(drawings, _) => drawings,
            _ => &[],
        }
    }
}

/// A table whose first column names its rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What it holds.
    pub caption: String,
    /// Its columns' names.
    pub head: Vec<String>,
    /// Its rows, each as long as the head.
    pub rows: Vec<Vec<String>>,
    /// What is to be known of its figures, said below it; empty if nothing is.
    pub note: String,
}

impl Table {
    /// An empty one.
    pub fn new(caption: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|&name| name.to_owned()).collect();
        Self { caption: caption.into(), head, ..Self::default() }
    }

    /// Without the columns in which no row says anything.
    pub fn compact(mut self) -> Self {
        let says = |column: usize| column == 0 || self.rows.iter().any(|row| row[column] != NOTHING);
        let kept: Vec<bool> = (0..self.head.len()).map(says).collect();
        let keep = |row: &mut Vec<String>| {
            let mut columns = kept.iter();
            row.retain(|_| *columns.next().unwrap_or(&false));
        };
        keep(&mut self.head);
        self.rows.iter_mut().for_each(keep);
        self
    }
}

/// What a cell says that has no figure.
pub const NOTHING: &str = "–";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_without_a_figure_go() {
        let mut table = Table::new("x", &["lane", "a", "b"]);
        table.rows = vec![vec!["nft".into(), NOTHING.into(), "1".into()]];
        assert_eq!(table.compact().head, ["lane", "b"]);
    }
}
