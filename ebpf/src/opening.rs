//! A flow that a SYN cookie has opened, until its backend has answered.
//!
//! The client is connected already. Whatever it sends becomes the SYN that it had sent at first, with the segment size that
//! the cookie stands for, and what it carried is cut off: the client sends it again. When the backend answers, both hear the
//! other's window: the backend an acknowledgement that ends its handshake, the client one that says that it may send. The
//! backend's numbers are other ones than the cookie, and so are moved from then on ([`crate::carry`]).
//!
//! Deliberately absent: a timer. A SYN that is lost on the way to the backend is sent again when the client sends
//! something, which asks for a window as long as it has data; for a client that waits for the server to speak first the
//! daemon does it (`reopen.rs` of the loader).

use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::helpers::generated::bpf_clone_redirect;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portway_datapath::abi::{Drop, Record, port_flags, state};
use portway_datapath::cookie::shift_of;
use portway_datapath::record::Direction;
use portway_datapath::tcp::flags;

use crate::answer::{Segment, write};
use crate::careful;
use crate::carry::leaving;
use crate::clock::ticks;
use crate::family::LONGER;
use crate::memory;
use crate::packet::Packet;
use crate::parse::{Headers, IPV4, IPV4_HEADER, IPV6, IPV6_HEADER, Parsed, parse};
use crate::skb::Skb;
use crate::way::{self, way};
use crate::work::Work;
use crate::{cookie, count, toa};

/// What is too large for the stack: the packet, and what it becomes.
struct Opening {
    /// What is heard by the client.
    to_client: Segment,
    /// What is heard by the backend.
    to_backend: Segment,
    /// The number of the flow's record.
    index: u32,
}

/// One for each processor.
#[map(name = "opening")]
static OPENING: PerCpuArray<Opening> = PerCpuArray::with_max_entries(1, 0);

/// A packet of such a flow.
#[inline(always)]
pub fn packet<const LINK: u32>(packet: Skb) -> i32 {
    let (Some(work), Some(opening)) = (careful::work(), OPENING.get_ptr_mut(0)) else { return Skb::DROP };
    // SAFETY: this processor's; programs of both hooks do not interrupt each other.
    let opening: &mut Opening = unsafe { &mut *opening };
    if !matches!(parse::<Skb, LINK>(packet, &mut work.headers), Parsed::Plain) {
        return Skb::DROP;
    }
    let Some(found) = memory::find(&work.headers.tuple) else { return Skb::DROP };
    let record = found.record;
    opening.index = found.index;
    record.seen.store(ticks(), Relaxed);
    count::carried(record.member.load(Relaxed), found.direction, work.headers.length);
    let heard = if found.direction == Direction::Forth {
        from_client(packet, &work.headers, opening, record)
    } else {
        from_backend(packet, &work.headers, opening, record)
    };
    match heard {
        BY_CLIENT => send::<LINK>(packet, work, opening, record, Direction::Back),
        BY_BACKEND => send::<LINK>(packet, work, opening, record, Direction::Forth),
        BY_BOTH => {
            // The copy leaves by a way that has a link header if the packet has: see `send`.
            let (first, last) = if LINK == 0 {
                (Direction::Forth, Direction::Back)
            } else {
                (Direction::Back, Direction::Forth)
            };
            copy::<LINK>(packet, work, opening, record, first);
            send::<LINK>(packet, work, opening, record, last)
        }
        _ => Skb::DROP,
    }
}

/// What [`from_client`] and [`from_backend`] answer: it is heard by nobody.
const BY_NOBODY: u32 = 0;
/// See [`BY_NOBODY`].
const BY_CLIENT: u32 = 1;
/// See [`BY_NOBODY`].
const BY_BACKEND: u32 = 2;
/// See [`BY_NOBODY`].
const BY_BOTH: u32 = 3;

/// What the backend is to hear of a segment of the client.
#[inline(never)]
fn from_client(packet: Skb, headers: &Headers, opening: &mut Opening, record: &'static Record) -> u32 {
    let Some(tcp) = packet.window::<20>(headers.transport) else { return BY_NOBODY };
    let segment = &mut opening.to_backend;
    segment.acknowledges = 0;
    if headers.flags & flags::RST != 0 {
        record.state.fetch_or(state::RST, Relaxed);
        segment.sequence = u32::from_be(tcp.get::<u32, 4>());
        segment.flags = flags::RST;
        segment.window = 0;
        segment.mss = 0;
        return BY_BACKEND;
    }
    let window = u16::from_be(tcp.get::<u16, 14>());
    let bits = record.state.load(Relaxed);
    let after = u32::from(window) << state::WINDOW_SHIFT;
    let window_bits = 0xffff << state::WINDOW_SHIFT;
    if bits & window_bits != after {
        record.state.fetch_and(!window_bits, Relaxed);
        record.state.fetch_or(after, Relaxed);
    }
    let initial = record.initial.load(Relaxed);
    let tuple = record.tuple(Direction::Forth);
    segment.sequence = initial;
    segment.flags = flags::SYN;
    segment.window = window;
    segment.mss =
        cookie::size(&tuple, u32::from(headers.ipv4), initial, record.sequence.load(Relaxed)) as u16;
    if headers.ipv4 && !record.is_ipv4(Direction::Back) {
        // The same packets have a longer header there.
        segment.mss = segment.mss.saturating_sub(LONGER as u16);
    }
    BY_BACKEND
}

