//! `portway toa` with real servers, and a gateway that writes into its segments what each test wants.
//!
//! The whole way, through the engine, is scenario `toa` of the conformance suite. Needs root, cgroup2 and the `portway`
//! binary, as the suite does.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails where it stands.

mod clients;
mod life;
mod refusals;
mod support;
