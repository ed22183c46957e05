//! The protocols and the ports of an endpoint. Deliberately absent: service names ("http").

use super::part::{Fault, Part};
use crate::address::{PortRange, Protocol};
use crate::diagnostic::quote;

pub(super) fn protocols(whole: Part<'_>) -> Result<(&'static [Protocol], Part<'_>), Fault> {
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
/// Parses `80` or `8000-8099`.
pub(super) fn ports(part: Part<'_>) -> Result<PortRange, Fault> {
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
