//! The path of every packet.
//!
//! Deliberately absent: everything that only some packets need (each in a file of its own, and most of it at TC only).

use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use portway_datapath::abi::{Drop, Record, TICK_SHIFT, Tuple, state};
use portway_datapath::record::Direction;
use portway_datapath::table::{self, Memory};
use portway_datapath::tcp;

use crate::count;
use crate::memory::Maps;
use crate::parse::{Headers, Parsed, parse};
use crate::rewrite::Rewrite;
use crate::way::{Way, way};

/// What differs between the hooks beyond access to bytes.
pub trait Hook: Rewrite {
    /// What a packet is that begins no flow we know: the record of the flow that it begins, or what becomes of it.
    fn first<const LINK: u32>(
        self,
        maps: Maps,
        headers: &Headers,
        former: Option<u32>,
        now: u32,
    ) -> Result<&'static Record, i32>;

    /// A packet that is neither whole TCP nor whole UDP.
    fn special<const LINK: u32>(self, maps: Maps, headers: &mut Headers, now: u32) -> i32;

    /// The largest IP packet that this will be on the way.
    fn largest(self, headers: &Headers) -> u32;

    /// A packet of a flow that is too large for the way out, or has no hop left.
    fn too_large<const LINK: u32>(self, headers: &Headers, record: &'static Record, mtu: u32) -> i32;
    /// See [`Self::too_large`].
    fn too_old<const LINK: u32>(self, headers: &Headers, record: &'static Record) -> i32;

    /// Whether it can send what leaves by this way.
    fn can_send(self, way: &Way) -> bool;

    /// Sends it.
    fn send<const LINK: u32>(self, headers: &Headers, way: &Way) -> i32;
}

/// The time, in ticks.
#[inline(always)]
pub fn ticks() -> u32 {
    // SAFETY: no arguments.
    (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32
}

/// What becomes of a packet that begins with `LINK` bytes of link header.
#[inline(always)]
pub fn carry<P: Hook, const LINK: u32>(packet: P) -> i32 {
    let Some(maps) = Maps::open() else { return P::PASS };
    let mut headers = Headers::new();
    match parse::<P, LINK>(packet, &mut headers) {
        Parsed::Plain => {}
        Parsed::Special => return packet.special::<LINK>(maps, &mut headers, ticks()),
        Parsed::Other => return P::PASS,
    }
    let now = ticks();
    let found = table::lookup(&maps, &headers.tuple);
    if let Some(found) = &found {
        // SAFETY: of lifetimes only: values of array maps are never freed while a program runs.
        let record: &'static Record = unsafe { &*core::ptr::from_ref(found.record) };
        let bits = record.state.load(Relaxed);
        let expired = record.seen.load(Relaxed) != now && record.is_expired(maps.config(), now);
        if !expired && bits & state::ENDED == 0 {
            let anew = headers.tcp
                && found.direction == Direction::Forth
                && tcp::begins(headers.flags)
                && tcp::is_over(bits);
            if !anew {
                return on::<P, LINK>(packet, maps, &headers, record, found.direction, bits, now);
            }
        }
        if found.direction == Direction::Back {
            return P::PASS;
        }
    }
    if headers.tcp && !tcp::begins(headers.flags) {
        return P::PASS;
    }
    let former = found.map(|found| found.index);
    match packet.first::<LINK>(maps, &headers, former, now) {
        Ok(record) => {
            let bits = record.state.load(Relaxed);
            on::<P, LINK>(packet, maps, &headers, record, Direction::Forth, bits, now)
        }
        Err(verdict) => verdict,
    }
}

/// A packet of a live flow.
#[inline(always)]
fn on<P: Hook, const LINK: u32>(
    packet: P,
    maps: Maps,
    headers: &Headers,
    record: &'static Record,
    direction: Direction,
    bits: u32,
    now: u32,
) -> i32 {
    if headers.ttl <= 1 {
        return packet.too_old::<LINK>(headers, record);
    }
    let mut out = Way::new();
    if !way(packet, maps.config(), record, direction, now, &mut out) {
        if P::XDP {
            return P::PASS;
        }
        count::dropped(record.rule.load(Relaxed), Drop::NoRoute);
        return P::DROP;
    }
    if packet.largest(headers) > out.mtu {
        return packet.too_large::<LINK>(headers, record, out.mtu);
    }
    if !packet.can_send(&out) {
        return P::PASS;
    }
    // As it leaves it is what answers the other side's packets.
    let other = match direction {
        Direction::Forth => Direction::Back,
        Direction::Back => Direction::Forth,
    };
    let answers = record.tuple(other);
    let new = Tuple {
        source: answers.destination,
        destination: answers.source,
        source_port: answers.destination_port,
        destination_port: answers.source_port,
        protocol: answers.protocol,
    };
    if !packet.rewrite::<LINK>(headers, &new) {
        count::dropped(record.rule.load(Relaxed), Drop::Mangled);
        return P::DROP;
    }
    note(record, headers, direction, bits, now);
    count::carried(record.member.load(Relaxed), direction, headers.length);
    packet.send::<LINK>(headers, &out)
}

/// Notes in the record that a packet has passed.
#[inline(always)]
fn note(record: &Record, headers: &Headers, direction: Direction, bits: u32, now: u32) {
    if record.seen.load(Relaxed) != now {
        record.seen.store(now, Relaxed);
    }
    let after = if headers.tcp {
        tcp::follow(bits, headers.flags, direction)
    } else if direction == Direction::Back {
        bits | state::ANSWERED
    } else {
        bits
    };
    if after != bits {
        if bits & !after != 0 {
            record.state.fetch_and(!(bits & !after), Relaxed);
        }
        if after & !bits != 0 {
            record.state.fetch_or(after & !bits, Relaxed);
        }
    }
}
