//! Netlink: messages and attributes as bytes ([`wire`]), and a socket that asks, lists, sends batches and listens
//! ([`socket`]).
//!
//! A crate of its own because two engines speak it and no engine sees another. Deliberately absent: what any message
//! means.

#![forbid(unsafe_code)]

pub mod socket;
pub mod wire;

pub use socket::{Dump, Refusal, Socket};
