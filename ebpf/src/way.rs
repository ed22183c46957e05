//! The way out of a packet whose destination has been decided: by which interface, and to which link address.
//!
//! Asking the kernel's routes costs more than all the rest, so the answer is kept in the flow's record, for a second or
//! until the loader says that routes have changed, whichever is first. A route with an MTU of its own below the interface's
//! is not kept, because it has to be compared with every packet.

use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portway_datapath::abi::{Address, Config, Port, Side, TICKS_PER_SECOND, Tuple, port_flags};
use portway_datapath::record::Direction;
use portway_datapath::table::Memory;

use crate::clock::ticks;
use crate::maps::{INTERFACES, PORTS, RECORDS};
use crate::memory::Maps;
use crate::packet::Packet;
use crate::rewrite::swapped;
use crate::skb::Skb;

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
#[repr(C, align(8))]
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

/// A way out by a port of ours, to a next hop whose link address is known.
#[derive(Clone, Copy)]
pub struct Hop {
    /// The port.
    pub port: &'static Port,
    /// The next hop's link address, as [`Way::next`].
    pub next: u64,
}

/// The way that is kept, if it is not old.
#[inline(always)]
pub fn kept(config: &Config, side: &Side, now: u32) -> Option<Hop> {
    let way = side.way.load(Relaxed);
    let asked = side.looked_up.load(Relaxed);
    let age = now.wrapping_sub(asked) & 0xffff;
    if way == 0 || age > TICKS_PER_SECOND || asked >> 16 != config.generation & 0xffff {
        return None;
    }
    let port = PORTS.get((way >> 48) as u32)?;
    (port.interface != 0).then_some(Hop { port, next: way & LINK })
}

/// Asks the kernel whether the way is as it was last, and keeps it then. Whatever is new about it, or cannot be kept, is for
/// [`way`].
#[inline(always)]
pub fn renewed<P: Packet>(
    packet: P,
    config: &Config,
    side: &Side,
    now: u32,
    question: Question,
) -> Option<Hop> {
    let number = (side.way.load(Relaxed) >> 48) as u32;
    let Some(port) = PORTS.get(number) else { return None };
    let Some(route) = ROUTE.get_ptr_mut(0) else { return None };
    let (answer, route) = look_up(packet, question, route);
    if answer != SUCCESS || port.interface != route.interface || u32::from(route.length) < port.mtu {
        return None;
    }
    let next = if port.flags & port_flags::ETHERNET == 0 { 0 } else { word(route.next_link) };
    keep(config, side, now, u64::from(number) << 48 | next);
    Some(Hop { port, next })
}

/// Keeps a way.
#[inline(always)]
fn keep(config: &Config, side: &Side, now: u32, way: u64) {
    side.way.store(way, Relaxed);
    side.looked_up.store((config.generation & 0xffff) << 16 | now & 0xffff, Relaxed);
}

/// One for each processor: what was found last.
#[map(name = "way")]
static WAY: PerCpuArray<Way> = PerCpuArray::with_max_entries(1, 0);

/// The way that was found last.
#[inline(always)]
pub fn found() -> Option<&'static Way> {
    WAY.get(0)
}

/// The way out of a packet of a record's flow: the one that is kept, or the kernel's answer.
#[inline(always)]
pub fn way(packet: Skb, index: u32, direction: Direction) -> Option<&'static Way> {
    if find_way(packet.0, index, u32::from(direction == Direction::Back)) == 0 { None } else { found() }
}

/// The way back to whoever has sent a packet with `tuple`.
#[inline(always)]
pub fn way_back(packet: Skb, tuple: &Tuple) -> Option<&'static Way> {
    if find_way_back(packet.0, tuple) == 0 { None } else { found() }
}

/// [`way`]. Global functions: the verifier follows them once, and not wherever they are called.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_way(context: *mut __sk_buff, index: u32, back: u32) -> u64 {
    let (Some(maps), Some(record), Some(way)) = (Maps::open(), RECORDS.get(index), WAY.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: this processor's; programs of both hooks do not interrupt each other.
    let way: &mut Way = unsafe { &mut *way };
    let (direction, now) = (if back == 0 { Direction::Forth } else { Direction::Back }, ticks());
    let side = record.side(direction);
    if let Some(Hop { port, next }) = kept(maps.config(), side, now) {
        way.interface = port.interface;
        way.mtu = port.mtu;
        way.own = link(port.link);
        way.next = next;
        way.flags = u32::from(port.flags);
        way.resolve = 0;
        return 1;
    }
    let last = (side.way.load(Relaxed) >> 48) as u32;
    // The packet as it will leave is the answer to one that comes the other way.
    let question = Question::of(&record.tuple(direction.other()));
    let Some(port) = answer(Skb(context), question, last, way) else { return 0 };
    let hop = if port == 0 || way.resolve != 0 { 0 } else { u64::from(port) << 48 | way.next };
    keep(maps.config(), side, now, hop);
    1
}

