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
//! Addresses are parsed by the standard library (RFC 4291 2.2 for IPv6; IPv4 without octal forms). What is
//! wrong comes back as a [`Fault`] with its place inside the text. Deliberately absent: names, scope ids,
//! prefixes and service names, each of which has a message of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::address::{Family, InterfaceName, PortRange, Protocol};
use crate::diagnostic::quote;
use crate::ruleset::{Listener, Scope};

/// What is wrong with a text, and where in it (bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The offending part.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

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

/// A piece of the text that knows where it stands.
#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Part<'a> {
    fn range(self) -> Range<usize> {
        self.at..self.at + self.text.len()
    }

    fn slice(self, range: Range<usize>) -> Self {
        Self { text: &self.text[range.clone()], at: self.at + range.start }
    }

    /// The parts on both sides of the one-byte separator at `index`.
    fn split_at(self, index: usize) -> (Self, Self) {
        (self.slice(0..index), self.slice(index + 1..self.text.len()))
    }

    fn fault<T>(self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { at: self.range(), message: message.into(), hint: None })
    }

    fn fault_hint<T>(self, message: impl Into<String>, hint: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { at: self.range(), message: message.into(), hint: Some(hint.into()) })
    }
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

/// What an address is for, in messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Listener,
    Backend,
}

/// The text as a part, unless it is empty or holds white space.
fn checked_text<'a>(text: &'a str, what: &str, example: &str) -> Result<Part<'a>, Fault> {
    let whole = Part { text, at: 0 };
    if text.is_empty() {
        return whole.fault_hint(format!("{what} cannot be empty"), format!("for example {example}"));
    }
    if let Some((at, space)) = text.char_indices().find(|(_, c)| c.is_whitespace()) {
        let part = whole.slice(at..at + space.len_utf8());
        let joined: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let alone = text.trim() == joined;
        return part.fault_hint(
            format!("{what} holds no white space"),
            if alone {
                format!("write {joined}")
            } else {
                "several listeners are a list: [\"80\", \"443\"]".to_owned()
            },
        );
    }
    Ok(whole)
}

fn protocols(whole: Part<'_>) -> Result<(&'static [Protocol], Part<'_>), Fault> {
    const TCP: &[Protocol] = &[Protocol::Tcp];
    const UDP: &[Protocol] = &[Protocol::Udp];
    const BOTH: &[Protocol] = &[Protocol::Tcp, Protocol::Udp];
    let Some(slash) = whole.text.find('/') else { return Ok((TCP, whole)) };
    let (word, rest) = whole.split_at(slash);
    match word.text {
        "tcp" => return Ok((TCP, rest)),
        "udp" => return Ok((UDP, rest)),
        "tcp+udp" | "udp+tcp" => return Ok((BOTH, rest)),
        _ => {}
    }
    let lower = word.text.to_ascii_lowercase();
    if let Some(scheme) = word.text.strip_suffix(':') {
        let address = rest.text.trim_start_matches('/');
        let hint = match scheme {
            "tcp" | "udp" => format!("write {scheme}/{address}"),
            _ => "write address:port, for example 0.0.0.0:8888".to_owned(),
        };
        return whole.fault_hint("a URL is not a listener", hint);
    }
    if ["tcp", "udp", "tcp+udp"].contains(&rest.text) {
        return whole
            .fault_hint("the protocol stands in front", format!("write {}/{}", rest.text, word.text));
    }
    if word.text.contains(['.', ':', '[']) {
        return whole.fault_hint(
            "a listener is one address, not a prefix",
            "write one address and a port, or an interface: eth0:443",
        );
    }
    let hint = match lower.as_str() {
        "tcp" | "udp" | "tcp+udp" => format!("write {lower}/{}", rest.text),
        "sctp" | "dccp" | "icmp" => "only tcp and udp are forwarded".to_owned(),
        _ => "write tcp/, udp/ or tcp+udp/; without one it is tcp".to_owned(),
    };
    word.fault_hint(format!("{} is not a protocol", quote(word.text)), hint)
}

