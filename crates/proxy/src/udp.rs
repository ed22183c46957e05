//! UDP: a flow is what one client sends to one of our addresses; each has a connected socket to the backend.
//!
//! The kernel's SO_REUSEPORT hash brings a client always to the same worker, so flows are a worker's own.
//! Datagrams go in batches, trains of equal ones (GRO) go on as trains (GSO). Replies leave from the address
//! that was asked. What cannot be sent at once is dropped and counted, as UDP's senders expect; nothing is
//! cut off silently.

mod begin;
mod list;
mod send;

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::epoll::{self, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, socket_with, sockopt};
use slab::Slab;

use self::send::send;
use crate::context::Context;
use crate::icmp::Icmp;
use crate::member::Lease;
use crate::route::Route;
use crate::shared::Shared;
use crate::sys::{self, BATCH, Datagram, Receiver};
use crate::timer::Wheel;
use crate::token::Token;

/// Full batches from one socket in one turn.
const TURNS: usize = 4;
/// Replies after which a flow's socket asks for trains; most flows are one question and one answer.
const BUSY: u32 = 32;

struct Listener {
    fd: OwnedFd,
    route: Arc<Route>,
    port: u16,
    flows: u32,
    /// Whether new clients are let in; else it closes with its last flow.
    open: bool,
}

struct Flow {
    backend: OwnedFd,
    key: Key,
    /// The interface to answer through, where the address says nothing of it (link-local).
    interface: u32,
    route: Arc<Route>,
    /// Its place at the member that it leads to.
    lease: Lease,
    began: u64,
    active: u64,
    bytes_in: u64,
    bytes_out: u64,
    generation: u32,
    replies: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    listener: u32,
    client: SocketAddr,
    local: IpAddr,
}

/// The UDP side of a worker.
pub(crate) struct Udp {
    listeners: Slab<Listener>,
    flows: Slab<Flow>,
    index: HashMap<Key, u32>,
    wheel: Wheel,
    expired: Vec<u32>,
    /// Made with the first listener.
    receiver: Option<Receiver>,
    icmp: Icmp,
}

impl Udp {
    pub(crate) fn new() -> Self {
        Self {
            listeners: Slab::new(),
            flows: Slab::new(),
            index: HashMap::new(),
            wheel: Wheel::new(),
            expired: Vec::new(),
            receiver: None,
            icmp: Icmp::default(),
        }
    }

    pub(crate) fn add_listener(
        &mut self,
        context: &Context,
        fd: OwnedFd,
        route: Arc<Route>,
    ) -> io::Result<u32> {
        let address: SocketAddr = getsockname(&fd)?.try_into()?;
        let entry = self.listeners.vacant_entry();
        let index = entry.key() as u32;
        epoll::add(&context.epoll, &fd, Token::UdpListener(index).pack(), EventFlags::IN)?;
        entry.insert(Listener { fd, route, port: address.port(), flows: 0, open: true });
        self.receiver.get_or_insert_with(Receiver::new);
        Ok(index)
    }

    /// New flows lead elsewhere; the present ones keep their backend.
    pub(crate) fn reroute(&mut self, index: u32, route: Arc<Route>) {
        self.listeners[index as usize].route = route;
    }

    /// Closes the listener. Its flows go on: each gets a client-side socket of its own, connected to the
    /// client, so that the port no longer belongs to us for anyone else.
    pub(crate) fn remove_listener(&mut self, context: &Context, index: u32) {
        let listener = self.listeners.remove(index as usize);
        let flows: Vec<u32> =
            self.flows.iter().filter(|(_, flow)| flow.key.listener == index).map(|(i, _)| i as u32).collect();
        for flow in flows {
            if self.detach(context, flow, &listener).is_err() {
                self.forget(context, flow);
            }
        }
    }

