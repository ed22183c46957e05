//! What the packet path does at XDP: whole packets of flows that are there, to a known hop, by an interface that takes
//! frames. Everything else goes up untouched, to the TC program of the same interface.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::bpf_redirect;
use core::sync::atomic::Ordering::Relaxed;
use portway_datapath::abi::{Port, Record, port_flags};
use portway_datapath::record::Direction;

use crate::carry::{BEGINS, Hook, carry};
use crate::flood;
use crate::maps::{INTERFACES, PORTS};
use crate::packet::Packet;
use crate::parse::Headers;
use crate::way::Way;
use crate::xdp::Xdp;

/// The entry of the program.
#[inline(always)]
pub fn enter<const LINK: u32>(packet: Xdp) -> i32 {
    match step::<LINK>(packet) {
        BEGINS => flood::begins::<LINK>(packet),
        BEGINS.. => Xdp::PASS,
        verdict => verdict,
    }
}

/// In a frame of its own, so that what follows has the stack to itself.
#[inline(never)]
fn step<const LINK: u32>(packet: Xdp) -> i32 {
    carry::<Xdp, LINK, false>(packet)
}

/// The port that the packet came in by, if it is one.
#[inline(always)]
pub fn port(packet: Xdp) -> Option<&'static Port> {
    // SAFETY: the map's value.
    let number = unsafe { *INTERFACES.get_ptr(&packet.interface())? };
    PORTS.get(number).filter(|port| port.interface == packet.interface())
}

/// [`Hook::is_for_host`] where the answers do not leave by the port that the packet came in by.
#[inline(never)]
fn is_for_port(packet: Xdp) -> bool {
    port(packet).is_some_and(|port| packet.is_to(port))
}

impl Xdp {
    /// Whether the frame is for the port's link address.
    #[inline(always)]
    pub fn is_to(self, port: &Port) -> bool {
        let [a, b, c, d, e, f] = port.link;
        self.window::<14>(0).is_some_and(|link| {
            link.get::<u32, 0>() == u32::from_ne_bytes([a, b, c, d])
                && link.get::<u16, 4>() == u16::from_ne_bytes([e, f])
        })
    }
}

impl Hook for Xdp {
    /// An interface that listens to everything, or is on a switch that floods, gets frames for other hosts too. The kernel
    /// has not looked yet. The port is mostly that of the way back, which the record has; so no other map is asked.
    #[inline(always)]
    fn is_for_host(self, record: &Record, direction: Direction) -> bool {
        let back = match direction {
            Direction::Forth => &record.back,
            Direction::Back => &record.forth,
        };
        match PORTS.get((back.load(Relaxed) >> 48) as u32) {
            Some(port) if port.interface == self.interface() => self.is_to(port),
            _ => is_for_port(self),
        }
    }

    #[inline(always)]
    fn largest(self, headers: &Headers) -> u32 {
        headers.length
    }

    #[inline(always)]
    fn can_send(self, way: &Way) -> bool {
        way.resolve == 0 && way.flags & u32::from(port_flags::XDP) != 0
    }

    #[inline(always)]
    fn send<const LINK: u32>(self, _headers: &Headers, way: &Way) -> i32 {
        let Some(link) = self.window::<14>(0) else { return Self::DROP };
        link.set::<u32, 0>(way.next as u32);
        link.set::<u16, 4>((way.next >> 32) as u16);
        link.set::<u16, 6>(way.own as u16);
        link.set::<u32, 8>((way.own >> 16) as u32);
        if way.flags & u32::from(port_flags::XDP_TX) != 0 && way.interface == self.interface() {
            return xdp_action::XDP_TX as i32;
        }
        // SAFETY: no pointers.
        unsafe { bpf_redirect(way.interface, 0) as i32 }
    }
}
