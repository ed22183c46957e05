//! New UDP flows: the limits, the choice of a member, the socket towards it.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;

use super::{Flow, Key, Udp, datagram_socket};
use crate::context::Context;
use crate::listen::connect_from;
use crate::pool::NoMember;
use crate::route::Route;
use crate::token::Token;

impl Udp {
    /// A flow for a new client, unless a limit or the kernel says no.
    pub(super) fn begin(&mut self, context: &mut Context, key: Key, interface: u32) -> Option<u32> {
        let listener = self.listeners.get_mut(key.listener as usize)?;
        let (route, port) = (listener.route.clone(), listener.port);
        if !listener.open {
            return None;
        }
        if !context.shared.flows.enter() {
            refuse(context, &route, &"max-flows of the proxy is reached");
            return None;
        }
        if !route.rule.live.enter() {
            context.shared.flows.leave();
            refuse(context, &route, &"max-connections of the rule is reached");
            return None;
        }
        let lease = match context.choose(&route, Some(key.client), None, &[]) {
            Ok(lease) => lease,
            Err(none) => {
                context.shared.flows.leave();
                route.rule.live.leave();
                match none {
                    NoMember::Full => refuse(context, &route, &"max-connections of every backend is reached"),
                    NoMember::Drop => refuse(context, &route, &"no backend is live"),
                    NoMember::Refuse => {
                        refuse(context, &route, &"no backend is live");
                        self.unreachable(context, key, scope(key.local, interface), port);
                    }
                }
                return None;
            }
        };
        let target = route.target(lease.member());
        let entry = self.flows.vacant_entry();
        let index = entry.key() as u32;
        let generation = context.next_generation();
        let backend = datagram_socket(&target).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::INVAL));
        let backend = backend.and_then(|backend| {
            connect_from(&backend, route.source(target), target)?;
            epoll::add(&context.epoll, &backend, Token::UdpFlow(index, generation).pack(), EventFlags::IN)?;
            Ok(backend)
        });
        let backend = match backend {
            Ok(backend) => backend,
            Err(error) => {
                context.shared.flows.leave();
                route.rule.live.leave();
                context.member_failed(&route, lease.member(), false);
                refuse(context, &route, &format_args!("{target}: {}", io::Error::from(error)));
                return None;
            }
        };
        context.counters(&route).flows.fetch_add(1, Relaxed);
        listener.flows += 1;
        self.wheel.set(index, context.now + route.udp_idle);
        entry.insert(Flow {
            backend,
            key,
            interface: scope(key.local, interface),
            route,
            lease,
            began: context.now,
            active: context.now,
            bytes_in: 0,
            bytes_out: 0,
            generation,
            replies: 0,
        });
        self.index.insert(key, index);
        Some(index)
    }
}

/// A flow that cannot be carried.
fn refuse(context: &Context, route: &Route, reason: &dyn std::fmt::Display) {
    context.counters(route).failed.fetch_add(1, Relaxed);
    let name = &route.rule.name;
    context.shared.log.seldom("flow", || format!("proxy, rule {name}: new UDP flow refused: {reason}"));
}

/// The interface to answer through: the one asked, where the address says nothing of it (link-local).
fn scope(local: IpAddr, interface: u32) -> u32 {
    if matches!(local, IpAddr::V6(address) if address.is_unicast_link_local()) { interface } else { 0 }
}
