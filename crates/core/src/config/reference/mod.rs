//! `docs/configuration.md`, written from the table of known keys and the chapters beside this file. A test compares the
//! committed page with this; `UPDATE=1 cargo test -p portway-core --test reference` rewrites it.
//!
//! Deliberately absent: a tutorial. The examples are that.

use std::fmt::Write as _;

use super::keys::{FILE, Key, Kind, Section, Types};
use super::value::format_duration;

const HEAD: &str = include_str!("head.md");
const CHAPTERS: &str = include_str!("chapters.md");

/// The page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for section in FILE.walk() {
        let title = match section.header {
            "" => "The file".to_owned(),
            header => format!("`{header}`"),
        };
        let _ = write!(page, "## {title}\n\n{}\n\n", section.doc);
        keys(&mut page, section);
    }
    page.push_str(CHAPTERS);
    page
}

fn keys(page: &mut String, section: &Section) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "| key | value | default | |\n|---|---|---|---|");
    for key in section.keys {
        let doc = match key.kind.section() {
            Some(below) => format!("{} See `{}`.", key.doc, below.header).trim_start().to_owned(),
            None => format!("{}{}", types(section, key), key.doc),
        };
        let default = if key.required {
            "**required**".to_owned()
        } else if key.default.starts_with('"') {
            format!("`{}`", key.default)
        } else {
            key.default.to_owned()
        };
        let _ = writeln!(page, "| `{}` | {} | {default} | {doc} |", key.name, value(key));
    }
    page.push('\n');
}

/// The types that a key belongs to, in front of what it does.
fn types(section: &Section, key: &Key) -> String {
    let quoted = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match section.types(key) {
        Types::All => String::new(),
        Types::Only(words) => format!("{}: ", quoted(&words)),
        Types::Not(words) => format!("Not for {}: ", quoted(&words)),
    }
}

fn value(key: &Key) -> String {
    match &key.kind {
        Kind::Choice(words) => {
            words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Number(least, most) => format!("{least} to {most}, as in `{}`", key.example),
        Kind::Duration(bounds) => {
            let seconds = if bounds.whole_seconds { ", whole seconds" } else { "" };
            let (least, most) = (format_duration(bounds.least), format_duration(bounds.most));
            format!("{least} to {most}{seconds}, as in `{}`", key.example)
        }
        Kind::Text | Kind::Texts => format!("{}, as in `{}`", key.kind.describe(), key.example),
        Kind::Entries(..) => format!("{}, as in `{}`", key.kind.describe(), key.example),
        Kind::Flag | Kind::Table(_) | Kind::Short(..) | Kind::Tables(_) => key.kind.describe().to_owned(),
    }
}
