//! The eBPF engine: full NAT by programs on the interfaces, kept in pinned maps; and, for its backends, [`toa`].
//!
//! What the programs do is `ebpf/` and `portway-datapath`; what they shall do is `portway_core::plan::ebpf`. Here they are
//! loaded, attached and told. Deliberately absent: sysctls (the `portway` crate's) and any decision about rules.

mod adopt;
mod apply;
mod attach;
mod btf;
mod choice;
mod collect;
mod config;
mod engine;
mod flow;
mod follow;
mod grow;
mod held;
mod host;
mod map;
mod maps;
mod neighbour;
mod netdev;
mod object;
mod observe;
mod pins;
mod probe;
mod reason;
mod refusal;
mod reopen;
mod room;
mod route;
mod serve;
mod sources;
mod state;
mod summed;
mod sweep;
mod sys;
mod table;
pub mod toa;
#[doc(hidden)]
pub mod trial;
mod value;
mod verify;
mod view;
mod words;
mod write;

pub use engine::EbpfEngine;
pub use host::ephemeral_ports;
pub use probe::{Interface, addresses, interfaces, probe};

/// The programs that are attached to an interface by tcx, in the order in which they run, by the kernel's numbers.
///
/// # Errors
/// The kernel's.
#[doc(hidden)]
pub fn attached(interface: u32) -> std::io::Result<Vec<u32>> {
    sys::attached(interface, sys::place::TCX_INGRESS)
}

/// The number of the calling thread's network namespace.
///
/// # Errors
/// The kernel's.
#[doc(hidden)]
pub fn namespace_cookie() -> std::io::Result<u64> {
    pins::cookie()
}
