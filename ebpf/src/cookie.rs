//! SYN cookies, made and checked by the kernel with the secret of its own (`net/ipv4/syncookies.c`), so that a SYN that
//! nobody stands behind costs no memory.
//!
//! The answer's window is 0, as that of packet filters that do the same (pf's synproxy, nftables' synproxy): the client is
//! connected, but sends nothing before it hears the backend's own window, one round trip to the backend later. With any
//! other window its first data would arrive while there is nobody to send it to, be thrown away, and come again only after
//! its retransmission timer of 200 ms at least, with a congestion window of one segment. A server that speaks first is not
//! delayed: the window is about the other direction. And a client whose window update is lost asks for it by itself
//! (RFC 9293 3.8.6.1).
//!
//! Of options there is only the segment size, because a cookie has no room for others: that of the client, as the cookie
//! rounds it down, both in our answer and towards the backend.
//!
//! Deliberately absent: what becomes of the flow until the backend has answered ([`crate::opening`]), and after
//! ([`crate::carry`]).

use aya_ebpf::helpers::generated::{
    bpf_skb_load_bytes, bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6,
    bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6, bpf_xdp_load_bytes,
};
use portway_datapath::abi::{Refusal, Rule, Tuple, rule_flags};
use portway_datapath::cookie::{self, SIZES_V4, SIZES_V6};
use portway_datapath::tcp::flags;

use crate::admit::New;
use crate::answer::Segment;
use crate::packet::Packet;
use crate::parse::{Headers, Parsed, parse};
use crate::skb::{Skb, header_length};
use crate::xdp::Xdp;
use crate::{count, rate, tc};

/// A packet whose bytes can be copied.
pub trait Load: Packet {
    /// Copies `length` bytes, at most 60, from `offset`.
    fn load(self, offset: u32, into: &mut [u32; 15], length: u32) -> bool;
}

impl Load for Skb {
    #[inline(always)]
    fn load(self, offset: u32, into: &mut [u32; 15], length: u32) -> bool {
        // SAFETY: the context, and no more bytes than there is room for.
        unsafe { bpf_skb_load_bytes(self.context(), offset, into.as_mut_ptr().cast(), length) == 0 }
    }
}

impl Load for Xdp {
    #[inline(always)]
    fn load(self, offset: u32, into: &mut [u32; 15], length: u32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_xdp_load_bytes(self.0, offset, into.as_mut_ptr().cast(), length) == 0 }
    }
}

/// What the answer to a SYN says: nothing if the kernel makes no cookies.
#[inline(always)]
pub fn segment<P: Load, const LINK: u32>(packet: P, headers: &Headers) -> Option<Segment> {
    let length = header_length(headers.before_payload.wrapping_sub(headers.transport - LINK))?;
    let mut header = [0; 15];
    if !packet.load(headers.transport, &mut header, length) {
        return None;
    }
    let made = made(&headers.tuple, headers.ipv4, header.as_mut_ptr(), length);
    if made < 0 {
        return None;
    }
    Some(Segment {
        sequence: made as u32,
        acknowledges: u32::from_be(header[1]).wrapping_add(1),
        flags: flags::SYN | flags::ACK,
        window: 0,
        mss: (made >> 32) as u16,
    })
}

/// The cookie for a TCP header of `length` bytes, and above it the segment size that it stands for; negative: none.
#[inline(never)]
fn made(tuple: &Tuple, ipv4: bool, header: *mut u32, length: u32) -> i64 {
    if ipv4 {
        let mut ip = cookie::ipv4(tuple);
        // SAFETY: an IPv4 header, and as many bytes of a TCP header as are said.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv4(ip.as_mut_ptr().cast(), header.cast(), length) }
    } else {
        let mut ip = cookie::ipv6(tuple);
        // SAFETY: an IPv6 header, and the same.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv6(ip.as_mut_ptr().cast(), header.cast(), length) }
    }
}

/// Answers a SYN.
#[inline(always)]
pub fn answer<const LINK: u32>(packet: Skb) -> i32 {
    let mut headers = Headers::new();
    if !matches!(parse::<Skb, LINK>(packet, &mut headers), Parsed::Plain) {
        return Skb::DROP;
    }
    match segment::<Skb, LINK>(packet, &headers) {
        Some(segment) => tc::answer::<LINK>(packet, &headers, &segment),
        None => Skb::DROP,
    }
}

/// Whether a segment that belongs to no flow brings back a cookie of the rule. If not, it is left to the kernel, as any
/// other such segment, and the client is reset. Nothing is asked unless the rule has sent a cookie that may still be good.
#[inline(never)]
pub fn returned(packet: Skb, new: &mut New, rule: &Rule, id: u32) -> bool {
    if rule.flags & rule_flags::COOKIES == 0 || new.headers.fragment || !rate::expects_cookies(id) {
        return false;
    }
    let Some(tcp) = packet.window::<20>(new.headers.transport) else { return false };
    let sequence = u32::from_be(tcp.get::<u32, 4>());
    let acknowledges = u32::from_be(tcp.get::<u32, 8>());
    let tuple = &new.headers.tuple;
    let mut header = cookie::acknowledgement(tuple, sequence, acknowledges);
    let header = header.as_mut_ptr().cast();
    let refused = if new.headers.ipv4 {
        let mut ip = cookie::ipv4(tuple);
        // SAFETY: an IPv4 header and a TCP header without options.
        unsafe { bpf_tcp_raw_check_syncookie_ipv4(ip.as_mut_ptr().cast(), header) }
    } else {
        let mut ip = cookie::ipv6(tuple);
        // SAFETY: an IPv6 header and the same.
        unsafe { bpf_tcp_raw_check_syncookie_ipv6(ip.as_mut_ptr().cast(), header) }
    };
    if refused != 0 {
        count::refused(id, Refusal::BadCookie);
        return false;
    }
    new.cookie = acknowledges.wrapping_sub(1);
    new.initial = sequence.wrapping_sub(1);
    true
}

/// The segment size that a cookie stands for. The kernel says only that it is good, but makes the same again of the same
/// SYN within its period of 64 s: so all sizes are tried. After that it is the smallest.
#[inline(never)]
pub fn size(tuple: &Tuple, ipv4: u32, initial: u32, cookie: u32) -> u32 {
    let ipv4 = ipv4 != 0;
    let sizes = if ipv4 { SIZES_V4 } else { SIZES_V6 };
    let [largest, large, small, smallest] = sizes;
    let is = |size: u16| {
        let mut header = cookie::syn(tuple, initial, size);
        made(tuple, ipv4, header.as_mut_ptr(), size_of::<cookie::Header>() as u32) as u32 == cookie
    };
    u32::from(if is(largest) {
        largest
    } else if is(large) {
        large
    } else if is(small) {
        small
    } else {
        smallest
    })
}
