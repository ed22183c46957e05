//! ICMP errors of our own about a packet that cannot be carried (RFC 792, RFC 4443). The packet itself is made the error: its
//! beginning is what is quoted.
//!
//! The error comes from the address that the sender called, which is an address of this host.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use core::sync::atomic::Ordering::Relaxed;
use portway_datapath::abi::TICKS_PER_SECOND;
use portway_datapath::atomic::AtomicU64;
use portway_datapath::checksum::Difference;

use crate::ETHERNET;
use crate::answer::{LIVES, is_partial, write_ip};
use crate::carry::swapped;
use crate::clock::ticks;
use crate::packet::Packet;
use crate::parse::{Headers, IPV4_HEADER, IPV6_HEADER, Parsed, parse};
use crate::skb::{Skb, between};
use crate::way::way_back;

/// The protocols' numbers.
const ICMP: u8 = 1;
/// See [`ICMP`].
const ICMPV6: u8 = 58;

/// The length of the ICMP header.
const HEADER: u32 = 8;

/// How much of the packet is quoted.
const QUOTE: usize = 256;

/// Errors that one processor sends in a second at most (RFC 1812 4.3.2.8, RFC 4443 2.4 f).
const MOST: u32 = 1000;

/// What is told.
#[derive(Clone, Copy)]
pub struct Told {
    /// The type, and in the low half the code, for IPv4.
    pub ipv4: u16,
    /// The same for IPv6.
    pub ipv6: u16,
    /// The second word of the header, host order: an MTU.
    pub word: u32,
}

/// Too large: the word is the MTU.
pub const TOO_BIG: Told = Told { ipv4: 3 << 8 | 4, ipv6: 2 << 8, word: 0 };
/// Time to live is over.
pub const EXPIRED: Told = Told { ipv4: 11 << 8, ipv6: 3 << 8, word: 0 };
/// Nobody has the port.
pub const NO_PORT: Told = Told { ipv4: 3 << 8 | 3, ipv6: 1 << 8 | 4, word: 0 };

/// What a processor needs for it; too large for the stack.
struct Work {
    quote: [AtomicU64; QUOTE / 8],
    headers: Headers,
    /// How many errors have been sent since `since`.
    sent: u32,
    since: u32,
}

/// One for each processor.
#[map(name = "telling")]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Tells the sender of a TCP or UDP packet why it is not carried.
#[inline(always)]
pub fn tell<const LINK: u32>(packet: Skb, told: Told) -> i32 {
    let kinds = u32::from(told.ipv4) << 16 | u32::from(told.ipv6);
    if LINK == 0 { tell_ip(packet.0, kinds, told.word) } else { tell_ethernet(packet.0, kinds, told.word) }
}

/// [`tell`]. Global functions: the verifier follows them once, and not wherever they are called.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_ethernet(context: *mut __sk_buff, kinds: u32, word: u32) -> i32 {
    tell_parts::<ETHERNET>(Skb(context), kinds, word)
}

/// See [`tell_ethernet`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_ip(context: *mut __sk_buff, kinds: u32, word: u32) -> i32 {
    tell_parts::<0>(Skb(context), kinds, word)
}

#[inline(always)]
fn tell_parts<const LINK: u32>(packet: Skb, kinds: u32, word: u32) -> i32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return Skb::DROP };
    // SAFETY: this processor's; programs of both hooks do not interrupt each other.
    let work: &mut Work = unsafe { &mut *work };
    if !matches!(parse::<Skb, LINK>(packet, &mut work.headers), Parsed::Plain) {
        return Skb::DROP;
    }
    let now = ticks();
    if now.wrapping_sub(work.since) >= TICKS_PER_SECOND {
        work.since = now;
        work.sent = 0;
    }
    if work.sent >= MOST {
        return Skb::DROP;
    }
    work.sent += 1;
    let Some(way) = way_back(packet, &work.headers.tuple) else { return Skb::DROP };
    let length = work.headers.length.min(QUOTE as u32);
    let Some(quoted) = quote::<LINK>(packet, work, length) else { return Skb::DROP };
    if !write::<LINK>(packet, work, kinds, word, length, quoted) {
        return Skb::DROP;
    }
    packet.send::<LINK>(work.headers.ipv4, way)
}

/// Cuts the packet to what is quoted; the sum of that.
#[inline(always)]
fn quote<const LINK: u32>(packet: Skb, work: &mut Work, length: u32) -> Option<Difference> {
    if !packet.set_length(LINK + length) {
        return None;
    }
    let header = if work.headers.ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let at = work.headers.transport + if work.headers.tcp { 16 } else { 6 };
    let check = packet.window::<2>(at)?.get::<u16, 0>();
    let partial = work.headers.transport == LINK + header && is_partial(packet, at);
    if !partial {
        packet.window::<2>(at)?.set::<u16, 0>(check);
    }
    // One by one: the compiler would clear memory by a loop over bytes.
    work.quote.iter().for_each(|word| word.store(0, Relaxed));
    let length = between(length, 1, QUOTE as u32)?;
    let buffer = work.quote.as_mut_ptr().cast::<u8>();
    // SAFETY: the context, and as many bytes as the buffer has, at most.
    if unsafe { bpf_skb_load_bytes(packet.context(), LINK, buffer.cast(), length) } != 0 {
        return None;
    }
    let whole = sum::<QUOTE>(buffer);
    if !partial {
        return Some(whole);
    }
    // The device will find the sum of what is left of the segment, and put it where now that of the pseudo header is.
    let above = if work.headers.ipv4 { sum::<20>(buffer) } else { sum::<40>(buffer) };
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
    work: &Work,
    kinds: u32,
    word: u32,
    length: u32,
    quoted: Difference,
) -> bool {
    let ipv4 = work.headers.ipv4;
    let header = if ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    if !packet.grow_network(header + HEADER) {
        return false;
    }
    let tuple = swapped(&work.headers.tuple);
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
