//! What the packet path does at TC: everything.

use aya_ebpf::bindings::bpf_redir_neigh;
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh};
use core::sync::atomic::Ordering::Relaxed;
use portway_datapath::abi::{Drop, Record, port_flags};
use portway_datapath::record::Direction;
use portway_datapath::table::Memory;
use portway_datapath::tcp::flags;

use crate::admit::{BEGUN, COOKIE, REFUSED, begin};
use crate::answer::{Segment, answer};
use crate::careful::careful;
use crate::carry::{BEGINS, CAREFUL, Hook, OPENS, SHORT, SPECIAL, TOO_LARGE, TOO_OLD, carry, leaving, ticks};
use crate::fragment::later;
use crate::icmp::error;
use crate::memory::{self, Maps};
use crate::packet::Packet;
use crate::parse::{Headers, IPV4, IPV6, Parsed, parse};
use crate::skb::Skb;
use crate::tell::{EXPIRED, NO_PORT, TOO_BIG, Told, tell};
use crate::way::{Way, way};
use crate::{cookie, count, family, opening};

/// The bytes that headers without options and extensions may have, and some more.
const REACH: u32 = 80;

/// The entry of both programs. It has next to nothing on its stack, so that each of the steps has nearly all of it.
#[inline(always)]
pub fn enter<const LINK: u32>(packet: Skb) -> i32 {
    if !packet.is_for_host() {
        return Skb::PASS;
    }
    let mut verdict = carried::<LINK>(packet);
    if verdict == BEGINS {
        verdict = match begin::<LINK>(packet) {
            BEGUN => carried::<LINK>(packet),
            COOKIE => return cookie::answer::<LINK>(packet),
            REFUSED => return refuse::<LINK>(packet),
            verdict => return verdict,
        };
    }
    match verdict {
        SPECIAL => special::<LINK>(packet),
        OPENS => opening::packet::<LINK>(packet),
        TOO_LARGE => too_large::<LINK>(packet),
        TOO_OLD => too_old::<LINK>(packet),
        // A flow that has just begun and is not there, and headers that cannot be reached.
        BEGINS | CAREFUL => Skb::DROP,
        SHORT => Skb::PASS,
        verdict => verdict,
    }
}

/// Carries a packet of a flow that is there.
#[inline(never)]
fn carried<const LINK: u32>(packet: Skb) -> i32 {
    let mut verdict = step::<LINK>(packet);
    if verdict == SHORT || verdict == SPECIAL {
        // Only now: what a local TCP sends has its headers, and nothing else, in the part that can be reached directly,
        // and would be copied for each packet.
        packet.reach(LINK + REACH);
        verdict = whole_step::<LINK>(packet);
    }
    if verdict == CAREFUL {
        verdict = careful::<LINK>(packet);
    }
    verdict
}

#[inline(never)]
fn step<const LINK: u32>(packet: Skb) -> i32 {
    carry::<Skb, LINK, false>(packet)
}

/// [`step`] for what it has found to be special, or could not reach: first fragments are carried too.
#[inline(never)]
fn whole_step<const LINK: u32>(packet: Skb) -> i32 {
    carry::<Skb, LINK, true>(packet)
}

/// What is neither TCP nor UDP, or has no ports.
#[inline(always)]
fn special<const LINK: u32>(packet: Skb) -> i32 {
    let mut headers = Headers::new();
    match parse::<Skb, LINK, true>(packet, &mut headers) {
        Parsed::Later => later::<LINK>(packet),
        Parsed::Special => error::<LINK>(packet),
        _ => Skb::PASS,
    }
}