enum Host<'a> {
    /// Between brackets.
    Bracketed(Part<'a>),
    /// Without brackets; holds no colon.
    Plain(Part<'a>),
}

/// Splits `host`, `host:port`, `[host]`, `[host]:port`.
fn host_and_port(whole: Part<'_>) -> Result<(Host<'_>, Option<Part<'_>>), Fault> {
    let text = whole.text;
    if text.starts_with('[') {
        let Some(close) = text.find(']') else {
            return whole.fault_hint("the closing `]` is missing", "write [address]:port");
        };
        let inside = whole.slice(1..close);
        let after = whole.slice(close + 1..text.len());
        return match after.text.strip_prefix(':') {
            _ if after.text.is_empty() => Ok((Host::Bracketed(inside), None)),
            Some(_) => Ok((Host::Bracketed(inside), Some(after.slice(1..after.text.len())))),
            None => after.fault_hint(
                format!("{} behind the address is not a port", quote(after.text)),
                format!("write [{}]:PORT", inside.text),
            ),
        };
    }
    match text.bytes().filter(|b| *b == b':').count() {
        0 => Ok((Host::Plain(whole), None)),
        1 => {
            let (host, port) = whole.split_at(text.find(':').expect("invariant: one colon was counted"));
            Ok((Host::Plain(host), Some(port)))
        }
        _ => Err(unbracketed(whole)),
    }
}

/// The fault of a text with several colons and no brackets.
fn unbracketed(whole: Part<'_>) -> Fault {
    let fault = |message: &str, hint: String| Fault {
        at: whole.range(),
        message: message.to_owned(),
        hint: Some(hint),
    };
    let is_v6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    if let Some((host, port)) = whole.text.rsplit_once(':')
        && is_v6(host)
        && port.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        && !port.is_empty()
    {
        return fault("an IPv6 address needs brackets", format!("write [{host}]:{port}"));
    }
    if is_v6(whole.text) {
        return fault(
            "an IPv6 address needs brackets",
            format!("write [{0}]:PORT, or [{0}] in a `forward` that keeps the port", whole.text),
        );
    }
    if whole.text.contains('%') {
        return fault("scope ids are not supported", "use an address that is not link-local".to_owned());
    }
    if let Some((listen, forward)) = whole.text.split_once(':')
        && listen.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        && !listen.is_empty()
    {
        return fault(
            "this is the form of ssh and Docker, listener and backend in one",
            format!("in a file write listen = \"{listen}\" and forward = \"{forward}\""),
        );
    }
    fault("too many colons", "write address:port, and an IPv6 address in brackets: [fd00::1]:80".to_owned())
}

fn ipv6(part: Part<'_>) -> Result<Ipv6Addr, Fault> {
    if let Ok(address) = part.text.parse::<Ipv6Addr>() {
        return Ok(address);
    }
    if part.text.parse::<Ipv4Addr>().is_ok() {
        return part
            .fault_hint("brackets are for IPv6 addresses", format!("write {} without brackets", part.text));
    }
    if part.text.contains('%') {
        return part.fault_hint("scope ids are not supported", "use an address that is not link-local");
    }
    if part.text.contains('/') {
        return part.fault_hint("one address is wanted, not a prefix", "leave out the / and what follows it");
    }
    part.fault(format!("{} is not an IPv6 address", quote(part.text)))
}

/// Refuses addresses that no traffic of a rule can have.
fn checked_address(address: IpAddr, part: Part<'_>, role: Role) -> Result<IpAddr, Fault> {
    let what = match role {
        Role::Listener => "listener",
        Role::Backend => "backend",
    };
    if let IpAddr::V6(v6) = address {
        if let Some(v4) = v6.to_ipv4_mapped() {
            return part
                .fault_hint("an IPv4-mapped IPv6 address does not appear in packets", format!("write {v4}"));
        }
        if v6.is_unicast_link_local() {
            return part.fault_hint(
                "a link-local address needs a scope id, and scope ids are not supported",
                match role {
                    Role::Listener => "listen on the interface (eth0:443) or on [::]",
                    Role::Backend => "use a global or unique local address (fd00::/8)",
                },
            );
        }
    }
    if address.is_multicast() {
        return part.fault(format!("a multicast address cannot be a {what}"));
    }
    if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return part.fault(format!("the broadcast address cannot be a {what}"));
    }
    if address.is_unspecified() && role == Role::Backend {
        let local = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        return part.fault_hint(
            format!("{address} is no address to send to"),
            format!("for this host write {local}"),
        );
    }
    Ok(address)
}

