//! The kernel's functions that change a socket buffer, or copy what it has. Those that change it invalidate windows.
//!
//! What they do to a checksum that is unfinished, or to a sum over the packet, is said at each: whoever writes to the packet
//! itself changes neither.

use aya_ebpf::helpers::generated::{
    bpf_csum_update, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_proto,
    bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use portway_datapath::toa::ROOM;

use crate::packet::Packet;
use crate::skb::{Skb, header_length};

/// Flags of `bpf_l4_csum_replace` (`include/uapi/linux/bpf.h`): what is replaced is part of the pseudo header.
const PSEUDO_HEADER: u64 = 1 << 4;

/// 0 says that there is no checksum, and stays.
const ZERO_IS_NONE: u64 = 1 << 5;

/// Of `bpf_skb_store_bytes`: a sum over the whole packet, if the buffer has one, follows.
pub const RECOMPUTE: u64 = 1;

/// Of `bpf_skb_adjust_room`: `BPF_ADJ_ROOM_MAC`.
const BEHIND_LINK: u32 = 1;

/// More than what can be in front of the transport's header: that of the link, an IPv4 header with options, and what an IPv6
/// header is longer.
const FRONT: u32 = 96;

/// What is left behind the link header for a moment: an IP header, and with [`FRONT`] more than what is in front of the end of
/// a checksum.
const RENEWED: u32 = 66;

impl Skb {
    /// Says that the bytes whose sum the buffer has have changed by so much.
    #[inline(always)]
    pub fn update_complete(self, change: u32) {
        // SAFETY: the context.
        unsafe { bpf_csum_update(self.0, change) };
    }

    /// Updates the transport's checksum at `offset` for a change of the pseudo header.
    #[inline(always)]
    pub fn update_pseudo(self, offset: u32, addresses: u32, udp: bool) -> bool {
        let flags = PSEUDO_HEADER | if udp { ZERO_IS_NONE } else { 0 };
        // SAFETY: the context.
        unsafe { bpf_l4_csum_replace(self.0, offset, 0, u64::from(addresses), flags) == 0 }
    }

    /// The same for a change of what the sum itself covers.
    #[inline(always)]
    pub fn update_rest(self, offset: u32, rest: u32, udp: bool) -> bool {
        let flags = if udp { ZERO_IS_NONE } else { 0 };
        // SAFETY: the context.
        unsafe { bpf_l4_csum_replace(self.0, offset, 0, u64::from(rest), flags) == 0 }
    }

    /// Cuts or extends the packet, which is then one segment. The kernel forgets a sum over it, but not where the length stays.
    #[inline(always)]
    pub fn resize(self, length: u32) -> bool {
        // SAFETY: the context.
        unsafe { bpf_skb_change_tail(self.0, length, 0) == 0 }
    }

    /// The same, and the sum is forgotten: who calls it writes what no sum follows.
    #[inline(always)]
    pub fn set_length(self, length: u32) -> bool {
        (self.length() != length || self.resize(length + 1)) && self.resize(length)
    }

    /// Makes the packet one of `length` bytes, of which only the link header, of `link` bytes, is what it was: no sum over it is
    /// left, and nothing to a device, wherever that was to put it.
    #[inline(always)]
    pub fn renew(self, link: u32, length: u32) -> bool {
        // What is summed up begins in what is taken away (`skb_postpull_rcsum`).
        self.resize(link + RENEWED + FRONT) && self.shrink_network(FRONT) && self.set_length(length)
    }

    /// Has the kernel forget a sum over the packet.
    #[inline(always)]
    pub fn forget_complete(self) {
        // SAFETY: the context. It refuses where there is no such sum.
        if unsafe { bpf_csum_update(self.0, 0) } >= 0 {
            self.set_length(self.length());
        }
    }

    /// Makes room for `length` bytes between the link header and what follows.
    #[inline(always)]
    pub fn grow_network(self, length: u32) -> bool {
        // SAFETY: the context.
        unsafe { bpf_skb_adjust_room(self.0, length as i32, BEHIND_LINK, 0) == 0 }
    }

    /// Takes away `length` bytes between the link header and what is left.
    #[inline(always)]
    pub fn shrink_network(self, length: u32) -> bool {
        // SAFETY: the context.
        unsafe { bpf_skb_adjust_room(self.0, -(length as i32), BEHIND_LINK, 0) == 0 }
    }

    /// Puts `bytes` at `offset`; a sum over the whole packet follows.
    #[inline(always)]
    pub fn store<const N: usize>(self, offset: u32, bytes: &[u8; N]) -> bool {
        // SAFETY: the context, and as many bytes as are said.
        unsafe { bpf_skb_store_bytes(self.0, offset, bytes.as_ptr().cast(), N as u32, RECOMPUTE) == 0 }
    }

    /// Makes room for `length` bytes of link header in front.
    #[inline(always)]
    pub fn grow_head(self, length: u32) -> bool {
        // SAFETY: the context.
        unsafe { bpf_skb_change_head(self.0, length, 0) == 0 }
    }

    /// Makes room for the header of the other family, which is `kind` as Ethernet has it (memory order), and says that the
    /// packet is of it. The header is the caller's to write.
    #[inline(always)]
    pub fn change_family(self, kind: u16) -> bool {
        // SAFETY: the context.
        unsafe { bpf_skb_change_proto(self.0, kind, 0) == 0 }
    }

    /// Reads the TCP header at `offset`: its length.
    #[inline(always)]
    pub fn load_tcp(self, offset: u32, header: &mut [u8; ROOM]) -> Option<usize> {
        let length = header_length(u32::from(self.window::<20>(offset)?.get::<u8, 12>() >> 4) * 4)?;
        let to = header.as_mut_ptr().cast();
        // SAFETY: the context, and fewer bytes than the buffer has.
        (unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to, length) } == 0).then_some(length as usize)
    }

    /// Writes the first `length` bytes of a TCP header, as many as [`Self::load_tcp`] has read. No sum follows: that over the
    /// packet stays as it is when the header's own checksum makes up for what has changed.
    #[inline(always)]
    pub fn store_tcp(self, offset: u32, header: &[u8; ROOM], length: usize) -> bool {
        let Some(length) = header_length(length as u32) else { return false };
        // SAFETY: the context, and fewer bytes than the buffer has.
        unsafe { bpf_skb_store_bytes(self.0, offset, header.as_ptr().cast(), length, 0) == 0 }
    }
}
