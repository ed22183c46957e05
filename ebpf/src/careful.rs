//! The path of every packet that [`crate::carry`] does not carry: those of flows that need more than other addresses and
//! ports (another family, the client's address in an option, other sequence numbers), those whose headers have options or
//! extensions or are out of reach, and those that may not be carried at all.
//!
//! At TC only. The steps are those of [`crate::carry`], with the others between them.

use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portway_datapath::abi::{Drop, Record, state};
use portway_datapath::record::Direction;
use portway_datapath::tcp;

use crate::carry::{BEGINS, Hook, answered, is_over, leaving, may_begin, note};
use crate::clock::ticks;
use crate::memory::{self, Maps};
use crate::packet::Packet;
use crate::parse::{Parsed, parse};
use crate::skb::Skb;
use crate::way::way;
use crate::work::Work;
use crate::{count, family, fragment, parts, shift, toa};

/// One for each processor: too large for the stack.
#[map(name = "work")]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// This processor's.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    // SAFETY: programs of both hooks do not interrupt each other.
    WORK.get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// What [`careful`] answers, beside a verdict and [`BEGINS`]: the packet is neither TCP nor UDP.
pub const SPECIAL: i32 = 1100;
/// It is a fragment without ports.
pub const LATER: i32 = 1104;
/// It belongs to a flow, but is too large for the way out.
pub const TOO_LARGE: i32 = 1101;
/// It has been made what leaves, and is to be sent in parts.
pub const PARTS: i32 = 1105;
/// It belongs to a flow, but its time to live is over.
pub const TOO_OLD: i32 = 1102;
/// It belongs to a flow that a SYN cookie opens, whose backend has not answered yet.
pub const OPENS: i32 = 1103;

/// The bytes that headers without options and extensions may have, and some more.
const REACH: u32 = 80;

/// What becomes of a packet, whatever it is.
#[inline(always)]
pub fn careful<const LINK: u32>(packet: Skb) -> i32 {
    // Only here: what a local TCP sends has its headers, and nothing else, in the part that can be reached directly, and
    // would be copied for each packet.
    packet.reach(LINK + REACH);
    let (Some(maps), Some(work)) = (Maps::open(), work()) else { return Skb::DROP };
    match parse::<Skb, LINK>(packet, &mut work.headers) {
        Parsed::Plain => {}
        Parsed::Later => return LATER,
        Parsed::Special => return SPECIAL,
        Parsed::Short | Parsed::Other => return Skb::PASS,
    }
    let now = ticks();
    let Some(found) = memory::find(&work.headers.tuple) else {
        return if may_begin(&maps, work.headers.tcp_flags()) { BEGINS } else { Skb::PASS };
    };
    let record = found.record;
    let bits = record.state.load(Relaxed);
    if is_over(&maps, &work.headers, record, bits, now) {
        if found.direction == Direction::Forth && may_begin(&maps, work.headers.tcp_flags()) {
            return BEGINS;
        }
        if found.direction == Direction::Back && work.headers.tcp && work.headers.flags & tcp::flags::SYN != 0
        {
            // Nobody of ours has asked for it: the port is another's by now, whose later segments shall pass as well.
            record.state.fetch_or(state::ENDED, Relaxed);
        }
        return Skb::PASS;
    }
    if work.headers.fragment {
        fragment::note(&work.headers, found.index, found.direction, now);
    }
    if work.headers.ttl <= 1 {
        return TOO_OLD;
    }
    if bits & state::COOKIE != 0 {
        return OPENS;
    }
    work.new = leaving(record, found.direction);
    let member = record.member.load(Relaxed);
    let Some(way) = way(packet, found.index, found.direction) else {
        count::dropped(member, Drop::NoRoute);
        return Skb::DROP;
    };
    let largest = packet.largest::<LINK>(
        work.headers.transport,
        work.headers.length,
        work.headers.tuple.protocol as u8,
    );
    let largest = family::size(largest, &work.headers, &work.new);
    let in_parts = largest > way.mtu;
    if in_parts && !(work.new.source.is_ipv4() && parts::can_be::<LINK>(packet, &work.headers, way)) {
        return TOO_LARGE;
    }
    let length = work.headers.length;
    if let Err(reason) = change::<LINK>(packet, work, record, found.direction, bits) {
        count::dropped(member, reason);
        return Skb::DROP;
    }
    let after = if work.headers.tcp {
        toa::follow(tcp::follow(bits, work.headers.flags, found.direction), &work.headers, found.direction)
    } else {
        answered(bits, found.direction)
    };
    note(record, bits, after, now);
    if in_parts {
        parts::note(found.index, found.direction);
        return PARTS;
    }
    count::carried(member, found.direction, length);
    packet.send::<LINK>(work.headers.ipv4, way)
}

/// Changes the packet to what leaves.
#[inline(always)]
fn change<const LINK: u32>(
    packet: Skb,
    work: &mut Work,
    record: &Record,
    direction: Direction,
    bits: u32,
) -> Result<(), Drop> {
    let due = bits & state::TOA != 0 && toa::is_due::<Skb, LINK>(packet, &work.headers, direction);
    let mut tells = false;
    if due {
        match toa::prepare(packet, work) {
            toa::OPEN => tells = true,
            toa::SHUT => {}
            _ => return Err(Drop::Mangled),
        }
    }
    let done = if work.new.source.is_ipv4() == work.headers.ipv4 {
        packet.rewrite::<LINK>(&work.headers, &work.new)
    } else if work.headers.fragment {
        return Err(Drop::Fragment);
    } else {
        match family::translate::<LINK>(packet, work) {
            family::DONE => true,
            family::IMPOSSIBLE => return Err(Drop::Family),
            _ => false,
        }
    };
    if !done {
        return Err(Drop::Mangled);
    }
    if bits & state::SHIFTED != 0
        && !shift::shift(packet, &work.headers, record.sequence.load(Relaxed), direction)
    {
        return Err(Drop::Mangled);
    }
    if tells && toa::append::<LINK>(packet, work, record) != 0 {
        return Err(Drop::Mangled);
    }
    Ok(())
}
