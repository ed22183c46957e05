//! What the packet path does at XDP: whole packets of flows that are there, to a known hop, by an interface that takes
//! frames. Everything else goes up untouched, to the TC program of the same interface.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::bpf_redirect;
use portway_datapath::abi::port_flags;

use crate::carry::{BEGINS, Hook, carry};
use crate::flood;
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

impl Hook for Xdp {
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
