//! What becomes of ICMP errors about our flows (RFC 792, RFC 4443): they are carried to whom they are for.
//!
//! Deliberately absent: other ICMP, which is the host's own; what is changed in an error ([`crate::error`], [`crate::crossing`]).

use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portway_datapath::abi::{Drop, state};
use portway_datapath::record::Direction;

use crate::carry::is_over;
use crate::clock::ticks;
use crate::count;
use crate::crossing::{LONGEST, cross};
use crate::error::{Error, HEADER, read, write};
use crate::memory::{self, Maps};
use crate::packet::Packet;
use crate::rewrite::swapped;
use crate::skb::Skb;
use crate::way::way;

/// Headers, options, and the quoted ones.
const REACH: u32 = 60 + HEADER + 60 + 20;

/// One for each processor: too large for the stack.
#[map(name = "erring")]
static ERROR: PerCpuArray<Error> = PerCpuArray::with_max_entries(1, 0);

/// What becomes of a packet that is neither TCP nor UDP.
#[inline(always)]
pub fn error<const LINK: u32>(packet: Skb) -> i32 {
    packet.reach(LINK + REACH);
    let (Some(maps), Some(error)) = (Maps::open(), ERROR.get_ptr_mut(0)) else { return Skb::PASS };
    // SAFETY: this processor's; programs of both hooks do not interrupt each other.
    let error: &mut Error = unsafe { &mut *error };
    error.shift = 0;
    if read::<LINK>(packet, error).is_none() {
        return Skb::PASS;
    }
    let Some(found) = memory::find(&swapped(&error.quoted)) else { return Skb::PASS };
    let record = found.record;
    let now = ticks();
    // Not as TCP: there are no flags in an error.
    error.headers.tcp = false;
    if is_over(&maps, &error.headers, record, record.state.load(Relaxed), now) {
        return Skb::PASS;
    }
    if found.direction == Direction::Forth && record.state.load(Relaxed) & state::SHIFTED != 0 {
        error.shift = record.sequence.load(Relaxed);
    }
    let member = record.member.load(Relaxed);
    let drop = |reason| {
        count::dropped(member, reason);
        Skb::DROP
    };
    if error.headers.ttl <= 1 {
        return drop(Drop::Expired);
    }
    let Some(way) = way(packet, found.index, found.direction) else { return drop(Drop::NoRoute) };
    // What is quoted is what the side that the error goes to has sent.
    let sent = record.tuple(match found.direction {
        Direction::Forth => Direction::Back,
        Direction::Back => Direction::Forth,
    });
    if sent.source.is_ipv4() != error.headers.ipv4 {
        if LONGEST > way.mtu {
            return drop(Drop::TooBig);
        }
        if !cross::<LINK>(packet, error, &sent, way.mtu) {
            return drop(Drop::IcmpError);
        }
        error.headers.ipv4 = !error.headers.ipv4;
        return packet.send::<LINK>(error.headers.ipv4, way);
    }
    if error.headers.length > way.mtu {
        return drop(Drop::TooBig);
    }
    if !write::<LINK>(packet, error, &sent) {
        return drop(Drop::IcmpError);
    }
    packet.send::<LINK>(error.headers.ipv4, way)
}