    fn detach(&mut self, context: &Context, index: u32, listener: &Listener) -> io::Result<()> {
        let flow = &mut self.flows[index as usize];
        let fd = datagram_socket(&flow.key.client)?;
        sockopt::set_socket_reuseport(&fd, true)?;
        let mut local = SocketAddr::new(flow.key.local, listener.port);
        if let SocketAddr::V6(local) = &mut local {
            local.set_scope_id(flow.interface);
        }
        sys::receive_destination(&fd, local.is_ipv6())?;
        bind(&fd, &local)?;
        connect(&fd, &flow.key.client)?;
        let entry = self.listeners.vacant_entry();
        let own = entry.key() as u32;
        epoll::add(&context.epoll, &fd, Token::UdpListener(own).pack(), EventFlags::IN)?;
        entry.insert(Listener {
            fd,
            route: listener.route.clone(),
            port: listener.port,
            flows: 1,
            open: false,
        });
        self.index.remove(&flow.key);
        flow.key.listener = own;
        self.index.insert(flow.key, index);
        Ok(())
    }

    pub(crate) fn stop(&mut self, context: &Context) {
        let all: Vec<u32> = self.flows.iter().map(|(index, _)| index as u32).collect();
        for index in all {
            self.forget(context, index);
        }
        self.listeners.clear();
    }

    /// Gives back what the flows count against limits, without touching anything else.
    pub(crate) fn abandon(&self, shared: &Shared) {
        for (_, flow) in &self.flows {
            flow.route.rule.live.leave();
            shared.flows.leave();
        }
    }

    /// Milliseconds until a flow may have to expire.
    pub(crate) fn next(&self, now: u64) -> Option<u64> {
        self.wheel.next(now)
    }

    pub(crate) fn expire(&mut self, context: &mut Context) {
        let mut expired = std::mem::take(&mut self.expired);
        self.wheel.advance(context.now, &mut expired);
        for index in expired.drain(..) {
            let Some(flow) = self.flows.get(index as usize) else { continue };
            let deadline = flow.active + flow.route.udp_idle;
            if deadline > context.now {
                self.wheel.set(index, deadline);
            } else {
                self.forget(context, index);
            }
        }
        self.expired = expired;
    }

    fn forget(&mut self, context: &Context, index: u32) {
        let flow = self.flows.remove(index as usize);
        self.wheel.remove(index);
        self.index.remove(&flow.key);
        flow.route.rule.live.leave();
        context.shared.flows.leave();
        if let Some(listener) = self.listeners.get_mut(flow.key.listener as usize) {
            listener.flows -= 1;
            if !listener.open && listener.flows == 0 {
                self.listeners.remove(flow.key.listener as usize);
            }
        }
    }

    /// Datagrams have come from clients.
    pub(crate) fn client_datagrams(&mut self, context: &mut Context, index: u32) {
        let Some(mut receiver) = self.receiver.take() else { return };
        for _ in 0..TURNS {
            let Some(listener) = self.listeners.get(index as usize) else { break };
            // An error is one that an earlier reply left on the socket (its client is gone); it says nothing
            // of the other clients.
            let Ok(count) = receiver.receive(&listener.fd) else { break };
            self.forward(context, index, &receiver);
            if count < BATCH {
                break;
            }
        }
        self.receiver = Some(receiver);
    }

    fn forward(&mut self, context: &mut Context, listener: u32, receiver: &Receiver) {
        let mut run: Vec<Datagram<'_>> = Vec::with_capacity(BATCH);
        let mut run_flow = None;
        for (received, data) in receiver.iter() {
            let (Some(client), Some(local)) = (received.peer, received.local) else { continue };
            if received.truncated {
                truncated(context);
                continue;
            }
            let key = Key { listener, client, local };
            let flow = match self.index.get(&key) {
                Some(flow) => *flow,
                None => match self.begin(context, key, received.interface) {
                    Some(flow) => flow,
                    None => continue,
                },
            };
            if run_flow != Some(flow) {
                if let Some(flow) = run_flow {
                    self.send_on(context, flow, &run);
                }
                run.clear();
                run_flow = Some(flow);
            }
            run.push(Datagram { data, to: None, from: None, segment: received.segment });
        }
        if let Some(flow) = run_flow {
            self.send_on(context, flow, &run);
        }
    }

