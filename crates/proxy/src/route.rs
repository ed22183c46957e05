//! Where one listening socket leads, and by which clocks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use portway_core::address::PortRange;
use portway_core::plan::proxy::Source;
use portway_core::ruleset::Timeouts;

use crate::member::Member;
use crate::pool::Current;
use crate::shared::{RuleState, milliseconds};

/// Where one listening socket leads. A connection keeps the route it began with.
pub struct Route {
    /// The rule's counters and limit.
    pub rule: Arc<RuleState>,
    /// Where new flows go.
    pub pool: Arc<Current>,
    /// The port that is listened on, and the range of the listener that it belongs to.
    port: u16,
    ports: PortRange,
    /// Addresses to connect from, in turn, IPv4 and IPv6; none where the kernel picks.
    sources: [Vec<IpAddr>; 2],
    turn: AtomicUsize,
    /// Timeouts in milliseconds.
    pub connect: u64,
    /// See [`Timeouts::idle`].
    pub idle: u64,
    /// See [`Timeouts::half_closed`].
    pub half_closed: u64,
    /// See [`Timeouts::udp_idle`].
    pub udp_idle: u64,
}

impl Route {
    /// The route of the socket on `port` of a listener with `ports`.
    pub fn new(
        rule: Arc<RuleState>,
        pool: Arc<Current>,
        (port, ports): (u16, PortRange),
        source: &Source,
        timeouts: &Timeouts,
    ) -> Self {
        let sources = match source {
            Source::Kernel => Default::default(),
            Source::Pool(all) => {
                let (v4, v6) = all.iter().partition(|address| address.is_ipv4());
                [v4, v6]
            }
        };
        Self {
            rule,
            pool,
            port,
            ports,
            sources,
            turn: AtomicUsize::new(0),
            connect: milliseconds(timeouts.connect),
            idle: milliseconds(timeouts.idle),
            half_closed: milliseconds(timeouts.half_closed),
            udp_idle: milliseconds(timeouts.udp_idle),
        }
    }

    /// Where a flow to this member is connected to.
    pub fn target(&self, member: &Member) -> SocketAddr {
        member.target.socket(self.ports, self.port)
    }

    /// The address to connect to `target` from next, unless the kernel picks.
    pub fn source(&self, target: SocketAddr) -> Option<IpAddr> {
        let sources = &self.sources[usize::from(target.is_ipv6())];
        let turn = self.turn.fetch_add(usize::from(sources.len() > 1), Relaxed);
        sources.get(turn.checked_rem(sources.len())?).copied()
    }
}
