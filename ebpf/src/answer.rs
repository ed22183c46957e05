//! Answers to a packet: what a refused client gets, and what says SYN cookies. The packet itself is made the answer.
//!
//! Deliberately absent: ICMP ([`crate::tell`]).

use portway_datapath::abi::Tuple;
use portway_datapath::checksum::Difference;

use crate::packet::Packet;
use crate::parse::{IPV4_HEADER, IPV6_HEADER, TCP};
use crate::rewrite::ports;
use crate::skb::Skb;

/// The time that what this host itself sends may live (RFC 1700).
pub const LIVES: u8 = 64;

/// A TCP segment without payload.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Its sequence number, host order.
    pub sequence: u32,
    /// What it acknowledges, host order.
    pub acknowledges: u32,
    /// Its flags.
    pub flags: u8,
    /// Its window, host order.
    pub window: u16,
    /// The option of maximum segment size; 0 for none.
    pub mss: u16,
}

/// A packet that can be made another.
pub trait Shape: Packet {
    /// Makes it one of `length` bytes, which are the caller's to write from `link` on, with a whole checksum.
    fn shape(self, link: u32, length: u32) -> bool;
}

impl Shape for Skb {
    #[inline(always)]
    fn shape(self, link: u32, length: u32) -> bool {
        self.renew(link, length)
    }
}

/// Whether the device is to finish the transport's checksum, which is `at` and not 0: then changes of what it covers leave
/// it alone. It may be another one afterwards.
#[inline(always)]
pub fn is_partial(packet: Skb, at: u32) -> bool {
    let read = |packet: Skb| packet.window::<2>(at).map(|check| check.get::<u16, 0>());
    let before = read(packet);
    before.is_some() && packet.update_rest(at, 1, false) && read(packet) == before
}

/// Makes the packet a TCP segment with `tuple`, as it leaves. Of the packet only the family counts.
#[inline(always)]
pub fn write<P: Shape, const LINK: u32>(packet: P, ipv4: bool, tuple: &Tuple, segment: &Segment) -> bool {
    let header = if ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let at = LINK + header;
    let length: u16 = if segment.mss == 0 { 20 } else { 24 };
    if !packet.shape(LINK, at + u32::from(length)) {
        return false;
    }
    let mut pseudo = Difference::NONE.plus(u32::from(length.to_be())).plus(u32::from(u16::from(TCP).to_be()));
    pseudo = if ipv4 {
        pseudo.plus_ipv4(tuple.source).plus_ipv4(tuple.destination)
    } else {
        pseudo.plus_address(tuple.source).plus_address(tuple.destination)
    };
    let sequence = segment.sequence.to_be();
    let acknowledges = segment.acknowledges.to_be();
    let control = ((length / 4) << 12 | u16::from(segment.flags)).to_be();
    let window = segment.window.to_be();
    let option = (0x0204_0000 | u32::from(segment.mss)).to_be();
    let mut sum = pseudo
        .plus(ports(tuple))
        .plus(sequence)
        .plus(acknowledges)
        .plus(u32::from(control))
        .plus(u32::from(window));
    if segment.mss != 0 {
        sum = sum.plus(option);
        let Some(options) = packet.window::<4>(at + 20) else { return false };
        options.set::<u32, 0>(option);
    }
    let Some(tcp) = packet.window::<20>(at) else { return false };
    tcp.set::<u32, 0>(ports(tuple));
    tcp.set::<u32, 4>(sequence);
    tcp.set::<u32, 8>(acknowledges);
    tcp.set::<u16, 12>(control);
    tcp.set::<u16, 14>(window);
    tcp.set::<u16, 16>(sum.check());
    tcp.set::<u16, 18>(0);
    write_ip::<_, LINK>(packet, ipv4, tuple, (TCP, LIVES, 0), length)
}

/// Writes an IP header of `tuple` in front of `length` bytes: a protocol, the time that it lives, and its traffic class.
#[inline(always)]
pub fn write_ip<P: Packet, const LINK: u32>(
    packet: P,
    ipv4: bool,
    tuple: &Tuple,
    what: (u8, u8, u8),
    length: u16,
) -> bool {
    write_ip_at(packet, LINK, ipv4, tuple, what, length)
}

/// The same anywhere in the packet.
#[inline(always)]
pub fn write_ip_at<P: Packet>(
    packet: P,
    at: u32,
    ipv4: bool,
    tuple: &Tuple,
    (protocol, lives, class): (u8, u8, u8),
    length: u16,
) -> bool {
    if ipv4 {
        let Some(ip) = packet.window::<20>(at) else { return false };
        let length = length.wrapping_add(IPV4_HEADER as u16).to_be();
        let first = (0x4500 | u16::from(class)).to_be();
        let whole = 0x4000_u16.to_be();
        let lives = (u16::from(lives) << 8 | u16::from(protocol)).to_be();
        let sum = Difference::NONE
            .plus(u32::from(first))
            .plus(u32::from(length))
            .plus(u32::from(whole))
            .plus(u32::from(lives))
            .plus_ipv4(tuple.source)
            .plus_ipv4(tuple.destination);
        ip.set::<u16, 0>(first);
        ip.set::<u16, 2>(length);
        ip.set::<u16, 4>(0);
        ip.set::<u16, 6>(whole);
        ip.set::<u16, 8>(lives);
        ip.set::<u16, 10>(sum.check());
        ip.set::<u32, 12>(tuple.source.last_word());
        ip.set::<u32, 16>(tuple.destination.last_word());
    } else {
        let Some(ip) = packet.window::<40>(at) else { return false };
        ip.set::<u32, 0>((0x6000_0000 | u32::from(class) << 20).to_be());
        ip.set::<u16, 4>(length.to_be());
        ip.set::<u8, 6>(protocol);
        ip.set::<u8, 7>(lives);
        ip.set_address::<8, 16>(tuple.source);
        ip.set_address::<24, 32>(tuple.destination);
    }
    true
}
