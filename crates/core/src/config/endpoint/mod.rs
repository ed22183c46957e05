//! Endpoints as people write them: `udp/0.0.0.0:53`, `eth0:443`, `8000-8099`, `[fd00::1]:80`.
//!
//! One parser for the file and the command line. The grammar (`docs/configuration.md` has it in prose):
//!
//! ```text
//! listen   = [ ("tcp" | "udp" | "tcp+udp") "/" ] [ [ scope ] ":" ] ports
//! scope    = IPv4 | "[" IPv6 "]" | interface
//! forward  = ( IPv4 | "[" IPv6 "]" ) [ ":" ports ]
//! ports    = port [ "-" port ]
//! ```
//!
//! What is wrong comes back as a [`Fault`] with its place inside the text. Deliberately absent: names, scope ids,
//! prefixes and service names, each of which has a message of its own.

mod host;
mod part;
mod ports;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::address::{Family, InterfaceName, PortRange, Protocol};
use crate::ruleset::{Listener, Scope};
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

/// Where a rule forwards to, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The backend's address.
    pub address: IpAddr,
    /// The backend's port or ports; `None` is the port the client asked for.
    pub ports: Option<PortRange>,
    /// Where the ports stand in the text; the whole text where there are none.
    pub ports_at: Range<usize>,
}
/// Parses a `listen` entry.
///
/// # Errors
/// What is wrong with the first faulty part.
pub fn parse_listen(text: &str) -> Result<Listen, Fault> {
    let whole = checked_text(text, "a listener", "0.0.0.0:8888")?;
    let (protocols, rest) = protocols(whole)?;
    let is_ports = |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(['.', ':']);
    if is_ports(rest.text) {
        let scope = ListenScope::Any(None);
        return Ok(Listen { protocols, scope, ports: ports(rest)?, ports_at: rest.range() });
    }
    let (host, port) = host_and_port(rest)?;
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

/// Parses a `forward` entry.
///
/// # Errors
/// What is wrong with the first faulty part.
pub fn parse_forward(text: &str) -> Result<Forward, Fault> {
    let whole = checked_text(text, "a backend", "192.168.1.100:80")?;
    if text.contains(',') {
        return whole.fault_hint("one backend per rule in this version", "write one rule for each backend");
    }
    if let Some((first, rest)) = text.split_once('/') {
        if first.ends_with(':') && rest.starts_with('/') {
            let rest = rest.trim_start_matches('/');
            return whole.fault_hint(
                "a URL is not a backend",
                format!(
                    "write address:port, for example {}",
                    if rest.is_empty() { "192.168.1.100:80" } else { rest.trim_end_matches('/') }
                ),
            );
        }
        let protocol = ["tcp", "udp", "tcp+udp"].contains(&first);
        if protocol {
            let at = whole.slice(0..first.len());
            return at.fault_hint(
                "the protocol belongs to the listener",
                format!("write {first}/ in front of `listen`, and {rest} here"),
            );
        }
        if ["tcp", "udp", "tcp+udp"].contains(&rest) {
            let at = whole.slice(first.len() + 1..text.len());
            return at.fault_hint(
                "the protocol belongs to the listener",
                format!("write {rest}/ in front of the listener, and {first} here"),
            );
        }
        return whole.fault_hint(
            "a backend is one address, not a prefix",
            "leave out the / and the length of the prefix",
        );
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') || text.starts_with(':') {
        let ports = text.trim_start_matches(':');
        return whole.fault_hint(
            "the backend's address is missing",
            format!("for this host write 127.0.0.1:{ports}"),
        );
    }
    let (host, port) = host_and_port(whole)?;
    let address = match host {
        Host::Bracketed(part) => checked_address(IpAddr::V6(ipv6(part)?), part, Role::Backend)?,
        Host::Plain(part) => match part.text.parse::<Ipv4Addr>() {
            Ok(address) => checked_address(IpAddr::V4(address), part, Role::Backend)?,
            Err(_) => return Err(not_an_address(part, port)),
        },
    };
    match port {
        None => Ok(Forward { address, ports: None, ports_at: whole.range() }),
        Some(port) if port.text.is_empty() => {
            let bare = text.trim_end_matches(':');
            whole.fault_hint(
                "the port is missing",
                format!("write {bare}:80, or {bare} for the port the client asked for"),
            )
        }
        Some(port) => Ok(Forward { address, ports: Some(ports(port)?), ports_at: port.range() }),
    }
}
