//! Accepting: new connections, and what happens when there is no room for one.
//!
//! At a limit the listener is taken out of epoll and its clients wait in the kernel's queue. It comes back when
//! a connection ends, or after a look that a coarse timer takes: room may have been made by another worker.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, socket_with, sockopt};

use super::{PAUSE, Place, WATCH, Worker};
use crate::listen::connect_from;
use crate::shared::Route;
use crate::tcp::Connection;
use crate::token::Token;

/// The most connections accepted from one listener in one turn.
const ACCEPTS: u32 = 64;
/// A pause this long (ms) after the last one is a new episode.
const EPISODE: u64 = 5_000;
pub(super) struct TcpListener {
    pub(super) fd: OwnedFd,
    pub(super) route: Arc<Route>,
    /// Turns in a row in which clients were waiting; the longer, the more are accepted in one turn. A single
    /// connection costs no accept that finds nothing.
    run: u32,
    turn: u64,
    paused: bool,
}

impl Worker {
    pub(super) fn add_listener(&mut self, fd: OwnedFd, route: Arc<Route>) -> std::io::Result<Place> {
        let entry = self.listeners.vacant_entry();
        let index = entry.key() as u32;
        epoll::add(&self.context.epoll, &fd, Token::Listener(index).pack(), EventFlags::IN)?;
        entry.insert(TcpListener { fd, route, run: 0, turn: 0, paused: false });
        Ok(Place::Tcp(index))
    }

    /// Takes in what is in the accept queue still (those clients are connected as far as they know), then
    /// closes the listener.
    pub(super) fn remove_listener(&mut self, index: u32) {
        self.accept(index, u32::MAX);
        if self.listeners.remove(index as usize).paused {
            self.paused.retain(|i| *i != index);
            self.context.shared.paused.fetch_sub(1, Relaxed);
        }
    }

    /// How many clients to accept now from a listener that has some.
    pub(super) fn batch(&mut self, index: u32) -> u32 {
        let Some(listener) = self.listeners.get_mut(index as usize) else { return 0 };
        listener.run = if listener.turn + 1 == self.turn { listener.run.saturating_add(1) } else { 0 };
        listener.turn = self.turn;
        (listener.run / 4).clamp(1, ACCEPTS)
    }

    pub(super) fn accept(&mut self, index: u32, batch: u32) {
        let Some(listener) = self.listeners.get(index as usize).filter(|l| !l.paused) else { return };
        let route = listener.route.clone();
        for _ in 0..batch {
            if !self.context.shared.connections.enter() {
                return self.pause(index, "max-connections of the proxy is reached");
            }
            if !route.rule.live.enter() {
                self.context.shared.connections.leave();
                return self.pause(index, "max-connections of the rule is reached");
            }
            let result = self.accept_one(index, &route);
            if !matches!(result, Ok(())) {
                self.context.shared.connections.leave();
                route.rule.live.leave();
            }
            match result {
                // A connection that was reset in the queue is no reason to stop.
                Ok(()) | Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(Errno::MFILE | Errno::NFILE) => {
                    return self.pause(index, "the open-file limit is reached");
                }
                Err(Errno::NOBUFS | Errno::NOMEM) => return self.pause(index, "the kernel is out of memory"),
                Err(_) => return,
            }
        }
    }

    /// Accepts one connection and begins to connect it. The backend's socket is made first: a client is taken
    /// from the queue only when there is one for it.
    fn accept_one(&mut self, index: u32, route: &Arc<Route>) -> Result<(), Errno> {
        let (slot, domain) = match route.target {
            SocketAddr::V4(_) => (0, AddressFamily::INET),
            SocketAddr::V6(_) => (1, AddressFamily::INET6),
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let backend = match self.spare[slot].take() {
            Some(socket) => socket,
            None => {
                let socket = socket_with(domain, SocketType::STREAM, flags, None)?;
                // The handshake's last ACK is held back, to leave with the client's first bytes.
                _ = sockopt::set_tcp_quickack(&socket, false);
                socket
            }
        };
        let client = match accept_with(&self.listeners[index as usize].fd, flags) {
            Ok(client) => client,
            Err(error) => {
                self.spare[slot] = Some(backend);
                return Err(error);
            }
        };
        self.context.counters(route).flows.fetch_add(1, Relaxed);
        let generation = self.context.next_generation();
        let connection = Connection::new(client, backend, route.clone(), self.context.now, generation);
        let deadline = connection.deadline();
        let key = self.connections.insert(connection) as u32;
        self.wheel.set(key, deadline);
        let connection = &self.connections[key as usize];
        let begun = connect_from(&connection.backend, route).and_then(|()| {
            let token = Token::Backend(key, generation).pack();
            epoll::add(&self.context.epoll, &connection.backend, token, WATCH | EventFlags::OUT)
        });
        if let Err(error) = begun {
            self.refuse(key, error);
        }
        Ok(())
    }

    /// Takes a listener out of epoll until there is room: its clients wait in the kernel's queue.
    fn pause(&mut self, index: u32, reason: &str) {
        let listener = &mut self.listeners[index as usize];
        if epoll::delete(&self.context.epoll, &listener.fd).is_err() {
            return;
        }
        listener.paused = true;
        self.paused.push(index);
        self.looked = self.context.now;
        let shared = &self.context.shared;
        shared.paused.fetch_add(1, Relaxed);
        shared.paused_total.fetch_add(1, Relaxed);
        let last = shared.paused_last.swap(self.context.now.max(1), Relaxed);
        if last == 0 || last + EPISODE < self.context.now {
            shared.log.always(&format!(
                "proxy, rule {}: accept paused: {reason} ({} connections, at most {}); new clients wait in the kernel's queue",
                listener.route.rule.name,
                shared.connections.get(),
                shared.connections.max(),
            ));
        }
    }

    /// Puts listeners back for which there is room.
    pub(super) fn resume(&mut self) {
        if self.paused.is_empty() || !self.freed && self.context.now < self.looked + PAUSE {
            self.freed = false;
            return;
        }
        self.freed = false;
        self.looked = self.context.now;
        let (listeners, context) = (&mut self.listeners, &self.context);
        self.paused.retain(|index| {
            let listener = &mut listeners[*index as usize];
            if !context.shared.connections.has_room() || !listener.route.rule.live.has_room() {
                // Still the same episode.
                context.shared.paused_last.store(context.now.max(1), Relaxed);
                return true;
            }
            let token = Token::Listener(*index).pack();
            if epoll::add(&context.epoll, &listener.fd, token, EventFlags::IN).is_err() {
                return true;
            }
            listener.paused = false;
            context.shared.paused.fetch_sub(1, Relaxed);
            false
        });
    }
}
