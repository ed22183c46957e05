//! The host that Portway runs on: its settings, its ports, what it can do.

pub mod absent;
pub mod in_use;
pub mod ports;
pub mod probe;
mod reserved;
pub mod sysctl;
