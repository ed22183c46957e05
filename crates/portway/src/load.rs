//! From a file to a candidate: read, parse, build, assign. One path for `check`, `plan`, `diff`, `run` and a
//! reload, so that what one of them accepts all of them accept.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use portway_core::assign::{assign, warnings};
use portway_core::build::Built;
use portway_core::caps::Caps;
use portway_core::diagnostic::{Diagnostic, Source};

use crate::controller::Candidate;

/// The largest file that is read, in bytes; 10,000 rules are about 1 MB.
pub const MAX_FILE: u64 = 64 << 20;

/// What a text came to.
#[derive(Debug)]
pub struct Loaded {
    /// The text and its name, for diagnostics.
    pub source: Source,
    /// The candidate, unless the text has errors.
    pub candidate: Option<Candidate>,
    /// Every error and warning.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a file; `-` is standard input.
///
/// # Errors
/// It cannot be read, is not UTF-8, or is larger than [`MAX_FILE`].
pub fn read(path: &Path) -> io::Result<Source> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    // Read to the bound rather than asked for its size: a device or a pipe has none.
    let read = if path == Path::new("-") {
        io::stdin().take(MAX_FILE + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
    };
    if read.map_err(named)? as u64 > MAX_FILE {
        return Err(named(io::Error::other(format!("more than {MAX_FILE} bytes"))));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        named(io::Error::new(io::ErrorKind::InvalidData, format!("not UTF-8 text from byte {at} on")))
    })?;
    Ok(Source::new(path.display().to_string(), text))
}

/// Loads a text as a file on a host with `caps`.
pub fn load(source: Source, caps: &Caps) -> Loaded {
    let built = portway_core::config::load(source.text());
    finish(source, built, caps)
}

/// Assigns engines to what was built from `source`. Also where there are mistakes: what no engine can do with the rules
/// that are there is told in the same run.
pub fn finish(source: Source, mut built: Built, caps: &Caps) -> Loaded {
    let assignment = match assign(&built.ruleset, caps) {
        Ok(assignment) => {
            built.note(warnings(&built.ruleset, &assignment, caps));
            Some(assignment)
        }
        Err(more) => {
            built.note(more);
            None
        }
    };
    let (ruleset, diagnostics) = built.whole();
    let candidate = ruleset.zip(assignment).map(|(ruleset, assignment)| Candidate { ruleset, assignment });
    Loaded { source, candidate, diagnostics }
}
