//! TCP option 254 on the way to the backend: the client's address and port, as [`portway_datapath::toa`] has it.
//!
//! It goes to the SYN and to the client's ACKs, one of which completes the handshake: they have no payload, so that the end
//! of the packet is the end of the options. What a client has written there itself is overwritten on all segments, with
//! payload or without: a backend that believes this gateway must not read it. When the backend has said something the
//! connection stands, nobody looks any more, and [`state::TOA`] is cleared.

use core::ffi::c_void;
use core::ptr::null_mut;

use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_loop};
use portway_datapath::abi::{Record, state};
use portway_datapath::checksum::Difference;
use portway_datapath::record::Direction;
use portway_datapath::tcp::flags;
use portway_datapath::toa::{Client, HEADER_MOST, LENGTH_V4, LENGTH_V6, ROOM, STEPS, Walk};

use crate::careful::work;
use crate::packet::Packet;
use crate::parse::{Headers, IPV4_HEADER, IPV6_HEADER};
use crate::skb::Skb;
use crate::work::Work;

/// The options of an established connection's segments, by which nearly all are known that need no second look: two NOPs,
/// and the beginning of timestamps (RFC 7323, appendix A).
const USUAL: u32 = u32::from_ne_bytes([1, 1, 8, 10]);

/// Whether a segment of a flow with [`state::TOA`] must be told in, or looked through for what a client told itself.
#[inline(always)]
pub fn is_due<P: Packet, const LINK: u32>(packet: P, headers: &Headers, direction: Direction) -> bool {
    if direction == Direction::Back || headers.flags & flags::RST != 0 {
        return false;
    }
    if headers.length <= headers.before_payload {
        return true;
    }
    match headers.before_payload.wrapping_sub(headers.transport.wrapping_sub(LINK)) {
        20 => false,
        32 => packet.window::<4>(headers.transport + 20).is_none_or(|first| first.get::<u32, 0>() != USUAL),
        _ => true,
    }
}

/// The state after a segment, of which `after` says the rest: what the backend says proves that the connection stands there.
/// The client's ACK does not, for the backend need not have believed it; nor do the backend's own, which also answer what it
/// does not believe.
#[inline(always)]
pub fn follow(after: u32, headers: &Headers, direction: Direction) -> u32 {
    if direction == Direction::Back && headers.length > headers.before_payload {
        after & !state::TOA
    } else {
        after
    }
}

/// What [`prepare`] answers: the option may be appended.
pub const OPEN: u32 = 0;
/// It may not: whoever reads the options stops before their end.
pub const SHUT: u32 = 1;
/// The packet cannot be changed, or the header is not all there.
const FAILED: u32 = 2;

/// Overwrites forged options, and ends of options.
#[inline(never)]
pub fn prepare(packet: Skb, work: &mut Work) -> u32 {
    let at = work.headers.transport;
    let Some(length) = packet.load_tcp(at, &mut work.header) else { return FAILED };
    let before = sum(&mut work.header);
    work.walk = Walk::new(&work.header, length);
    let body = step as unsafe extern "C" fn(u32, *mut c_void) -> i64;
    // SAFETY: the function, and nothing for it.
    unsafe { bpf_loop(STEPS, body as *mut c_void, null_mut(), 0) };
    let prepared = work.walk.prepared();
    if prepared.changed {
        let change = Difference::NONE.minus(before).plus(sum(&mut work.header));
        if !(packet.store_tcp(at, &work.header, length)
            && packet.update_rest(at + 16, change.folded(), false))
        {
            return FAILED;
        }
    }
    if prepared.open { OPEN } else { SHUT }
}

/// The body of the walk's loop, which is the kernel's, so that the verifier follows it once: 1 ends it.
unsafe extern "C" fn step(nth: u32, _: *mut c_void) -> i64 {
    work().map_or(1, |work| i64::from(!work.walk.step(&mut work.header, nth)))
}

/// The sum over a header, and what is behind it.
#[inline(always)]
fn sum(header: &mut [u8; ROOM]) -> u32 {
    // SAFETY: nothing is taken away, and as many bytes as there are.
    (unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, header.as_mut_ptr().cast(), ROOM as u32, 0) }) as u32
}

/// Appends the option if the segment has no payload, and room. 0: done, or nothing to do.
#[inline(never)]
pub fn append<const LINK: u32>(packet: Skb, work: &mut Work, record: &Record) -> u32 {
    let ipv4 = work.headers.ipv4;
    let above = if ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let at = LINK + above;
    let Some(tcp) = packet.window::<20>(at) else { return 1 };
    let control = tcp.get::<u16, 12>();
    let length = u32::from(u16::from_be(control) >> 12) * 4;
    let Some(ip) = packet.window::<20>(LINK) else { return 1 };
    let total = if ipv4 {
        u32::from(u16::from_be(ip.get::<u16, 2>()))
    } else {
        u32::from(u16::from_be(ip.get::<u16, 4>())) + IPV6_HEADER
    };
    let client = Client {
        address: record.tuple(Direction::Forth).source,
        port: record.client_port(),
        reserved: [0; 3],
    };
    let grows = if client.is_v4() { LENGTH_V4 as u32 } else { LENGTH_V6 as u32 };
    if work.headers.transport != at || total != above + length || length + grows > HEADER_MOST as u32 {
        return 0;
    }
    (work.option, _) = client.option();
    let option = work.option.as_mut_ptr();
    // SAFETY: nothing is taken away, and as many bytes as there are; what is unused of them is zero.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, option, LENGTH_V6 as u32, 0) };
    // SAFETY: the bytes of the words.
    let (short, long) = unsafe { (&*option.cast::<[u8; LENGTH_V4]>(), &*option.cast::<[u8; LENGTH_V6]>()) };
    let stored = packet.set_length(LINK + total + grows)
        && if grows == LENGTH_V4 as u32 {
            packet.store(LINK + total, short)
        } else {
            packet.store(LINK + total, long)
        };
    if !stored {
        return 1;
    }
    let Some(tcp) = packet.window::<20>(at) else { return 1 };
    let longer = (u16::from_be(control) + ((grows as u16 / 4) << 12)).to_be();
    tcp.set::<u16, 12>(longer);
    let rest = Difference::NONE.minus(u32::from(control)).plus(u32::from(longer)).plus(sum as u32);
    let Some(ip) = packet.window::<20>(LINK) else { return 1 };
    if ipv4 {
        let (before, after) = (ip.get::<u16, 2>(), ((total + grows) as u16).to_be());
        ip.set::<u16, 2>(after);
        let change = Difference::NONE.minus(u32::from(before)).plus(u32::from(after));
        ip.set::<u16, 10>(change.apply(ip.get::<u16, 10>()));
    } else {
        ip.set::<u16, 4>(((length + grows) as u16).to_be());
    }
    // The length of the segment is in the pseudo header.
    let pseudo = Difference::NONE
        .minus(u32::from((length as u16).to_be()))
        .plus(u32::from(((length + grows) as u16).to_be()));
    u32::from(!packet.update_checksum(at + 16, pseudo, rest, false))
}