/// A packet of a flow that is too large for the way out. Its sender is told unless it may be fragmented.
#[inline(never)]
fn too_large<const LINK: u32>(packet: Skb) -> i32 {
    let (mut rule, mut mtu) = (0, 0);
    let mut headers = Headers::new();
    if let Parsed::Plain = parse::<Skb, LINK, true>(packet, &mut headers)
        && let Some(maps) = Maps::open()
        && let Some(found) = memory::find(&headers.tuple)
    {
        let mut out = Way::new();
        let record = found.record;
        rule = record.rule.load(Relaxed);
        if way(packet, maps.config(), record, found.direction, ticks(), &mut out) && headers.whole {
            mtu = family::mtu(out.mtu, &headers, &leaving(record, found.direction));
        }
    }
    count::dropped(rule, Drop::TooBig);
    if mtu == 0 { Skb::DROP } else { tell::<LINK>(packet, Told { word: mtu, ..TOO_BIG }) }
}

/// A packet of a flow whose time to live is over.
#[inline(never)]
fn too_old<const LINK: u32>(packet: Skb) -> i32 {
    let mut rule = 0;
    let mut headers = Headers::new();
    if let Parsed::Plain = parse::<Skb, LINK, true>(packet, &mut headers)
        && let Some(found) = memory::find(&headers.tuple)
    {
        rule = found.record.rule.load(Relaxed);
    }
    count::dropped(rule, Drop::Expired);
    tell::<LINK>(packet, EXPIRED)
}

/// A packet for a rule that meets nobody, and says so.
#[inline(never)]
fn refuse<const LINK: u32>(packet: Skb) -> i32 {
    let mut headers = Headers::new();
    if !matches!(parse::<Skb, LINK, true>(packet, &mut headers), Parsed::Plain) {
        return Skb::DROP;
    }
    if !headers.tcp {
        return tell::<LINK>(packet, NO_PORT);
    }
    let Some(tcp) = packet.window::<20>(headers.transport) else { return Skb::DROP };
    let segment = Segment {
        sequence: 0,
        // A SYN takes a number, and so does what it may bring along (RFC 9293 3.5.2).
        acknowledges: u32::from_be(tcp.get::<u32, 4>())
            .wrapping_add(1)
            .wrapping_add(headers.length.wrapping_sub(headers.before_payload)),
        flags: flags::RST | flags::ACK,
        window: 0,
        mss: 0,
    };
    answer::<LINK>(packet, &headers, &segment)
}

impl Hook for Skb {
    #[inline(always)]
    fn largest(self, headers: &Headers) -> u32 {
        match self.segment() {
            0 => headers.length,
            segment => headers.before_payload + segment,
        }
    }

    #[inline(always)]
    fn is_for_host(self, _record: &Record, _direction: Direction) -> bool {
        // The kernel has said so of every packet that gets here (`enter`).
        true
    }

    #[inline(always)]
    fn can_send(self, _way: &Way) -> bool {
        true
    }

    #[inline(always)]
    fn send<const LINK: u32>(self, headers: &Headers, way: &Way) -> i32 {
        if way.resolve != 0 {
            // The kernel puts the link header in front, and wants room that is one (`__bpf_redirect_neigh`).
            if LINK == 0 && !self.grow_head(14) {
                return Skb::DROP;
            }
            return resolve(way);
        }
        if !self.link::<LINK>(headers.ipv4, way) {
            return Skb::DROP;
        }
        // SAFETY: no pointers.
        unsafe { bpf_redirect(way.interface, 0) as i32 }
    }
}

impl Skb {
    /// Puts the link header of a known next hop in front, if the way out has such.
    #[inline(always)]
    pub fn link<const LINK: u32>(self, ipv4: bool, way: &Way) -> bool {
        if way.flags & u32::from(port_flags::ETHERNET) == 0 {
            return true;
        }
        if LINK == 0 && !self.grow_head(14) {
            return false;
        }
        let Some(link) = self.window::<14>(0) else { return false };
        link.set::<u32, 0>(way.next as u32);
        link.set::<u16, 4>((way.next >> 32) as u16);
        link.set::<u16, 6>(way.own as u16);
        link.set::<u32, 8>((way.own >> 16) as u32);
        if LINK == 0 {
            link.set::<u16, 12>(if ipv4 { IPV4 } else { IPV6 });
        }
        true
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
