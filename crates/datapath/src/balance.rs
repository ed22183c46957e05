//! The hash that chooses a backend: that of `portway_core::balance`, for words instead of bytes, so that every engine leads a
//! client to the same one.
//!
//! Deliberately absent: the tables of slots (`portway_core::balance`).

use crate::abi::Address;
use crate::jhash::{last, mix, start};

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

    /// The address as four words.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u32; 4] {
        [self.high as u32, (self.high >> 32) as u32, self.low as u32, (self.low >> 32) as u32]
    }
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
