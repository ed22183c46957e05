//! ICMP errors about our flows (RFC 792, RFC 4443): the other side never saw the addresses that they quote, so those are
//! changed too, and with them every checksum.
//!
//! An error quotes a packet of the side that it is sent to, as that packet left this host. Swapped, the quoted tuple is
//! that of the packets which come from where the error comes from, and so it leads to the flow.
//!
//! Deliberately absent: which flow that is, and the way out ([`crate::icmp`]); errors from one family to the other
//! ([`crate::crossing`]); errors about fragments other than the first, which quote no ports.

use portway_datapath::abi::{Address, Tuple};
use portway_datapath::checksum::Difference;
use portway_datapath::cookie::moved;

use crate::packet::Packet;
use crate::parse::{FRAGMENT, FRAGMENT_HEADER, Headers, IPV6_HEADER, TCP, UDP, family};
use crate::rewrite::{addresses, ports};
use crate::skb::Skb;

/// The protocols' numbers.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const ICMPV6: u8 = 58;

/// The length of the ICMP header in front of the quoted packet.
pub const HEADER: u32 = 8;

/// More fragments, or not the first one, or rather only the latter: an error about a first fragment quotes its ports.
const OFFSET: u16 = 0x1fff_u16.to_be();

/// An ICMP error that came in.
pub struct Error {
    /// Its own headers.
    pub headers: Headers,
    /// What is quoted.
    pub quoted: Tuple,
    /// Where it begins.
    pub inner: u32,
    /// Where its transport's header begins.
    pub inner_transport: u32,
    /// What the quoted sequence number is less than the one that was sent: of a connection that a SYN cookie opened, in an
    /// error to its backend, which believes no other (RFC 5927 4.1).
    pub shift: u32,
}

/// Reads an error; nothing if it is none that may be about a flow.
#[inline(always)]
pub fn read<const LINK: u32>(packet: Skb, error: &mut Error) -> Option<()> {
    match family::<Skb, LINK>(packet) {
        Some(true) => read_ipv4::<LINK>(packet, error),
        Some(false) => read_ipv6::<LINK>(packet, error),
        None => None,
    }
}

/// Reads an error over IPv4.
#[inline(always)]
fn read_ipv4<const LINK: u32>(packet: Skb, error: &mut Error) -> Option<()> {
    let outer = packet.window::<20>(LINK)?;
    if outer.get::<u8, 9>() != ICMP || outer.get::<u8, 0>() >> 4 != 4 {
        return None;
    }
    let headers = &mut error.headers;
    headers.ipv4 = true;
    headers.transport = LINK + u32::from(outer.get::<u8, 0>() & 15) * 4;
    headers.length = u32::from(u16::from_be(outer.get::<u16, 2>()));
    headers.ttl = outer.get::<u8, 8>();
    headers.tuple.source = Address::ipv4(outer.get::<u32, 12>());
    headers.tuple.destination = Address::ipv4(outer.get::<u32, 16>());
    let icmp = packet.window::<8>(headers.transport)?;
    // Unreachable, time exceeded, parameter problem. Source quench is ignored since RFC 6633.
    if !matches!(icmp.get::<u8, 0>(), 3 | 11 | 12) {
        return None;
    }
    error.inner = headers.transport + HEADER;
    let inner = packet.window::<20>(error.inner)?;
    let version = inner.get::<u8, 0>();
    if version >> 4 != 4 || version & 15 < 5 || inner.get::<u16, 6>() & OFFSET != 0 {
        return None;
    }
    error.inner_transport = error.inner + u32::from(version & 15) * 4;
    error.quoted.source = Address::ipv4(inner.get::<u32, 12>());
    error.quoted.destination = Address::ipv4(inner.get::<u32, 16>());
    read_ports(packet, error, inner.get::<u8, 9>())
}

/// Reads an error over IPv6.
#[inline(always)]
fn read_ipv6<const LINK: u32>(packet: Skb, error: &mut Error) -> Option<()> {
    let outer = packet.window::<40>(LINK)?;
    if outer.get::<u8, 6>() != ICMPV6 {
        return None;
    }
    let headers = &mut error.headers;
    headers.ipv4 = false;
    headers.transport = LINK + IPV6_HEADER;
    headers.length = u32::from(u16::from_be(outer.get::<u16, 4>())) + IPV6_HEADER;
    headers.ttl = outer.get::<u8, 7>();
    headers.tuple.source = outer.address::<8, 16>();
    headers.tuple.destination = outer.address::<24, 32>();
    let icmp = packet.window::<8>(headers.transport)?;
    // Unreachable, too big, time exceeded, parameter problem.
    if !matches!(icmp.get::<u8, 0>(), 1..=4) {
        return None;
    }
    error.inner = headers.transport + HEADER;
    let inner = packet.window::<40>(error.inner)?;
    error.inner_transport = error.inner + IPV6_HEADER;
    error.quoted.source = inner.address::<8, 16>();
    error.quoted.destination = inner.address::<24, 32>();
    let mut protocol = inner.get::<u8, 6>();
    if protocol == FRAGMENT {
        let header = packet.window::<8>(error.inner_transport)?;
        if u16::from_be(header.get::<u16, 2>()) >> 3 != 0 {
            return None;
        }
        protocol = header.get::<u8, 0>();
        error.inner_transport += FRAGMENT_HEADER;
    }
    read_ports(packet, error, protocol)
}

