//! The Ruleset: what the user asked for, in states that can exist.
//!
//! Values here come from [`crate::build`] and are never half-valid: names are unique, no two rules claim the same
//! traffic, every listener port has exactly one target port. Deliberately absent: which engine serves a rule
//! ([`crate::assign`]) and anything the world decides at run time ([`crate::facts`]).

mod backend;
mod check;
mod ebpf;
mod pool;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::{Family, InterfaceName, PortRange, Protocol};
use crate::diagnostic::Span;

pub use backend::{Backend, BackendHost, BackendName, HostName, Resolve, Target, TargetPorts};
pub use check::{Check, CheckKind, Expect, Tls};
pub use ebpf::{Attach, ClientAddress, EbpfSettings, FlowTimeouts};
pub use pool::{Balance, HashKey, Init, OnDown, Passive, Pool, WhenEmpty};

/// The unique name of a rule: 1 to 64 printable ASCII bytes without white space, quotes and backslashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RuleName(String);

impl RuleName {
    /// The longest name, in bytes: it must fit in the comment of an nf_tables element (128 bytes).
    pub const MAX: usize = 64;

    /// The name, or `None` when it breaks the rules above.
    pub fn new(name: &str) -> Option<Self> {
        is_name(name, Self::MAX).then(|| Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is 1 to `most` printable ASCII bytes without white space, quotes and backslashes.
fn is_name(text: &str, most: usize) -> bool {
    let printable = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\'));
    (1..=most).contains(&text.len()) && printable
}

/// Which destination addresses a listener answers for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Exactly this address.
    Address(IpAddr),
    /// Every address of this host in one family (`0.0.0.0` or `[::]`).
    Any(Family),
    /// Every address of this host, for traffic that arrives on one interface.
    Interface(InterfaceName, Family),
}

impl Scope {
    /// The family of the traffic.
    pub fn family(&self) -> Family {
        match self {
            Self::Address(address) => Family::of(*address),
            Self::Any(family) | Self::Interface(_, family) => *family,
        }
    }
}

/// Where traffic comes in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    /// TCP or UDP; `tcp+udp/…` becomes two listeners.
    pub protocol: Protocol,
    /// Which addresses.
    pub scope: Scope,
    /// Which ports.
    pub ports: PortRange,
}

impl fmt::Display for Listener {
    /// The form a person writes, with the protocol always spelled out: `tcp/0.0.0.0:80`, `udp/[::]:53`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.protocol)?;
        match &self.scope {
            Scope::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            Scope::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            Scope::Any(Family::V4) => f.write_str("0.0.0.0")?,
            Scope::Any(Family::V6) => f.write_str("[::]")?,
            Scope::Interface(name, _) => write!(f, "{name}")?,
        }
        write!(f, ":{}", self.ports)
    }
}

impl Serialize for Listener {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which source address the backend sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceMode {
    /// The address of this host on the way to the backend.
    Masquerade,
    /// One of these addresses, of the backend's family; never empty. All have the backends' family, and where those
    /// have both, or are names, there may be addresses of both. For an address of a name that has a family without one
    /// here, as [`Self::Masquerade`].
    Snat(Vec<IpAddr>),
    /// The client's own; the backend must route its replies through this host.
    Preserve,
}

impl fmt::Display for SourceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade => f.write_str("masquerade"),
            Self::Preserve => f.write_str("preserve"),
            Self::Snat(pool) => {
                let pool: Vec<_> = pool.iter().map(IpAddr::to_string).collect();
                write!(f, "snat {}", pool.join(", "))
            }
        }
    }
}

impl Serialize for SourceMode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A kernel conntrack helper: it follows a protocol that opens further connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Helper {
    /// FTP over TCP (active, passive, EPSV).
    Ftp,
    /// TFTP over UDP.
    Tftp,
    /// SIP over UDP or TCP.
    Sip,
}

impl Helper {
    /// The kernel's name of the helper, the word in the configuration as well.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Tftp => "tftp",
            Self::Sip => "sip",
        }
    }

    /// Whether the kernel has the helper for this protocol.
    pub const fn speaks(self, protocol: Protocol) -> bool {
        matches!(
            (self, protocol),
            (Self::Ftp, Protocol::Tcp)
                | (Self::Tftp, Protocol::Udp)
                | (Self::Sip, Protocol::Tcp | Protocol::Udp)
        )
    }
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// NAT in the kernel by nf_tables.
    Nftables,
    /// Full NAT by programs on the interfaces.
    Ebpf,
    /// A user-space relay.
    Proxy,
}

impl EngineKind {
    /// Every engine: those that no packet passes through user space for first. The order in which `auto` tries them, which
    /// passes by `ebpf` for rules that another can serve ([`crate::assign`]).
    pub const ALL: [Self; 3] = [Self::Nftables, Self::Ebpf, Self::Proxy];
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Ebpf => "ebpf",
            Self::Proxy => "proxy",
        })
    }
}