/// [`way_back`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_way_back(context: *mut __sk_buff, tuple: *const Tuple) -> u64 {
    let Some(way) = WAY.get_ptr_mut(0) else { return 0 };
    // SAFETY: this processor's; and the verifier asks every caller for a whole tuple, and here for the comparison with null.
    let (way, Some(tuple)) = (unsafe { &mut *way }, unsafe { tuple.as_ref() }) else { return 0 };
    u64::from(answer(Skb(context), Question::of(tuple), 0, way).is_some())
}

/// The bits of a link address in a word.
pub const LINK: u64 = (1 << 48) - 1;

/// A link address as a word.
#[inline(always)]
pub fn link(bytes: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

/// What a route is asked for: a packet that leaves.
pub struct Question {
    /// Whether it is IPv4.
    pub ipv4: bool,
    /// Its protocol's number.
    pub protocol: u8,
    /// Its ports as they lie in memory.
    pub ports: u32,
    /// Its addresses, the sender's first.
    pub ends: [Address; 2],
}

impl Question {
    /// For what answers `tuple`.
    #[inline(always)]
    fn of(tuple: &Tuple) -> Self {
        Self {
            ipv4: tuple.source.is_ipv4(),
            protocol: tuple.protocol as u8,
            ports: tuple.ports().rotate_left(16),
            ends: [tuple.destination, tuple.source],
        }
    }

    /// Puts it, with the interface that the packet came in by, where the kernel reads it. Word by word, and no word that is
    /// only answered: the compiler would clear memory by a loop over bytes.
    #[inline(always)]
    fn put(self, route: *mut Route, interface: u32) {
        let family = if self.ipv4 { AF_INET } else { AF_INET6 };
        let first = u64::from(family) | u64::from(self.protocol) << 8 | u64::from(self.ports) << 16;
        let [source, destination] = self.ends;
        // SAFETY: fields of this processor's value, of which no reference is held.
        unsafe {
            // Any length: what is wanted is the MTU in the answer.
            route.cast::<u64>().write_volatile(first | ANY_LENGTH << 48);
            (&raw mut (*route).interface).cast::<u64>().write_volatile(u64::from(interface));
            let (from, to) = (&raw mut (*route).source, &raw mut (*route).destination);
            if self.ipv4 {
                from.cast::<u32>().write_volatile(source.last_word());
                to.cast::<u32>().write_volatile(destination.last_word());
            } else {
                from.cast::<u64>().write_volatile(source.high);
                from.cast::<u64>().add(1).write_volatile(source.low);
                to.cast::<u64>().write_volatile(destination.high);
                to.cast::<u64>().add(1).write_volatile(destination.low);
            }
        }
    }
}

/// See [`Question::put`].
const ANY_LENGTH: u64 = 1;

/// One for each processor: the stack is for what every packet needs.
#[map(name = "route")]
static ROUTE: PerCpuArray<Route> = PerCpuArray::with_max_entries(1, 0);

/// Asks the kernel, in the only value of `route`. Its place is the caller's to find, at once and by itself: an answer that may
/// be missing would be tested together with what follows, in a register that has nothing then, which Linux before 6.14
/// refuses (it does not know that the place is always there).
#[inline(always)]
fn look_up<P: Packet>(packet: P, question: Question, route: *mut Route) -> (i64, &'static Route) {
    question.put(route, packet.interface());
    // SAFETY: this processor's, as [`WAY`]; the context, and a structure of the size that is said.
    unsafe {
        let answer = bpf_fib_lookup(packet.context(), route.cast(), size_of::<Route>() as i32, 0);
        (answer, &*route)
    }
}

/// Whether the kernel would deliver a packet with `tuple` to this host, or has no route for it at all.
#[inline(never)]
pub fn is_local<P: Packet>(packet: P, tuple: &Tuple) -> bool {
    /// `BPF_FIB_LKUP_RET_NOT_FWDED`.
    const NOT_FORWARDED: i64 = 4;
    let Some(route) = ROUTE.get_ptr_mut(0) else { return false };
    look_up(packet, Question::of(&swapped(tuple)), route).0 == NOT_FORWARDED
}

/// The kernel's answer: the number of the route's port, 0 if it is not one that can be kept.
/// `last` is the number of the port that it had when it was asked last, and mostly has still.
#[inline(always)]
fn answer(packet: Skb, question: Question, last: u32, way: &mut Way) -> Option<u32> {
    let Some(route) = ROUTE.get_ptr_mut(0) else { return None };
    let (answer, route) = look_up(packet, question, route);
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

/// Three half words as one.
#[inline(always)]
fn word([a, b, c]: [u16; 3]) -> u64 {
    u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32
}
