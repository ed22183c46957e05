//! The path of every packet.
//!
//! Deliberately absent: everything that only some packets need (each in a file of its own, and most of it at TC only).

use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use portway_datapath::abi::{Drop, Record, TICK_SHIFT, Tuple, config_flags, state};
use portway_datapath::cookie;
use portway_datapath::record::Direction;
use portway_datapath::table::{self, Memory};
use portway_datapath::tcp;

use crate::count;
use crate::fragment;
use crate::memory::{self, Maps};
use crate::parse::{Headers, Parsed, parse};
use crate::rewrite::Rewrite;
use crate::toa;
use crate::way::{Way, way};

/// What differs between the hooks beyond access to bytes.
pub trait Hook: Rewrite {
    /// The largest IP packet that this will be on the way.
    fn largest(self, headers: &Headers) -> u32;

    /// Whether a packet of a flow has come to this host's link address.
    fn is_for_host(self, record: &Record, direction: Direction) -> bool;

    /// Whether it can send what leaves by this way.
    fn can_send(self, way: &Way) -> bool;

    /// Sends it.
    fn send<const LINK: u32>(self, headers: &Headers, way: &Way) -> i32;
}

/// What [`carry`] answers, beside a verdict of the hook, where something else is to be done than carry the packet: it may
/// begin a flow.
pub const BEGINS: i32 = 1000;
/// It is neither whole TCP nor whole UDP, or its header has extensions.
pub const SPECIAL: i32 = 1001;
/// It belongs to a flow, but is too large for the way out.
pub const TOO_LARGE: i32 = 1002;
/// It belongs to a flow, but its time to live is over.
pub const TOO_OLD: i32 = 1003;

/// It belongs to a flow, but needs more than other addresses and ports.
pub const CAREFUL: i32 = 1004;

/// Its headers are beyond what can be reached directly.
pub const SHORT: i32 = 1006;

/// It belongs to a flow that a SYN cookie opens, whose backend has not answered yet.
pub const OPENS: i32 = 1005;

/// The time, in ticks.
#[inline(always)]
pub fn ticks() -> u32 {
    // SAFETY: no arguments.
    (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32
}

/// What becomes of a packet that begins with `LINK` bytes of link header. With `ALL` first fragments are carried too.
#[inline(always)]
pub fn carry<P: Hook, const LINK: u32, const ALL: bool>(packet: P) -> i32 {
    let Some(maps) = Maps::open() else { return P::PASS };
    let mut headers = Headers::new();
    match parse::<P, LINK, ALL>(packet, &mut headers) {
        Parsed::Plain => {}
        Parsed::Special | Parsed::Later => return SPECIAL,
        Parsed::Short => return SHORT,
        Parsed::Other => return P::PASS,
    }
    let now = ticks();
    let found = if ALL { memory::find(&headers.tuple) } else { table::lookup(&maps, &headers.tuple) };
    let Some(found) = found else {
        return if may_begin(&maps, &headers) { BEGINS } else { P::PASS };
    };
    let record = forever(found.record);
    let bits = record.state.load(Relaxed);
    if !is_over(&maps, &headers, record, bits, now) {
        if ALL && headers.fragment {
            fragment::note(&headers, found.index, found.direction, now);
        }
        return on::<P, LINK>(packet, maps, &headers, record, found.direction, bits, now);
    }
    if found.direction == Direction::Back {
        if headers.tcp && headers.flags & tcp::flags::SYN != 0 {
            // Nobody of ours has asked for it: the port is another's by now, whose later segments shall pass as well.
            record.state.fetch_or(state::ENDED, Relaxed);
        }
        return P::PASS;
    }
    if may_begin(&maps, &headers) { BEGINS } else { P::PASS }
}

/// Whether what belongs to no flow may begin one.
#[inline(always)]
fn may_begin(maps: &Maps, headers: &Headers) -> bool {
    !headers.tcp
        || tcp::begins(headers.flags)
        || maps.config().flags & config_flags::COOKIES != 0 && cookie::may_return(headers.flags)
}

/// A record for as long as the program runs.
#[inline(always)]
pub fn forever(record: &Record) -> &'static Record {
    // SAFETY: of lifetimes only: values of array maps are not freed while a program runs.
    unsafe { &*core::ptr::from_ref(record) }
}

/// Whether the flow that a packet's tuple leads to is over, so that the packet does not belong to it: a SYN of either side
/// to a connection that was closed or reset is another connection's.
#[inline(always)]
pub fn is_over(maps: &Maps, headers: &Headers, record: &Record, bits: u32, now: u32) -> bool {
    let fresh = record.seen.load(Relaxed) == now;
    bits & state::ENDED != 0
        || !fresh && record.is_expired(maps.config(), now)
        || headers.tcp && headers.flags & tcp::flags::SYN != 0 && tcp::is_over(bits)
}

/// A packet of a live flow.
#[inline(always)]
pub fn on<P: Hook, const LINK: u32>(
    packet: P,
    maps: Maps,
    headers: &Headers,
    record: &'static Record,
    direction: Direction,
    bits: u32,
    now: u32,
) -> i32 {
    if headers.ttl <= 1 {
        return TOO_OLD;
    }
    if bits & (state::COOKIE | state::SHIFTED) != 0
        || bits & state::TOA != 0 && toa::is_due::<P, LINK>(packet, headers, direction)
    {
        return if bits & state::COOKIE != 0 { OPENS } else { CAREFUL };
    }
    let new = leaving(record, direction);
    let mut out = Way::new();
    if !way(packet, maps.config(), record, direction, now, &mut out) {
        if P::XDP {
            return P::PASS;
        }
        count::dropped(record.rule.load(Relaxed), Drop::NoRoute);
        return P::DROP;
    }
    if packet.largest(headers) > out.mtu {
        return TOO_LARGE;
    }
    if !packet.can_send(&out) || !packet.is_for_host(record, direction) {
        return P::PASS;
    }
    if new.source.is_ipv4() != headers.ipv4 {
        return CAREFUL;
    }
    if !packet.rewrite::<LINK>(headers, &new) {
        count::dropped(record.rule.load(Relaxed), Drop::Mangled);
        return P::DROP;
    }
    note(record, headers, direction, bits, now);
    count::carried(record.member.load(Relaxed), direction, headers.length);
    packet.send::<LINK>(headers, &out)
}

/// The tuple of a flow's packets as they leave: what answers those that come the other way.
#[inline(always)]
pub fn leaving(record: &Record, direction: Direction) -> Tuple {
    swapped(&record.tuple(match direction {
        Direction::Forth => Direction::Back,
        Direction::Back => Direction::Forth,
    }))
}

/// The tuple of what is answered by a tuple.
#[inline(always)]
pub fn swapped(tuple: &Tuple) -> Tuple {
    Tuple {
        source: tuple.destination,
        destination: tuple.source,
        source_port: tuple.destination_port,
        destination_port: tuple.source_port,
        protocol: tuple.protocol,
    }
}

/// Notes in the record that a packet has passed.
#[inline(always)]
pub fn note(record: &Record, headers: &Headers, direction: Direction, bits: u32, now: u32) {
    if record.seen.load(Relaxed) != now {
        record.seen.store(now, Relaxed);
    }
    let after = if headers.tcp {
        toa::follow(tcp::follow(bits, headers.flags, direction), headers, direction)
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
