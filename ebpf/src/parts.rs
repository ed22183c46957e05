//! Packets of IPv4 that may be fragmented and are too large for the way out: sent in parts (RFC 791 3.2), as a router does.
//!
//! The kernel's own function for it is out of reach: it fragments what it has routed itself, and it does not route what comes
//! in by an interface from an address of its own. So the payload is kept, and the packet made one part after the other, each
//! sent as a copy.
//!
//! Deliberately absent: what has options, of which not all belong into every part; buffers of many segments; what is longer
//! than [`ROOM`]. Their senders are told, as if they had forbidden it.

use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_csum_diff, bpf_redirect, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portway_datapath::abi::{Drop, port_flags};
use portway_datapath::checksum::Difference;
use portway_datapath::record::Direction;

use crate::ETHERNET;
use crate::answer::is_partial;
use crate::count;
use crate::maps::RECORDS;
use crate::packet::Packet;
use crate::parse::{Headers, IPV4_HEADER, TCP};
use crate::skb::{RECOMPUTE, Skb, between};
use crate::way::{self, Way};

/// The longest packet that is sent in parts.
const ROOM: usize = 9216;

/// The most parts.
const MOST: u32 = 20;

/// The smallest MTU that it is done for.
const LEAST: u32 = 128;

/// More fragments follow, host order; and the bits of the offset.
const MORE: u16 = 0x2000;
/// See [`MORE`].
const OFFSET: u16 = 0x1fff;

/// As many bytes of payload are summed up at once: what the kernel's function takes.
const CHUNK: u32 = 512;

/// More than the headers up to the transport's checksum, less than [`LEAST`].
const FRONT: u32 = 64;

/// What a processor needs for it.
pub struct Parts {
    /// The payload. Twice the room, because the verifier does not know that where a part begins and its length are no
    /// longer together than the whole.
    bytes: [u64; 2 * ROOM / 8],
    /// The IP header of a part, half words as they lie in memory.
    header: [u16; 10],
    /// The record of the packet's flow, and its direction.
    record: u32,
    back: bool,
}

/// One for each processor: too large for the stack.
#[map(name = "parts")]
static PARTS: PerCpuArray<Parts> = PerCpuArray::with_max_entries(1, 0);

/// Whether a packet that is too large for its way out can be sent in parts; it leaves as IPv4.
#[inline(always)]
pub fn can_be<const LINK: u32>(packet: Skb, headers: &Headers, way: &Way) -> bool {
    headers.ipv4
        && !headers.whole
        && headers.transport == LINK + IPV4_HEADER
        && headers.length <= ROOM as u32
        && way.mtu >= LEAST
        && unit(way) * MOST >= headers.length
        && packet.segment() == 0
}

/// Payload of a part that is not the last.
#[inline(always)]
fn unit(way: &Way) -> u32 {
    (way.mtu.min(ROOM as u32) - IPV4_HEADER) & !7
}

/// Takes note of the flow of a packet that [`send`] is to be called for.
#[inline(always)]
pub fn note(record: u32, direction: Direction) {
    if let Some(parts) = PARTS.get_ptr_mut(0) {
        // SAFETY: this processor's; programs of both hooks do not interrupt each other.
        unsafe {
            (*parts).record = record;
            (*parts).back = direction == Direction::Back;
        }
    }
}

/// Sends a packet that has been made what leaves, by the way that was found last, in parts.
#[inline(always)]
pub fn send<const LINK: u32>(packet: Skb) -> i32 {
    let Some(parts) = PARTS.get_ptr_mut(0) else { return Skb::DROP };
    let Some(way) = way::found() else { return Skb::DROP };
    // SAFETY: as above.
    let parts: &mut Parts = unsafe { &mut *parts };
    let Some(record) = RECORDS.get(parts.record) else { return Skb::DROP };
    let member = record.member.load(Relaxed);
    let Some(ip) = packet.window::<20>(LINK) else { return Skb::DROP };
    parts.header = [
        ip.get::<u16, 0>(),
        ip.get::<u16, 2>(),
        ip.get::<u16, 4>(),
        ip.get::<u16, 6>(),
        ip.get::<u16, 8>(),
        0,
        ip.get::<u16, 12>(),
        ip.get::<u16, 14>(),
        ip.get::<u16, 16>(),
        ip.get::<u16, 18>(),
    ];
    let length = u32::from(u16::from_be(parts.header[1]));
    let which = u16::from_be(parts.header[3]);
    let Some(payload) = between(length.wrapping_sub(IPV4_HEADER), 1, ROOM as u32) else { return Skb::DROP };
    if way.mtu < LEAST {
        return Skb::DROP;
    }
    if u32::from(which & OFFSET) * 8 + payload > 0xffff {
        // Of no datagram that there can be.
        count::dropped(member, Drop::Fragment);
        return Skb::DROP;
    }
    let bytes = parts.bytes.as_mut_ptr().cast::<u8>();
    // SAFETY: the context, and as many bytes as there is room for.
    if unsafe { bpf_skb_load_bytes(packet.context(), LINK + IPV4_HEADER, bytes.cast(), payload) } != 0 {
        return Skb::DROP;
    }
    if which & (OFFSET | MORE) == 0 && !finish_checksum::<LINK>(packet, parts, payload) {
        count::dropped(member, Drop::Mangled);
        return Skb::DROP;
    }
    if way.resolve != 0 {
        // The kernel finds out where the next hop is with the first part, and the others would be lost meanwhile.
        count::dropped(member, Drop::NoRoute);
        let first = unit(way).min(payload);
        if !part(packet, parts, LINK, (0, first), which | MORE) {
            return Skb::DROP;
        }
        return packet.send::<LINK>(true, way);
    }
    if !packet.face::<LINK>(true, way) {
        count::dropped(member, Drop::Mangled);
        return Skb::DROP;
    }
    let direction = if parts.back { Direction::Back } else { Direction::Forth };
    count::carried(member, direction, length);
    let framed = LINK == 0 && way.flags & u32::from(port_flags::ETHERNET) != 0;
    let at = if framed { ETHERNET } else { LINK };
    let mut start = 0;
    for _ in 0..MOST {
        let left = payload - start;
        let is_last = left <= unit(way);
        let this = if is_last { left } else { unit(way) };
        let which = if is_last { which } else { which | MORE };
        if !part(packet, parts, at, (start, this), which) {
            break;
        }
        // SAFETY: the context, of which it makes a copy; no pointers.
        unsafe {
            if is_last {
                return bpf_redirect(way.interface, 0) as i32;
            }
            // A part that is lost is no other than one that is lost on the wire.
            bpf_clone_redirect(packet.0, way.interface, 0);
        }
        start += this;
    }
    Skb::DROP
}

