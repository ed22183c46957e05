//! The host of an endpoint: an address, a name or an interface, and the messages for everything that people write in
//! their place.
//!
//! Addresses are parsed by the standard library (RFC 4291 2.2 for IPv6; IPv4 without octal forms). Deliberately
//! absent: scope ids and prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::part::{Fault, Part};
use crate::address::InterfaceName;
use crate::diagnostic::quote;
use crate::ruleset::HostName;

/// What an address is for, in messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Listener,
    Backend,
    Resolver,
}

pub(super) enum Host<'a> {
    /// Between brackets.
    Bracketed(Part<'a>),
    /// Without brackets; holds no colon.
    Plain(Part<'a>),
}

/// Splits `host`, `host:port`, `[host]`, `[host]:port`.
pub(super) fn host_and_port(whole: Part<'_>, role: Role) -> Result<(Host<'_>, Option<Part<'_>>), Fault> {
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
        _ => Err(unbracketed(whole, role)),
    }
}

/// The fault of a text with several colons and no brackets.
fn unbracketed(whole: Part<'_>, role: Role) -> Fault {
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
        let hint = match role {
            Role::Resolver => format!("write [{}]", whole.text),
            _ => format!("write [{0}]:PORT, or [{0}] in a `forward` that keeps the port", whole.text),
        };
        return fault("an IPv6 address needs brackets", hint);
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

pub(super) fn ipv6(part: Part<'_>) -> Result<Ipv6Addr, Fault> {
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
pub(super) fn checked_address(address: IpAddr, part: Part<'_>, role: Role) -> Result<IpAddr, Fault> {
    let what = match role {
        Role::Listener => "listener",
        Role::Backend => "backend",
        Role::Resolver => "resolver",
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
                    Role::Backend | Role::Resolver => "use a global or unique local address (fd00::/8)",
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
    if address.is_unspecified() && role != Role::Listener {
        let local = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        return part.fault_hint(
            format!("{address} is no address to send to"),
            format!("for this host write {local}"),
        );
    }
    Ok(address)
}

/// An interface name, unless it looks like something else gone wrong.
pub(super) fn interface(part: Part<'_>, port: Option<Part<'_>>) -> Result<InterfaceName, Fault> {
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
        return Err(not_an_address(part, port, Role::Listener));
    }
    match InterfaceName::new(text) {
        Some(name) => Ok(name),
        None => part.fault_hint(
            format!("{} is neither an address nor an interface", quote(text)),
            "an interface name has at most 15 characters and no white space, quotes, `/` or `*`",
        ),
    }
}

/// A name to be resolved, unless it looks like something else gone wrong.
///
/// `localhost` is none: resolvers do not know it (RFC 6761 6.3), and it would mean two addresses.
pub(super) fn name(part: Part<'_>, port: Option<Part<'_>>) -> Result<HostName, Fault> {
    let local = part.text.trim_end_matches('.').to_ascii_lowercase();
    if local == "localhost" || local.ends_with(".localhost") {
        return Err(not_an_address(part, port, Role::Backend));
    }
    // Digits and hyphens alone are ports that lost their address.
    let name = HostName::new(part.text)
        .filter(|_| !part.text.bytes().all(|b| b.is_ascii_digit() || b"-.".contains(&b)));
    name.ok_or_else(|| not_an_address(part, port, Role::Backend))
}

/// The fault of a text that stands where an IPv4 address could.
pub(super) fn not_an_address(part: Part<'_>, port: Option<Part<'_>>, role: Role) -> Fault {
    let text = part.text;
    let suffix = port.map_or_else(String::new, |port| format!(":{}", port.text));
    let fault = |message: String, hint: Option<String>| Fault { at: part.range(), message, hint };
    if text == "*" && role == Role::Listener {
        return fault(
            "`*` is not an address".to_owned(),
            Some(format!("write 0.0.0.0{suffix} or [::]{suffix}")),
        );
    }
    let local = text.trim_end_matches('.').to_ascii_lowercase();
    if local == "localhost" || local.ends_with(".localhost") {
        let hint = format!("write 127.0.0.1{suffix} or [::1]{suffix}");
        let why = if role == Role::Listener { "" } else { ", and resolvers do not know it" };
        return fault(format!("{} is two addresses{why}", quote(text)), Some(hint));
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
        return match role {
            Role::Listener => fault(
                format!("{} is a name, and a listener is an address or an interface", quote(text)),
                Some(format!("write an address of this host: 192.0.2.10{suffix} or 0.0.0.0{suffix}")),
            ),
            Role::Resolver => fault(
                format!("{} is a name, which nobody could resolve before", quote(text)),
                Some("write the resolver's address: 10.0.0.53".to_owned()),
            ),
            Role::Backend => fault(
                format!("{} is neither an address nor a host name", quote(text)),
                Some(
                    "a host name is labels of 1 to 63 letters, digits, - and _ with dots between them, at most 253 in all and not digits alone"
                        .to_owned(),
                ),
            ),
        };
    }
    let (what, example) = match role {
        Role::Listener => ("not an address", "192.168.1.100:80 or [fd00::1]:80"),
        Role::Backend => {
            ("neither an address nor a host name", "192.168.1.100:80, [fd00::1]:80 or app.example.com:80")
        }
        Role::Resolver => ("not an address", "10.0.0.53 or [fd00::53]:53"),
    };
    fault(format!("{} is {what}", quote(text)), Some(format!("for example {example}")))
}
