//! SYN cookies at XDP: what a flood costs is decided here, before the kernel has made a buffer of the packet.
//!
//! Only SYNs above the rule's rate are answered here; the others go up to TC, which counts them. The answer goes back to the
//! link address that it came from: no route is asked, for every sender of a flood has another address.
//!
//! Deliberately absent: what comes back, which begins a flow, at TC.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portway_datapath::abi::{config_flags, port_flags, rule_flags};
use portway_datapath::table::Memory;
use portway_datapath::tcp;

use crate::answer::{Shape, write};
use crate::cookie::segment;
use crate::fast::port;
use crate::listen::listener;
use crate::maps::RULES;
use crate::memory::{self, Maps};
use crate::packet::Packet;
use crate::parse::{Headers, Parsed, parse};
use crate::rewrite::swapped;
use crate::xdp::Xdp;
use crate::{count, rate};

impl Shape for Xdp {
    #[inline(always)]
    fn shape(self, _link: u32, length: u32) -> bool {
        // SAFETY: the context.
        unsafe {
            bpf_xdp_adjust_tail(self.0, length.wrapping_sub(bpf_xdp_get_buff_len(self.0) as u32) as i32) == 0
        }
    }
}

/// A packet that may begin a flow: answered if it is a SYN above the rule's rate.
#[inline(always)]
pub fn begins<const LINK: u32>(packet: Xdp) -> i32 {
    match Maps::open() {
        Some(maps) if maps.config().flags & config_flags::COOKIES != 0 => answer::<LINK>(packet),
        _ => Xdp::PASS,
    }
}

/// One for each processor: too large for the stack, beside what the path of every packet has there.
#[map(name = "flooded")]
static HEADERS: PerCpuArray<Headers> = PerCpuArray::with_max_entries(1, 0);

#[inline(never)]
fn answer<const LINK: u32>(packet: Xdp) -> i32 {
    let Some(headers) = HEADERS.get_ptr_mut(0) else { return Xdp::PASS };
    // SAFETY: this processor's; programs of both hooks do not interrupt each other.
    let headers: &mut Headers = unsafe { &mut *headers };
    if !matches!(parse::<Xdp, LINK>(packet, headers), Parsed::Plain)
        || !headers.tcp
        || !tcp::begins(headers.flags)
    {
        return Xdp::PASS;
    }
    let Some(rule) = flooded(packet, headers) else { return Xdp::PASS };
    let sends = port_flags::XDP | port_flags::XDP_TX;
    let Some(port) = port(packet).filter(|port| port.flags & sends != 0) else { return Xdp::PASS };
    let Some(segment) = segment::<Xdp, LINK>(packet, headers) else { return Xdp::PASS };
    headers.tuple = swapped(&headers.tuple);
    let Some(link) = packet.window::<14>(0) else { return Xdp::PASS };
    let (first, last, own) = (link.get::<u32, 6>(), link.get::<u16, 10>(), port.link);
    if !packet.is_to(port) {
        return Xdp::PASS;
    }
    if !write::<Xdp, LINK>(packet, headers.ipv4, &headers.tuple, &segment) {
        return Xdp::DROP;
    }
    let Some(link) = packet.window::<14>(0) else { return Xdp::DROP };
    link.set::<u32, 0>(first);
    link.set::<u16, 4>(last);
    link.set::<u32, 6>(u32::from_ne_bytes([own[0], own[1], own[2], own[3]]));
    link.set::<u16, 10>(u16::from_ne_bytes([own[4], own[5]]));
    rate::count(rule, rate::Of::Syns);
    rate::cookie_sent(rule);
    count::cookie(rule);
    if port.flags & port_flags::XDP_TX != 0 {
        return xdp_action::XDP_TX as i32;
    }
    // SAFETY: no pointers.
    unsafe { bpf_redirect(port.interface, 0) as i32 }
}

/// The rule that a SYN is for, if it is above its rate and nothing is known of the client.
#[inline(never)]
fn flooded(packet: Xdp, headers: &Headers) -> Option<u32> {
    let maps = Maps::open()?;
    let id = listener(packet, &headers.tuple, maps.config())?.rule;
    // SAFETY: the map's value, which the loader replaces as a whole.
    let rule = unsafe { &*RULES.get_ptr(&id)? };
    if rule.flags & rule_flags::COOKIES == 0
        || rule.slots == 0
        || rate::syns(id) < rule.cookies_above
        || memory::find(&headers.tuple).is_some()
    {
        return None;
    }
    Some(id)
}
