//! What is to be done: the load, where to, how much of it at a time, how fast and how long.
//!
//! Pure. Deliberately absent: names, which the caller resolves.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::stamp::Stamp;

/// The longest message of the echo protocol, in bytes.
const MOST_ECHO: usize = 16 << 20;
/// What a UDP datagram over IPv4 can hold, in bytes.
const MOST_DATAGRAM: usize = 65_507;

/// A load.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where to.
    pub target: SocketAddr,
    /// The addresses to come from, taken in turn; none leaves it to the kernel. One address has at most 64,512 ports
    /// towards one target, and 28,232 by Linux's default (`net.ipv4.ip_local_port_range`).
    pub from: Vec<IpAddr>,
    /// What is done there.
    pub load: Load,
    /// How many at a time: connections, requests, streams or datagrams on their way. With a rate it is the bound: what is
    /// due while all are busy waits, and its latency with it.
    pub concurrency: u32,
    /// Requests per second, due at even distances, whatever became of those before (open loop). None: the next begins
    /// when one ends (closed loop).
    pub rate: Option<f64>,
    /// What is done but not counted before anything is.
    pub warm_up: Duration,
    /// When it ends.
    pub length: Length,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long an answer may take from the moment when the request could be sent. A datagram without one is lost.
    pub timeout: Duration,
    /// Threads. One is enough for what one CPU can do, which is about what a server on another one can.
    pub threads: u32,
    /// How connections end, where one is made per request.
    pub close: Close,
}

impl Plan {
    /// A load of 64 at a time in a closed loop for ten seconds after one second of warm-up.
    pub fn new(target: SocketAddr, load: Load) -> Self {
        let timeout = if matches!(load, Load::Udp { .. }) { 1 } else { 10 };
        Self {
            target,
            from: Vec::new(),
            concurrency: if matches!(load, Load::Bulk(_)) { 1 } else { 64 },
            load,
            rate: None,
            warm_up: Duration::from_secs(1),
            length: Length::Time(Duration::from_secs(10)),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(timeout),
            threads: 1,
            close: Close::Wait,
        }
    }

    /// Whether it can be done.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.concurrency == 0 || self.threads == 0 {
            return Err(PlanError::Nobody);
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(PlanError::Rate);
        }
        let streams = matches!(self.load, Load::Bulk(_) | Load::Idle);
        if streams && self.rate.is_some() {
            return Err(PlanError::NoRate);
        }
        if streams && matches!(self.length, Length::Count(_)) {
            return Err(PlanError::NoCount);
        }
        let is_bulk = matches!(self.load, Load::Bulk(_));
        if matches!(self.length, Length::Bytes(bytes) if !is_bulk || bytes == 0 || !self.warm_up.is_zero()) {
            return Err(PlanError::NoBytes);
        }
        if let Some(from) = self.from.iter().find(|from| from.is_ipv4() != self.target.is_ipv4()) {
            return Err(PlanError::Family { from: *from, target: self.target });
        }
        let (size, most) = match &self.load {
            Load::Connections(Exchange::Echo { size }) | Load::Keepalive(Exchange::Echo { size }) => {
                (*size, MOST_ECHO)
            }
            Load::Udp { size, .. } => (*size, MOST_DATAGRAM),
            _ => return Ok(()),
        };
        if (Stamp::LEN..=most).contains(&size) {
            Ok(())
        } else {
            Err(PlanError::Size { size, least: Stamp::LEN, most })
        }
    }
}

/// What is done at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// A new TCP connection for each request.
    Connections(Exchange),
    /// Requests over connections that stay.
    Keepalive(Exchange),
    /// Datagrams, each of which the other side returns.
    Udp {
        /// Bytes of each.
        size: usize,
        /// Whether each comes from a port of its own: a new flow for whoever forwards it.
        fresh: bool,
    },
    /// Streams without an end.
    Bulk(Direction),
    /// Connections that are made and held.
    Idle,
}

/// A request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// `GET` of HTTP/1.1 (RFC 9112). An answer with a status of 400 or more is a wrong one.
    Http {
        /// The Host header.
        host: String,
        /// The path, from its first `/` on.
        path: String,
    },
    /// A message that comes back as it was, compared byte by byte. Any echo server will do (RFC 862), as far as it ends
    /// connections in the way that [`Close`] asks for; [`crate::Server`] is one.
    Echo {
        /// Bytes.
        size: usize,
    },
}

impl Exchange {
    /// `GET path`.
    pub fn get(host: impl Into<String>, path: impl Into<String>) -> Self {
        Self::Http { host: host.into(), path: path.into() }
    }
}

/// Which way a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the target.
    Up,
    /// From the target.
    Down,
}

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// After this time, warm-up excluded.
    Time(Duration),
    /// When so many requests, warm-up excluded, have been answered or have failed.
    Count(u64),
    /// When so many bytes of each stream have arrived; one that fails is not begun again. Of streams without a warm-up, and
    /// towards the target only if that is a [`crate::Server`], which says what has come.
    Bytes(u64),
}

/// How a connection ends when its answer is there. Whoever ends it first keeps its ports in TIME_WAIT (RFC 9293, 3.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Close {
    /// The server is asked to end it (`Connection: close`), and that is awaited; the answer's latency is not concerned.
    #[default]
    Wait,
    /// At once by a FIN. This side keeps the port for a minute: 28,232 ports are 470 connections a second.
    Fin,
    /// At once by a RST, which leaves nothing on either side.
    Reset,
}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanError {
    /// No threads or none at a time.
    Nobody,
    /// A rate that is none.
    Rate,
    /// Streams and idle connections know no requests per second.
    NoRate,
    /// Streams and idle connections have no end of their own.
    NoCount,
    /// So many bytes of something else than a stream, or after a warm-up, or none.
    NoBytes,
    /// From one family to the other.
    Family {
        /// The source.
        from: IpAddr,
        /// The target.
        target: SocketAddr,
    },
    /// Too short for what is written into every message, or too long.
    Size {
        /// As asked for.
        size: usize,
        /// The shortest.
        least: usize,
        /// The longest.
        most: usize,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => write!(f, "at least one thread and one at a time are needed"),
            Self::Rate => write!(f, "a rate is more than 0 a second"),
            Self::NoRate => write!(f, "streams and idle connections have no rate"),
            Self::NoCount => write!(f, "streams and idle connections end after a time, not after a count"),
            Self::NoBytes => write!(f, "only streams without a warm-up end after so many bytes"),
            Self::Family { from, target } => write!(f, "{from} cannot reach {target}: another family"),
            Self::Size { size, least, most } => write!(f, "{size} bytes: {least} to {most} are possible"),
        }
    }
}

impl std::error::Error for PlanError {}
