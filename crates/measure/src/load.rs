//! The loads: what is asked of every lane, how much of it and for how long.
//!
//! Here is which there are and what each asks; how much of it is in [`terms`]. Deliberately absent: how they run
//! ([`crate::actor`]), and what it costs ([`crate::meter`]).

pub mod terms;

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::actor::{self, Asked, Call};
use crate::lane::Scheme;
use crate::lane::setup::{self, Forward, Lane, POOL, TCP, UDP};
use crate::options::Scale;
use crate::record::{Figures, Kind, Mode};

pub use terms::Terms;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A new connection for every request, 64 at a time.
    Connections,
    /// New connections at a rate, whatever becomes of those before.
    Paced,
    /// Requests over 64 connections that stay.
    Keepalive,
    /// One stream from the client.
    BulkUp,
    /// One stream to the client.
    BulkDown,
    /// Datagrams of 64 bytes there and back, 64 on their way.
    UdpSmall,
    /// Datagrams of 1400 bytes.
    UdpLarge,
    /// Connections that are held.
    Idle,
    /// New connections at a rate to two backends, one of which dies and comes back.
    Churn,
    /// New connections at a rate beside a flood of SYNs.
    Flood,
    /// As the published experiment has it: a new connection for every request, 100,000 requests, 10,000 at a time.
    Article,
}

/// What stays open of a load, so that one can look for it when nothing else is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Its connections, as long as it runs.
    Connections,
    /// Flows of datagrams, which are remembered when it has ended.
    Flows,
    /// Nothing.
    Nothing,
}

/// Bytes of the page that is asked for, the article's: nginx's own page with its headers is about as long.
pub const PAGE: u64 = 130;
/// Descriptors that a process has for other things than connections.
const OTHER_FILES: u64 = 500;
/// How long a stream is captured, in seconds.
const SAMPLE: f64 = 0.05;
/// Descriptors that realm has for a connection: two sockets and two pipes.
const REALM_FILES: u64 = 6;
/// At a time, in the article.
const ARTICLE_AT_A_TIME: u64 = 10_000;
/// New connections that are due in a second, where they do not wait for answers: a rate that every lane but the slowest keeps.
const RATE: f64 = 1000.0;

impl Load {
    /// All, in the order in which they run.
    pub const ALL: [Self; 11] = [
        Self::Connections,
        Self::Paced,
        Self::Keepalive,
        Self::BulkUp,
        Self::BulkDown,
        Self::UdpSmall,
        Self::UdpLarge,
        Self::Idle,
        Self::Churn,
        Self::Flood,
        Self::Article,
    ];

