//! Portway's proxy engine: a user-space TCP and UDP relay.
//!
//! One thread per core, each with its own epoll instance and its own SO_REUSEPORT listening sockets; see
//! the module `worker` for why there is no async runtime. [`ProxyEngine`] opens sockets, hands them to the workers and
//! adds up what they count.
//!
//! The process must ignore SIGPIPE, as Rust's runtime arranges: splice(2) has no flag against it.
//!
//! Deliberately absent: everything above the transport (PROXY protocol, TLS) but the name in a ClientHello, health
//! checks that are not a connection's own, and any change to the host's settings.

mod command;
mod context;
mod ejection;
mod engine;
mod icmp;
mod limits;
mod listen;
mod member;
mod observe;
mod persist;
mod pipes;
mod pool;
mod random;
mod route;
mod served;
mod shared;
mod sni;
mod sys;
mod tcp;
mod threads;
mod timer;
mod token;
mod udp;
mod worker;

pub use crate::engine::ProxyEngine;
#[doc(hidden)]
pub use crate::sni::server_name_in;
