//! Packets of IPv4 that may be fragmented and are too large for the way out: sent in parts (RFC 791 3.2), as a router does.
//!
//! The kernel's own function for it is out of reach: it fragments what it has routed itself, and it does not route what comes
//! in by an interface from an address of its own. So the payload is kept, and the packet made one part after the other
//! ([`crate::cut`]), each sent as a copy.
//!
//! Deliberately absent: what has options, of which not all belong into every part; buffers of many segments; what is longer
//! than [`ROOM`]. Their senders are told, as if they had forbidden it.

use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::helpers::generated::{bpf_clone_redirect, bpf_redirect};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portway_datapath::abi::{Drop, port_flags};
use portway_datapath::record::Direction;

use crate::ETHERNET;
use crate::count;
use crate::cut::{MORE, OFFSET, ROOM, Whole, finish_checksum, keep, part, read};
use crate::maps::RECORDS;
use crate::packet::Packet;
use crate::parse::{Headers, IPV4_HEADER};
use crate::skb::{Skb, between};
use crate::way::{self, Way};

/// The most parts.
const MOST: u32 = 20;

/// The smallest MTU that it is done for.
const LEAST: u32 = 128;

/// What a processor needs for it.
struct Parts {
    whole: Whole,
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
    let whole = &mut parts.whole;
    let Some((length, which)) = read::<LINK>(packet, whole) else { return Skb::DROP };
    let Some(payload) = between(length.wrapping_sub(IPV4_HEADER), 1, ROOM as u32) else { return Skb::DROP };
    if way.mtu < LEAST {
        return Skb::DROP;
    }
    if u32::from(which & OFFSET) * 8 + payload > 0xffff {
        // Of no datagram that there can be.
        count::dropped(member, Drop::Fragment);
        return Skb::DROP;
    }
    if !keep::<LINK>(packet, whole, payload) {
        return Skb::DROP;
    }
    if which & (OFFSET | MORE) == 0 && !finish_checksum::<LINK>(packet, whole, payload) {
        count::dropped(member, Drop::Mangled);
        return Skb::DROP;
    }
    if way.resolve != 0 {
        // The kernel finds out where the next hop is with the first part, and the others would be lost meanwhile.
        count::dropped(member, Drop::NoRoute);
        let first = unit(way).min(payload);
        if !part(packet, whole, LINK, (0, first), which | MORE) {
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
        if !part(packet, whole, at, (start, this), which) {
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
