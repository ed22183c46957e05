//! Where traffic goes: backends as the user names them, and targets, which are addresses.
//!
//! A [`Backend`] may be a name; what it stands for now is a fact ([`crate::facts`]), and the addresses that a rule's
//! new flows meet are [`crate::members`]. Deliberately absent: what a backend is part of ([`super::Pool`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use serde::Serialize;

use crate::address::{Family, PortRange};

/// Which port of the backend a listener port leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetPorts {
    /// The port the client asked for (`forward = "10.0.0.1"`, or a range equal to the listener's).
    Same,
    /// One port, whatever the listener's.
    One(u16),
    /// A range as long as the listener's, port by port: the n-th leads to the n-th.
    Shifted(PortRange),
}

impl TargetPorts {
    /// Whether some port of a listener with `ports` leads to the port it came in by.
    pub fn meet(self, ports: PortRange) -> bool {
        match self {
            Self::Same => true,
            Self::One(port) => ports.contains(port),
            Self::Shifted(range) => range.first() == ports.first(),
        }
    }

    /// Where a connection to `port` of a listener with `ports` leads.
    ///
    /// `port` lies in `ports`, and a shifted range is as long as `ports`: [`crate::build`] has checked both, so the
    /// sum cannot pass 65,535.
    pub fn of(self, ports: PortRange, port: u16) -> u16 {
        match self {
            Self::Same => port,
            Self::One(one) => one,
            Self::Shifted(range) => range.first() + (port - ports.first()),
        }
    }
}

impl fmt::Display for TargetPorts {
    /// What stands behind the address: `:80`, `:9000-9099`, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => Ok(()),
            Self::One(port) => write!(f, ":{port}"),
            Self::Shifted(range) => write!(f, ":{range}"),
        }
    }
}

/// An address that traffic is sent to, and its port or ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The address.
    pub address: IpAddr,
    /// The port or ports.
    pub ports: TargetPorts,
}

impl Target {
    /// The family of the address.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// The socket address for a connection to `port` of a listener with `ports`; see [`TargetPorts::of`].
    pub fn socket(&self, ports: PortRange, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, self.ports.of(ports, port))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}")?,
            IpAddr::V6(address) => write!(f, "[{address}]")?,
        }
        self.ports.fmt(f)
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A host name: lower case, without the dot at the end, at most 253 bytes, labels of 1 to 63 letters, digits,
/// hyphens and underscores (RFC 1035 2.3.4; RFC 2782 for the underscores of services).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct HostName(String);

impl HostName {
    /// The name, or `None` when it breaks the rules above or reads as an address or a number.
    pub fn new(name: &str) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let label = |label: &str| {
            let letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
            letters && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        };
        // A last label of digits only is an address gone wrong (RFC 1123 2.1).
        let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        let valid = name.len() <= 253 && name.split('.').all(label) && !numeric;
        valid.then(|| Self(name.to_ascii_lowercase()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a backend is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendHost {
    /// An address.
    Address(IpAddr),
    /// A name with A and AAAA records.
    Name(HostName),
    /// A service: SRV records (RFC 2782), which give hosts, ports, priorities and weights.
    Service(HostName),
}

/// Which of a name's addresses are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resolve {
    /// All of them, each with the backend's weight.
    #[default]
    All,
    /// The first in numerical order, so that one resolver's rotation does not move flows.
    First,
}

/// The name of a backend within its pool: `name`, or the backend as written. 1 to 270 printable ASCII bytes without
/// white space, quotes and backslashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct BackendName(String);

impl BackendName {
    /// The longest name, in bytes: a host name with a range of ports is shorter.
    pub const MAX: usize = 270;

    /// The name, or `None` when it breaks the rules above.
    pub fn new(name: &str) -> Option<Self> {
        super::is_name(name, Self::MAX).then(|| Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One backend of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique in its pool.
    pub name: BackendName,
    /// Who it is.
    pub host: BackendHost,
    /// The port or ports; a service has its records', and [`TargetPorts::Same`] here.
    pub ports: TargetPorts,
    /// Its share, 0 to 256; 0 gets no new flows.
    pub weight: u16,
    /// Used only while no backend that is no backup is there.
    pub backup: bool,
    /// The most connections and flows at a time.
    pub max_connections: Option<NonZeroU32>,
    /// Which of a name's addresses are used.
    pub resolve: Resolve,
}

impl Backend {
    /// The highest weight.
    pub const MOST_WEIGHT: u16 = 256;

    /// A backend with nothing but a target.
    pub fn of(target: Target) -> Self {
        let name =
            BackendName::new(&target.to_string()).expect("invariant: addresses and ports are printable");
        Self {
            name,
            host: BackendHost::Address(target.address),
            ports: target.ports,
            weight: 1,
            backup: false,
            max_connections: None,
            resolve: Resolve::All,
        }
    }

    /// Where it is, when that needs no resolver.
    pub fn target(&self) -> Option<Target> {
        match self.host {
            BackendHost::Address(address) => Some(Target { address, ports: self.ports }),
            BackendHost::Name(_) | BackendHost::Service(_) => None,
        }
    }
}

impl fmt::Display for Backend {
    /// As a person writes it, without its name and settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            BackendHost::Address(address) => Target { address: *address, ports: self.ports }.fmt(f),
            BackendHost::Name(name) => write!(f, "{name}{}", self.ports),
            BackendHost::Service(name) => write!(f, "srv/{name}"),
        }
    }
}