/// Makes the packet, whose IP header is `at`, one part: `length` bytes of the payload from `start` on. `which` is the word of
/// the header that says so, of the whole packet, and whether more follow.
#[inline(always)]
fn part(packet: Skb, parts: &mut Parts, at: u32, (start, length): (u32, u32), which: u16) -> bool {
    let (Some(start), Some(length)) = (between(start, 0, ROOM as u32), between(length, 1, ROOM as u32))
    else {
        return false;
    };
    if !packet.set_length(at + IPV4_HEADER + length) {
        return false;
    }
    parts.header[1] = ((length + IPV4_HEADER) as u16).to_be();
    parts.header[3] = which.wrapping_add((start / 8) as u16).to_be();
    parts.header[5] = 0;
    let [a, b, c, d, e, _, f, g, h, i] = parts.header;
    let sum =
        [a, b, c, d, e, f, g, h, i].iter().fold(Difference::NONE, |sum, word| sum.plus(u32::from(*word)));
    parts.header[5] = sum.check();
    let bytes = parts.bytes.as_ptr().cast::<u8>();
    // SAFETY: the context, as many bytes as the header has, and of the payload no more than there are.
    unsafe {
        bpf_skb_store_bytes(packet.0, at, parts.header.as_ptr().cast(), IPV4_HEADER, RECOMPUTE) == 0
            && bpf_skb_store_bytes(
                packet.0,
                at + IPV4_HEADER,
                bytes.add(start as usize).cast(),
                length,
                RECOMPUTE,
            ) == 0
    }
}

/// Finishes the transport's checksum, of which the packet is all, where that is left to the device: it would put one in every
/// part.
#[inline(always)]
fn finish_checksum<const LINK: u32>(packet: Skb, parts: &mut Parts, payload: u32) -> bool {
    let is_tcp = parts.header[4].to_be() as u8 == TCP;
    let check = if is_tcp { 16 } else { 6 };
    // What this changes is written over.
    if !is_partial(packet, LINK + IPV4_HEADER + check) {
        return true;
    }
    let bytes = parts.bytes.as_mut_ptr().cast::<u8>();
    // A datagram without a checksum, with a packet inside that is to get one: no part of it could.
    // SAFETY: within the room.
    if !is_tcp && unsafe { bytes.add(check as usize).cast::<u16>().read_unaligned() } == 0 {
        return false;
    }
    let mut sum = Difference::NONE;
    // SAFETY: within the room, which is twice as large; whole words are summed up, of which the last is filled with zeros.
    unsafe {
        bytes.add(payload as usize).cast::<u32>().write_unaligned(0);
        for nth in 0..ROOM as u32 / CHUNK {
            let Some(left) = payload.checked_sub(nth * CHUNK) else { break };
            let size = left.min(CHUNK).next_multiple_of(4);
            let from = bytes.add((nth * CHUNK) as usize);
            sum = sum.plus(bpf_csum_diff(core::ptr::null_mut(), 0, from.cast(), size, 0) as u32);
        }
    }
    // There is the sum of the pseudo header now, so that this is all of it.
    let whole = match sum.check() {
        0 if !is_tcp => 0xffff,
        whole => whole,
    };
    // SAFETY: as above.
    unsafe { bytes.add(check as usize).cast::<u16>().write_unaligned(whole) };
    // When what the device was to sum up is no longer there, nothing is left to it (`skb_postpull_rcsum`).
    packet.shrink_network(FRONT) && packet.grow_network(FRONT)
}
