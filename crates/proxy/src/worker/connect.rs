//! Choosing a member for a connection, connecting to it, and doing so again when it fails.
//!
//! A connection is begun anew elsewhere as long as no byte of it has moved: when connect() fails, and when the backend
//! lets go of it (a process that dies resets connections or ends them, by what it has read of them). What the client
//! has sent is taken from its socket only when a backend has taken the connection, and held when that one fails to
//! take the bytes.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use portway_core::address::Family;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, getpeername, recv, socket_with, sockopt,
};

use super::{WATCH, Worker};
use crate::listen::connect_from;
use crate::member::Lease;
use crate::pool::NoMember;
use crate::route::Route;
use crate::tcp::{Connection, Stage};
use crate::token::Token;

impl Worker {
    /// Makes sure that there is a socket of this family for the next connection.
    pub(super) fn provide_socket(&mut self, family: Family) -> Result<(), Errno> {
        let spare = &mut self.spare[usize::from(family == Family::V6)];
        if spare.is_none() {
            let domain = match family {
                Family::V4 => AddressFamily::INET,
                Family::V6 => AddressFamily::INET6,
            };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(domain, SocketType::STREAM, flags, None)?;
            // The handshake's last ACK is held back, to leave with the client's first bytes.
            _ = sockopt::set_tcp_quickack(&socket, false);
            *spare = Some(socket);
        }
        Ok(())
    }

    /// Begins to connect a connection that has been accepted before.
    pub(super) fn begin(&mut self, key: u32) {
        let connection = &self.connections[key as usize];
        let route = connection.route.clone();
        let client = if route.pool.load().needs_client() { peer(connection) } else { None };
        self.begin_for(key, &route, client);
    }

    /// Chooses a member for `client`, who is known where the choice depends on it, and begins to connect.
    pub(super) fn begin_for(&mut self, key: u32, route: &Arc<Route>, client: Option<SocketAddr>) {
        let (name, failed) = match &self.connections[key as usize].history {
            Some(history) => (history.name.as_deref(), history.failed.as_slice()),
            None => (None, &[][..]),
        };
        match self.context.choose(route, client, name, failed) {
            Ok(lease) => self.connect(key, route, lease),
            Err(NoMember::Refuse) => self.refuse(key, &"no backend is live"),
            Err(NoMember::Drop | NoMember::Full) => self.wait(key),
        }
    }

    /// Lets a connection wait until a member has room for it. Listeners pause before it comes to this; it takes
    /// another worker that was quicker, or a failure of the member that the connection had.
    fn wait(&mut self, key: u32) {
        let connection = &mut self.connections[key as usize];
        connection.stage = Stage::Waiting;
        connection.active = self.context.now;
        self.wheel.set(key, connection.deadline());
        self.waiting.push((key, connection.generation));
    }

    fn connect(&mut self, key: u32, route: &Arc<Route>, lease: Lease) {
        let target = route.target(lease.member());
        match self.provide_socket(lease.member().target.family()) {
            Ok(()) => {}
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return self.wait(key),
            Err(error) => return self.refuse(key, &std::io::Error::from(error)),
        }
        let attempt = self.context.next_generation();
        let connection = &mut self.connections[key as usize];
        connection.lease = Some(lease);
        connection.attempt = attempt;
        connection.stage = Stage::Connecting;
        connection.active = self.context.now;
        self.wheel.set(key, connection.deadline());
        let socket = connection.backend.insert(
            self.spare[usize::from(target.is_ipv6())].take().expect("invariant: it was provided just now"),
        );
        let begun = connect_from(socket, route.source(target), target).and_then(|()| {
            let token = Token::Backend(key, attempt).pack();
            epoll::add(&self.context.epoll, &*socket, token, WATCH | EventFlags::OUT)
        });
        if let Err(error) = begun {
            self.attempt_failed(key, error);
        }
    }

