//! What the packet path does at XDP: whole packets of flows that are there, to a known hop, by an interface that takes
//! frames. Everything else goes up untouched, to the TC program of the same interface.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::bpf_redirect;
use core::sync::atomic::Ordering::Relaxed;
use portway_datapath::abi::{Port, Record, Side, port_flags};
use portway_datapath::record::Direction;

use crate::carry::{BEGINS, Hook, carry};
use crate::flood;
use crate::header::Header;
use crate::maps::{INTERFACES, PORTS};
use crate::packet::Packet;
use crate::replace;
use crate::way::{Hop, LINK, link};
use crate::xdp::Xdp;

/// The entry of the program.
#[inline(always)]
pub fn enter<const LINK: u32>(packet: Xdp) -> i32 {
    match carry::<Xdp, LINK>(packet) {
        BEGINS => flood::begins::<LINK>(packet),
        BEGINS.. => Xdp::PASS,
        verdict => verdict,
    }
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
        self.window::<14>(0).is_some_and(|header| header.get::<u64, 0>() & LINK == link(port.link))
    }
}

impl Hook for Xdp {
    /// An interface that listens to everything, or is on a switch that floods, gets frames for other hosts too. The kernel
    /// has not looked yet. The port is mostly that of the way back, which the record has; so no other map is asked.
    #[inline(always)]
    fn is_for_host(self, answers: &Side) -> bool {
        match PORTS.get((answers.way.load(Relaxed) >> 48) as u32) {
            Some(port) if port.interface == self.interface() => self.is_to(port),
            _ => is_for_port(self),
        }
    }

    #[inline(always)]
    fn largest<const LINK: u32>(self, _transport: u32, length: u32, _protocol: u8) -> u32 {
        length
    }

    #[inline(always)]
    fn can_send(self, port: &Port) -> bool {
        port.flags & port_flags::XDP != 0
    }

    #[inline(always)]
    fn replace<H: Header, const LINK: u32>(self, header: H, record: &Record, direction: Direction) -> bool {
        replace::replace::<Self, H, LINK>(self, header, record, direction)
    }

    #[inline(always)]
    fn forward<const LINK: u32>(self, _ipv4: bool, Hop { port, next }: Hop) -> i32 {
        let Some(header) = self.window::<14>(0) else { return Self::DROP };
        let own = link(port.link);
        header.set::<u64, 0>(next | own << 48);
        header.set::<u32, 8>((own >> 16) as u32);
        if port.flags & port_flags::XDP_TX != 0 && port.interface == self.interface() {
            return xdp_action::XDP_TX as i32;
        }
        // SAFETY: no pointers.
        unsafe { bpf_redirect(port.interface, 0) as i32 }
    }
}
