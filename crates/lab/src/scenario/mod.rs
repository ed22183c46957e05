//! The scenarios: what a user may expect, each on every engine that claims it.
//!
//! A scenario is a function of the engine. Which engine claims which scenario is written in one place,
//! `tests/conformance.rs`; the rules that an engine does not claim are in [`refused`].

pub mod balance;
pub mod command;
pub mod family;
pub mod follow;
pub mod hash;
pub mod http;
pub mod lifecycle;
pub mod limits;
pub mod listen;
pub mod path;
pub mod refused;
pub mod restart;
pub mod source;
pub mod tcp;
pub mod udp;