    /// The member cannot be reached: another one is tried; where none can be, the client gets a reset, as from a
    /// closed port.
    pub(super) fn attempt_failed(&mut self, key: u32, error: Errno) {
        let connection = &self.connections[key as usize];
        let route = connection.route.clone();
        let Some(member) = connection.lease.as_ref().map(|lease| lease.member().clone()) else { return };
        self.context.member_failed(&route, &member, blames(error));
        let error = std::io::Error::from(error);
        if self.may_try_elsewhere(key) {
            self.context.shared.log.seldom("retry", || {
                format!(
                    "proxy, rule {}: connect to {}: {error}; trying another",
                    route.rule.name,
                    route.target(&member)
                )
            });
            return self.try_elsewhere(key);
        }
        self.refuse(key, &format_args!("connect to {}: {error}", route.target(&member)));
    }

    /// Gives up on a connection that has no backend.
    pub(super) fn refuse(&mut self, key: u32, reason: &dyn Display) {
        let route = &self.connections[key as usize].route;
        self.context.counters(route).failed.fetch_add(1, Relaxed);
        let name = &route.rule.name;
        self.context.shared.log.seldom("connect", || format!("proxy, rule {name}: {reason}"));
        self.close(key, true);
    }

    /// Whether the connection can be begun anew with another member.
    pub(super) fn may_try_elsewhere(&self, key: u32) -> bool {
        let Some(connection) = self.connections.get(key as usize).filter(|c| c.is_untouched()) else {
            return false;
        };
        let pool = connection.route.pool.load();
        let tried = connection.history.as_ref().map_or(0, |history| history.failed.len());
        tried < pool.retries && pool.has_choice() && self.context.now < last_attempt_ends(connection)
    }

    /// Begins the connection anew with another member.
    pub(super) fn try_elsewhere(&mut self, key: u32) {
        self.context.shared.retries.fetch_add(1, Relaxed);
        let connection = &mut self.connections[key as usize];
        let until = last_attempt_ends(connection);
        let history = connection.history.get_or_insert_default();
        history.until = until;
        history.failed.extend(connection.lease.as_ref().map(|lease| lease.member().clone()));
        connection.leave_backend();
        self.begin(key);
    }

    /// Whether the backend has let go of a connection of which no byte has moved, and another one can take it.
    pub(super) fn is_lost(&self, key: u32) -> Option<Result<(), Errno>> {
        if !self.may_try_elsewhere(key) {
            return None;
        }
        let backend = self.connections[key as usize].backend.as_ref()?;
        match recv(backend, &mut [0u8; 1], RecvFlags::PEEK) {
            Ok((0, _)) => Some(Ok(())),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Begins the connections that have waited, as far as there is room now.
    pub(super) fn serve_waiting(&mut self) {
        for (key, generation) in std::mem::take(&mut self.waiting) {
            let waits = |c: &&Connection| c.generation == generation && c.stage == Stage::Waiting;
            let Some(connection) = self.connections.get(key as usize).filter(waits) else { continue };
            match connection.route.pool.load().open(self.context.now) {
                Err(NoMember::Full | NoMember::Drop) => self.waiting.push((key, generation)),
                Ok(()) | Err(NoMember::Refuse) => self.begin(key),
            }
        }
    }
}

/// Who called.
pub(super) fn peer(connection: &Connection) -> Option<SocketAddr> {
    getpeername(&connection.client).ok().flatten().and_then(|address| address.try_into().ok())
}

/// When (ms) the last attempt for this connection must have succeeded.
fn last_attempt_ends(connection: &Connection) -> u64 {
    match &connection.history {
        Some(history) if !history.failed.is_empty() => history.until,
        _ => {
            let attempts = connection.route.pool.load().retries as u64 + 1;
            connection.began.saturating_add(connection.route.connect.saturating_mul(attempts))
        }
    }
}

/// Whether an error says something of the member rather than of this host.
fn blames(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::TIMEDOUT
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::PIPE
    )
}
