//! Backends as people write them: `10.0.0.1:80`, `app.example:80`, `[fd00::1]`, `srv/_pg._tcp.example`.
//!
//! Deliberately absent: what a name stands for, which is a fact ([`crate::facts`]).

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::host::{Host, Role, checked_address, host_and_port, ipv6, name};
use super::part::{Fault, Part, checked_text};
use super::ports::ports;
use crate::address::PortRange;
use crate::ruleset::BackendHost;

/// A backend, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// An address, a name or a service.
    pub host: BackendHost,
    /// The backend's port or ports; `None` is the port the client asked for, or a service's own.
    pub ports: Option<PortRange>,
    /// Where the ports stand in the text; the whole text where there are none.
    pub ports_at: Range<usize>,
}

/// Parses a backend.
///
/// # Errors
/// What is wrong with the first faulty part.
pub fn parse_forward(text: &str) -> Result<Forward, Fault> {
    let whole = checked_text(text, "a backend", "192.168.1.100:80", "several backends")?;
    if let Some((first, rest)) = text.split_once(',') {
        let hint = format!("several backends are a list: [\"{first}\", \"{}\"]", rest.replace(',', "\", \""));
        return whole.fault_hint("a backend holds no comma", hint);
    }
    if let Some(slash) = text.find('/') {
        return with_slash(whole, slash);
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') || text.starts_with(':') {
        let ports = text.trim_start_matches(':');
        return whole.fault_hint(
            "the backend's address is missing",
            format!("for this host write 127.0.0.1:{ports}"),
        );
    }
    let (host, port) = host_and_port(whole)?;
    let host = match host {
        Host::Bracketed(part) => {
            BackendHost::Address(checked_address(IpAddr::V6(ipv6(part)?), part, Role::Backend)?)
        }
        Host::Plain(part) => match part.text.parse::<Ipv4Addr>() {
            Ok(address) => BackendHost::Address(checked_address(IpAddr::V4(address), part, Role::Backend)?),
            Err(_) if is_service(part.text) => {
                let hint = format!("a service is written srv/{}", part.text);
                return part
                    .fault_hint("this is the name of a service, which has no addresses of its own", hint);
            }
            Err(_) => BackendHost::Name(name(part, port)?),
        },
    };
    match port {
        None => Ok(Forward { host, ports: None, ports_at: whole.range() }),
        Some(port) if port.text.is_empty() => {
            let bare = text.trim_end_matches(':');
            whole.fault_hint(
                "the port is missing",
                format!("write {bare}:80, or {bare} for the port the client asked for"),
            )
        }
        Some(port) => Ok(Forward { host, ports: Some(ports(port)?), ports_at: port.range() }),
    }
}

/// Whether a name is one of SRV records: `_service._protocol.domain` (RFC 2782).
fn is_service(name: &str) -> bool {
    let mut labels = name.split('.');
    labels.by_ref().take(2).filter(|label| label.starts_with('_')).count() == 2 && labels.next().is_some()
}

/// A backend with a slash: a service, or something else gone wrong.
fn with_slash(whole: Part<'_>, slash: usize) -> Result<Forward, Fault> {
    let (first, rest) = whole.split_at(slash);
    if first.text == "srv" {
        return service(whole, rest);
    }
    if first.text.eq_ignore_ascii_case("srv") {
        return first.fault_hint("a service begins with `srv/`", format!("write srv/{}", rest.text));
    }
    if first.text.ends_with(':') && rest.text.starts_with('/') {
        let authority = rest.text.trim_start_matches('/').split('/').next().unwrap_or_default();
        let example = if authority.is_empty() { "192.168.1.100:80" } else { authority };
        let hint = format!("write address:port, for example {example}");
        return whole.fault_hint("a URL is not a backend", hint);
    }
    if ["tcp", "udp", "tcp+udp"].contains(&first.text) {
        return first.fault_hint(
            "the protocol belongs to the listener",
            format!("write {}/ in front of `listen`, and {} here", first.text, rest.text),
        );
    }
    if ["tcp", "udp", "tcp+udp"].contains(&rest.text) {
        return rest.fault_hint(
            "the protocol belongs to the listener",
            format!("write {}/ in front of the listener, and {} here", rest.text, first.text),
        );
    }
    whole.fault_hint("a backend is one address, not a prefix", "leave out the / and the length of the prefix")
}

/// What stands behind `srv/`: the name of SRV records, which have the ports.
fn service(whole: Part<'_>, part: Part<'_>) -> Result<Forward, Fault> {
    if let Some(colon) = part.text.find(':') {
        let (bare, port) = part.split_at(colon);
        return port
            .fault_hint("a service has the ports of its SRV records", format!("write srv/{}", bare.text));
    }
    if part.text.is_empty() {
        return whole
            .fault_hint("the service's name is missing", "for example srv/_postgresql._tcp.example.com");
    }
    if part.text.contains('/') || part.text.parse::<Ipv4Addr>().is_ok() {
        return part.fault_hint("a service is a name", "for example srv/_postgresql._tcp.example.com");
    }
    let host = BackendHost::Service(name(part, None)?);
    Ok(Forward { host, ports: None, ports_at: whole.range() })
}
