//! The report: from a record to files that people read.
//!
//! One document is assembled ([`mod@document`]) and written twice, as HTML and as Markdown, with the drawings as SVG and PNG
//! beside it. Pure but for [`write_all`]. Deliberately absent: the terminal's progress and anything that measures.

mod changes;
mod conclusions;
pub mod document;
mod doubts;
mod facts;
pub mod figures;
mod html;
mod markdown;
pub(crate) mod marks;
mod packets;
mod profiles;
mod sections;
pub mod series;
mod tables;
pub mod words;

use std::fs;
use std::path::{Path, PathBuf};

use crate::plot::png::{PngError, Renderer};
use crate::read;
use crate::record::{FILE, Record};
pub use changes::blocks as changes;
pub use conclusions::conclusions;
use document::Block;
pub use facts::warnings;

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The page.
    pub html: PathBuf,
    /// The same as Markdown.
    pub markdown: PathBuf,
    /// The record.
    pub record: PathBuf,
    /// How many drawings there are, each as SVG and as PNG.
    pub plots: usize,
}

/// Why a report is not, or not all, there.
#[derive(Debug)]
pub enum WriteError {
    /// A file or directory could not be written.
    File(PathBuf, std::io::Error),
    /// There is the record of another run, or something else by its name.
    Taken(PathBuf),
    /// The record could not be put into words of JSON.
    Record(serde_json::Error),
    /// A drawing could not be rendered.
    Picture(String, PngError),
}

impl std::fmt::Display for WriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, reason) => write!(f, "{}: {reason}", path.display()),
            Self::Taken(dir) => write!(
                f,
                "{} holds another run, whose files would be mixed with this one's: say another --out, or remove it",
                dir.display()
            ),
            Self::Record(reason) => write!(f, "the record cannot be written: {reason}"),
            Self::Picture(name, reason) => write!(f, "plot {name}: {reason}"),
        }
    }
}

impl std::error::Error for WriteError {}

/// Whether a run's results can go into a directory: it holds no record yet, or this one.
///
/// # Errors
/// [`WriteError::Taken`].
pub fn has_room(dir: &Path, record: Option<&Record>) -> Result<(), WriteError> {
    let there = dir.join(FILE);
    let same = || record.is_some_and(|record| read::read(&there).is_ok_and(|there| there == *record));
    if there.exists() && !same() { Err(WriteError::Taken(dir.to_owned())) } else { Ok(()) }
}

/// Writes `report.html`, `report.md`, `record.json` and `plots/` into a directory, which is made if it is not there. The
/// record comes first: whatever fails after it, the figures are safe.
///
/// # Errors
/// See [`WriteError`]; a directory with another run's record is left as it is.
pub fn write_all(record: &Record, dir: &Path) -> Result<Written, WriteError> {
    has_room(dir, Some(record))?;
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).map(|()| path.clone()).map_err(|reason| WriteError::File(path, reason))
    };
    let plots = dir.join("plots");
    fs::create_dir_all(&plots).map_err(|reason| WriteError::File(plots, reason))?;
    let mut json = serde_json::to_vec(record).map_err(WriteError::Record)?;
    json.push(b'\n');
    let record_at = file(FILE, &json)?;
    let blocks = document(record);
    let html = file("report.html", html::html(&facts::title(record), &blocks).as_bytes())?;
    let markdown = file("report.md", markdown::markdown(&blocks).as_bytes())?;
    let renderer = Renderer::default();
    let mut count = 0;
    for drawing in blocks.iter().flat_map(Block::drawings) {
        file(&format!("plots/{}.svg", drawing.name), drawing.file().as_bytes())?;
        let png =
            renderer.png(drawing).map_err(|reason| WriteError::Picture(drawing.name.clone(), reason))?;
        file(&format!("plots/{}.png", drawing.name), &png)?;
        count += 1;
    }
    Ok(Written { html, markdown, record: record_at, plots: count })
}

/// What is said where the command was typed: the few figures that most want, and what follows.
pub fn brief(record: &Record) -> String {
    let mut blocks = facts::warnings(record);
    blocks.extend(sections::glance(record));
    blocks.extend(sections::targets(record));
    blocks.extend(facts::left_out(record));
    blocks.extend(conclusions(record));
    markdown::markdown(&blocks)
}

/// The report as Markdown.
pub fn markdown(record: &Record) -> String {
    text(&document(record))
}

/// Parts of a report as Markdown, which reads well in a terminal.
pub fn text(blocks: &[Block]) -> String {
    markdown::markdown(blocks)
}

/// The report as a page.
pub fn html(record: &Record) -> String {
    html::html(&facts::title(record), &document(record))
}

/// All of a report.
pub fn document(record: &Record) -> Vec<Block> {
    let mut blocks = facts::head(record);
    blocks.extend(sections::glance(record));
    for load in record.loads() {
        blocks.extend(sections::load(record, load));
    }
    blocks.extend(profiles::blocks(record));
    blocks.extend(packets::blocks(record));
    blocks.extend(series::section(record));
    blocks.extend(sections::targets(record));
    blocks.extend(sections::outliers(record));
    blocks.extend(facts::tail(record));
    blocks.extend(conclusions(record));
    blocks
}
