//! From IPv4 to IPv6 and back (RFC 7915): the addresses are those of the flow, the rest of the header follows the standard.
//!
//! Deliberately absent: options, extension headers and fragments, which do not cross; UDP without a checksum, which IPv6
//! forbids. A packet that crosses to IPv4 is never fragmented on the way (RFC 7915 5.1 allows it for small ones): IPv6
//! senders learn the path's MTU, if it is not below the 1280 bytes that they may rely on.

use core::ffi::c_void;
use core::ptr::null_mut;

use aya_ebpf::helpers::generated::bpf_loop;
use portway_datapath::checksum::Difference;
use portway_datapath::tcp::{Mss, flags};

use crate::answer::write_ip;
use crate::careful::work;
use crate::packet::Packet;
use crate::parse::{Headers, IPV4, IPV4_HEADER, IPV6, IPV6_HEADER, TCP, UDP};
use crate::rewrite::ports;
use crate::skb::Skb;
use crate::work::Work;
use portway_datapath::abi::Tuple;

/// How much longer the header of IPv6 is.
pub const LONGER: u32 = IPV6_HEADER - IPV4_HEADER;

/// What [`translate`] answers.
pub const DONE: u32 = 0;
/// The packet has something that does not cross.
pub const IMPOSSIBLE: u32 = 1;
/// The kernel would not.
const REFUSED: u32 = 2;

/// The size that a packet of `length` has on the other side.
#[inline(always)]
pub fn size(length: u32, headers: &Headers, new: &Tuple) -> u32 {
    match (headers.ipv4, new.source.is_ipv4()) {
        (true, false) => length + LONGER,
        (false, true) => length.saturating_sub(LONGER),
        _ => length,
    }
}

/// The MTU that the sender of `headers` is told of one on the other side.
#[inline(always)]
pub fn mtu(mtu: u32, headers: &Headers, new: &Tuple) -> u32 {
    match (headers.ipv4, new.source.is_ipv4()) {
        (true, false) => mtu.saturating_sub(LONGER),
        (false, true) => mtu + LONGER,
        _ => mtu,
    }
}

/// Makes the packet one of the other family, with the tuple `new`; the headers then are of that.
#[inline(never)]
pub fn translate<const LINK: u32>(packet: Skb, work: &mut Work) -> u32 {
    let headers = &work.headers;
    let from_ipv4 = headers.ipv4;
    let header = if from_ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    if headers.transport != LINK + header {
        return IMPOSSIBLE;
    }
    if from_ipv4 && !headers.tcp {
        match packet.window::<8>(headers.transport) {
            Some(udp) if udp.get::<u16, 6>() != 0 => {}
            _ => return IMPOSSIBLE,
        }
    }
    let Some(first) = packet.window::<2>(LINK) else { return REFUSED };
    let first = u16::from_be(first.get::<u16, 0>());
    let class = if from_ipv4 { first & 0xff } else { first >> 4 & 0xff };
    if !packet.change_family(if from_ipv4 { IPV6 } else { IPV4 }) {
        return REFUSED;
    }
    // What is left in the place of the header, which the kernel has made shorter or longer.
    let Some(left) = header_sum::<LINK>(packet, !from_ipv4) else { return REFUSED };
    let payload = headers.length.wrapping_sub(header) as u16;
    let (new, old) = (&work.new, &headers.tuple);
    let protocol = if headers.tcp { TCP } else { UDP };
    let lives = headers.ttl.wrapping_sub(1);
    if !write_ip::<_, LINK>(packet, !from_ipv4, new, (protocol, lives, class as u8), payload) {
        return REFUSED;
    }
    // A sum over the packet has the header in it, as it was and as it is.
    let Some(written) = header_sum::<LINK>(packet, !from_ipv4) else { return REFUSED };
    packet.update_complete(written.and(left.negated()).folded());
    if LINK != 0 {
        let Some(link) = packet.window::<14>(0) else { return REFUSED };
        link.set::<u16, 12>(if from_ipv4 { IPV6 } else { IPV4 });
    }
    let transport = LINK + if from_ipv4 { IPV6_HEADER } else { IPV4_HEADER };
    let Some(header) = packet.window::<8>(transport) else { return REFUSED };
    header.set::<u32, 0>(ports(new));
    // Length and protocol are in both pseudo headers, and add up alike.
    let addresses = if from_ipv4 {
        Difference::NONE
            .minus_ipv4(old.source)
            .minus_ipv4(old.destination)
            .plus_address(new.source)
            .plus_address(new.destination)
    } else {
        Difference::NONE
            .minus_address(old.source)
            .minus_address(old.destination)
            .plus_ipv4(new.source)
            .plus_ipv4(new.destination)
    };
    let rest = Difference::NONE.minus(ports(old)).plus(ports(new));
    let check = transport + if headers.tcp { 16 } else { 6 };
    if !packet.update_checksum(check, addresses, rest, !headers.tcp) {
        return REFUSED;
    }
    work.headers.ipv4 = !from_ipv4;
    work.headers.transport = transport;
    if from_ipv4 && work.headers.flags & flags::SYN != 0 && !clamp(packet, work) {
        return REFUSED;
    }
    DONE
}

/// The sum over an IP header.
#[inline(always)]
fn header_sum<const LINK: u32>(packet: Skb, ipv4: bool) -> Option<Difference> {
    if ipv4 {
        let header = packet.window::<20>(LINK)?;
        return Some(
            Difference::NONE
                .plus(header.get::<u32, 0>())
                .plus(header.get::<u32, 4>())
                .plus(header.get::<u32, 8>())
                .plus(header.get::<u32, 12>())
                .plus(header.get::<u32, 16>()),
        );
    }
    let header = packet.window::<40>(LINK)?;
    Some(
        Difference::NONE
            .plus_two(header.get::<u64, 0>())
            .plus_address(header.address::<8, 16>())
            .plus_address(header.address::<24, 32>()),
    )
}

/// Takes the difference of the headers from the maximum segment size of a SYN: what answers it has the longer one on this
/// side, and the shorter one on the other.
#[inline(never)]
fn clamp(packet: Skb, work: &mut Work) -> bool {
    let Some(length) = packet.load_tcp(work.headers.transport, &mut work.header) else { return false };
    work.mss = Mss::new(length);
    let body = search as unsafe extern "C" fn(u32, *mut c_void) -> i64;
    // SAFETY: the function, and nothing for it.
    unsafe { bpf_loop(Mss::STEPS, body as *mut c_void, null_mut(), 0) };
    let at = work.mss.at;
    if at == 0 {
        return true;
    }
    let Some(option) = packet.window::<2>(work.headers.transport + at) else { return false };
    let before = option.get::<u16, 0>();
    let after = (u16::from_be(before).saturating_sub(LONGER as u16)).to_be();
    option.set::<u16, 0>(after);
    // At an odd offset its bytes are in the other halves of the sum's words.
    let (before, after) =
        if at & 1 == 0 { (before, after) } else { (before.swap_bytes(), after.swap_bytes()) };
    let change = Difference::NONE.minus(u32::from(before)).plus(u32::from(after));
    packet.update_rest(work.headers.transport + 16, change.folded(), false)
}

/// The body of the search's loop, which is the kernel's, so that the verifier follows it once: 1 ends it.
unsafe extern "C" fn search(nth: u32, _: *mut c_void) -> i64 {
    work().map_or(1, |work| i64::from(!work.mss.step(&work.header, nth)))
}
