//! The path of every packet.
//!
//! Deliberately absent: everything that only some packets need (each in a file of its own, and most of it at TC only).

use core::sync::atomic::Ordering::Relaxed;

use portway_datapath::abi::{Drop, Port, Record, Side, Tuple, config_flags, state};
use portway_datapath::cookie;
use portway_datapath::record::Direction;
use portway_datapath::table::{self, Memory};
use portway_datapath::tcp;

use crate::clock::ticks;
use crate::count;
use crate::header::{Arriving, Header, Ipv4, Ipv6, is_whole};
use crate::memory::Maps;
use crate::packet::Packet;
use crate::parse::{Headers, TCP, family};
use crate::rewrite::swapped;
use crate::way::{Hop, Question, kept, renewed};

/// What differs between the hooks beyond access to bytes.
pub trait Hook: Packet {
    /// The largest IP packet that this will be on the way: it has `length` bytes, and the transport's header begins at
    /// `transport`, link header included.
    fn largest<const LINK: u32>(self, transport: u32, length: u32, protocol: u8) -> u32;

    /// Whether a packet of a flow has come to this host's link address; `answers` is the other direction.
    fn is_for_host(self, answers: &Side) -> bool;

    /// Whether it can send by a port.
    fn can_send(self, port: &Port) -> bool;

    /// Makes the packet what leaves.
    fn replace<H: Header, const LINK: u32>(self, header: H, record: &Record, direction: Direction) -> bool;

    /// Sends it to a next hop; it is of this family.
    fn forward<const LINK: u32>(self, ipv4: bool, hop: Hop) -> i32;
}

/// What [`carry`] answers, beside a verdict of the hook, where something else is to be done than carry the packet: it may
/// begin a flow.
pub const BEGINS: i32 = 1000;
/// It may be about a flow, but needs another look ([`crate::careful`]), or more than other addresses and ports.
pub const CAREFUL: i32 = 1001;

/// What becomes of a packet that begins with `LINK` bytes of link header, if it is as nearly all are.
#[inline(always)]
pub fn carry<P: Hook, const LINK: u32>(packet: P) -> i32 {
    match family::<P, LINK>(packet) {
        Some(true) => plain::<P, Ipv4, LINK>(packet),
        Some(false) => plain_ipv6::<P, LINK>(packet),
        None => P::PASS,
    }
}

/// Flows whose packets need more than other addresses and ports, or are not ours any more.
const NOT_PLAIN: u32 = state::ENDED | state::COOKIE | state::SHIFTED | state::TOA;

/// In a frame of its own: what follows the packets that are not carried here needs nearly all of the stack.
#[inline(never)]
fn plain_ipv6<P: Hook, const LINK: u32>(packet: P) -> i32 {
    plain::<P, Ipv6, LINK>(packet)
}

/// What becomes of a packet of one family.
#[inline(always)]
fn plain<P: Hook, H: Header, const LINK: u32>(packet: P) -> i32 {
    let Some(maps) = Maps::open() else { return P::PASS };
    let Some(header) = H::of(packet, LINK) else { return CAREFUL };
    if !is_whole::<P, H>(packet, LINK, header.protocol(), header.length()) {
        return CAREFUL;
    }
    let Some(found) = table::lookup(&maps, &Arriving(header)) else {
        let flags = if header.protocol() == TCP { Some(flags::<P, H, LINK>(packet)) } else { None };
        return if may_begin(&maps, flags) { BEGINS } else { P::PASS };
    };
    let (record, direction) = (forever(found.record), found.direction);
    let now = ticks();
    let bits = record.state.load(Relaxed);
    let fresh = record.seen.load(Relaxed) == now;
    if bits & NOT_PLAIN != 0 || header.lives() <= 1 || !fresh && record.is_expired(maps.config(), now) {
        return CAREFUL;
    }
    if record.is_ipv4(direction.other()) != H::IPV4 {
        return CAREFUL;
    }
    let side = record.side(direction);
    let hop = kept(maps.config(), side, now).or_else(|| {
        let question = Question {
            ipv4: H::IPV4,
            protocol: header.protocol(),
            ports: record.side(direction.other()).ports_of_answer(),
            ends: H::ends(H::leaving(record, direction)),
        };
        renewed(packet, maps.config(), side, now, question)
    });
    let Some(hop) = hop else { return CAREFUL };
    let largest = packet.largest::<LINK>(LINK + H::LENGTH, header.length(), header.protocol());
    let answers = record.side(direction.other());
    if largest > hop.port.mtu || !packet.can_send(hop.port) || !packet.is_for_host(answers) {
        return CAREFUL;
    }
    let after = if header.protocol() == TCP {
        let flags = flags::<P, H, LINK>(packet);
        if flags & tcp::flags::SYN != 0 && tcp::is_over(bits) {
            return CAREFUL;
        }
        tcp::follow(bits, flags, direction)
    } else {
        answered(bits, direction)
    };
    note(record, bits, after, now);
    count::carried(record.member.load(Relaxed), direction, header.length());
    if !packet.replace::<H, LINK>(header, record, direction) {
        return mangled::<P, H, LINK>(packet, record);
    }
    packet.forward::<LINK>(H::IPV4, hop)
}

/// The kernel would not change a packet, which is counted as carried: to know before would cost every packet a register more
/// than there is. Its ports have been changed already, and say which way it goes.
#[inline(never)]
fn mangled<P: Hook, H: Header, const LINK: u32>(packet: P, record: &'static Record) -> i32 {
    if let Some(header) = H::of(packet, LINK) {
        let forth = header.ports() == record.side(Direction::Back).ports_of_answer();
        let direction = if forth { Direction::Forth } else { Direction::Back };
        count::not_carried(record.member.load(Relaxed), direction, header.length());
    }
    count::dropped(record.member.load(Relaxed), Drop::Mangled);
    P::DROP
}

/// The flags of TCP.
#[inline(always)]
fn flags<P: Packet, H: Header, const LINK: u32>(packet: P) -> u8 {
    packet.window::<20>(LINK + H::LENGTH).map_or(0, |tcp| tcp.get::<u8, 13>())
}

/// Whether what belongs to no flow may begin one; of TCP, its flags.
#[inline(always)]
pub fn may_begin(maps: &Maps, tcp: Option<u8>) -> bool {
    let Some(flags) = tcp else { return true };
    tcp::begins(flags) || maps.config().flags & config_flags::COOKIES != 0 && cookie::may_return(flags)
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

/// The tuple of a flow's packets as they leave: what answers those that come the other way.
#[inline(always)]
pub fn leaving(record: &Record, direction: Direction) -> Tuple {
    swapped(&record.tuple(direction.other()))
}

/// The state of UDP after a packet.
#[inline(always)]
pub const fn answered(bits: u32, direction: Direction) -> u32 {
    match direction {
        Direction::Forth => bits,
        Direction::Back => bits | state::ANSWERED,
    }
}

/// Notes in the record that a packet has passed, and that its state has gone from `bits` to `after`.
#[inline(always)]
pub fn note(record: &Record, bits: u32, after: u32, now: u32) {
    if record.seen.load(Relaxed) != now {
        record.seen.store(now, Relaxed);
    }
    if after != bits {
        if bits & !after != 0 {
            record.state.fetch_and(!(bits & !after), Relaxed);
        }
        if after & !bits != 0 {
            record.state.fetch_or(after & !bits, Relaxed);
        }
    }
}
