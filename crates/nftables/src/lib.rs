//! The nftables engine: NAT in the kernel, by one table of nf_tables, set up over netlink.
//!
//! What the table holds is `portway_core::plan::nftables`; here are the messages (`encode`, `decode`),
//! the engine itself and what else the kernel tells: conntrack entries, other tables in the way, capabilities.
//! Deliberately absent: the `nft` program, sysctls (the `portway` crate's) and any decision about rules.

mod adjust;
mod chain;
mod conntrack;
mod decode;
mod encode;
mod engine;
mod expression;
mod flow;
mod memory;
mod observe;
mod obstacle;
mod primitive;
mod probe;
mod refusal;
mod set;
mod value;

#[doc(hidden)]
pub use decode::elements_in;
pub use engine::NftablesEngine;
pub use obstacle::{Obstacle, forward_obstacles};
pub use probe::probe;
