//! ICMP errors about flows whose two sides are of different families (RFC 7915, sections 4.2 and 5.2): a new error, which says
//! what the old one said, and quotes the header of the packet as its sender sent it, with eight bytes behind.
//!
//! Eight bytes are what RFC 792 asks for, and all that a sender needs to know its flow again and to see that the error is no
//! forgery: ports and sequence number. Deliberately absent: errors within a family ([`crate::error`]).

use portway_datapath::abi::Tuple;
use portway_datapath::checksum::Difference;
use portway_datapath::cookie::moved;
use portway_datapath::icmp::{to_ipv4, to_ipv6};

use crate::answer::{write_ip, write_ip_at};
use crate::error::{Error, HEADER, ICMP, ICMPV6};
use crate::packet::Packet;
use crate::parse::{IPV4, IPV4_HEADER, IPV6, IPV6_HEADER, UDP};
use crate::rewrite::ports;
use crate::skb::Skb;

/// The bytes behind the quoted header.
const BEHIND: u32 = 8;

/// The longest packet that this makes: both headers of IPv6, that of ICMP, and what is behind.
pub const LONGEST: u32 = IPV6_HEADER + HEADER + IPV6_HEADER + BEHIND;

/// Makes the error one of the other family, to the side that has sent a packet with the tuple `sent`, by a way that takes
/// `mtu` bytes.
#[inline(never)]
pub fn cross<const LINK: u32>(packet: Skb, error: &Error, sent: &Tuple, mtu: u32) -> bool {
    make::<LINK>(packet, error, sent, mtu).is_some()
}

/// The class of traffic in the header at `offset`, which is copied (RFC 7915, sections 4.1 and 5.1).
#[inline(always)]
fn class(packet: Skb, offset: u32, ipv4: bool) -> Option<u8> {
    let first = u16::from_be(packet.window::<2>(offset)?.get::<u16, 0>());
    Some(if ipv4 { first } else { first >> 4 } as u8)
}

#[inline(always)]
fn make<const LINK: u32>(packet: Skb, error: &Error, sent: &Tuple, mtu: u32) -> Option<()> {
    let ipv4 = !error.headers.ipv4;
    let icmp = packet.window::<8>(error.headers.transport)?;
    let (kind, code, word) = (icmp.get::<u8, 0>(), icmp.get::<u8, 1>(), u32::from_be(icmp.get::<u32, 4>()));
    let inner = packet.window::<20>(error.inner)?;
    // What the quoted packet carried behind its header.
    let header = error.inner_transport.wrapping_sub(error.inner) as u16;
    let (carried, lives) = if ipv4 {
        let extensions = header.wrapping_sub(IPV6_HEADER as u16);
        (u16::from_be(inner.get::<u16, 4>()).wrapping_sub(extensions), inner.get::<u8, 7>())
    } else {
        (u16::from_be(inner.get::<u16, 2>()).wrapping_sub(header), inner.get::<u8, 8>())
    };
    let said = if ipv4 {
        to_ipv4(kind, code, word, mtu)?
    } else {
        to_ipv6(kind, code, word, u32::from(u16::from_be(inner.get::<u16, 2>())), mtu)?
    };
    let (outer_class, inner_class) = (class(packet, LINK, !ipv4)?, class(packet, error.inner, !ipv4)?);
    let behind = behind(packet, error, sent)?;

    let kind_of_link = if ipv4 { IPV4 } else { IPV6 };
    let header = if ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let length = HEADER + header + BEHIND;
    if !packet.change_family(kind_of_link) || !packet.set_length(LINK + header + length) {
        return None;
    }
    if LINK != 0 {
        packet.window::<14>(0)?.set::<u16, 12>(kind_of_link);
    }
    let outer = Tuple { source: sent.destination, destination: sent.source, ..*sent };
    let protocol = if ipv4 { ICMP } else { ICMPV6 };
    let written = write_ip::<Skb, LINK>(
        packet,
        ipv4,
        &outer,
        (protocol, error.headers.ttl.wrapping_sub(1), outer_class),
        length as u16,
    );
    let (at, carries) = (LINK + header + HEADER, error.quoted.protocol as u8);
    if !written || !write_ip_at(packet, at, ipv4, sent, (carries, lives, inner_class), carried) {
        return None;
    }
    let transport = packet.window::<8>(at + header)?;
    transport.set::<u32, 0>(ports(sent));
    transport.set::<u32, 4>(behind);

    let (kind, word) = (said.kind.to_be(), said.word.to_be());
    let mut sum = Difference::NONE.plus(u32::from(kind)).plus(word).plus(ports(sent)).plus(behind);
    if !ipv4 {
        let both = Difference::NONE.plus_address(sent.source).plus_address(sent.destination);
        // The quoted header, and the pseudo header, in which the addresses are the same ones (RFC 4443, section 2.3). An
        // IPv4 header adds nothing: its own checksum sees to that.
        sum = sum
            .plus((0x6000_0000 | u32::from(inner_class) << 20).to_be())
            .plus(u32::from(carried.to_be()))
            .plus(u32::from((u16::from(carries) << 8 | u16::from(lives)).to_be()))
            .and(both)
            .and(both)
            .plus(u32::from((length as u16).to_be()))
            .plus(u32::from(u16::from(ICMPV6).to_be()));
    }
    let icmp = packet.window::<8>(LINK + header)?;
    icmp.set::<u16, 0>(kind);
    icmp.set::<u16, 2>(sum.check());
    icmp.set::<u32, 4>(word);
    Some(())
}

/// The second word behind the quoted header, as the sender had it: the sequence number of TCP, length and checksum of UDP.
#[inline(always)]
fn behind(packet: Skb, error: &Error, sent: &Tuple) -> Option<u32> {
    let transport = packet.window::<8>(error.inner_transport)?;
    let word = transport.get::<u32, 4>();
    if error.quoted.protocol != u32::from(UDP) {
        return Some(if error.shift == 0 { word } else { moved(word, error.shift) });
    }
    let quoted = &error.quoted;
    let change = Difference::NONE.minus(ports(quoted)).plus(ports(sent));
    let change = if error.headers.ipv4 {
        change
            .minus_ipv4(quoted.source)
            .minus_ipv4(quoted.destination)
            .plus_address(sent.source)
            .plus_address(sent.destination)
    } else {
        change
            .minus_address(quoted.source)
            .minus_address(quoted.destination)
            .plus_ipv4(sent.source)
            .plus_ipv4(sent.destination)
    };
    // The checksum lies behind the length in memory, whatever the order of bytes.
    let [first, second, _, _] = word.to_ne_bytes();
    let [third, fourth] = change.apply_udp(transport.get::<u16, 6>()).to_ne_bytes();
    Some(u32::from_ne_bytes([first, second, third, fourth]))
}
