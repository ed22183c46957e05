//! What the file says of the ebpf engine as a whole, and of the one thing that only it can give to a backend.
//!
//! Deliberately absent: what a rule asks of it beyond that, which are fields of [`super::Rule`], and what an interface of
//! this host can do, which the engine finds out.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::address::{InterfaceName, PortRange};

/// How the programs are attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// XDP where the driver of a physical device has it natively, TC everywhere.
    #[default]
    Auto,
    /// TC only.
    Tc,
    /// TC by the clsact queueing discipline, as before Linux 6.6.
    Clsact,
    /// XDP wherever the driver has it natively, and TC.
    Xdp,
}

impl Attach {
    /// The words of the file, in the order of the reference.
    pub const WORDS: [(&'static str, Self); 4] =
        [("auto", Self::Auto), ("tc", Self::Tc), ("clsact", Self::Clsact), ("xdp", Self::Xdp)];
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, attach)| attach == self);
        f.write_str(word.map_or("", |(word, _)| word))
    }
}

/// How long a flow is remembered without a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowTimeouts {
    /// A TCP connection whose handshake is not over.
    pub opening: Duration,
    /// An established TCP connection.
    pub established: Duration,
    /// A TCP connection of which one side is done.
    pub closing: Duration,
    /// A TCP connection that the backend has closed first: it holds the port that long (RFC 9293, 3.6.1).
    pub time_wait: Duration,
    /// UDP that has not been answered.
    pub udp: Duration,
    /// UDP that has.
    pub udp_stream: Duration,
}

impl Default for FlowTimeouts {
    fn default() -> Self {
        Self {
            opening: Duration::from_secs(30),
            established: Duration::from_secs(7200),
            closing: Duration::from_secs(60),
            time_wait: Duration::from_secs(60),
            udp: Duration::from_secs(30),
            udp_stream: Duration::from_secs(120),
        }
    }
}

/// The engine as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EbpfSettings {
    /// How the programs are attached.
    pub attach: Attach,
    /// The interfaces that are served; all that have no master, are up and not loopback where empty.
    pub interfaces: Vec<InterfaceName>,
    /// The most flows: 1024 to 16,777,216. Their memory is taken when the engine begins.
    pub max_flows: u32,
    /// The ports that source ports are searched in, when the client's is taken.
    pub source_ports: PortRange,
    /// The clocks.
    pub timeouts: FlowTimeouts,
}

impl EbpfSettings {
    /// The bounds of [`Self::max_flows`].
    pub const FLOWS: (u32, u32) = (1024, 16_777_216);
    /// [`Self::max_flows`] where the file does not say.
    pub const MAX_FLOWS: u32 = 262_144;
    /// The lowest of [`Self::source_ports`]: the ports below belong to services (RFC 6335, 6).
    pub const LOWEST_PORT: u16 = 1024;
}

impl Default for EbpfSettings {
    fn default() -> Self {
        Self {
            attach: Attach::default(),
            interfaces: Vec::new(),
            max_flows: Self::MAX_FLOWS,
            source_ports: PortRange::new(40_000, 65_535).expect("invariant: in order and not from 0"),
            timeouts: FlowTimeouts::default(),
        }
    }
}

/// How the backend learns who the client is, when the source address is not the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAddress {
    /// TCP option 254 with address and port, as LVS's `toa` kernel module reads it.
    Toa,
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Toa => "toa",
        })
    }
}