/// An interface name, unless it looks like something else gone wrong.
fn interface(part: Part<'_>, port: Option<Part<'_>>) -> Result<InterfaceName, Fault> {
    let text = part.text;
    let last_label = text.rsplit('.').next().unwrap_or_default();
    let name =
        text.contains('.') && last_label.len() > 1 && last_label.bytes().all(|b| b.is_ascii_alphabetic());
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        let port = port.map_or("", |port| port.text);
        return part.fault_hint(
            format!("{} is neither an address nor an interface", quote(text)),
            format!("if {text} is the listener's port and {port} the backend's, write them apart: listen {text}, forward ADDRESS:{port}"),
        );
    }
    if name
        || text == "localhost"
        || text == "*"
        || text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        || text.contains('%')
    {
        return Err(not_an_address(part, port));
    }
    match InterfaceName::new(text) {
        Some(name) => Ok(name),
        None => part.fault_hint(
            format!("{} is neither an address nor an interface", quote(text)),
            "an interface name has at most 15 characters and no white space, quotes, `/` or `*`",
        ),
    }
}

/// The fault of a text that stands where an IPv4 address could.
fn not_an_address(part: Part<'_>, port: Option<Part<'_>>) -> Fault {
    let text = part.text;
    let suffix = port.map_or_else(String::new, |port| format!(":{}", port.text));
    let fault = |message: String, hint: Option<String>| Fault { at: part.range(), message, hint };
    if text == "*" {
        return fault(
            "`*` is not an address".to_owned(),
            Some(format!("write 0.0.0.0{suffix} or [::]{suffix}")),
        );
    }
    if text == "localhost" {
        let hint = format!("write 127.0.0.1{suffix} or [::1]{suffix}");
        return fault("names are not supported yet".to_owned(), Some(hint));
    }
    if text.contains('%') {
        return fault("scope ids are not supported".to_owned(), Some("use an address without %".to_owned()));
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let octets: Vec<_> = text.split('.').collect();
        let why = if octets.len() != 4 {
            Some(format!("it has {} of 4 numbers", octets.len()))
        } else if let Some(octet) = octets.iter().find(|octet| octet.len() > 1 && octet.starts_with('0')) {
            Some(format!("write {octet} without the leading 0"))
        } else {
            octets
                .iter()
                .find(|octet| octet.parse::<u8>().is_err() && !octet.is_empty())
                .map(|octet| format!("{octet} is above 255"))
        };
        return fault(format!("{} is not an IPv4 address", quote(text)), why);
    }
    let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if letters && !text.is_empty() {
        let hint = format!("write an address: 192.0.2.10{suffix}");
        return fault(format!("{} is a name, and names are not supported yet", quote(text)), Some(hint));
    }
    fault(
        format!("{} is not an address", quote(text)),
        Some("for example 192.168.1.100:80 or [fd00::1]:80".to_owned()),
    )
}

/// Parses `80` or `8000-8099`.
fn ports(part: Part<'_>) -> Result<PortRange, Fault> {
    let text = part.text;
    let Some(dash) = text.find('-') else {
        let single = port(part)?;
        return Ok(PortRange::single(single).expect("invariant: port() refuses 0"));
    };
    let (first, last) = part.split_at(dash);
    let (low, high) = (port(first)?, port(last)?);
    PortRange::new(low, high).map_or_else(
        || part.fault_hint(format!("the range {low}-{high} is reversed"), format!("write {high}-{low}")),
        Ok,
    )
}

/// Parses one port, 1 to 65535.
fn port(part: Part<'_>) -> Result<u16, Fault> {
    let text = part.text;
    if text.is_empty() {
        return part.fault_hint("a port number is missing", "a range is two ports: 8000-8099");
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        let hint = if let Some((number, protocol)) = text.split_once('/') {
            format!("the protocol stands in front of the address: {protocol}/…:{number}")
        } else {
            "write a number from 1 to 65535, or a range: 8000-8099".to_owned()
        };
        return part.fault_hint(format!("{} is not a port number", quote(text)), hint);
    }
    if text.len() > 1 && text.starts_with('0') {
        return part.fault(format!("{} is not a port number: leave out the leading 0", quote(text)));
    }
    match text.parse::<u16>() {
        Ok(0) => part.fault_hint("port 0 does not exist", "ports are 1 to 65535"),
        Ok(port) => Ok(port),
        Err(_) => part.fault_hint(format!("port {} is too high", quote(text)), "ports are 1 to 65535"),
    }
}
