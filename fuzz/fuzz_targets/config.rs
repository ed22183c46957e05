//! Any text as a configuration file: it is read, built as far as it goes, assigned and its diagnostics shown without a panic,
//! and a ruleset comes exactly when there is no error.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use portway_core::assign::assign;
use portway_core::caps::Caps;
use portway_core::compare::compare;
use portway_core::config;
use portway_core::diagnostic::{Diagnostic, Source, render};
use portway_core::ruleset::Pool;

fuzz_target!(|text: &str| {
    let source = Source::new("portway.toml", text);
    let built = config::load(source.text());
    if let Err(found) = assign(&built.ruleset, &Caps::all()) {
        assert!(!render(&source, &found, false).is_empty());
    }
    let (ruleset, found) = built.whole();
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
                for target in rule.pool.targets() {
                    assert_ne!(target.socket(listener.ports, port).port(), 0);
                }
            }
        }
        let pool = &rule.pool;
        assert!((1..=Pool::MOST).contains(&pool.backends.len()));
        assert_eq!(rule.origin.backends.len(), pool.backends.len());
        let names: HashSet<_> = pool.backends.iter().map(|backend| &backend.name).collect();
        assert_eq!(names.len(), pool.backends.len());
        if let Some(check) = &pool.check {
            assert!(check.timeout <= check.interval && check.interval_down <= check.interval);
        }
    }
    match assign(&ruleset, &Caps::all()) {
        Err(found) => assert!(!render(&source, &found, true).is_empty()),
        Ok(assignment) => {
            assert_eq!(compare((&ruleset, &assignment), (&ruleset, &assignment)), []);
        }
    }
});
