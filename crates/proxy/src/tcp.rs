//! One proxied TCP connection: two sockets and two directions, each a small state machine.
//!
//! Knows nothing of epoll, timers and limits: [`crate::worker`] says which socket is ready and does what
//! [`Step`] asks for.

mod direction;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::sockopt;

pub use self::direction::{Direction, SCRATCH, Step};
use crate::member::{Lease, Member};
use crate::pipes::Pool;
use crate::route::Route;
use crate::sni::Hello;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is read (not taken) what the client says, because the choice of a member depends on it.
    Hello,
    /// No member has room for it.
    Waiting,
    /// connect() is under way.
    Connecting,
    /// Both ends are connected.
    Relaying,
}

/// A connection.
pub struct Connection {
    /// The accepted socket.
    pub client: OwnedFd,
    /// The socket towards the backend, once a member is chosen.
    pub backend: Option<OwnedFd>,
    /// Its place at that member.
    pub lease: Option<Lease>,
    /// From the client to the backend.
    pub up: Direction,
    /// From the backend to the client.
    pub down: Direction,
    /// Where it leads and by which clocks.
    pub route: Arc<Route>,
    /// What went before, where that matters.
    pub history: Option<Box<History>>,
    /// When (ms) it was accepted.
    pub began: u64,
    /// When (ms) the present stage began; while relaying, when bytes moved last.
    pub active: u64,
    /// Bytes that the backend took.
    pub bytes_in: u64,
    /// Bytes that the client took.
    pub bytes_out: u64,
    /// Distinguishes it from an earlier connection in the same slot.
    pub generation: u32,
    /// Distinguishes its backend's socket from that of an earlier attempt.
    pub attempt: u32,
    /// How far it has come.
    pub stage: Stage,
    /// Whether the client's socket is registered with epoll, and whether for EPOLLOUT too.
    pub client_watched: bool,
    /// See `client_watched`.
    pub client_watched_out: bool,
    /// Whether it waits in the worker's queue for its next turn.
    pub queued: bool,
}

/// What a later choice of a member must know; most connections have nothing of it.
pub struct History {
    /// The members that have failed it.
    pub failed: Vec<Arc<Member>>,
    /// When (ms) an attempt must have succeeded.
    pub until: u64,
    /// The name that the client asks for, where the choice depends on it and it has one.
    pub name: Option<Box<str>>,
    /// What has been read of the client's hello, until it has been.
    pub hello: Option<Box<Hello>>,
}

impl Default for History {
    fn default() -> Self {
        Self { failed: Vec::new(), until: u64::MAX, name: None, hello: None }
    }
}

impl Connection {
    /// A connection for which no member is chosen yet.
    pub fn new(client: OwnedFd, route: Arc<Route>, now: u64, generation: u32) -> Self {
        // Accepted sockets inherit TCP_NODELAY from the listener; the backend's gets it at the second send,
        // because the first is never held back by Nagle's rule and most short connections have only one.
        Self {
            client,
            backend: None,
            lease: None,
            up: Direction::default(),
            down: Direction::down(),
            route,
            history: None,
            began: now,
            active: now,
            bytes_in: 0,
            bytes_out: 0,
            generation,
            attempt: generation,
            stage: Stage::Waiting,
            client_watched: false,
            client_watched_out: false,
            queued: false,
        }
    }

    /// Whether another backend could still take its place: no byte has moved in either direction. Bytes that were
    /// read from the client and that the backend did not take are held.
    pub fn is_untouched(&self) -> bool {
        self.bytes_in == 0 && self.bytes_out == 0 && (!self.up.ended || !self.up.held.is_empty())
    }

    /// Lets go of a backend that has failed. The connection must be untouched.
    pub fn leave_backend(&mut self) {
        self.backend = None;
        self.lease = None;
        self.up.writable = false;
        self.down = Direction::down();
    }

    /// Moves bytes from the client to the backend.
    pub fn pump_up(&mut self, scratch: &mut [u8], pipes: &mut Pool) -> (u64, Step) {
        let Some(backend) = &self.backend else { return (0, Step::Wait) };
        self.up.pump(self.client.as_fd(), backend.as_fd(), self.down.done, scratch, pipes)
    }

    /// Moves bytes from the backend to the client.
    pub fn pump_down(&mut self, scratch: &mut [u8], pipes: &mut Pool) -> (u64, Step) {
        let Some(backend) = &self.backend else { return (0, Step::Wait) };
        self.down.pump(backend.as_fd(), self.client.as_fd(), self.up.done, scratch, pipes)
    }

    /// Makes the close of both sockets a reset.
    pub fn arm_reset(&self) {
        for socket in std::iter::once(&self.client).chain(&self.backend) {
            // Fails only on a descriptor that is not a socket.
            _ = sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO));
        }
    }

    /// When it times out, in ms.
    pub fn deadline(&self) -> u64 {
        let by_clock = self.active
            + match self.stage {
                Stage::Hello | Stage::Connecting => self.route.connect,
                Stage::Relaying if self.up.ended || self.down.ended => self.route.half_closed,
                Stage::Relaying | Stage::Waiting => self.route.idle,
            };
        match &self.history {
            Some(history) if self.stage != Stage::Relaying => by_clock.min(history.until),
            _ => by_clock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // The target is 4 KiB of user memory per idle connection, slab, wheel and allocator included.
        assert!(size_of::<Connection>() <= 384, "{}", size_of::<Connection>());
    }
}