    fn send_on(&mut self, context: &Context, index: u32, datagrams: &[Datagram<'_>]) {
        let flow = &mut self.flows[index as usize];
        flow.active = context.now;
        let sent = send(&flow.backend, datagrams);
        flow.bytes_in += sent.bytes;
        context.counters(&flow.route).bytes_in.fetch_add(sent.bytes, Relaxed);
        flow.lease.member().carried(sent.bytes, 0);
        context.shared.udp_dropped.fetch_add(sent.dropped, Relaxed);
        if sent.refused {
            self.refused(context, index);
        }
    }

    /// Datagrams have come from a flow's backend.
    pub(crate) fn backend_datagrams(&mut self, context: &mut Context, index: u32, generation: u32) {
        let Some(mut receiver) = self.receiver.take() else { return };
        for _ in 0..TURNS {
            let Some(flow) = self.flows.get_mut(index as usize).filter(|f| f.generation == generation) else {
                break;
            };
            let count = match receiver.receive(&flow.backend) {
                Ok(count) => count,
                Err(error) => {
                    if error.kind() == ErrorKind::ConnectionRefused {
                        self.refused(context, index);
                    }
                    break;
                }
            };
            let Some(listener) = self.listeners.get(flow.key.listener as usize) else { break };
            flow.active = context.now;
            let before = flow.replies;
            if before == 0 {
                context.member_answered(&flow.route, flow.lease.member());
            }
            flow.replies = flow.replies.saturating_add(count as u32);
            if before < BUSY && flow.replies >= BUSY {
                // Only optimisations, see there.
                _ = sys::udp_gro(&flow.backend);
                crate::listen::deepen(&flow.backend);
            }
            let mut replies: Vec<Datagram<'_>> = Vec::with_capacity(count);
            for (received, data) in receiver.iter() {
                if received.truncated {
                    truncated(context);
                    continue;
                }
                let (to, from) = (Some(flow.key.client), Some((flow.key.local, flow.interface)));
                replies.push(Datagram { data, to, from, segment: received.segment });
            }
            let sent = send(&listener.fd, &replies);
            flow.bytes_out += sent.bytes;
            context.counters(&flow.route).bytes_out.fetch_add(sent.bytes, Relaxed);
            flow.lease.member().carried(0, sent.bytes);
            context.shared.udp_dropped.fetch_add(sent.dropped, Relaxed);
            if count < BATCH {
                break;
            }
        }
        self.receiver = Some(receiver);
    }

    /// The backend's host has said that nobody listens there: so does ours.
    fn refused(&mut self, context: &Context, index: u32) {
        let flow = &self.flows[index as usize];
        context.counters(&flow.route).failed.fetch_add(1, Relaxed);
        context.member_failed(&flow.route, flow.lease.member(), true);
        let Some(listener) = self.listeners.get(flow.key.listener as usize) else { return };
        let (key, interface, port) = (flow.key, flow.interface, listener.port);
        self.unreachable(context, key, interface, port);
    }

    /// Tells a client that nobody listens.
    fn unreachable(&mut self, context: &Context, key: Key, interface: u32, port: u16) {
        if self.icmp.port_unreachable(key.client, key.local, port, interface, context.now) {
            context.shared.icmp_sent.fetch_add(1, Relaxed);
        }
    }
}

fn datagram_socket(peer: &SocketAddr) -> io::Result<OwnedFd> {
    let domain = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket_with(domain, SocketType::DGRAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?)
}

fn truncated(context: &Context) {
    context.shared.udp_dropped.fetch_add(1, Relaxed);
    context.shared.log.seldom("truncated", || "proxy: a datagram longer than 64 KiB was dropped".to_owned());
}
