//! Any text as a configuration file: it is read, built, assigned and its diagnostics shown without a panic,
//! and a ruleset comes exactly when there is no error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_core::assign::assign;
use portway_core::caps::Caps;
use portway_core::config;
use portway_core::diagnostic::{Diagnostic, Source, render};

fuzz_target!(|text: &str| {
    let source = Source::new("portway.toml", text);
    let (ruleset, found) = config::load(source.text());
    assert_eq!(ruleset.is_some(), !found.iter().any(Diagnostic::is_error));
    for diagnostic in &found {
        assert!(text.get(diagnostic.primary.span.clone()).is_some(), "{diagnostic:?}");
        let place = diagnostic.located(&source).place;
        assert!((place.line, place.column) <= (place.end_line, place.end_column));
    }
    render(&source, &found, false);
    let Some(ruleset) = ruleset else { return };
    for rule in &ruleset.rules {
        for listener in &rule.listeners {
            for port in [listener.ports.first(), listener.ports.last()] {
                assert_ne!(rule.backend.target(listener.ports, port).port(), 0);
            }
        }
    }
    if let Err(found) = assign(&ruleset, &Caps::all()) {
        assert!(!render(&source, &found, true).is_empty());
    }
});
