//! A packet that cannot be carried made an ICMP error about itself (RFC 792, RFC 4443): its beginning is what is quoted.
//!
//! The error comes from the address that the sender called, which is an address of this host.
//!
//! Deliberately absent: when, and the way back ([`crate::tell`]).

use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes};
use core::sync::atomic::Ordering::Relaxed;
use portway_datapath::atomic::AtomicU64;
use portway_datapath::checksum::Difference;

use crate::answer::{LIVES, is_partial, write_ip};
use crate::error::{HEADER, ICMP, ICMPV6};
use crate::packet::Packet;
use crate::parse::{Headers, IPV4_HEADER, IPV6_HEADER};
use crate::rewrite::swapped;
use crate::skb::{Skb, between};

/// How much of the packet is quoted.
const QUOTE: usize = 256;

/// Room for that; too large for the stack.
pub type Quote = [AtomicU64; QUOTE / 8];

/// Makes the packet an error: type and code are the high half of `kinds` for IPv4 and the low half for IPv6, `word` is the
/// second word of its header, host order.
#[inline(always)]
pub fn make<const LINK: u32>(
    packet: Skb,
    room: &mut Quote,
    headers: &Headers,
    kinds: u32,
    word: u32,
) -> bool {
    let length = headers.length.min(QUOTE as u32);
    let Some(quoted) = quote::<LINK>(packet, room, headers, length) else { return false };
    write::<LINK>(packet, headers, kinds, word, length, quoted)
}

/// Cuts the packet to what is quoted; the sum of that.
#[inline(always)]
fn quote<const LINK: u32>(
    packet: Skb,
    quote: &mut Quote,
    headers: &Headers,
    length: u32,
) -> Option<Difference> {
    if !packet.set_length(LINK + length) {
        return None;
    }
    let header = if headers.ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let at = headers.transport + if headers.tcp { 16 } else { 6 };
    let check = packet.window::<2>(at)?.get::<u16, 0>();
    let partial = headers.transport == LINK + header && is_partial(packet, at);
    if !partial {
        packet.window::<2>(at)?.set::<u16, 0>(check);
    }
    // One by one: the compiler would clear memory by a loop over bytes.
    quote.iter().for_each(|word| word.store(0, Relaxed));
    let length = between(length, 1, QUOTE as u32)?;
    let buffer = quote.as_mut_ptr().cast::<u8>();
    // SAFETY: the context, and as many bytes as the buffer has, at most.
    if unsafe { bpf_skb_load_bytes(packet.0.cast(), LINK, buffer.cast(), length) } != 0 {
        return None;
    }
    let whole = sum::<QUOTE>(buffer);
    if !partial {
        return Some(whole);
    }
    // The device will find the sum of what is left of the segment, and put it where now that of the pseudo header is.
    let above = if headers.ipv4 { sum::<20>(buffer) } else { sum::<40>(buffer) };
    let segment = Difference::NONE.plus(whole.folded()).minus(above.folded());
    let check_then = match segment.check() {
        0 => 0xffff,
        check => check,
    };
    Some(whole.minus(u32::from(check)).plus(u32::from(check_then)))
}

/// The sum of the first `N` bytes.
#[inline(always)]
fn sum<const N: usize>(bytes: *mut u8) -> Difference {
    // SAFETY: nothing is taken away, and that many bytes are the caller's.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.cast(), N as u32, 0) };
    Difference::NONE.plus(sum as u32)
}

/// Puts the headers in front.
#[inline(always)]
fn write<const LINK: u32>(
    packet: Skb,
    headers: &Headers,
    kinds: u32,
    word: u32,
    length: u32,
    quoted: Difference,
) -> bool {
    let ipv4 = headers.ipv4;
    let header = if ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    if !packet.grow_network(header + HEADER) {
        return false;
    }
    let tuple = swapped(&headers.tuple);
    let kind = if ipv4 { (kinds >> 16) as u16 } else { kinds as u16 };
    let kind = kind.to_be();
    let length = (length + HEADER) as u16;
    let mut sum = quoted.plus(u32::from(kind)).plus(word.to_be());
    if !ipv4 {
        sum = sum
            .plus_address(tuple.source)
            .plus_address(tuple.destination)
            .plus(u32::from(length.to_be()))
            .plus(u32::from(u16::from(ICMPV6).to_be()));
    }
    let Some(icmp) = packet.window::<8>(LINK + header) else { return false };
    icmp.set::<u16, 0>(kind);
    icmp.set::<u16, 2>(sum.check());
    icmp.set::<u32, 4>(word.to_be());
    write_ip::<_, LINK>(packet, ipv4, &tuple, (if ipv4 { ICMP } else { ICMPV6 }, LIVES, 0), length)
}
