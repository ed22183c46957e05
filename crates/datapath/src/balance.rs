//! The hash that chooses a backend: that of `portway_core::balance`, for words instead of bytes, so that every engine leads a
//! client to the same one.
//!
//! Deliberately absent: the tables of slots (`portway_core::balance`).

use crate::abi::Address;

/// What is in front of an IPv4 address in [`Address::low`].
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// The hash of a client: its address, and with `port` (be) that in a word of its own.
#[inline(always)]
#[must_use]
pub const fn client_hash(client: Address, port: Option<u16>, seed: u32) -> u32 {
    let first =
        [client.high as u32, (client.high >> 32) as u32, client.low as u32, (client.low >> 32) as u32];
    let port_word = match port {
        // Two bytes of port and two of nothing, as they would lie in memory.
        Some(port) => port as u32,
        None => 0,
    };
    match (client.is_ipv4(), port.is_some()) {
        (true, false) => last([first[3], 0, 0], start(4, seed)),
        (true, true) => last([first[3], port_word, 0], start(8, seed)),
        (false, false) => last([first[3], 0, 0], mix([first[0], first[1], first[2]], start(16, seed))),
        (false, true) => last([first[3], port_word, 0], mix([first[0], first[1], first[2]], start(20, seed))),
    }
}

/// The slot of a hash in a table of `slots`.
#[inline(always)]
#[must_use]
pub const fn slot(hash: u32, slots: u32) -> u32 {
    ((hash as u64 * slots as u64) >> 32) as u32
}

impl Address {
    /// Whether it is an IPv4 address, mapped.
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.high == 0 && self.low as u32 == MAPPED
    }

    /// An IPv4 address, given as it lies in memory.
    #[inline(always)]
    #[must_use]
    pub const fn ipv4(word: u32) -> Self {
        Self { high: 0, low: (word as u64) << 32 | MAPPED as u64 }
    }

    /// The four bytes of an IPv4 address as they lie in memory; of an IPv6 address its last four.
    #[inline(always)]
    #[must_use]
    pub const fn last_word(&self) -> u32 {
        (self.low >> 32) as u32
    }
}

/// The state of Bob Jenkins' lookup3 (`include/linux/jhash.h`) before the first byte of `length`.
#[inline(always)]
const fn start(length: u32, seed: u32) -> [u32; 3] {
    let word = 0xdead_beef_u32.wrapping_add(length).wrapping_add(seed);
    [word, word, word]
}

/// Twelve bytes of more.
#[inline(always)]
const fn mix(words: [u32; 3], [a, b, c]: [u32; 3]) -> [u32; 3] {
    let (mut a, mut b, mut c) =
        (a.wrapping_add(words[0]), b.wrapping_add(words[1]), c.wrapping_add(words[2]));
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    [a, b, c]
}

/// The last twelve bytes, or fewer and zeros.
#[inline(always)]
const fn last(words: [u32; 3], [a, b, c]: [u32; 3]) -> u32 {
    let (mut a, mut b, mut c) =
        (a.wrapping_add(words[0]), b.wrapping_add(words[1]), c.wrapping_add(words[2]));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use portway_core::balance;
    use portway_core::ruleset::HashKey;
    use proptest::prelude::*;

    fn address(ip: IpAddr) -> Address {
        let bytes = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|nth| bytes[at + nth]));
        Address { high: word(0), low: word(8) }
    }

    proptest! {
        #[test]
        fn every_engine_hashes_alike(ip: IpAddr, port: u16, seed: u32, slots in 1u32..70_000) {
            let client = SocketAddr::new(ip, port);
            let own = client_hash(address(ip), None, balance::SEED);
            prop_assert_eq!(own, balance::client_hash(HashKey::Source, client));
            let own = client_hash(address(ip), Some(port.to_be()), balance::SEED);
            prop_assert_eq!(own, balance::client_hash(HashKey::SourcePort, client));
            prop_assert_eq!(slot(seed, slots) as usize, balance::slot(seed, slots as usize));
        }
    }
}
