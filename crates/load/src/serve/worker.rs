//! A thread of the server: an epoll loop over its listeners and connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recvfrom, sendto};
use slab::Slab;

use super::conversation::{Conversation, Next, Page};
use crate::stamp::{Stamp, Wish};

const EVENTS: usize = 256;
/// Connections accepted and datagrams answered in one turn.
const TURN: usize = 64;
/// The longest datagram, and what is read of a connection at a time.
const SCRATCH: usize = 128 << 10;
/// How long no connection is accepted when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);

/// What an event is of: this and a number, or a connection.
const WAKE: u64 = u64::MAX;
const TCP: u64 = 1 << 62;
const UDP: u64 = 1 << 61;

const INTEREST: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// The sockets of one address.
pub(super) struct Sockets {
    pub(super) address: SocketAddr,
    pub(super) tcp: OwnedFd,
    pub(super) udp: OwnedFd,
}

/// The thread's state.
pub(super) struct Worker {
    epoll: OwnedFd,
    stop: Arc<AtomicBool>,
    _waker: Arc<OwnedFd>,
    sockets: Vec<Sockets>,
    connections: Slab<Conversation>,
    /// Connections that have had their turn and could go on.
    again: Vec<usize>,
    page: Page,
    scratch: Box<[u8]>,
}

impl Worker {
    pub(super) fn new(
        sockets: Vec<Sockets>,
        page: u64,
        waker: Arc<OwnedFd>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*waker, EventData::new_u64(WAKE), EventFlags::IN)?;
        for (number, own) in (0..).zip(&sockets) {
            epoll::add(&epoll, &own.tcp, EventData::new_u64(TCP | number), EventFlags::IN)?;
            epoll::add(&epoll, &own.udp, EventData::new_u64(UDP | number), EventFlags::IN)?;
        }
        Ok(Self {
            epoll,
            stop,
            _waker: waker,
            sockets,
            connections: Slab::new(),
            again: Vec::new(),
            page: Page::new(page),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
        })
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let mut turn = Vec::new();
        while !self.stop.load(Relaxed) {
            events.clear();
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let timeout = (!self.again.is_empty()).then_some(&now);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {}
                    data if data & TCP != 0 => self.accept((data & !TCP) as usize)?,
                    data if data & UDP != 0 => self.answer((data & !UDP) as usize),
                    data => self.go_on(data as usize),
                }
            }
            std::mem::swap(&mut turn, &mut self.again);
            turn.drain(..).for_each(|key| self.go_on(key));
        }
        Ok(())
    }

    fn accept(&mut self, number: usize) -> io::Result<()> {
        for _ in 0..TURN {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match accept_with(&self.sockets[number].tcp, flags) {
                Ok(socket) => {
                    let entry = self.connections.vacant_entry();
                    let data = EventData::new_u64(entry.key() as u64);
                    // Registering tells at once of what has come already.
                    epoll::add(&self.epoll, &socket, data, INTEREST)?;
                    entry.insert(Conversation::new(socket));
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    // Connections wait in the queue meanwhile, as at any server that is full.
                    std::thread::sleep(PAUSE);
                    return Ok(());
                }
                // The connection's own errors (accept(2)); those of a listener last, and show in the next call.
                Err(Errno::INVAL | Errno::BADF | Errno::NOTSOCK) => return Err(Errno::INVAL.into()),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn answer(&mut self, number: usize) {
        let socket = &self.sockets[number].udp;
        for _ in 0..TURN {
            let (length, client) = match recvfrom(socket, &mut *self.scratch, RecvFlags::empty()) {
                Ok((length, _, Some(client))) => (length, client),
                Err(Errno::AGAIN) => return,
                // An earlier answer's ICMP error, or a sender without an address.
                Ok(_) | Err(_) => continue,
            };
            let datagram = &self.scratch[..length];
            if Stamp::decode(datagram).is_some_and(|stamp| stamp.wish == Wish::Echo) {
                // What cannot be sent at once is lost, as on any other part of its way.
                _ = sendto(socket, datagram, SendFlags::empty(), &client);
            }
        }
    }

    /// Lets a conversation go on as far as it can.
    fn go_on(&mut self, key: usize) {
        let Some(conversation) = self.connections.get_mut(key) else { return };
        match conversation.go_on(&self.page, &mut self.scratch) {
            Next::Wait => {}
            Next::Again => self.again.push(key),
            Next::Over => {
                self.connections.remove(key);
            }
        }
    }
}
