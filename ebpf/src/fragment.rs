//! Fragments (RFC 791, RFC 8200 4.5): only the first has ports, so the others follow what has been noted of it.
//!
//! The kernel gets fragments that come before their first one, for there is no room here to keep them; it puts them
//! together in vain, and the sender sends again. Deliberately absent: putting them together.

use portway_datapath::abi::{Drop, Fragment, FragmentKey, TICKS_PER_SECOND};
use portway_datapath::record::Direction;

use crate::careful::PARTS;
use crate::carry::{is_over, leaving};
use crate::clock::ticks;
use crate::maps::FRAGMENTS;
use crate::memory::Maps;
use crate::packet::Packet;
use crate::parse::{Headers, Parsed, parse};
use crate::skb::Skb;
use crate::way::way;
use crate::{count, parts};
use core::sync::atomic::Ordering::Relaxed;

/// The direction's bit of [`Fragment::record`].
const BACK: u32 = 1 << 31;

/// How long the parts of a datagram are waited for: as long as Linux does (`net.ipv4.ipfrag_time`).
const LIFE: u32 = 30 * TICKS_PER_SECOND;

#[inline(always)]
fn key(headers: &Headers) -> FragmentKey {
    FragmentKey {
        source: headers.tuple.source,
        destination: headers.tuple.destination,
        id: headers.id,
        protocol: headers.tuple.protocol,
    }
}

/// Notes which flow a first fragment belongs to.
#[inline(always)]
pub fn note(headers: &Headers, record: u32, direction: Direction, now: u32) {
    let back = if direction == Direction::Back { BACK } else { 0 };
    // A full map lets the oldest go; a datagram is lost then, and its sender sends again.
    let _ = FRAGMENTS.insert(&key(headers), &Fragment { record: record | back, seen: now }, 0);
}

/// A fragment without ports. If it is of no flow it is left to the kernel.
#[inline(always)]
pub fn later<const LINK: u32>(packet: Skb) -> i32 {
    let Some(maps) = Maps::open() else { return Skb::PASS };
    let mut headers = Headers::new();
    if !matches!(parse::<Skb, LINK>(packet, &mut headers), Parsed::Later) {
        return Skb::PASS;
    }
    let now = ticks();
    // SAFETY: the map's value. Another processor may replace it; then it is one or the other datagram's.
    let noted = FRAGMENTS.get_ptr(&key(&headers)).map(|noted| unsafe { *noted });
    let Some(noted) = noted.filter(|noted| now.wrapping_sub(noted.seen) <= LIFE) else {
        count::dropped(0, Drop::Fragment);
        return Skb::PASS;
    };
    let direction = if noted.record & BACK == 0 { Direction::Forth } else { Direction::Back };
    let Some(record) = crate::maps::RECORDS.get(noted.record & !BACK) else { return Skb::PASS };
    let new = leaving(record, direction);
    let bits = record.state.load(Relaxed);
    headers.tcp = false;
    let arrived = record.tuple(direction);
    let same = arrived.source == headers.tuple.source
        && arrived.destination == headers.tuple.destination
        && arrived.protocol == headers.tuple.protocol;
    if !same || is_over(&maps, &headers, record, bits, now) {
        return Skb::PASS;
    }
    let member = record.member.load(Relaxed);
    if new.source.is_ipv4() != headers.ipv4 {
        count::dropped(member, Drop::Fragment);
        return Skb::DROP;
    }
    if headers.ttl <= 1 {
        count::dropped(member, Drop::Expired);
        return Skb::DROP;
    }
    let Some(way) = way(packet, noted.record & !BACK, direction) else {
        count::dropped(member, Drop::NoRoute);
        return Skb::DROP;
    };
    let in_parts = headers.length > way.mtu;
    if in_parts && !parts::can_be::<LINK>(packet, &headers, way) {
        count::dropped(member, Drop::TooBig);
        return Skb::DROP;
    }
    if !packet.rewrite_addresses::<LINK>(&headers, &new) {
        count::dropped(member, Drop::Mangled);
        return Skb::DROP;
    }
    if in_parts {
        parts::note(noted.record & !BACK, direction);
        return PARTS;
    }
    count::carried(member, direction, headers.length);
    packet.send::<LINK>(headers.ipv4, way)
}
