//! ICMP errors of our own about a packet that cannot be carried (RFC 792, RFC 4443): which, how many, and by which way.
//!
//! Deliberately absent: how the packet is made one ([`crate::quote`]).

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portway_datapath::abi::TICKS_PER_SECOND;

use crate::ETHERNET;
use crate::clock::ticks;
use crate::packet::Packet;
use crate::parse::{Headers, Parsed, parse};
use crate::quote::{Quote, make};
use crate::skb::Skb;
use crate::way::way_back;

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
    quote: Quote,
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
    if !make::<LINK>(packet, &mut work.quote, &work.headers, kinds, word) {
        return Skb::DROP;
    }
    packet.send::<LINK>(work.headers.ipv4, way)
}
