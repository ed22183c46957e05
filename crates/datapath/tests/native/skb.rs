//! A socket buffer in ordinary memory, with the face of the kernel programs' own (`ebpf/src/skb.rs`). The kernel's functions
//! that change it are called as the programs call them (`ebpf/src/buffer.rs`), and are those of `helpers.rs`.

use portway_datapath::checksum::Difference;

use crate::bindings::__sk_buff;
use crate::packet::{self, Packet, with};
use crate::rewrite::{self, Summed};

/// The packet of this thread.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

/// The one there is.
pub const SKB: Skb = Skb(std::ptr::null_mut());

impl Packet for Skb {}

impl Skb {
    /// What the kernel has noted about the checksum.
    pub fn summed(self) -> Summed {
        with(|buffer| match buffer.summed {
            _ if !buffer.shown => Summed::Hidden,
            packet::Summed::Nothing => Summed::Nothing,
            packet::Summed::Partial { .. } => Summed::Partial,
            packet::Summed::Complete(_) => Summed::Complete,
        })
    }

    /// All bytes.
    pub fn length(self) -> u32 {
        with(|buffer| buffer.bytes.len() as u32)
    }

    /// What the kernel programs have a function of their own for.
    pub fn update_checksum(self, offset: u32, addresses: Difference, rest: Difference, udp: bool) -> bool {
        let (addresses, rest) = (addresses.folded(), rest.folded());
        let (addresses, rest) = (Difference::NONE.plus(addresses), Difference::NONE.plus(rest));
        rewrite::update_checksum(self, offset, addresses, rest, udp)
    }
}

/// A length that a TCP header may have.
pub fn header_length(length: u32) -> Option<u32> {
    between(length, 20, 60)
}

/// The length, if it is not less than `least` and not more than `most`.
pub fn between(length: u32, least: u32, most: u32) -> Option<u32> {
    (least..=most).contains(&length).then_some(length)
}