/// How long a proxied flow may stay in a state. Only the proxy engine keeps these clocks itself; a rule that
/// sets one asks for the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From connect() to the backend's answer.
    pub connect: Duration,
    /// Without a byte in either direction, TCP.
    pub idle: Duration,
    /// Without a byte after one side has ended its direction, TCP.
    pub half_closed: Duration,
    /// Without a datagram in either direction, UDP.
    pub udp_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(3600),
            half_closed: Duration::from_secs(60),
            udp_idle: Duration::from_secs(60),
        }
    }
}

/// Where in the text a rule's parts stand, for errors that are found later than the parse.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The rule as a whole: its header, or its first word on a command line.
    pub rule: Span,
    /// The `listen` entry of each listener, in the order of [`Rule::listeners`].
    pub listeners: Vec<Span>,
    /// The backend of each entry of [`Pool::backends`], in order.
    pub backends: Vec<Span>,
    /// The value of `engine`, where written.
    pub engine: Option<Span>,
}

/// One forwarding intent.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Unique in the ruleset.
    pub name: RuleName,
    /// Where traffic comes in; never empty, no two overlap.
    pub listeners: Vec<Listener>,
    /// Where it goes.
    pub pool: Pool,
    /// The engine that the user pinned, or `None` for `auto`.
    pub engine: Option<EngineKind>,
    /// Which source address the backend sees.
    pub source: SourceMode,
    /// The conntrack helper that follows this protocol, if any.
    pub helper: Option<Helper>,
    /// The most connections and UDP flows at a time, if bounded by the rule.
    pub max_connections: Option<NonZeroU32>,
    /// How the backend learns who the client is, where the source address does not say.
    pub client_address: Option<ClientAddress>,
    /// The most new flows a second, if bounded by the rule.
    pub new_flow_rate: Option<NonZeroU32>,
    /// The SYNs a second above which they are answered by cookies (RFC 4987, 3.6); 0 for always.
    pub syn_cookies: Option<u32>,
    /// The proxy's clocks, where the rule sets any of them; the others are the file's or the defaults.
    pub timeouts: Option<Timeouts>,
    /// Where the rule stands in the text. Not part of what the rule means.
    pub origin: Origin,
}

impl Rule {
    /// A rule that asks for nothing but to be forwarded: any engine, masqueraded, without bounds of its own.
    pub fn new(name: RuleName, listeners: Vec<Listener>, target: Target) -> Self {
        Self {
            name,
            listeners,
            pool: Pool::new(vec![Backend::of(target)]),
            engine: None,
            source: SourceMode::Masquerade,
            helper: None,
            max_connections: None,
            client_address: None,
            new_flow_rate: None,
            syn_cookies: None,
            timeouts: None,
            origin: Origin::default(),
        }
    }
}

/// Whether Portway may change the host settings that the rules need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostSettings {
    /// Set what is missing, record it, put it back on `clear`.
    #[default]
    Set,
    /// Only report what is missing.
    Check,
}

/// What the file asks of conntrack, in the kernel's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// `nf_conntrack_max`, in entries.
    pub max: Option<NonZeroU32>,
    /// `nf_conntrack_tcp_timeout_established`.
    pub tcp_established: Option<Duration>,
    /// `nf_conntrack_udp_timeout`.
    pub udp: Option<Duration>,
    /// `nf_conntrack_udp_timeout_stream`.
    pub udp_stream: Option<Duration>,
    /// `nf_conntrack_acct` and `nf_conntrack_timestamp`.
    pub accounting: bool,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self { max: None, tcp_established: None, udp: None, udp_stream: None, accounting: true }
    }
}

/// What the file says of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Whether sysctls may be set.
    pub settings: HostSettings,
    /// Conntrack limits.
    pub conntrack: Conntrack,
}

/// What the file says of the control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// A group whose members may open the socket, besides the owner.
    pub group: Option<String>,
}

/// What the file says of the proxy engine as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// Worker threads; default one per core.
    pub workers: Option<NonZeroU32>,
    /// The most TCP connections of the whole process; default from the open-file limit.
    pub max_connections: Option<NonZeroU32>,
    /// The most UDP flows of the whole process; default from the open-file limit.
    pub max_flows: Option<NonZeroU32>,
    /// The clocks of rules that set none.
    pub timeouts: Timeouts,
}

/// What the file says of resolving names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The resolvers to ask, in turn; the system's (`/etc/resolv.conf`) where empty.
    pub servers: Vec<SocketAddr>,
    /// How long one question may take.
    pub timeout: Duration,
    /// The shortest time between two questions for one name, whatever its TTL says.
    pub ttl_min: Duration,
    /// The longest.
    pub ttl_max: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(2),
            ttl_min: Duration::from_secs(1),
            ttl_max: Duration::from_secs(300),
        }
    }
}

/// Everything a file asks for.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    /// The rules, in the order of the file.
    pub rules: Vec<Rule>,
    /// Host settings.
    pub host: Host,
    /// Control socket.
    pub control: Control,
    /// Proxy engine.
    pub proxy: ProxySettings,
    /// The ebpf engine.
    pub ebpf: EbpfSettings,
    /// Resolving names.
    pub dns: Dns,
}
