//! What the packet path does at XDP: whole packets of flows that are there, to a known hop, by an interface that takes
//! frames. Everything else goes up untouched, to the TC program of the same interface.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::bpf_redirect;
use portway_datapath::abi::{Record, port_flags};

use crate::carry::Hook;
use crate::memory::Maps;
use crate::packet::Packet;
use crate::parse::Headers;
use crate::way::Way;
use crate::xdp::Xdp;

impl Hook for Xdp {
    #[inline(always)]
    fn first<const LINK: u32>(
        self,
        _maps: Maps,
        _headers: &Headers,
        _former: Option<u32>,
        _now: u32,
    ) -> Result<&'static Record, i32> {
        Err(Self::PASS)
    }

    #[inline(always)]
    fn special<const LINK: u32>(self, _maps: Maps, _headers: &mut Headers, _now: u32) -> i32 {
        Self::PASS
    }

    #[inline(always)]
    fn largest(self, headers: &Headers) -> u32 {
        headers.length
    }

    #[inline(always)]
    fn too_large<const LINK: u32>(self, _headers: &Headers, _record: &'static Record, _mtu: u32) -> i32 {
        Self::PASS
    }

    #[inline(always)]
    fn too_old<const LINK: u32>(self, _headers: &Headers, _record: &'static Record) -> i32 {
        Self::PASS
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
