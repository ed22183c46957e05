//! What the packet path does at TC: everything.

use aya_ebpf::bindings::{__sk_buff, bpf_redir_neigh};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh};
use core::sync::atomic::Ordering::Relaxed;
use portway_datapath::abi::{Drop, Port, Record, Side, port_flags};
use portway_datapath::record::Direction;
use portway_datapath::tcp::flags;

use crate::admit::{BEGUN, COOKIE, REFUSED, begin};
use crate::answer::{Segment, write};
use crate::careful::{LATER, OPENS, PARTS, SPECIAL, TOO_LARGE, TOO_OLD, careful};
use crate::carry::{BEGINS, CAREFUL, Hook, carry, leaving};
use crate::fragment::later;
use crate::header::Header;
use crate::icmp::error;
use crate::memory;
use crate::packet::Packet;
use crate::parse::{Headers, IPV4, IPV6, Parsed, TCP, parse};
use crate::replace;
use crate::rewrite::swapped;
use crate::skb::Skb;
use crate::tell::{EXPIRED, NO_PORT, TOO_BIG, Told, tell};
use crate::way::{self, Hop, Way, way, way_back};
use crate::{ETHERNET, cookie, count, family, opening, parts};

/// Makes a step two global functions, one for each kind of interface, and `$step` the choice between them. The verifier
/// follows a global function once and by itself, rather than in whatever state each of its callers is: that took the
/// programs from 430,000 steps of the verifier's to a fraction.
macro_rules! global {
    ($($step:ident, $ethernet:ident, $ip:ident, $($body:ident)::+;)*) => {$(
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $ethernet(context: *mut __sk_buff) -> i32 {
            $($body)::+::<ETHERNET>(Skb(context))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $ip(context: *mut __sk_buff) -> i32 {
            $($body)::+::<0>(Skb(context))
        }

        #[inline(always)]
        fn $step<const LINK: u32>(packet: Skb) -> i32 {
            if LINK == 0 { $ip(packet.0) } else { $ethernet(packet.0) }
        }
    )*};
}

global! {
    step_careful, careful_ethernet, careful_ip, careful;
    step_begin, begin_ethernet, begin_ip, begin;
    step_cookie, cookie_ethernet, cookie_ip, cookie::answer;
    step_refuse, refuse_ethernet, refuse_ip, refuse;
    step_later, later_ethernet, later_ip, later;
    step_error, error_ethernet, error_ip, error;
    step_opening, opening_ethernet, opening_ip, opening::packet;
    step_parts, parts_ethernet, parts_ip, parts::send;
    step_too_large, too_large_ethernet, too_large_ip, too_large;
    step_too_old, too_old_ethernet, too_old_ip, too_old;
}

/// The entry of both programs.
#[inline(always)]
pub fn enter<const LINK: u32>(packet: Skb) -> i32 {
    if !packet.is_for_host() {
        return Skb::PASS;
    }
    match carry::<Skb, LINK>(packet) {
        CAREFUL | BEGINS => {}
        verdict => return verdict,
    }
    let mut verdict = step_careful::<LINK>(packet);
    if verdict == BEGINS {
        verdict = match step_begin::<LINK>(packet) {
            BEGUN => step_careful::<LINK>(packet),
            COOKIE => return step_cookie::<LINK>(packet),
            REFUSED => return step_refuse::<LINK>(packet),
            verdict => return verdict,
        };
    }
    if verdict == LATER {
        verdict = step_later::<LINK>(packet);
    }
    match verdict {
        PARTS => step_parts::<LINK>(packet),
        SPECIAL => step_error::<LINK>(packet),
        OPENS => step_opening::<LINK>(packet),
        TOO_LARGE => step_too_large::<LINK>(packet),
        TOO_OLD => step_too_old::<LINK>(packet),
        // A flow that has just begun and is not there.
        BEGINS => Skb::DROP,
        verdict => verdict,
    }
}

/// A packet of a flow that is too large for the way out, and is not sent in parts. Its sender is told, also where it has not
/// forbidden them: it may learn from it.
#[inline(always)]
fn too_large<const LINK: u32>(packet: Skb) -> i32 {
    let (mut member, mut mtu) = (0, 0);
    let mut headers = Headers::new();
    if let Parsed::Plain = parse::<Skb, LINK>(packet, &mut headers)
        && let Some(found) = memory::find(&headers.tuple)
    {
        let record = found.record;
        member = record.member.load(Relaxed);
        if let Some(way) = way(packet, found.index, found.direction) {
            mtu = family::mtu(way.mtu, &headers, &leaving(record, found.direction));
        }
    }
    count::dropped(member, Drop::TooBig);
    if mtu == 0 { Skb::DROP } else { tell::<LINK>(packet, Told { word: mtu, ..TOO_BIG }) }
}

/// A packet of a flow whose time to live is over.
#[inline(always)]
fn too_old<const LINK: u32>(packet: Skb) -> i32 {
    let mut member = 0;
    let mut headers = Headers::new();
    if let Parsed::Plain = parse::<Skb, LINK>(packet, &mut headers)
        && let Some(found) = memory::find(&headers.tuple)
    {
        member = found.record.member.load(Relaxed);
    }
    count::dropped(member, Drop::Expired);
    tell::<LINK>(packet, EXPIRED)
}

/// A packet for a rule that meets nobody, and says so.
#[inline(always)]
fn refuse<const LINK: u32>(packet: Skb) -> i32 {
    let mut headers = Headers::new();
    if !matches!(parse::<Skb, LINK>(packet, &mut headers), Parsed::Plain) {
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

/// Makes the packet a segment to whoever has sent it, and sends it.
#[inline(always)]
pub fn answer<const LINK: u32>(packet: Skb, headers: &Headers, segment: &Segment) -> i32 {
    let Some(way) = way_back(packet, &headers.tuple) else { return Skb::DROP };
    let tuple = swapped(&headers.tuple);
    if !write::<_, LINK>(packet, headers.ipv4, &tuple, segment) {
        return Skb::DROP;
    }
    packet.send::<LINK>(headers.ipv4, way)
}

impl Hook for Skb {
    #[inline(always)]
    fn largest<const LINK: u32>(self, transport: u32, length: u32, protocol: u8) -> u32 {
        let segment = self.segment();
        if segment == 0 {
            return length;
        }
        let header = match protocol {
            TCP => self.window::<20>(transport).map_or(0, |tcp| u32::from(tcp.get::<u8, 12>() >> 4) * 4),
            _ => 8,
        };
        transport - LINK + header + segment
    }

    #[inline(always)]
    fn is_for_host(self, _answers: &Side) -> bool {
        // The kernel has said so of every packet that gets here (`enter`).
        true
    }

    #[inline(always)]
    fn can_send(self, _port: &Port) -> bool {
        true
    }

    #[inline(always)]
    fn replace<H: Header, const LINK: u32>(self, header: H, record: &Record, direction: Direction) -> bool {
        replace::replace_in::<H, LINK>(self, header, record, direction)
    }

    #[inline(always)]
    fn forward<const LINK: u32>(self, ipv4: bool, Hop { port, next }: Hop) -> i32 {
        let ethernet = port.flags & port_flags::ETHERNET != 0;
        if ethernet && !self.link::<LINK>(ipv4, way::link(port.link), next) {
            return Skb::DROP;
        }
        // SAFETY: no pointers.
        unsafe { bpf_redirect(port.interface, 0) as i32 }
    }
}

impl Skb {
    /// Sends the packet, which is of this family, whether its next hop is known or not.
    #[inline(always)]
    pub fn send<const LINK: u32>(self, ipv4: bool, way: &Way) -> i32 {
        if way.resolve != 0 {
            // The kernel adds this link header to a sum over the packet, and then puts another in its place.
            self.forget_complete();
            // The kernel puts the link header in front, and wants room that is one (`__bpf_redirect_neigh`).
            if LINK == 0 && !self.grow_head(14) {
                return Skb::DROP;
            }
            return resolve(way);
        }
        if !self.face::<LINK>(ipv4, way) {
            return Skb::DROP;
        }
        // SAFETY: no pointers.
        unsafe { bpf_redirect(way.interface, 0) as i32 }
    }

    /// Puts the link header of a known next hop in front, if the way out has such.
    #[inline(always)]
    pub fn face<const LINK: u32>(self, ipv4: bool, way: &Way) -> bool {
        way.flags & u32::from(port_flags::ETHERNET) == 0 || self.link::<LINK>(ipv4, way.own, way.next)
    }

    /// Puts a link header in front.
    #[inline(always)]
    fn link<const LINK: u32>(self, ipv4: bool, own: u64, next: u64) -> bool {
        if LINK == 0 && !self.grow_head(14) {
            return false;
        }
        let Some(header) = self.window::<14>(0) else { return false };
        header.set::<u64, 0>(next | own << 48);
        header.set::<u32, 8>((own >> 16) as u32);
        if LINK == 0 {
            header.set::<u16, 12>(if ipv4 { IPV4 } else { IPV6 });
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
