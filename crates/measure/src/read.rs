//! Reading a record back from a file that anyone may have written: what is wrong is said, and nothing that passes makes a later
//! step stumble.
//!
//! Deliberately absent: judging figures. A record may be nonsense and still be one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::capture::DIRECTORY;
use crate::record::{FILE, Record, VERSION};

/// The largest file that is read, in bytes: a run of an hour is a few megabytes.
pub const MOST: u64 = 256 << 20;

/// Why a file is no record that this program reads.
#[derive(Debug)]
pub enum ReadError {
    /// The file cannot be read.
    File(std::io::Error),
    /// It is larger than [`MOST`].
    TooLarge,
    /// It is no JSON, or not of the form.
    Form(serde_json::Error),
    /// It is a record of another version.
    Version(u64),
    /// It contradicts itself; how.
    Contradiction(String),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(reason) => reason.fmt(f),
            Self::TooLarge => write!(f, "it is larger than {} MiB: no record of the lab is", MOST >> 20),
            Self::Form(reason) => write!(f, "it is no record of the lab: {reason}"),
            Self::Version(version) => {
                write!(f, "it is a record of version {version}; this program reads version {VERSION}")
            }
            Self::Contradiction(what) => write!(f, "it contradicts itself: {what}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads a file, or the directory that a run wrote.
pub fn read(path: &Path) -> Result<Record, ReadError> {
    let inside = path.join(FILE);
    let file = File::open(if path.is_dir() { &inside } else { path }).map_err(ReadError::File)?;
    let mut bytes = Vec::new();
    // One more than is taken, so that too much is noticed.
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(ReadError::File)?;
    if bytes.len() as u64 > MOST {
        return Err(ReadError::TooLarge);
    }
    parse(&bytes)
}

/// Reads bytes.
pub fn parse(bytes: &[u8]) -> Result<Record, ReadError> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    // First: a record of another version need not have this one's form.
    let version: Version = serde_json::from_slice(bytes).map_err(ReadError::Form)?;
    if version.version != u64::from(VERSION) {
        return Err(ReadError::Version(version.version));
    }
    let record: Record = serde_json::from_slice(bytes).map_err(ReadError::Form)?;
    contradiction(&record).map_or(Ok(record), |what| Err(ReadError::Contradiction(what)))
}

/// What in a record contradicts the rest of it.
fn contradiction(record: &Record) -> Option<String> {
    let mut names = BTreeSet::new();
    if let Some(lane) = record.lanes.iter().find(|lane| !names.insert(lane.name.as_str())) {
        return Some(format!("the lane {:?} is there twice", lane.name));
    }
    for lane in &record.lanes {
        match lane.base.as_deref() {
            Some(base) if base == lane.name => return Some(format!("the lane {base:?} is its own base")),
            // A base that is not there: a run that was interrupted. Nothing is added to it, then.
            _ => (),
        }
    }
    for capture in &record.captures {
        // The report links to it: nowhere but beside the record.
        let name =
            capture.file.strip_prefix(DIRECTORY).and_then(|name| name.strip_prefix('/')).unwrap_or_default();
        let plain = |each: char| each.is_ascii_alphanumeric() || matches!(each, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Some(format!("the capture {:?} is not beside it", capture.file));
        }
    }
    for profile in &record.profiles {
        if !names.contains(profile.lane.as_str()) {
            return Some(format!("a profile is of the lane {:?}, which is not there", profile.lane));
        }
        let counted = profile.areas.values().try_fold(0_u64, |all, each| all.checked_add(*each));
        if counted != Some(profile.samples) {
            return Some(format!(
                "the areas of {:?} under {:?} are not its samples",
                profile.lane, profile.load
            ));
        }
    }
    for run in &record.runs {
        if !names.contains(run.lane.as_str()) {
            return Some(format!("a run is of the lane {:?}, which is not there", run.lane));
        }
        let steps = run.figures.latency.iter().flat_map(|latency| latency.steps.windows(2));
        if steps.into_iter().any(|pair| pair[0].0 > pair[1].0 || pair[0].1 > pair[1].1) {
            return Some(format!("times of {:?} under {:?} do not grow", run.lane, run.load));
        }
        if run.figures.seconds < 0.0 {
            return Some(format!("a run of {:?} under {:?} took less than no time", run.lane, run.load));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"version":1,"portway":"0.1.0","started":"2026-11-26T00:00:00Z","seconds":1.0,"command":["portway","lab"],
        "mode":"time","host":{"kernel":"6.12","cpu":"x","cpus":2,"memory":1,"hypervisor":null,"programs":{},"settings":{}},
        "lanes":[{"name":"routing","title":"","kind":"routing","base":null,"configuration":""},
                 {"name":"nft","title":"","kind":"kernel","base":"routing","configuration":""}],
        "left_out":[],"runs":[{"lane":"nft","load":"connections","round":1,"at":null,"figures":{"seconds":1.0,"done":5}}]}"#;

    fn complaint(from: &str, to: &str) -> String {
        assert!(RECORD.contains(from), "{from}");
        parse(RECORD.replace(from, to).as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn figures_that_are_not_there_are_absent() {
        let record = parse(RECORD.as_bytes()).unwrap();
        assert_eq!(record.runs[0].figures.done, 5);
        assert_eq!(record.runs[0].figures.cpu, None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(
            complaint("\"version\":1", "\"version\":2,\"lanes\":7"),
            "it is a record of version 2; this program reads version 1"
        );
        assert!(complaint("\"mode\":\"time\"", "\"mode\":\"weight\"").contains("weight"));
        assert!(complaint("\"seconds\":1.0,\"done\":5", "\"seconds\":1e999").contains("out of range"));
        assert_eq!(
            complaint("\"lane\":\"nft\"", "\"lane\":\"nfs\""),
            "it contradicts itself: a run is of the lane \"nfs\", which is not there"
        );
        assert!(complaint("\"base\":\"routing\"", "\"base\":\"nft\"").contains("its own base"));
        assert!(complaint("\"name\":\"nft\"", "\"name\":\"routing\"").contains("twice"));
        assert!(
            parse(b"").is_err() && parse(&[0xff; 9]).is_err() && parse("[".repeat(9999).as_bytes()).is_err()
        );
    }
}
