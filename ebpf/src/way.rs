//! The way out of a packet whose destination has been decided: by which interface, and to which link address.
//!
//! Asking the kernel's routes costs more than all the rest, so the answer is kept in the flow's record, for a second or
//! until the loader says that routes have changed, whichever is first. A route with an MTU of its own below the interface's
//! is not kept, because it has to be compared with every packet.

use core::mem::zeroed;
use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::helpers::generated::bpf_fib_lookup;
use portway_datapath::abi::{Config, Record, TICKS_PER_SECOND, Tuple, port_flags};
use portway_datapath::record::Direction;

use crate::carry::swapped;
use crate::maps::{INTERFACES, PORTS};
use crate::packet::Packet;

/// The answers of `bpf_fib_lookup` (`include/uapi/linux/bpf.h`).
const SUCCESS: i64 = 0;
/// See [`SUCCESS`].
const NO_NEIGHBOUR: i64 = 7;
/// See [`SUCCESS`].
const FRAGMENTATION_NEEDED: i64 = 8;

/// The families, as sockets have them.
pub const AF_INET: u8 = 2;
/// See [`AF_INET`].
pub const AF_INET6: u8 = 10;

/// `struct bpf_fib_lookup`: the question, and in the same words the answer.
#[repr(C)]
#[derive(Clone, Copy)]
struct Route {
    family: u8,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    /// The length of the packet; the answer's MTU.
    length: u16,
    interface: u32,
    class: u32,
    source: [u32; 4],
    destination: [u32; 4],
    vlan: u32,
    own_link: [u16; 3],
    next_link: [u16; 3],
}

/// A way out.
#[derive(Clone, Copy)]
pub struct Way {
    /// The interface's index; 0: none.
    pub interface: u32,
    /// The largest IP packet that it takes.
    pub mtu: u32,
    /// Our link address, in the low 48 bits (memory order).
    pub own: u64,
    /// The next hop's, likewise.
    pub next: u64,
    /// [`port_flags`] of the port; 0 of an interface that is none.
    pub flags: u32,
    /// The next hop's family and address, if its link address is not known.
    pub resolve: u32,
    /// See [`Self::resolve`].
    pub hop: [u32; 4],
}

impl Way {
    /// None yet.
    #[inline(always)]
    pub const fn new() -> Self {
        Self { interface: 0, mtu: 0, own: 0, next: 0, flags: 0, resolve: 0, hop: [0; 4] }
    }
}

/// Finds the way out of a flow's packet.
#[inline(always)]
pub fn way<P: Packet>(
    packet: P,
    config: &Config,
    record: &'static Record,
    direction: Direction,
    now: u32,
    way: &mut Way,
) -> bool {
    let (kept, asked) = match direction {
        Direction::Forth => (&record.forth, &record.forth_looked_up),
        Direction::Back => (&record.back, &record.back_looked_up),
    };
    let hop = kept.load(Relaxed);
    let asked = asked.load(Relaxed);
    let age = now.wrapping_sub(asked) & 0xffff;
    if hop != 0 && age <= TICKS_PER_SECOND && (asked >> 16) == config.generation & 0xffff {
        if let Some(port) = PORTS.get((hop >> 48) as u32) {
            way.interface = port.interface;
            way.mtu = port.mtu;
            way.own = link(port.link);
            way.next = hop & LINK;
            way.flags = u32::from(port.flags);
            way.resolve = 0;
            if port.interface != 0 {
                return true;
            }
        }
    }
    let stamp = (config.generation & 0xffff) << 16 | now & 0xffff;
    match direction {
        Direction::Forth => ask_forth(packet, record, stamp, way),
        Direction::Back => ask_back(packet, record, stamp, way),
    }
}

/// The bits of a link address in a word.
const LINK: u64 = (1 << 48) - 1;

