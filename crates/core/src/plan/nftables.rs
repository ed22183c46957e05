//! The nftables plan.
