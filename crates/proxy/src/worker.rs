//! One worker: a thread with an epoll instance, its own listening sockets, connections and timers.
//!
//! No async runtime. A proxied connection is two sockets and two small state machines; what it costs is system
//! calls and packets, and both depend on when a socket is registered, armed or closed. Here that is said in one
//! place: the client's socket is registered after it has been read, the backend's once, edge-triggered.
//!
//! A worker shares nothing with others but counters and limits. The engine talks to it by [`Command`]s.

mod accept;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender};

use portway_core::address::Protocol;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::sockopt;
use slab::Slab;

use self::accept::TcpListener;
use crate::context::Context;
use crate::pipes::Pool;
use crate::shared::{Route, Shared};
use crate::tcp::{Connection, SCRATCH, Step};
use crate::timer::Wheel;
use crate::token::Token;
use crate::udp::Udp;

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;
/// How long (ms) a paused listener waits before it looks again by itself.
const PAUSE: u64 = 100;
/// Interest in a connection's socket, besides EPOLLOUT.
const WATCH: EventFlags =
    EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::PRI).union(EventFlags::ET);

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
    /// Close all listeners, end all connections and flows, then the thread.
    Stop,
}

#[derive(Clone, Copy)]
enum Place {
    Tcp(u32),
    Udp(u32),
}

/// A worker.
pub struct Worker {
    context: Context,
    wake: Arc<OwnedFd>,
    commands: Receiver<Command>,
    places: HashMap<ListenerId, Place>,
    listeners: Slab<TcpListener>,
    connections: Slab<Connection>,
    wheel: Wheel,
    scratch: Box<[u8]>,
    pipes: Pool,
    /// Connections that have had their turn and could go on.
    queue: Vec<(u32, u32)>,
    /// Sockets made before it was known whether there is a connection to accept: IPv4, IPv6.
    spare: [Option<OwnedFd>; 2],
    /// Connections to backends whose handshake waits for the client's first bytes, and since when (ms).
    silent: Vec<(u32, u32)>,
    silent_since: u64,
    paused: Vec<u32>,
    /// When (ms) the paused listeners were looked at last, and whether a connection has ended since.
    looked: u64,
    freed: bool,
    turn: u64,
    udp: Udp,
}

