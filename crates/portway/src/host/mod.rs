//! The host that Portway runs on: its settings, its ports, what it can do.

pub mod ports;
pub mod probe;
pub mod sysctl;
