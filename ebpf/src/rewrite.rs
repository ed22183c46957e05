//! Changing a packet of a flow to what leaves, within its family.
//!
//! In XDP the bytes are all there is. At TC the buffer may hold a sum over the packet, or say that the device is to finish
//! the transport's checksum, and only the kernel's own functions know which.

use portway_datapath::abi::{Address, Tuple};
use portway_datapath::checksum::Difference;

use crate::packet::Packet;
use crate::parse::Headers;
use crate::skb::Skb;
use crate::xdp::Xdp;

/// What can be rewritten.
pub trait Rewrite: Packet {
    /// Puts `new` (as it arrives at the other end: source first) into the headers, and takes one from the time to live.
    fn rewrite<const LINK: u32>(self, headers: &Headers, new: &Tuple) -> bool;
}

/// The end of an IPv6 header, with what is in front of it so that the addresses are aligned.
#[repr(C)]
struct Ends {
    unused: [u8; 6],
    next: u8,
    lives: u8,
    source: Address,
    destination: Address,
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

impl Rewrite for Xdp {
    #[inline(always)]
    fn rewrite<const LINK: u32>(self, headers: &Headers, new: &Tuple) -> bool {
        let change = addresses(headers.ipv4, &headers.tuple, new);
        if headers.ipv4 {
            if !ipv4::<Self, LINK>(self, new, change) {
                return false;
            }
        } else {
            let Some(header) = self.window::<40>(LINK) else { return false };
            header.set::<u8, 7>(headers.ttl.wrapping_sub(1));
            header.set_address::<8, 16>(new.source);
            header.set_address::<24, 32>(new.destination);
        }
        let change = change.minus(ports(&headers.tuple)).plus(ports(new));
        if headers.tcp {
            let Some(transport) = self.window::<20>(headers.transport) else { return false };
            transport.set::<u32, 0>(ports(new));
            transport.set::<u16, 16>(change.apply(transport.get::<u16, 16>()));
        } else {
            let Some(transport) = self.window::<8>(headers.transport) else { return false };
            transport.set::<u32, 0>(ports(new));
            transport.set::<u16, 6>(change.apply_udp(transport.get::<u16, 6>()));
        }
        true
    }
}

impl Rewrite for Skb {
    #[inline(always)]
    fn rewrite<const LINK: u32>(self, headers: &Headers, new: &Tuple) -> bool {
        let Some(transport) = self.window::<8>(headers.transport) else { return false };
        transport.set::<u32, 0>(ports(new));
        if !self.rewrite_addresses::<LINK>(headers, new) {
            return false;
        }
        let change = addresses(headers.ipv4, &headers.tuple, new);
        let check = headers.transport + if headers.tcp { 16 } else { 6 };
        let rest = Difference::NONE.minus(ports(&headers.tuple)).plus(ports(new));
        self.update_checksum(check, change.folded(), rest.folded(), !headers.tcp)
    }
}

impl Skb {
    /// Puts the addresses of `new` into the IP header, and takes one from the time to live.
    #[inline(always)]
    pub fn rewrite_addresses<const LINK: u32>(self, headers: &Headers, new: &Tuple) -> bool {
        if headers.ipv4 {
            ipv4::<Self, LINK>(self, new, addresses(headers.ipv4, &headers.tuple, new))
        } else {
            // A sum over the whole packet has the addresses in it, and no header checksum that makes up for them.
            let Some(header) = self.window::<40>(LINK) else { return false };
            let ends = Ends {
                unused: [0; 6],
                next: header.get::<u8, 6>(),
                lives: headers.ttl.wrapping_sub(1),
                source: new.source,
                destination: new.destination,
            };
            // SAFETY: the structure has no padding, and so 34 bytes from its seventh on.
            let bytes: &[u8; 34] = unsafe { &*core::ptr::from_ref(&ends).cast::<u8>().add(6).cast() };
            self.store(LINK + 6, bytes)
        }
    }
}
