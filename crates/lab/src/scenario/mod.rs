//! The scenarios: what a user may expect, each on every engine that claims it.
//!
//! A scenario is a function of the engine. Which engine claims which scenario is written in one place,
//! `tests/conformance.rs`; the rules that an engine does not claim are in [`refused`].

pub mod auto;
pub mod balance;
pub mod check;
pub mod command;
pub mod conns;
pub mod counted;
pub mod empty;
pub mod family;
pub mod flood;
pub mod follow;
pub mod fragment;
pub mod hash;
pub mod health;
pub mod hook;
pub mod host;
pub mod http;
pub mod icmp;
pub mod interfaces;
pub mod lifecycle;
pub mod limits;
pub mod links;
pub mod listen;
pub mod mtu;
pub mod names;
pub mod offload;
pub mod on_down;
pub mod operator;
pub mod passive;
pub mod path;
pub mod pool_reload;
pub mod refused;
pub mod resolver;
pub mod restart;
pub mod retry;
pub mod source;
pub mod table;
pub mod tcp;
pub mod time_wait;
pub mod toa;
pub mod trains;
pub mod udp;
pub mod upgrade;