/// Who is to hear what of a segment of the backend (RFC 9293 3.10.7.3).
#[inline(never)]
fn from_backend(packet: Skb, headers: &Headers, opening: &mut Opening, record: &'static Record) -> u32 {
    let bits = headers.flags;
    let Some(tcp) = packet.window::<20>(headers.transport) else { return BY_NOBODY };
    if bits & flags::ACK == 0 {
        return BY_NOBODY;
    }
    let cookie = record.sequence.load(Relaxed);
    let next = record.initial.load(Relaxed).wrapping_add(1);
    let first = u32::from_be(tcp.get::<u32, 4>());
    let acknowledges = u32::from_be(tcp.get::<u32, 8>());
    let Opening { to_client, to_backend, .. } = opening;
    to_client.mss = 0;
    to_backend.mss = 0;
    if acknowledges != next {
        if bits & flags::RST != 0 {
            return BY_NOBODY;
        }
        // It remembers another connection: that one ends, and the next SYN begins this one.
        to_backend.sequence = acknowledges;
        to_backend.acknowledges = 0;
        to_backend.flags = flags::RST;
        to_backend.window = 0;
        return BY_BACKEND;
    }
    to_client.sequence = cookie.wrapping_add(1);
    to_client.acknowledges = next;
    if bits & flags::RST != 0 {
        record.state.fetch_or(state::RST, Relaxed);
        to_client.flags = flags::RST | flags::ACK;
        to_client.window = 0;
        return BY_CLIENT;
    }
    if bits & flags::SYN == 0 {
        return BY_NOBODY;
    }
    to_client.flags = flags::ACK;
    to_client.window = u16::from_be(tcp.get::<u16, 14>());
    to_backend.sequence = next;
    to_backend.acknowledges = first.wrapping_add(1);
    to_backend.flags = flags::ACK;
    to_backend.window = (record.state.load(Relaxed) >> state::WINDOW_SHIFT) as u16;
    // Before either of them hears of it: what they then send finds it so.
    record.sequence.store(shift_of(first, cookie), Relaxed);
    record.state.fetch_or(state::SHIFTED | state::SYN_BACK | state::ESTABLISHED, Relaxed);
    record.state.fetch_and(!(state::COOKIE | 0xffff << state::WINDOW_SHIFT), Relaxed);
    BY_BOTH
}

/// Makes the packet a segment of the flow, and finds its way.
#[inline(never)]
fn become_one<const LINK: u32>(
    packet: Skb,
    work: &mut Work,
    opening: &mut Opening,
    record: &'static Record,
    direction: Direction,
) -> u32 {
    if way(packet, opening.index, direction).is_none() {
        return Drop::NoRoute as u32;
    }
    work.new = leaving(record, direction);
    let ipv4 = work.new.source.is_ipv4();
    let segment = if direction == Direction::Forth { &opening.to_backend } else { &opening.to_client };
    if ipv4 != work.headers.ipv4 {
        let kind = if ipv4 { IPV4 } else { IPV6 };
        if !packet.change_family(kind) {
            return Drop::Mangled as u32;
        }
        if LINK != 0 {
            let Some(link) = packet.window::<14>(0) else { return Drop::Mangled as u32 };
            link.set::<u16, 12>(kind);
        }
        work.headers.ipv4 = ipv4;
    }
    work.headers.transport = LINK + if ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    if write::<Skb, LINK>(packet, ipv4, &work.new, segment) { DONE } else { Drop::Mangled as u32 }
}

/// What [`become_one`] answers rather than why not.
const DONE: u32 = u32::MAX;

/// Sends the packet as a segment of the flow, with the client's address if the backend is told it.
#[inline(never)]
fn send<const LINK: u32>(
    packet: Skb,
    work: &mut Work,
    opening: &mut Opening,
    record: &'static Record,
    direction: Direction,
) -> i32 {
    let member = record.member.load(Relaxed);
    match become_one::<LINK>(packet, work, opening, record, direction) {
        DONE => {}
        reason => {
            count::dropped(
                member,
                if reason == Drop::NoRoute as u32 { Drop::NoRoute } else { Drop::Mangled },
            );
            return Skb::DROP;
        }
    }
    if tells(record, direction) && toa::append::<LINK>(packet, work, record) != 0 {
        count::dropped(member, Drop::Mangled);
        return Skb::DROP;
    }
    way::found().map_or(Skb::DROP, |way| packet.send::<LINK>(work.headers.ipv4, way))
}

/// Whether the backend is told the client's address.
#[inline(always)]
fn tells(record: &Record, direction: Direction) -> bool {
    direction == Direction::Forth && record.state.load(Relaxed) & (state::TOA | state::RST) == state::TOA
}

/// The same of a copy; the packet stays. Nothing is sent where the next hop has to be found out first, or where the packet
/// would become one with a link header: who does not hear of it asks again.
#[inline(never)]
fn copy<const LINK: u32>(
    packet: Skb,
    work: &mut Work,
    opening: &mut Opening,
    record: &'static Record,
    direction: Direction,
) {
    if become_one::<LINK>(packet, work, opening, record, direction) != DONE {
        return;
    }
    let Some(way) = way::found() else { return };
    if way.resolve != 0
        || LINK == 0 && way.flags & u32::from(port_flags::ETHERNET) != 0
        || tells(record, direction) && toa::append::<LINK>(packet, work, record) != 0
    {
        return;
    }
    if packet.face::<LINK>(work.headers.ipv4, way) {
        // SAFETY: the context.
        unsafe { bpf_clone_redirect(packet.0, way.interface, 0) };
    }
}
