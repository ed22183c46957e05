//! A packet of IPv4 cut into the parts that it is sent in: its payload is kept, and the packet made one part after the other.
//!
//! Deliberately absent: which packets, how large the parts are, and sending them ([`crate::parts`]).

use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes, bpf_skb_store_bytes};
use portway_datapath::checksum::Difference;

use crate::answer::is_partial;
use crate::buffer::RECOMPUTE;
use crate::packet::Packet;
use crate::parse::{IPV4_HEADER, TCP};
use crate::skb::{Skb, between};

/// The longest packet that is sent in parts.
pub const ROOM: usize = 9216;

/// More fragments follow, host order; and the bits of the offset.
pub const MORE: u16 = 0x2000;
/// See [`MORE`].
pub const OFFSET: u16 = 0x1fff;

/// As many bytes of payload are summed up at once: what the kernel's function takes.
const CHUNK: u32 = 512;

/// More than the headers up to the transport's checksum, less than the smallest packet that is cut.
const FRONT: u32 = 64;

/// What is kept of the packet.
pub struct Whole {
    /// The payload. Twice the room, because the verifier does not know that where a part begins and its length are no
    /// longer together than the whole.
    pub bytes: [u64; 2 * ROOM / 8],
    /// The IP header of a part, half words as they lie in memory.
    pub header: [u16; 10],
}

/// Keeps the IP header: the packet's length, and what it says of fragments, host order.
#[inline(always)]
pub fn read<const LINK: u32>(packet: Skb, whole: &mut Whole) -> Option<(u32, u16)> {
    let ip = packet.window::<20>(LINK)?;
    whole.header = [
        ip.get::<u16, 0>(),
        ip.get::<u16, 2>(),
        ip.get::<u16, 4>(),
        ip.get::<u16, 6>(),
        ip.get::<u16, 8>(),
        0,
        ip.get::<u16, 12>(),
        ip.get::<u16, 14>(),
        ip.get::<u16, 16>(),
        ip.get::<u16, 18>(),
    ];
    Some((u32::from(u16::from_be(whole.header[1])), u16::from_be(whole.header[3])))
}

/// Keeps the payload, of so many bytes, for which there is room.
#[inline(always)]
pub fn keep<const LINK: u32>(packet: Skb, whole: &mut Whole, payload: u32) -> bool {
    let bytes = whole.bytes.as_mut_ptr().cast::<u8>();
    // SAFETY: the context, and as many bytes as there is room for.
    unsafe { bpf_skb_load_bytes(packet.0.cast(), LINK + IPV4_HEADER, bytes.cast(), payload) == 0 }
}

/// Makes the packet, whose IP header is `at`, one part: `length` bytes of the payload from `start` on. `which` is the word of
/// the header that says so, of the whole packet, and whether more follow.
#[inline(always)]
pub fn part(packet: Skb, whole: &mut Whole, at: u32, (start, length): (u32, u32), which: u16) -> bool {
    let (Some(start), Some(length)) = (between(start, 0, ROOM as u32), between(length, 1, ROOM as u32))
    else {
        return false;
    };
    if !packet.resize(at + IPV4_HEADER + length) {
        return false;
    }
    whole.header[1] = ((length + IPV4_HEADER) as u16).to_be();
    whole.header[3] = which.wrapping_add((start / 8) as u16).to_be();
    whole.header[5] = 0;
    let [a, b, c, d, e, _, f, g, h, i] = whole.header;
    let sum =
        [a, b, c, d, e, f, g, h, i].iter().fold(Difference::NONE, |sum, word| sum.plus(u32::from(*word)));
    whole.header[5] = sum.check();
    let bytes = whole.bytes.as_ptr().cast::<u8>();
    // SAFETY: the context, as many bytes as the header has, and of the payload no more than there are.
    unsafe {
        bpf_skb_store_bytes(packet.0, at, whole.header.as_ptr().cast(), IPV4_HEADER, RECOMPUTE) == 0
            && bpf_skb_store_bytes(
                packet.0,
                at + IPV4_HEADER,
                bytes.add(start as usize).cast(),
                length,
                RECOMPUTE,
            ) == 0
    }
}

/// Finishes the transport's checksum, of which the packet is all, where that is left to the device: it would put one in every
/// part.
#[inline(always)]
pub fn finish_checksum<const LINK: u32>(packet: Skb, whole: &mut Whole, payload: u32) -> bool {
    let is_tcp = whole.header[4].to_be() as u8 == TCP;
    let check = if is_tcp { 16 } else { 6 };
    // What this changes is written over.
    if !is_partial(packet, LINK + IPV4_HEADER + check) {
        return true;
    }
    let bytes = whole.bytes.as_mut_ptr().cast::<u8>();
    // A datagram without a checksum, with a packet inside that is to get one: no part of it could.
    // SAFETY: within the room.
    if !is_tcp && unsafe { bytes.add(check as usize).cast::<u16>().read_unaligned() } == 0 {
        return false;
    }
    let mut sum = Difference::NONE;
    // SAFETY: within the room, which is twice as large; whole words are summed up, of which the last is filled with zeros.
    unsafe {
        bytes.add(payload as usize).cast::<u32>().write_unaligned(0);
        for nth in 0..ROOM as u32 / CHUNK {
            let Some(left) = payload.checked_sub(nth * CHUNK) else { break };
            let size = left.min(CHUNK).next_multiple_of(4);
            let from = bytes.add((nth * CHUNK) as usize);
            sum = sum.plus(bpf_csum_diff(core::ptr::null_mut(), 0, from.cast(), size, 0) as u32);
        }
    }
    // There is the sum of the pseudo header now, so that this is all of it.
    let finished = match sum.check() {
        0 if !is_tcp => 0xffff,
        finished => finished,
    };
    // SAFETY: as above.
    unsafe { bytes.add(check as usize).cast::<u16>().write_unaligned(finished) };
    // When what the device was to sum up is no longer there, nothing is left to it (`skb_postpull_rcsum`).
    packet.shrink_network(FRONT) && packet.grow_network(FRONT)
}
