//! Config to Ruleset.
