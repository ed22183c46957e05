//! The pure core of Portway.
//!
//! Data flows one way: text is parsed to a [`config::Config`], built into a [`ruleset::Ruleset`], every rule
//! gets an engine from what the host can do ([`caps`], [`assign`]), and the assignment, with what the world says now
//! ([`facts`], [`members`]), becomes one plain-data [`plan`] per engine. Engines apply plans and answer with
//! [`snapshot`]s.
//!
//! Deliberately absent: clocks, sockets, files, threads, async and `unsafe`. Time is an argument.
#![forbid(unsafe_code)]

pub mod address;
pub mod assign;
pub mod balance;
pub mod build;
pub mod caps;
pub mod check;
pub mod compare;
pub mod config;
pub mod diagnostic;
pub mod engine;
pub mod facts;
pub mod flow;
pub mod health;
mod jitter;
pub mod members;
pub mod names;
pub mod plan;
pub mod ruleset;
pub mod snapshot;