    /// The name by which it is known.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Paced => "paced",
            Self::Keepalive => "keepalive",
            Self::BulkUp => "bulk-up",
            Self::BulkDown => "bulk-down",
            Self::UdpSmall => "udp-small",
            Self::UdpLarge => "udp-large",
            Self::Idle => "idle",
            Self::Churn => "churn",
            Self::Flood => "flood",
            Self::Article => "article",
        }
    }

    /// What it is, in a few words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Connections => "a new connection for every request, 64 at a time",
            Self::Paced => "1000 new connections a second, whatever the lane makes of it",
            Self::Keepalive => "requests over 64 connections that stay",
            Self::BulkUp => "one stream from the client",
            Self::BulkDown => "one stream to the client",
            Self::UdpSmall => "datagrams of 64 bytes there and back, 64 on their way",
            Self::UdpLarge => "datagrams of 1400 bytes there and back, 64 on their way",
            Self::Idle => "connections that are held (1000; quick 200, long 3000)",
            Self::Churn => "1000 new connections a second to two backends, one of which dies and comes back",
            Self::Flood => "1000 new connections a second beside 20,000 SYNs of nobody's",
            Self::Article => "100,000 requests, each on a new connection, 10,000 at a time",
        }
    }

    /// How many are due in a second, if the next does not wait until one has ended (an open loop).
    pub const fn rate(self) -> Option<f64> {
        match self {
            Self::Paced | Self::Churn | Self::Flood => Some(RATE),
            _ => None,
        }
    }

    /// Whether it runs when nothing is said but how much time there is. One that is there for its times is not where they are those
    /// of an emulated machine.
    pub fn is_in(self, scale: Scale, mode: Mode) -> bool {
        match scale {
            _ if mode == Mode::Exact && self == Self::Paced => false,
            Scale::Quick => matches!(self, Self::Connections | Self::BulkUp | Self::UdpSmall | Self::Idle),
            Scale::Usual => !matches!(self, Self::UdpLarge | Self::Churn | Self::Flood | Self::Article),
            Scale::Long => true,
        }
    }

    /// How many of the rounds it takes part in: what is the same every time, or takes long, need not be in each.
    pub fn rounds(self, rounds: u32) -> u32 {
        if matches!(self, Self::Idle | Self::Churn | Self::Flood | Self::Article) {
            rounds.div_ceil(3)
        } else {
            rounds
        }
    }

    /// Whether a short run goes before the rounds: not where no run is short, nor where nothing becomes warm.
    pub fn is_warmed_up(self) -> bool {
        !matches!(self, Self::Article | Self::Churn | Self::Idle)
    }

    /// What stays open of it.
    pub const fn held(self) -> Held {
        match self {
            Self::Idle => Held::Connections,
            Self::UdpSmall | Self::UdpLarge => Held::Flows,
            _ => Held::Nothing,
        }
    }

    /// Whether it needs lanes of its own: the two backends of a pool would be watched during all other loads.
    pub fn is_apart(self) -> bool {
        self == Self::Churn
    }

    /// Whether it can be asked of a lane.
    ///
    /// # Errors
    /// Why not, as a sentence without a full stop.
    pub fn suits(self, scheme: &Scheme) -> Result<(), &'static str> {
        let udp = matches!(self, Self::UdpSmall | Self::UdpLarge);
        match (self, scheme) {
            (Self::BulkUp | Self::BulkDown, Scheme::HaproxySplice) => Ok(()),
            (_, Scheme::HaproxySplice) => Err("splicing matters to streams only"),
            (Self::Churn, scheme) if scheme.kind() == Kind::Routing => Err("routes choose no backend"),
            (Self::Churn, Scheme::Realm | Scheme::Socat | Scheme::Peer(_)) => {
                Err("it is set up with one backend")
            }
            (Self::Article, Scheme::Socat) => Err("10,000 processes at a time are another experiment"),
            // Once it has none left it does not listen again, and every run after that fails.
            (Self::Article | Self::Idle, Scheme::Realm)
                if open_files() < self.held_at_most() * REALM_FILES + OTHER_FILES =>
            {
                Err("with pipes it needs six descriptors for a connection, and a process may have fewer here")
            }
            (_, scheme) if udp && !scheme.takes_udp() => Err("it does not forward UDP"),
            _ => Ok(()),
        }
    }

    /// Connections that are there at a time, at most, where there are many.
    const fn held_at_most(self) -> u64 {
        if matches!(self, Self::Article) { ARTICLE_AT_A_TIME } else { terms::MOST_HELD }
    }

    /// What is not as it is described, because of this host.
    pub fn caveat(self) -> Option<String> {
        let less = at_a_time();
        let article = self == Self::Article && less < ARTICLE_AT_A_TIME;
        article.then(|| {
            format!(
                "{less} at a time instead of 10,000: a process may have no more than {} files open here",
                open_files()
            )
        })
    }

    /// Which listener of the gateway it calls.
    fn forward(self, terms: Terms) -> Forward {
        match self {
            Self::UdpSmall | Self::UdpLarge => UDP,
            _ if terms.pooled => POOL,
            _ => TCP,
        }
    }

    /// What the client is to do.
    fn call(self, lane: &Lane, terms: Terms) -> Call {
        let (host, port) = lane.address(self.forward(terms));
        let target = setup::address(host, port);
        let Terms { seconds, count, bytes, .. } = terms;
        let call = Call { target, rate: self.rate(), seconds, count, bytes, ..Call::default() };
        let call = match self {
            Self::Connections | Self::Paced | Self::Churn | Self::Flood | Self::Article => call,
            Self::Keepalive => Call { asked: Asked::Keepalive, ..call },
            Self::BulkUp => Call { asked: Asked::Up, concurrency: 1, ..call },
            Self::BulkDown => Call { asked: Asked::Down, concurrency: 1, ..call },
            Self::UdpSmall => Call { asked: Asked::Udp { size: 64, fresh: false }, ..call },
            Self::UdpLarge => Call { asked: Asked::Udp { size: 1400, fresh: false }, ..call },
            Self::Idle => Call { asked: Asked::Idle, ..call },
        };
        Call { concurrency: terms.concurrency.unwrap_or(call.concurrency), ..call }
    }

    /// A short run for a packet capture, of the loads whose packets differ from each other's.
    pub fn sample(self, lane: &Lane) -> Option<Call> {
        let terms = Terms { seconds: SAMPLE, ..Terms::default() };
        let count = match self {
            Self::Connections => Some(300),
            Self::Keepalive | Self::UdpSmall | Self::UdpLarge => Some(1000),
            Self::BulkUp | Self::BulkDown => None,
            Self::Paced | Self::Idle | Self::Churn | Self::Flood | Self::Article => return None,
        };
        Some(self.call(lane, Terms { count, ..terms }))
    }

    /// Runs it and says what became of it.
    ///
    /// # Panics
    /// When the generator fails.
    pub fn run(self, lane: &Lane, terms: Terms) -> Figures {
        let call = self.call(lane, terms);
        let run = || actor::call(lane.net.client(), &call);
        match self {
            Self::Churn => lane.with_churn(Duration::from_secs_f64(terms.seconds), run),
            Self::Flood => {
                let (host, port) = lane.address(TCP);
                actor::flooded(&lane.net, setup::address(host, port), run)
            }
            // The article turns SYN cookies off on all three hosts.
            Self::Article => lane.with_sysctl("net.ipv4.tcp_syncookies", "0", run),
            _ => run(),
        }
    }
}

/// How many connections a proxy can hold in one process, with a descriptor on either side of each.
pub fn at_a_time() -> u64 {
    one_sided() / 2
}

/// How many connections a client or a server can hold in one process.
pub fn one_sided() -> u64 {
    open_files().saturating_sub(OTHER_FILES)
}

fn open_files() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use portway_lab::Engine;

    use super::*;

    #[test]
    fn every_load_has_a_lane_and_every_engine_has_every_load() {
        for load in Load::ALL {
            for engine in [Engine::Nftables, Engine::Ebpf, Engine::Xdp, Engine::Proxy] {
                assert_eq!(load.suits(&Scheme::Portway(engine)), Ok(()), "{}", load.name());
            }
        }
    }
}