/// Reads the ports of what is quoted.
#[inline(always)]
fn read_ports(packet: Skb, error: &mut Error, protocol: u8) -> Option<()> {
    if protocol != TCP && protocol != UDP {
        return None;
    }
    let transport = packet.window::<8>(error.inner_transport)?;
    error.quoted.source_port = transport.get::<u16, 0>();
    error.quoted.destination_port = transport.get::<u16, 2>();
    error.quoted.protocol = u32::from(protocol);
    Some(())
}

/// Writes the error as it is to the side that has sent a packet with the tuple `sent`.
#[inline(always)]
pub fn write<const LINK: u32>(packet: Skb, error: &Error, sent: &Tuple) -> bool {
    let outer = Tuple {
        source: sent.destination,
        destination: sent.source,
        source_port: 0,
        destination_port: 0,
        protocol: 0,
    };
    let Some(change) = quote::<LINK>(packet, error, sent) else { return false };
    let Some(icmp) = packet.window::<8>(error.headers.transport) else { return false };
    if error.headers.ipv4 {
        icmp.set::<u16, 2>(change.apply(icmp.get::<u16, 2>()));
    } else {
        // The pseudo header is summed too (RFC 4443 2.3): a sum over the packet stays as it is, and when the addresses are
        // written it follows those.
        let exchanged = addresses(false, &error.headers.tuple, &outer);
        icmp.set::<u16, 2>(change.and(exchanged).apply(icmp.get::<u16, 2>()));
        packet.update_complete(exchanged.negated().folded());
    }
    packet.rewrite_addresses::<LINK>(&error.headers, &outer)
}

/// Changes the quoted packet; what that is to a sum over it.
#[inline(always)]
fn quote<const LINK: u32>(packet: Skb, error: &Error, sent: &Tuple) -> Option<Difference> {
    let exchanged = addresses(error.headers.ipv4, &error.quoted, sent);
    let ports_change = Difference::NONE.minus(ports(&error.quoted)).plus(ports(sent));
    let mut change = exchanged.and(ports_change);
    if error.headers.ipv4 {
        let inner = packet.window::<20>(error.inner)?;
        let before = inner.get::<u16, 10>();
        let after = exchanged.apply(before);
        inner.set::<u16, 10>(after);
        inner.set::<u32, 12>(sent.source.last_word());
        inner.set::<u32, 16>(sent.destination.last_word());
        change = change.minus(u32::from(before)).plus(u32::from(after));
    } else {
        let inner = packet.window::<40>(error.inner)?;
        inner.set_address::<8, 16>(sent.source);
        inner.set_address::<24, 32>(sent.destination);
    }
    let transport = packet.window::<8>(error.inner_transport)?;
    transport.set::<u32, 0>(ports(sent));
    if error.quoted.protocol == u32::from(UDP) {
        let before = transport.get::<u16, 6>();
        let after = exchanged.and(ports_change).apply_udp(before);
        transport.set::<u16, 6>(after);
        return Some(change.minus(u32::from(before)).plus(u32::from(after)));
    }
    let mut inside = exchanged.and(ports_change);
    if error.shift != 0 {
        let before = transport.get::<u32, 4>();
        let after = moved(before, error.shift);
        transport.set::<u32, 4>(after);
        let shifted = Difference::NONE.minus(before).plus(after);
        inside = inside.and(shifted);
        change = change.and(shifted);
    }
    // Of TCP the checksum is quoted only by who quotes more than eight bytes (RFC 1812 4.3.2.3 wants it).
    // What is behind the packet in its frame is none of it.
    if error.inner_transport + 18 <= LINK + error.headers.length
        && let Some(transport) = packet.window::<18>(error.inner_transport)
    {
        let before = transport.get::<u16, 16>();
        let after = inside.apply(before);
        transport.set::<u16, 16>(after);
        change = change.minus(u32::from(before)).plus(u32::from(after));
    }
    Some(change)
}
