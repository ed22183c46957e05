//! Changing a packet of a flow to what leaves, within its family.
//!
//! In XDP the bytes are all there is. At TC the buffer may hold a sum over the packet, or say that the device is to finish
//! the transport's checksum, and only the kernel's own functions know which.

use portway_datapath::abi::{Address, Tuple};
use portway_datapath::checksum::Difference;

use crate::packet::Packet;
use crate::parse::Headers;
use crate::skb::Skb;

/// The end of an IPv6 header, with what is in front of it so that the addresses are aligned.
#[repr(C)]
struct Ends {
    unused: [u8; 6],
    next: u8,
    lives: u8,
    source: Address,
    destination: Address,
}

/// What the kernel has noted about a buffer's checksum (`ip_summed`, `include/linux/skbuff.h`).
#[derive(Clone, Copy)]
pub enum Summed {
    /// Nothing, or that it is right: the packet's own is all there is.
    Nothing,
    /// The sum of all bytes from the IP header on.
    Complete,
    /// The transport's checksum holds the sum of the pseudo header; a device does the rest.
    Partial,
    /// This kernel does not show it.
    Hidden,
}

/// What the exchange of both addresses, of IPv4 packets or of IPv6, is to a sum.
#[inline(always)]
pub fn addresses(ipv4: bool, old: &Tuple, new: &Tuple) -> Difference {
    if ipv4 {
        Difference::NONE
            .minus_ipv4(old.source)
            .minus_ipv4(old.destination)
            .plus_ipv4(new.source)
            .plus_ipv4(new.destination)
    } else {
        Difference::NONE
            .minus_address(old.source)
            .minus_address(old.destination)
            .plus_address(new.source)
            .plus_address(new.destination)
    }
}

/// Both ports as they lie in memory.
#[inline(always)]
pub fn ports(tuple: &Tuple) -> u32 {
    u32::from(tuple.source_port) | u32::from(tuple.destination_port) << 16
}

/// The tuple of what is answered by a tuple.
#[inline(always)]
pub fn swapped(tuple: &Tuple) -> Tuple {
    Tuple {
        source: tuple.destination,
        destination: tuple.source,
        source_port: tuple.destination_port,
        destination_port: tuple.source_port,
        protocol: tuple.protocol,
    }
}

/// Rewrites an IPv4 header, whose own checksum covers the addresses and the time to live.
#[inline(always)]
fn ipv4<P: Packet, const LINK: u32>(packet: P, new: &Tuple, change: Difference) -> bool {
    let Some(header) = packet.window::<20>(LINK) else { return false };
    let lives = header.get::<u16, 8>();
    // Time to live is the first byte of its word.
    let less = lives.wrapping_sub(u16::from_ne_bytes([1, 0]));
    let change = change.minus(u32::from(lives)).plus(u32::from(less));
    header.set::<u16, 8>(less);
    header.set::<u16, 10>(change.apply(header.get::<u16, 10>()));
    header.set::<u32, 12>(new.source.last_word());
    header.set::<u32, 16>(new.destination.last_word());
    true
}

/// Changes the addresses and the time to live of an IPv6 header.
#[inline(always)]
pub fn put_ipv6(packet: Skb, link: u32, next: u8, lives: u8, source: Address, destination: Address) -> bool {
    // A sum over the whole packet has the addresses in it, and no header checksum that makes up for them.
    let ends = Ends { unused: [0; 6], next, lives, source, destination };
    // SAFETY: the structure has no padding, and so 34 bytes from its seventh on.
    let bytes: &[u8; 34] = unsafe { &*core::ptr::from_ref(&ends).cast::<u8>().add(6).cast() };
    packet.store(link + 6, bytes)
}

/// Updates the transport's checksum at `offset` for changes of the pseudo header (`addresses`) and of what the sum itself
/// covers (`rest`), whatever the state of the buffer's checksum.
///
/// Only the kernel knows whether a device is to finish the checksum, in which case the pseudo header changes it the other
/// way round and the rest does not. What it has made of the first change tells which, and so the second is mostly an
/// addition rather than a call.
#[inline(always)]
pub fn update_checksum(packet: Skb, offset: u32, addresses: Difference, rest: Difference, udp: bool) -> bool {
    let Some(check) = packet.window::<2>(offset) else { return false };
    let before = check.get::<u16, 0>();
    let change = addresses.short();
    if !packet.update_pseudo(offset, u32::from(change), udp) {
        return false;
    }
    if udp && before == 0 {
        return true;
    }
    let whole = if udp { addresses.apply_udp(before) } else { addresses.apply(before) };
    let Some(check) = packet.window::<2>(offset) else { return false };
    // A change of nothing tells nothing; there are two zeros.
    if check.get::<u16, 0>() != whole || change == 0 || change == 0xffff {
        return packet.update_rest(offset, rest.folded(), udp);
    }
    check.set::<u16, 0>(if udp { rest.apply_udp(whole) } else { rest.apply(whole) });
    true
}

impl Skb {
    /// Puts `new` (as it arrives at the other end: source first) into the headers, and takes one from the time to live.
    #[inline(always)]
    pub fn rewrite<const LINK: u32>(self, headers: &Headers, new: &Tuple) -> bool {
        let Some(transport) = self.window::<8>(headers.transport) else { return false };
        transport.set::<u32, 0>(ports(new));
        if !self.rewrite_addresses::<LINK>(headers, new) {
            return false;
        }
        let change = addresses(headers.ipv4, &headers.tuple, new);
        let check = headers.transport + if headers.tcp { 16 } else { 6 };
        let rest = Difference::NONE.minus(ports(&headers.tuple)).plus(ports(new));
        self.update_checksum(check, change, rest, !headers.tcp)
    }

    /// Puts the addresses of `new` into the IP header, and takes one from the time to live.
    #[inline(always)]
    pub fn rewrite_addresses<const LINK: u32>(self, headers: &Headers, new: &Tuple) -> bool {
        if headers.ipv4 {
            return ipv4::<Self, LINK>(self, new, addresses(headers.ipv4, &headers.tuple, new));
        }
        let Some(header) = self.window::<40>(LINK) else { return false };
        put_ipv6(self, LINK, header.get::<u8, 6>(), headers.ttl.wrapping_sub(1), new.source, new.destination)
    }
}
