//! Portway's command and daemon: everything that touches the world, except the engines.
//!
//! [`cli`] reads the command line, [`load`] turns a file into a candidate, [`controller`] is the only mutable
//! state, [`daemon`] feeds it events, [`news`] brings what the watchers find, [`remembered`] is what outlives it,
//! [`control`] is the socket, [`host`] the sysctls, ports and capabilities.
#![forbid(unsafe_code)]

pub mod cli;
pub mod concern;
pub mod control;
pub mod controller;
pub mod daemon;
pub mod host;
pub mod load;
pub mod news;
pub mod remembered;
pub mod state_dir;
pub mod table_lock;
