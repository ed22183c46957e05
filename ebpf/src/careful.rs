//! The path of those packets of a flow that need more than other addresses and ports: another family, the client's address in
//! an option, other sequence numbers.
//!
//! At TC only. The steps are those of [`crate::carry`], with the others between them.

use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portway_datapath::abi::{Drop, Record, Tuple, state};
use portway_datapath::record::Direction;
use portway_datapath::table::Memory;
use portway_datapath::toa::ROOM;

use crate::carry::{Hook, TOO_LARGE, TOO_OLD, is_over, leaving, note, ticks};
use crate::memory::{self, Maps};
use crate::packet::Packet;
use crate::parse::{Headers, Parsed, parse};
use crate::rewrite::Rewrite;
use crate::skb::Skb;
use crate::way::{Way, way};
use crate::{count, family, shift, toa};

/// What a processor works on; too large for the stack.
pub struct Work {
    /// The packet's headers.
    pub headers: Headers,
    /// Its tuple as it leaves.
    pub new: Tuple,
    /// Its TCP header.
    pub header: [u8; ROOM],
    way: Way,
}

/// One for each processor.
#[map(name = "work")]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// This processor's.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    // SAFETY: programs of both hooks do not interrupt each other.
    WORK.get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// Carries a packet of a flow.
#[inline(never)]
pub fn careful<const LINK: u32>(packet: Skb) -> i32 {
    let (Some(maps), Some(work)) = (Maps::open(), work()) else { return Skb::DROP };
    if !matches!(parse::<Skb, LINK, true>(packet, &mut work.headers), Parsed::Plain) {
        return Skb::PASS;
    }
    let now = ticks();
    let Some(found) = memory::find(&work.headers.tuple) else { return Skb::PASS };
    let record = found.record;
    let bits = record.state.load(Relaxed);
    if is_over(&maps, &work.headers, record, bits, now) {
        return Skb::PASS;
    }
    if work.headers.ttl <= 1 {
        return TOO_OLD;
    }
    work.new = leaving(record, found.direction);
    let rule = record.rule.load(Relaxed);
    if !way(packet, maps.config(), record, found.direction, now, &mut work.way) {
        count::dropped(rule, Drop::NoRoute);
        return Skb::DROP;
    }
    let largest = family::size(packet.largest(&work.headers), &work.headers, &work.new);
    if largest > work.way.mtu {
        return TOO_LARGE;
    }
    let length = work.headers.length;
    if let Err(reason) = change::<LINK>(packet, work, record, found.direction, bits) {
        count::dropped(rule, reason);
        return Skb::DROP;
    }
    note(record, &work.headers, found.direction, bits, now);
    count::carried(record.member.load(Relaxed), found.direction, length);
    packet.send::<LINK>(&work.headers, &work.way)
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