/// A link address as a word.
#[inline(always)]
fn link(bytes: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

#[inline(never)]
fn ask_forth<P: Packet>(packet: P, record: &'static Record, stamp: u32, way: &mut Way) -> bool {
    ask(packet, record, Direction::Forth, stamp, way)
}

#[inline(never)]
fn ask_back<P: Packet>(packet: P, record: &'static Record, stamp: u32, way: &mut Way) -> bool {
    ask(packet, record, Direction::Back, stamp, way)
}

/// Asks the kernel, and keeps the answer.
#[inline(always)]
fn ask<P: Packet>(
    packet: P,
    record: &'static Record,
    direction: Direction,
    stamp: u32,
    way: &mut Way,
) -> bool {
    // The packet as it will leave is the answer to one that comes the other way.
    let other = match direction {
        Direction::Forth => Direction::Back,
        Direction::Back => Direction::Forth,
    };
    let tuple = record.tuple(other);
    let (kept, asked) = match direction {
        Direction::Forth => (&record.forth, &record.forth_looked_up),
        Direction::Back => (&record.back, &record.back_looked_up),
    };
    let last = (kept.load(Relaxed) >> 48) as u32;
    let Some(port) = route(packet, &tuple, last, way) else { return false };
    let hop = if port == 0 || way.resolve != 0 { 0 } else { u64::from(port) << 48 | way.next };
    kept.store(hop, Relaxed);
    asked.store(stamp, Relaxed);
    true
}

/// The question for the route of what answers `tuple`.
#[inline(always)]
fn question<P: Packet>(packet: P, tuple: &Tuple) -> Route {
    // SAFETY: a structure of integers.
    let mut route: Route = unsafe { zeroed() };
    let ipv4 = tuple.source.is_ipv4();
    if ipv4 {
        route.family = AF_INET;
        route.source[0] = tuple.destination.last_word();
        route.destination[0] = tuple.source.last_word();
    } else {
        route.family = AF_INET6;
        route.source = words(tuple.destination);
        route.destination = words(tuple.source);
    }
    route.protocol = tuple.protocol as u8;
    route.source_port = tuple.destination_port;
    route.destination_port = tuple.source_port;
    // Any length: what is wanted is the MTU in the answer.
    route.length = 1;
    route.interface = packet.interface();
    route
}

/// Whether the kernel would deliver a packet with `tuple` to this host, or has no route for it at all.
#[inline(never)]
pub fn is_local<P: Packet>(packet: P, tuple: &Tuple) -> bool {
    /// `BPF_FIB_LKUP_RET_NOT_FWDED`.
    const NOT_FORWARDED: i64 = 4;
    let mut route = question(packet, &swapped(tuple));
    // SAFETY: the context, and a structure of the size that is said.
    let answer =
        unsafe { bpf_fib_lookup(packet.context(), (&raw mut route).cast(), size_of::<Route>() as i32, 0) };
    answer == NOT_FORWARDED
}

/// Asks the kernel for the route of what answers `tuple`: the number of its port, 0 if it is not one that can be kept.
/// `last` is the number of the port that it had when it was asked last, and mostly has still.
#[inline(always)]
pub fn route<P: Packet>(packet: P, tuple: &Tuple, last: u32, way: &mut Way) -> Option<u32> {
    let mut route = question(packet, tuple);
    // SAFETY: the context, and a structure of the size that is said.
    let answer =
        unsafe { bpf_fib_lookup(packet.context(), (&raw mut route).cast(), size_of::<Route>() as i32, 0) };
    if answer != SUCCESS && answer != NO_NEIGHBOUR && answer != FRAGMENTATION_NEEDED {
        return None;
    }
    way.interface = route.interface;
    way.mtu = u32::from(route.length);
    way.flags = 0;
    way.own = word(route.own_link);
    way.next = word(route.next_link);
    way.resolve = 0;
    let mut number = last;
    if PORTS.get(last).is_none_or(|port| port.interface != route.interface) {
        // SAFETY: the map's value.
        number = INTERFACES.get_ptr(&route.interface).map_or(0, |number| unsafe { *number });
    }
    match PORTS.get(number) {
        Some(port) if port.interface == route.interface => {
            way.flags = u32::from(port.flags);
            way.own = link(port.link);
            if answer == NO_NEIGHBOUR {
                // The kernel does not say it then.
                way.mtu = port.mtu;
            }
            if way.mtu < port.mtu {
                number = 0;
            }
            if port.flags & port_flags::ETHERNET == 0 {
                way.next = 0;
                return Some(number);
            }
        }
        _ => {
            // Nothing is known of it but to the kernel.
            number = 0;
            way.resolve = u32::from(route.family);
        }
    }
    if answer == NO_NEIGHBOUR {
        way.resolve = u32::from(route.family);
        if number == 0 {
            way.mtu = 0xffff;
        }
    }
    way.hop = route.destination;
    Some(number)
}

/// An address as four words.
#[inline(always)]
pub fn words(address: portway_datapath::abi::Address) -> [u32; 4] {
    [address.high as u32, (address.high >> 32) as u32, address.low as u32, (address.low >> 32) as u32]
}

/// Three half words as one.
#[inline(always)]
fn word([a, b, c]: [u16; 3]) -> u64 {
    u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32
}
