//! A report as Markdown (GitHub's, for its tables), with the drawings as files beside it.

use std::fmt::Write;

use super::document::{Block, Table};

/// Writes blocks; drawings are referred to in `plots/`.
pub fn markdown(blocks: &[Block]) -> String {
    let mut out = String::new();
    for block in blocks {
        write(&mut out, block);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn write(out: &mut String, block: &Block) {
    let _ = match block {
        Block::Heading(level, text) => {
            writeln!(out, "{} {}\n", "#".repeat(usize::from(*level)), escaped(text))
        }
        Block::Paragraph(text) => writeln!(out, "{}\n", escaped(text)),
        Block::Warning(text) => writeln!(out, "> **{}**\n", escaped(text)),
        Block::List(items) => {
            for item in items {
                let _ = writeln!(out, "- {}", escaped(item));
            }
            writeln!(out)
        }
        Block::Code(text) => {
            // A fence longer than any in the text.
            let longest = text.split(|each| each != '`').map(str::len).max().unwrap_or(0);
            let fence = "`".repeat(longest.max(2) + 1);
            writeln!(out, "{fence}\n{}\n{fence}\n", text.trim_end())
        }
        Block::Table(table) => write_table(out, table),
        Block::Figure(drawings, table) => {
            for drawing in drawings {
                let _ = writeln!(out, "![{}](plots/{}.svg)\n", escaped(&drawing.alt), drawing.name);
            }
            write_table(out, table)
        }
        Block::Files(files) => {
            for (what, place) in files {
                let _ = writeln!(out, "- [{}]({place})", escaped(what));
            }
            writeln!(out)
        }
        Block::Details(heading, blocks) => {
            let _ = writeln!(out, "**{}**\n", escaped(heading));
            blocks.iter().for_each(|block| write(out, block));
            Ok(())
        }
    };
}

fn write_table(out: &mut String, table: &Table) -> std::fmt::Result {
    if !table.caption.is_empty() {
        writeln!(out, "{}:\n", escaped(&table.caption))?;
    }
    let rows: Vec<Vec<String>> = std::iter::once(&table.head)
        .chain(&table.rows)
        .map(|row| row.iter().map(|cell| escaped(cell)).collect())
        .collect();
    // As wide as the widest cell, so that it is a table in a terminal as well.
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..table.head.len()).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => write!(out, "| {cell:<width$} ")?,
                _ => write!(out, "| {cell:>width$} ")?,
            }
        }
        writeln!(out, "|")?;
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let line = "-".repeat(width + 1);
                write!(out, "|{line}{}", if column == 0 { "-" } else { ":" })?;
            }
            writeln!(out, "|")?;
        }
    }
    writeln!(out)?;
    match table.note.as_str() {
        "" => Ok(()),
        note => writeln!(out, "{}\n", escaped(note)),
    }
}

/// Text that Markdown takes for text (CommonMark 0.31, 2.4), in a table too.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for each in text.chars() {
        match each {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '&' | '~' | '$' => {
                out.push('\\');
                out.push(each);
            }
            '\n' | '\r' => out.push(' '),
            each if each.is_control() => out.push('\u{fffd}'),
            each => out.push(each),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_become_markup() {
        let blocks = [Block::List(vec!["a|b <script> *x*\n# no".into()]), Block::Code("```\n````".into())];
        let text = markdown(&blocks);
        assert!(text.starts_with("- a\\|b \\<script\\> \\*x\\* \\# no\n"), "{text}");
        assert!(text.contains("`````\n```\n````\n`````"), "{text}");
    }
}
