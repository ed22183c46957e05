//! Any words as `portway forward`'s command line, one a line; the first two are the options.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_core::config::from_command_line;
use portway_core::diagnostic::{Diagnostic, render};

fuzz_target!(|text: &str| {
    let mut words = text.lines();
    let engine = words.next().filter(|word| !word.is_empty());
    let source = words.next().filter(|word| !word.is_empty());
    let pairs: Vec<&str> = words.collect();
    let (line, built) = from_command_line(&pairs, engine, source);
    let (ruleset, found) = built.whole();
    assert_eq!(ruleset.is_some(), !found.iter().any(Diagnostic::is_error));
    for diagnostic in &found {
        assert!(line.text().get(diagnostic.primary.span.clone()).is_some(), "{diagnostic:?}");
    }
    render(&line, &found, false);
});
