//! Which listener, if any, a packet that begins a flow is for.
//!
//! A listener for the address wins over one for the interface, and that over one for any address; at each of them a port
//! wins over a range. Listeners for an interface or any address take only what is addressed to this host, so that they
//! never take what passes through it.

use portway_datapath::abi::{Address, Config, Listener, ListenerKey, RANGE_PREFIX, Tuple, config_flags};

use crate::maps::{LISTENERS, LOCALS, RANGES, RangeBits, RangeKey};
use crate::packet::Packet;
use crate::way::is_local;

/// The listener of a packet with this tuple.
#[inline(never)]
pub fn listener<P: Packet>(packet: P, tuple: &Tuple, config: &Config) -> Option<&'static Listener> {
    let flags = config.flags;
    if let Some(found) = at(tuple, tuple.destination, 0, flags) {
        return Some(found);
    }
    if flags & config_flags::WIDE == 0 {
        return None;
    }
    let any = if tuple.destination.is_ipv4() { Address::ipv4(0) } else { Address { high: 0, low: 0 } };
    let found = at(tuple, any, packet.interface(), flags).or_else(|| at(tuple, any, 0, flags))?;
    // The map has the interfaces' addresses and is quicker; the kernel's routes have those that are local only by a route,
    // and those that have come this moment.
    (LOCALS.get_ptr(&tuple.destination).is_some() || is_local(packet, tuple)).then_some(found)
}

/// The listener of one scope.
#[inline(always)]
fn at(tuple: &Tuple, address: Address, interface: u32, flags: u32) -> Option<&'static Listener> {
    let key = ListenerKey {
        address,
        interface,
        port: tuple.destination_port,
        protocol: tuple.protocol as u8,
        reserved: 0,
    };
    // SAFETY: the map's value, which the loader replaces as a whole.
    if let Some(found) = LISTENERS.get_ptr(&key).and_then(|found| unsafe { found.as_ref() }) {
        return Some(found);
    }
    if flags & config_flags::RANGES == 0 {
        return None;
    }
    let bits = RangeBits {
        protocol: tuple.protocol,
        interface,
        address: address.words(),
        port: tuple.destination_port,
        reserved: 0,
    };
    RANGES.get(RangeKey::new(RANGE_PREFIX + 16, bits))
}