impl Worker {
    /// A worker that listens to `commands`, and the eventfd that wakes it to read them.
    pub fn new(
        id: usize,
        shared: Arc<Shared>,
        commands: Receiver<Command>,
    ) -> std::io::Result<(Self, Arc<OwnedFd>)> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &*wake, Token::Wake.pack(), EventFlags::IN)?;
        let worker = Self {
            context: Context::new(id, shared.clone(), epoll),
            wake: wake.clone(),
            commands,
            places: HashMap::new(),
            listeners: Slab::new(),
            connections: Slab::new(),
            wheel: Wheel::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            pipes: Pool::new(shared.clone()),
            queue: Vec::new(),
            spare: [None, None],
            silent: Vec::new(),
            silent_since: 0,
            paused: Vec::new(),
            looked: 0,
            freed: false,
            turn: 0,
            udp: Udp::new(),
        };
        Ok((worker, wake))
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let mut expired = Vec::new();
        loop {
            events.clear();
            let timeout = self
                .timeout()
                .map(|ms| Timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 });
            match epoll::wait(&self.context.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Any other error means that the descriptor is not an epoll instance.
                Err(error) => panic!("invariant: epoll_wait on an own descriptor: {error}"),
            }
            self.context.read_clock();
            self.turn += 1;
            for event in &events {
                match Token::unpack(event.data) {
                    Token::Wake => {
                        if self.obey() {
                            return self.stop();
                        }
                    }
                    Token::Listener(index) => {
                        let batch = self.batch(index);
                        self.accept(index, batch);
                    }
                    Token::Client(index, generation) => self.client_event(index, generation, event.flags),
                    Token::Backend(index, generation) => self.backend_event(index, generation, event.flags),
                    Token::UdpListener(index) => self.udp.client_datagrams(&mut self.context, index),
                    Token::UdpFlow(index, generation) => {
                        self.udp.backend_datagrams(&mut self.context, index, generation)
                    }
                }
            }
            for (index, generation) in std::mem::take(&mut self.queue) {
                if self.connections.get(index as usize).is_some_and(|c| c.generation == generation) {
                    self.connections[index as usize].queued = false;
                    self.relay(index, true, true, false);
                }
            }
            self.wheel.advance(self.context.now, &mut expired);
            for index in expired.drain(..) {
                self.expire(index);
            }
            self.udp.expire(&mut self.context);
            self.resume();
            // A client's first bytes are often just behind its handshake: one look at what has come meanwhile,
            // further ones while there is something to do anyway, but for two milliseconds at most.
            if !self.silent.is_empty() && (events.is_empty() || self.context.now > self.silent_since + 1) {
                self.acknowledge();
            }
        }
    }

    /// How long (ms) the next wait may be.
    fn timeout(&self) -> Option<u64> {
        if !self.queue.is_empty() || !self.silent.is_empty() {
            return Some(0);
        }
        let now = self.context.now;
        let pause = (!self.paused.is_empty()).then(|| (self.looked + PAUSE).saturating_sub(now).max(1));
        [self.wheel.next(now), self.udp.next(now), pause].into_iter().flatten().min()
    }

    /// Carries out the engine's commands; whether to stop.
    fn obey(&mut self) -> bool {
        let mut count = [0u8; 8];
        _ = rustix::io::read(&*self.wake, &mut count);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop => return true,
                Command::Apply { add, route, remove, done } => {
                    for (id, route) in route {
                        match self.places.get(&id) {
                            Some(Place::Tcp(index)) => self.listeners[*index as usize].route = route,
                            Some(Place::Udp(index)) => self.udp.reroute(*index, route),
                            None => {}
                        }
                    }
                    for (id, protocol, fd, route) in add {
                        let place = match protocol {
                            Protocol::Tcp => self.add_listener(fd, route),
                            Protocol::Udp => self.udp.add_listener(&self.context, fd, route).map(Place::Udp),
                        };
                        match place {
                            Ok(place) => _ = self.places.insert(id, place),
                            Err(error) => {
                                self.context
                                    .shared
                                    .log
                                    .always(&format!("proxy: cannot watch a listener: {error}"));
                            }
                        }
                    }
                    for id in remove {
                        match self.places.remove(&id) {
                            Some(Place::Tcp(index)) => self.remove_listener(index),
                            Some(Place::Udp(index)) => self.udp.remove_listener(&self.context, index),
                            None => {}
                        }
                    }
                    // The engine may have given up waiting.
                    _ = done.send(());
                }
            }
        }
        false
    }

    fn stop(mut self) {
        self.listeners.clear();
        let all: Vec<u32> = self.connections.iter().map(|(index, _)| index as u32).collect();
        for index in all {
            self.close(index, true);
        }
        self.udp.stop(&self.context);
    }

    /// The backend cannot be reached: the client gets a reset, as from a closed port.
    fn refuse(&mut self, key: u32, error: Errno) {
        let route = self.connections[key as usize].route.clone();
        self.context.counters(&route).failed.fetch_add(1, Relaxed);
        self.context.shared.log.seldom("connect", || {
            let error = std::io::Error::from(error);
            format!("proxy, rule {}: connect to {}: {error}", route.rule.name, route.target)
        });
        self.close(key, true);
    }

    fn backend_event(&mut self, key: u32, generation: u32, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if connection.generation != generation {
            return;
        }
        connection.down.readable |= flags.intersects(READ);
        connection.down.ending |= flags.contains(EventFlags::RDHUP);
        connection.down.urgent |= flags.contains(EventFlags::PRI);
        let blocked = connection.up.blocked();
        connection.up.writable |= flags.contains(EventFlags::OUT);
        let broken = flags.contains(EventFlags::ERR);
        if !connection.connecting {
            let up = blocked || broken;
            return self.relay(key, up, true, broken);
        }
        if broken || flags.contains(EventFlags::HUP) {
            let error = match sockopt::socket_error(&connection.backend) {
                Ok(Err(error)) | Err(error) => error,
                Ok(Ok(())) => Errno::CONNRESET,
            };
            return self.refuse(key, error);
        }
        if !flags.contains(EventFlags::OUT) {
            return;
        }
        connection.connecting = false;
        connection.up.readable = true;
        connection.active = self.context.now;
        if connection.route.idle < connection.route.connect {
            // The timer stands at the connect timeout and would look too late.
            self.wheel.set(key, connection.deadline());
        }
        let down = connection.down.readable;
        self.relay(key, true, down, false);
        if self.connections.get(key as usize).is_some_and(|c| c.generation == generation && !c.up.has_sent())
        {
            if self.silent.is_empty() {
                self.silent_since = self.context.now;
            }
            self.silent.push((key, generation));
        }
    }

    /// Sends the handshake's ACK to the backends of connections whose clients have sent nothing for it to ride
    /// on: the backend may be the one that speaks first and must not wait for the delayed ACK (40 ms and more).
    fn acknowledge(&mut self) {
        for (key, generation) in self.silent.drain(..) {
            let connection = self.connections.get(key as usize).filter(|c| c.generation == generation);
            if let Some(connection) = connection.filter(|c| !c.up.has_sent()) {
                _ = sockopt::set_tcp_quickack(&connection.backend, true);
            }
        }
    }

    fn client_event(&mut self, key: u32, generation: u32, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if connection.generation != generation {
            return;
        }
        connection.up.readable |= flags.intersects(READ);
        connection.up.ending |= flags.contains(EventFlags::RDHUP);
        connection.up.urgent |= flags.contains(EventFlags::PRI);
        let blocked = connection.down.blocked();
        connection.down.writable |= flags.contains(EventFlags::OUT);
        let broken = flags.contains(EventFlags::ERR);
        let down = blocked || broken;
        self.relay(key, true, down, broken);
    }

    /// Moves what can be moved in the directions asked for and does what follows from it. `broken`: one of the
    /// sockets has an error; what can still be delivered is, then both are reset.
    fn relay(&mut self, key: u32, up: bool, down: bool, mut broken: bool) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let half_closed = connection.up.ended || connection.down.ended;
        let (mut bytes_in, mut bytes_out, mut again) = (0, 0, false);
        if down {
            let (moved, step) = connection.pump_down(&mut self.scratch, &mut self.pipes);
            bytes_out += moved;
            again |= step == Step::Again;
            broken |= matches!(step, Step::SourceBroken | Step::ReceiverBroken);
        }
        if up {
            let (moved, step) = connection.pump_up(&mut self.scratch, &mut self.pipes);
            bytes_in += moved;
            again |= step == Step::Again;
            if matches!(step, Step::SourceBroken | Step::ReceiverBroken) {
                // A backend that resets may have answered first ("413 Content Too Large").
                if !broken {
                    connection.down.readable = true;
                    bytes_out += connection.pump_down(&mut self.scratch, &mut self.pipes).0;
                }
                broken = true;
            }
        }
        let counters = self.context.counters(&connection.route);
        if bytes_in > 0 {
            counters.bytes_in.fetch_add(bytes_in, Relaxed);
        }
        if bytes_out > 0 {
            counters.bytes_out.fetch_add(bytes_out, Relaxed);
        }
        if bytes_in + bytes_out > 0 {
            connection.active = self.context.now;
        }
        if broken || connection.up.done && connection.down.done {
            return self.close(key, broken);
        }
        if again && !connection.queued {
            connection.queued = true;
            self.queue.push((key, connection.generation));
        }
        if !half_closed && (connection.up.ended || connection.down.ended) {
            connection.active = self.context.now;
            self.wheel.set(key, connection.deadline());
        }
        if self.watch_client(key).is_err() {
            self.close(key, true);
        }
    }

    /// Registers the client's socket once it has been read empty, and for EPOLLOUT once it has been full.
    fn watch_client(&mut self, key: u32) -> Result<(), Errno> {
        let connection = &mut self.connections[key as usize];
        let out = connection.down.blocked();
        let token = Token::Client(key, connection.generation).pack();
        if !connection.client_watched && !connection.connecting && (out || !connection.up.ended) {
            let flags = if out { WATCH | EventFlags::OUT } else { WATCH };
            epoll::add(&self.context.epoll, &connection.client, token, flags)?;
        } else if out && !connection.client_watched_out {
            epoll::modify(&self.context.epoll, &connection.client, token, WATCH | EventFlags::OUT)?;
        } else {
            return Ok(());
        }
        connection.client_watched = true;
        connection.client_watched_out |= out;
        Ok(())
    }

    fn expire(&mut self, key: u32) {
        let Some(connection) = self.connections.get(key as usize) else { return };
        let deadline = connection.deadline();
        if deadline > self.context.now {
            return self.wheel.set(key, deadline);
        }
        if connection.connecting {
            return self.refuse(key, Errno::TIMEDOUT);
        }
        // A reset, not an end: neither side shall take a cut-off stream for a whole one.
        self.close(key, true);
    }

    fn close(&mut self, key: u32, reset: bool) {
        let mut connection = self.connections.remove(key as usize);
        self.wheel.remove(key);
        if reset {
            connection.arm_reset();
        }
        connection.up.release(&mut self.pipes);
        connection.down.release(&mut self.pipes);
        connection.route.rule.live.leave();
        self.context.shared.connections.leave();
        self.freed = true;
    }
}

