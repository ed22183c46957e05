//! What the packet path does at TC: everything.

use aya_ebpf::bindings::bpf_redir_neigh;
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh};
use portway_datapath::abi::{Drop, Record, port_flags};

use crate::admit;
use crate::carry::{Hook, carry};
use crate::count;
use crate::listen::listener;
use crate::maps::RECORDS;
use crate::memory::Maps;
use crate::packet::Packet;
use crate::parse::{Headers, IPV4, IPV6};
use crate::skb::Skb;
use crate::way::Way;
use portway_datapath::table::Memory;

/// The bytes that headers without options and extensions may have, and some more.
const REACH: u32 = 80;

/// The entry of both programs.
#[inline(always)]
pub fn enter<const LINK: u32>(packet: Skb) -> i32 {
    if !packet.is_for_host() {
        return Skb::PASS;
    }
    packet.reach(LINK + REACH);
    carry::<Skb, LINK>(packet)
}

impl Hook for Skb {
    #[inline(always)]
    fn first<const LINK: u32>(
        self,
        maps: Maps,
        headers: &Headers,
        former: Option<u32>,
        now: u32,
    ) -> Result<&'static Record, i32> {
        let Some(listener) = listener(&headers.tuple, self.interface(), maps.config()) else {
            return Err(Skb::PASS);
        };
        match admit::admit(self, headers, listener, former.map_or(0, |index| index.wrapping_add(1)), now) {
            admit::PASS => Err(Skb::PASS),
            admit::DROP => Err(Skb::DROP),
            record => RECORDS.get((record - admit::RECORD) as u32).ok_or(Skb::DROP),
        }
    }

    #[inline(always)]
    fn special<const LINK: u32>(self, _maps: Maps, _headers: &mut Headers, _now: u32) -> i32 {
        Skb::PASS
    }

    #[inline(always)]
    fn largest(self, headers: &Headers) -> u32 {
        match self.segment() {
            0 => headers.length,
            segment => headers.before_payload + segment,
        }
    }

    #[inline(always)]
    fn too_large<const LINK: u32>(self, _headers: &Headers, record: &'static Record, _mtu: u32) -> i32 {
        count::dropped(record.rule.load(core::sync::atomic::Ordering::Relaxed), Drop::TooBig);
        Skb::DROP
    }

    #[inline(always)]
    fn too_old<const LINK: u32>(self, _headers: &Headers, record: &'static Record) -> i32 {
        count::dropped(record.rule.load(core::sync::atomic::Ordering::Relaxed), Drop::Expired);
        Skb::DROP
    }

    #[inline(always)]
    fn can_send(self, _way: &Way) -> bool {
        true
    }

    #[inline(always)]
    fn send<const LINK: u32>(self, headers: &Headers, way: &Way) -> i32 {
        if way.resolve != 0 {
            return resolve(way);
        }
        if way.flags & u32::from(port_flags::ETHERNET) != 0 {
            if LINK == 0 && !self.grow_head(14) {
                return Skb::DROP;
            }
            let Some(link) = self.window::<14>(0) else { return Skb::DROP };
            link.set::<u32, 0>(way.next as u32);
            link.set::<u16, 4>((way.next >> 32) as u16);
            link.set::<u16, 6>(way.own as u16);
            link.set::<u32, 8>((way.own >> 16) as u32);
            if LINK == 0 {
                link.set::<u16, 12>(if headers.ipv4 { IPV4 } else { IPV6 });
            }
        }
        // SAFETY: no pointers.
        unsafe { bpf_redirect(way.interface, 0) as i32 }
    }
}

/// Leaves it to the kernel to find out the next hop's link address.
#[inline(never)]
fn resolve(way: &Way) -> i32 {
    // SAFETY: a structure of integers.
    let mut hop: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    hop.nh_family = way.resolve;
    hop.__bindgen_anon_1.ipv6_nh = way.hop;
    // SAFETY: a structure of the size that is said.
    unsafe { bpf_redirect_neigh(way.interface, &raw mut hop, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}
