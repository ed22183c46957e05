//! Accepting: new connections, and what happens when there is no room for one.
//!
//! At a limit the listener is taken out of epoll and its clients wait in the kernel's queue. It comes back when
//! a connection ends, here or on another worker, which says so only while someone waits. A coarse timer looks as well.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use portway_core::address::Family;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, acceptfrom_with, sockopt};

use super::{PAUSE, Place, Worker};
use crate::context::Context;
use crate::pool::{NoMember, Pool};
use crate::route::Route;
use crate::tcp::{Connection, History, Stage};
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
    paused: Option<Pause>,
}

/// What a paused listener waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// Room at a limit.
    Room,
    /// Descriptors or memory.
    Kernel,
    /// A live backend. The engine says when to look.
    Backend,
}

impl Worker {
    pub(super) fn add_listener(&mut self, fd: OwnedFd, route: Arc<Route>) -> std::io::Result<Place> {
        let entry = self.listeners.vacant_entry();
        let index = entry.key() as u32;
        epoll::add(&self.context.epoll, &fd, Token::Listener(index).pack(), EventFlags::IN)?;
        entry.insert(TcpListener { fd, route, run: 0, turn: 0, paused: None });
        Ok(Place::Tcp(index))
    }

    /// Takes in what is in the accept queue still (those clients are connected as far as they know), then
    /// closes the listener.
    pub(super) fn remove_listener(&mut self, index: u32) {
        self.accept(index, u32::MAX);
        if self.listeners.remove(index as usize).paused.is_some() {
            self.paused.retain(|i| *i != index);
            self.deserted.retain(|i| *i != index);
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
        let Some(listener) = self.listeners.get(index as usize).filter(|l| l.paused.is_none()) else {
            return;
        };
        let route = listener.route.clone();
        for _ in 0..batch {
            let pool = route.pool.load();
            let result = match pool.open(self.context.now) {
                Ok(()) => {
                    if !self.context.shared.connections.enter() {
                        return self.pause(index, Pause::Room, "max-connections of the proxy is reached");
                    }
                    if !route.rule.live.enter() {
                        self.context.shared.connections.leave();
                        return self.pause(index, Pause::Room, "max-connections of the rule is reached");
                    }
                    let result = self.accept_one(index, &route, &pool);
                    if result.is_err() {
                        self.context.shared.connections.leave();
                        route.rule.live.leave();
                    }
                    result
                }
                Err(NoMember::Refuse) => self.turn_away(index, &route),
                Err(NoMember::Drop) => return self.pause(index, Pause::Backend, "no backend is live"),
                Err(NoMember::Full) => {
                    return self.pause(index, Pause::Room, "max-connections of every backend is reached");
                }
            };
            match result {
                // A connection that was reset in the queue is no reason to stop.
                Ok(()) | Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(Errno::MFILE | Errno::NFILE) => {
                    return self.pause(index, Pause::Kernel, "the open-file limit is reached");
                }
                Err(Errno::NOBUFS | Errno::NOMEM) => {
                    return self.pause(index, Pause::Kernel, "the kernel is out of memory");
                }
                Err(_) => return,
            }
        }
    }

    /// Accepts one connection and begins to connect it. The backend's socket is made first: a client is taken
    /// from the queue only when there is one for it.
    fn accept_one(&mut self, index: u32, route: &Arc<Route>, pool: &Pool) -> Result<(), Errno> {
        for family in [Family::V4, Family::V6] {
            if pool.has_family(family) {
                self.provide_socket(family)?;
            }
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let listener = &self.listeners[index as usize].fd;
        let (socket, client) = if pool.needs_client() {
            let (socket, client) = acceptfrom_with(listener, flags)?;
            (socket, client.and_then(|client| client.try_into().ok()))
        } else {
            (accept_with(listener, flags)?, None)
        };
        self.context.counters(route).flows.fetch_add(1, Relaxed);
        let generation = self.context.next_generation();
        let mut connection = Connection::new(socket, route.clone(), self.context.now, generation);
        if !pool.needs_name() {
            let key = self.connections.insert(connection) as u32;
            self.begin_for(key, route, client);
            return Ok(());
        }
        connection.stage = Stage::Hello;
        connection.history = Some(Box::new(History { hello: Some(Box::default()), ..History::default() }));
        let deadline = connection.deadline();
        let key = self.connections.insert(connection) as u32;
        self.wheel.set(key, deadline);
        self.hear(key);
        Ok(())
    }

    /// Accepts one connection and resets it, as a closed port would.
    fn turn_away(&mut self, index: u32, route: &Route) -> Result<(), Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let client = accept_with(&self.listeners[index as usize].fd, flags)?;
        // Fails only on a descriptor that is not a socket.
        _ = sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO));
        self.context.counters(route).failed.fetch_add(1, Relaxed);
        let name = &route.rule.name;
        self.context
            .shared
            .log
            .seldom("empty", || format!("proxy, rule {name}: no backend is live; clients are refused"));
        Ok(())
    }

    /// Takes a listener out of epoll until there is room: its clients wait in the kernel's queue.
    fn pause(&mut self, index: u32, pause: Pause, reason: &str) {
        let listener = &mut self.listeners[index as usize];
        if epoll::delete(&self.context.epoll, &listener.fd).is_err() {
            return;
        }
        listener.paused = Some(pause);
        match pause {
            Pause::Room | Pause::Kernel => self.paused.push(index),
            Pause::Backend => self.deserted.push(index),
        }
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

    /// Serves the connections, and puts the listeners back, for which there is room.
    pub(super) fn resume(&mut self) {
        let (freed, look) = (std::mem::take(&mut self.freed), std::mem::take(&mut self.look));
        let shared = &self.context.shared;
        if freed && shared.wanting.load(Relaxed) > usize::from(self.wants) {
            shared.wake_others(self.context.id);
        }
        let wants = !self.paused.is_empty() || !self.waiting.is_empty();
        let begins = wants && !self.wants;
        if begins {
            shared.wanting.fetch_add(1, Relaxed);
        } else if self.wants && !wants {
            shared.wanting.fetch_sub(1, Relaxed);
        }
        self.wants = wants;
        let due = freed || look || self.context.now >= self.looked + PAUSE;
        // From now on others say when they make room; they may have done so just before.
        if !wants || !due && !begins {
            return;
        }
        self.looked = self.context.now;
        self.serve_waiting();
        let (listeners, context) = (&mut self.listeners, &self.context);
        self.paused.retain(|index| {
            let listener = &mut listeners[*index as usize];
            let pool_has_room = || listener.route.pool.load().open(context.now) != Err(NoMember::Full);
            let room = context.shared.connections.has_room() && listener.route.rule.live.has_room();
            let early = !due && listener.paused == Some(Pause::Kernel);
            if early || !room || !pool_has_room() {
                // Still the same episode.
                context.shared.paused_last.store(context.now.max(1), Relaxed);
                return true;
            }
            !put_back(context, *index, listener)
        });
    }

    /// Puts listeners back whose rule has a live backend again, or has clients refused from now on.
    pub(super) fn return_to_deserted(&mut self) {
        let (listeners, context) = (&mut self.listeners, &self.context);
        self.deserted.retain(|index| {
            let listener = &mut listeners[*index as usize];
            let still = listener.route.pool.load().open(context.now) == Err(NoMember::Drop);
            still || !put_back(context, *index, listener)
        });
    }
}

/// Puts a paused listener back into epoll; whether that was possible.
fn put_back(context: &Context, index: u32, listener: &mut TcpListener) -> bool {
    let token = Token::Listener(index).pack();
    if epoll::add(&context.epoll, &listener.fd, token, EventFlags::IN).is_err() {
        return false;
    }
    listener.paused = None;
    context.shared.paused.fetch_sub(1, Relaxed);
    true
}
