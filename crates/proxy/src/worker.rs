//! One worker: a thread with an epoll instance, its own listening sockets, connections and timers.
//!
//! No async runtime. A proxied connection is two sockets and two small state machines; what it costs is system
//! calls and packets, and both depend on when a socket is registered, armed or closed. Here that is said in one
//! place: the client's socket is registered after it has been read, the backend's once, edge-triggered.
//!
//! A worker shares nothing with others but counters and limits. The engine talks to it by [`Command`]s.

mod accept;
mod connect;
pub(crate) mod flows;
mod hello;
mod relay;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;

use portway_core::address::Protocol;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use slab::Slab;

use self::accept::TcpListener;
use crate::command::{Command, ListenerId};
use crate::context::Context;
use crate::pipes::Pool;
use crate::shared::Shared;
use crate::tcp::{Connection, SCRATCH, Stage};
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
    /// Connections for which no member has room.
    waiting: Vec<(u32, u32)>,
    /// Listeners that wait for room, and those whose rule has no live backend.
    paused: Vec<u32>,
    deserted: Vec<u32>,
    /// When (ms) the paused listeners were looked at last, and whether a connection has ended since.
    looked: u64,
    freed: bool,
    /// Whether another worker has made room, and whether the others know that this one wants some.
    look: bool,
    wants: bool,
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
            waiting: Vec::new(),
            paused: Vec::new(),
            deserted: Vec::new(),
            looked: 0,
            freed: false,
            look: false,
            wants: false,
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
                    self.relay(index, true, true, None);
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
        let pause = (!self.paused.is_empty() || !self.waiting.is_empty())
            .then(|| (self.looked + PAUSE).saturating_sub(now).max(1));
        [self.wheel.next(now), self.udp.next(now), pause].into_iter().flatten().min()
    }

    /// Carries out the engine's commands; whether to stop.
    fn obey(&mut self) -> bool {
        let mut count = [0u8; 8];
        _ = rustix::io::read(&*self.wake, &mut count);
        self.look = true;
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop => return true,
                Command::Look => self.return_to_deserted(),
                // The engine may have given up waiting, here and below.
                Command::List { filter, most, answer } => _ = answer.send(self.list(&filter, most)),
                Command::End { filter, answer } => _ = answer.send(self.end(&filter)),
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
                    self.return_to_deserted();
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

    fn expire(&mut self, key: u32) {
        let Some(connection) = self.connections.get(key as usize) else { return };
        let deadline = connection.deadline();
        if deadline > self.context.now {
            return self.wheel.set(key, deadline);
        }
        match connection.stage {
            Stage::Connecting => self.attempt_failed(key, Errno::TIMEDOUT),
            Stage::Waiting => self.refuse(key, &"no backend had room in time"),
            Stage::Hello => self.heard(key, None),
            // A reset, not an end: neither side shall take a cut-off stream for a whole one.
            Stage::Relaying => self.close(key, true),
        }
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
        shared.wanting.fetch_sub(usize::from(self.wants), Relaxed);
        shared.paused.fetch_sub(self.paused.len() + self.deserted.len(), Relaxed);
        for (_, connection) in &self.connections {
            connection.route.rule.live.leave();
            shared.connections.leave();
        }
        self.udp.abandon(shared);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;

    use portway_core::address::{Family, PortRange};
    use portway_core::plan::proxy::{PoolPlan, RulePlan, Socket, Source};
    use portway_core::ruleset::{RuleName, Scope, Timeouts};

    use super::*;
    use crate::served::Served;
    use crate::shared::Log;

    #[test]
    fn a_worker_that_fails_gives_its_places_back() {
        let shared = Arc::new(Shared::new(Log::new(|_| {})));
        shared.connections.set_max(10);
        let (_commands, receiver) = channel();
        let (mut worker, _wake) = Worker::new(0, shared.clone(), receiver).unwrap();
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = RulePlan {
            sockets: BTreeMap::new(),
            pool: PoolPlan::to(backend.local_addr().unwrap()),
            source: Source::Kernel,
            timeouts: Timeouts::default(),
            max_connections: None,
        };
        let served = Served::new(&RuleName::new("rule").unwrap(), 1, &plan.pool, 0);
        let socket = Socket { protocol: Protocol::Tcp, scope: Scope::Any(Family::V4), port: 1 };
        let route = served.route(&socket, PortRange::single(1).unwrap(), &plan);
        let rule = served.state;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        worker.add_listener(listener.into(), route).unwrap();
        worker.accept(0, 1);
        assert_eq!((shared.connections.get(), rule.live.get()), (1, 1));
        drop(worker);
        assert_eq!((shared.connections.get(), rule.live.get()), (0, 0));
    }
}
