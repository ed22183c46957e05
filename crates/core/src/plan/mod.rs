//! Plans: one per engine, plain data, printable and comparable. The same input gives the same bytes.

pub mod nftables;
pub mod proxy;
