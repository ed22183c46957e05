//! What the engine tells a worker.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use portway_core::address::Protocol;
use portway_core::flow::{FlowFilter, Flows};

use crate::route::Route;

/// Identifies a listener in the engine and in every worker.
pub type ListenerId = u64;

/// What the engine tells a worker.
pub enum Command {
    /// Change listeners, then say so.
    Apply {
        /// New sockets.
        add: Vec<(ListenerId, Protocol, OwnedFd, Arc<Route>)>,
        /// Listeners that lead elsewhere from now on.
        route: Vec<(ListenerId, Arc<Route>)>,
        /// Listeners to close; their connections go on.
        remove: Vec<ListenerId>,
        /// Answered when done.
        done: Sender<()>,
    },
    /// Look whether clients that wait can be served now.
    Look,
    /// List flows.
    List {
        /// Which.
        filter: FlowFilter,
        /// How many at most.
        most: usize,
        /// Answered with them.
        answer: Sender<Flows>,
    },
    /// End flows.
    End {
        /// Which.
        filter: FlowFilter,
        /// Answered with their number.
        answer: Sender<u64>,
    },
    /// Close all listeners, end all connections and flows, then the thread.
    Stop,
}
