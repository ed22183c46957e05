//! A socket buffer in ordinary memory, with the face of the kernel programs' own (`ebpf/src/skb.rs`) as far as rewriting needs
//! it. Its functions do what the kernel's do (`net/core/filter.c`, `net/core/utils.c`), slowly.

use portway_datapath::checksum::Difference;

use crate::packet::{self, Packet, fold, with};
use crate::rewrite::{Summed, update_checksum};

/// The bytes of the link header, which a sum over the packet does not cover.
const LINK: usize = 14;

/// The packet of this thread.
#[derive(Clone, Copy)]
pub struct Skb;

impl Packet for Skb {}

impl Skb {
    /// What the kernel has noted about the checksum.
    pub fn summed(self) -> Summed {
        with(|buffer| match buffer.summed {
            _ if !buffer.shown => Summed::Hidden,
            packet::Summed::Nothing => Summed::Nothing,
            packet::Summed::Partial => Summed::Partial,
            packet::Summed::Complete(_) => Summed::Complete,
        })
    }

    /// `bpf_csum_update`.
    pub fn update_complete(self, change: u32) {
        with(|buffer| {
            if let packet::Summed::Complete(sum) = &mut buffer.summed {
                *sum = u32::from(fold(u64::from(*sum) + u64::from(change)));
            }
        });
    }

    /// `bpf_l4_csum_replace` with BPF_F_PSEUDO_HDR.
    pub fn update_pseudo(self, offset: u32, addresses: u32, udp: bool) -> bool {
        replace(offset, addresses, true, udp)
    }

    /// The same without.
    pub fn update_rest(self, offset: u32, rest: u32, udp: bool) -> bool {
        replace(offset, rest, false, udp)
    }

    /// What the kernel programs have a function of their own for.
    pub fn update_checksum(self, offset: u32, addresses: Difference, rest: Difference, udp: bool) -> bool {
        update_checksum(self, offset, addresses, rest, udp)
    }

    /// `bpf_skb_store_bytes` with BPF_F_RECOMPUTE_CSUM.
    pub fn store<const N: usize>(self, offset: u32, bytes: &[u8; N]) -> bool {
        with(|buffer| {
            let at = offset as usize;
            let Some(place) = buffer.bytes.get_mut(at..at + N) else { return false };
            // A sum is of words; what begins at an odd byte of them counts with its bytes exchanged.
            let sum = |bytes: &[u8]| {
                let sum = packet::sum(bytes);
                if (at - LINK).is_multiple_of(2) { sum } else { sum.swap_bytes() }
            };
            let (before, after) = (sum(place), sum(bytes));
            place.copy_from_slice(bytes);
            if let packet::Summed::Complete(sum) = &mut buffer.summed {
                *sum = u32::from(fold(u64::from(*sum) + u64::from(!before) + u64::from(after)));
            }
            true
        })
    }
}

/// `bpf_l4_csum_replace` from 0 to `difference`.
fn replace(offset: u32, difference: u32, pseudo_header: bool, zero_is_none: bool) -> bool {
    with(|buffer| {
        let at = offset as usize;
        let Some(place) = buffer.bytes.get_mut(at..at + 2) else { return false };
        let check = u16::from_ne_bytes([place[0], place[1]]);
        if zero_is_none && check == 0 {
            return true;
        }
        let plus = |check: u16| fold(u64::from(check) + u64::from(difference));
        let mut after = match buffer.summed {
            packet::Summed::Partial if pseudo_header => plus(check),
            packet::Summed::Partial => check,
            _ => !plus(!check),
        };
        if let (packet::Summed::Complete(sum), true) = (&mut buffer.summed, pseudo_header) {
            *sum = u32::from(fold(u64::from(*sum) + u64::from(!difference)));
        }
        if zero_is_none && after == 0 {
            after = 0xffff;
        }
        place.copy_from_slice(&after.to_ne_bytes());
        true
    })
}
