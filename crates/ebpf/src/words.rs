//! Errors of libraries in words.

use std::error::Error;

/// How much of an error is shown, in bytes.
const LONGEST: usize = 2000;

/// An error with all that led to it.
pub fn of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    // The verifier's diary: what went wrong stands at its end.
    let skip = text.len().saturating_sub(LONGEST);
    match text.char_indices().find(|(at, _)| *at >= skip) {
        Some((at, _)) if at > 0 => format!("... {}", &text[at..]),
        _ => text,
    }
}