impl Drop for Worker {
    /// After stop() nothing is left here. After a panic the limits must not stay used up by connections that
    /// have ended with it; nothing here can panic again.
    fn drop(&mut self) {
        let shared = &self.context.shared;
        shared.paused.fetch_sub(self.paused.len(), Relaxed);
        for (_, connection) in &self.connections {
            connection.route.rule.live.leave();
            shared.connections.leave();
        }
        self.udp.abandon(shared);
    }
}

const READ: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::HUP)
    .union(EventFlags::ERR)
    .union(EventFlags::PRI);

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;

    use portway_core::plan::proxy::Source;
    use portway_core::ruleset::{RuleName, Timeouts};

    use super::*;
    use crate::shared::{Log, RuleState};

    #[test]
    fn a_worker_that_fails_gives_its_places_back() {
        let shared = Arc::new(Shared::new(Log::new(|_| {})));
        shared.connections.set_max(10);
        let (_commands, receiver) = channel();
        let (mut worker, _wake) = Worker::new(0, shared.clone(), receiver).unwrap();
        let rule = Arc::new(RuleState::new(RuleName::new("rule").unwrap(), 1));
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = backend.local_addr().unwrap();
        let route = Arc::new(Route::new(rule.clone(), target, &Source::Kernel, &Timeouts::default()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        worker.add_listener(listener.into(), route).unwrap();
        worker.accept(0, 1);
        assert_eq!((shared.connections.get(), rule.live.get()), (1, 1));
        drop(worker);
        assert_eq!((shared.connections.get(), rule.live.get()), (0, 0));
    }
}
