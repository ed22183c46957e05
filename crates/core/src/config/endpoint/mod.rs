//! Endpoints as people write them: `udp/0.0.0.0:53`, `eth0:443`, `8000-8099`, `[fd00::1]:80`.
//!
//! One parser for the file and the command line. The grammar (`docs/configuration.md` has it in prose):
//!
//! ```text
//! listen   = [ ("tcp" | "udp" | "tcp+udp") "/" ] [ [ scope ] ":" ] ports
//! scope    = IPv4 | "[" IPv6 "]" | interface
//! forward  = ( IPv4 | "[" IPv6 "]" | name ) [ ":" ports ] | "srv/" name
//! server   = ( IPv4 | "[" IPv6 "]" ) [ ":" port ]
//! ports    = port [ "-" port ]
//! ```
//!
//! What is wrong comes back as a [`Fault`] with its place inside the text. Deliberately absent: names of listeners,
//! scope ids, prefixes and service names ("http"), each of which has a message of its own.

mod backend;
mod host;
mod part;
mod ports;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use crate::address::{Family, InterfaceName, PortRange, Protocol};
use crate::ruleset::{Listener, Scope};
pub use backend::{Forward, parse_forward};
use host::{Host, Role, checked_address, host_and_port, interface, ipv6, not_an_address};
pub use part::Fault;
use part::checked_text;
use ports::{ports, protocols};

/// Where a rule listens, as written: the family of `8888` and `eth0:443` is the backend's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// One or both protocols.
    pub protocols: &'static [Protocol],
    /// Which addresses.
    pub scope: ListenScope,
    /// Which ports.
    pub ports: PortRange,
    /// Where the ports stand in the text.
    pub ports_at: Range<usize>,
}

/// The addresses of a [`Listen`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenScope {
    /// One address.
    Address(IpAddr),
    /// Every address of this host in one family; `None` is the backend's.
    Any(Option<Family>),
    /// What arrives on an interface, in the backend's family.
    Interface(InterfaceName),
}

impl Listen {
    /// The protocols as they are written in front; nothing for TCP alone.
    pub fn prefix(&self) -> &'static str {
        match self.protocols {
            [Protocol::Tcp] => "",
            [Protocol::Udp] => "udp/",
            _ => "tcp+udp/",
        }
    }

    /// The listeners, one per protocol; `None` when the family is the backend's and that is not known.
    pub fn listeners(&self, backend: Option<Family>) -> Option<impl Iterator<Item = Listener> + '_> {
        let scope = match &self.scope {
            ListenScope::Address(address) => Scope::Address(*address),
            ListenScope::Any(family) => Scope::Any(family.or(backend)?),
            ListenScope::Interface(name) => Scope::Interface(name.clone(), backend?),
        };
        Some(self.protocols.iter().map(move |protocol| Listener {
            protocol: *protocol,
            scope: scope.clone(),
            ports: self.ports,
        }))
    }
}

/// Parses a `listen` entry.
///
/// # Errors
/// What is wrong with the first faulty part.
pub fn parse_listen(text: &str) -> Result<Listen, Fault> {
    let whole = checked_text(text, "a listener", "0.0.0.0:8888", "several listeners")?;
    let (protocols, rest) = protocols(whole)?;
    let is_ports = |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(['.', ':']);
    if is_ports(rest.text) {
        let scope = ListenScope::Any(None);
        return Ok(Listen { protocols, scope, ports: ports(rest)?, ports_at: rest.range() });
    }
    let (host, port) = host_and_port(rest, Role::Listener)?;
    let scope = match host {
        Host::Bracketed(part) => match checked_address(IpAddr::V6(ipv6(part)?), part, Role::Listener)? {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => ListenScope::Any(Some(Family::V6)),
            address => ListenScope::Address(address),
        },
        Host::Plain(part) if part.text.is_empty() => ListenScope::Any(None),
        Host::Plain(part) => match part.text.parse::<Ipv4Addr>() {
            Ok(Ipv4Addr::UNSPECIFIED) => ListenScope::Any(Some(Family::V4)),
            Ok(address) => ListenScope::Address(checked_address(IpAddr::V4(address), part, Role::Listener)?),
            Err(_) => ListenScope::Interface(interface(part, port)?),
        },
    };
    let Some(port) = port.filter(|port| !port.text.is_empty()) else {
        let bare = rest.text.trim_end_matches(':');
        return whole
            .fault_hint("the port is missing", format!("write {bare}:PORT, for example {bare}:8888"));
    };
    Ok(Listen { protocols, scope, ports: ports(port)?, ports_at: port.range() })
}

/// Parses a range of ports that stands alone.
///
/// # Errors
/// What is wrong with the first faulty part.
pub fn parse_ports(text: &str) -> Result<PortRange, Fault> {
    ports(checked_text(text, "a range of ports", "40000-65535", "several ranges")?)
}

/// Parses an entry of `servers`: a resolver's address, with port 53 where none is written.
///
/// # Errors
/// What is wrong with the first faulty part.
pub fn parse_server(text: &str) -> Result<SocketAddr, Fault> {
    let whole = checked_text(text, "a resolver", "10.0.0.53", "several resolvers")?;
    let (host, port) = host_and_port(whole, Role::Resolver)?;
    let address = match host {
        Host::Bracketed(part) => checked_address(IpAddr::V6(ipv6(part)?), part, Role::Resolver)?,
        Host::Plain(part) => match part.text.parse::<Ipv4Addr>() {
            Ok(address) => checked_address(IpAddr::V4(address), part, Role::Resolver)?,
            Err(_) => return Err(not_an_address(part, port, Role::Resolver)),
        },
    };
    let port = match port {
        None => 53,
        Some(part) => match ports(part)? {
            range if range.is_single() => range.first(),
            _ => return part.fault_hint("a resolver has one port", "write 53"),
        },
    };
    Ok(SocketAddr::new(address, port))
}
