//! The flow table's hash of a [`Tuple`].
//!
//! Whoever sends packets chooses tuples, and must not be able to fill two buckets of the index with flows of one hash, so
//! the hash is keyed. Multiplying by constants and shifting does not do: a difference in the top bit of a word goes
//! through it whatever the key is, and a difference in the next word cancels it. This is NH, the universal hash of UMAC
//! (Black, Halevi, Krawczyk, Krovetz, Rogaway: "UMAC: Fast and Secure Message Authentication", CRYPTO 1999; RFC 4418
//! 5.2): the two halves of each word are added to a secret each and multiplied with each other, and the products are
//! summed. Two tuples have the same sum for one in 2^32 secrets at most, whoever chose them. The sum is then mixed by a
//! bijection (the finalizer of MurmurHash3), for the index takes its bits apart.
//!
//! It costs seven multiplications of 64 bits, of which five do not wait for each other.
//!
//! Deliberately absent: the hash that chooses a backend, which is that of `portway_core::balance` so that all engines
//! choose alike.

use crate::abi::{SEEDS, Tuple};

/// The hash of `tuple` under the secrets of [`crate::abi::Config::seeds`]. All 64 bits are good.
#[inline(always)]
#[must_use]
pub fn hash(tuple: &Tuple, seeds: &[u64; SEEDS]) -> u64 {
    let sum = product(tuple.source.high, seeds[0])
        .wrapping_add(product(tuple.source.low, seeds[1]))
        .wrapping_add(product(tuple.destination.high, seeds[2]))
        .wrapping_add(product(tuple.destination.low, seeds[3]))
        .wrapping_add(product(u64::from(tuple.ports()) << 32 | u64::from(tuple.protocol), seeds[4]));
    finish(sum)
}

/// The product of the two halves of `word`, each plus its half of `seed`.
#[inline(always)]
const fn product(word: u64, seed: u64) -> u64 {
    let low = (word as u32).wrapping_add(seed as u32);
    let high = ((word >> 32) as u32).wrapping_add((seed >> 32) as u32);
    (low as u64).wrapping_mul(high as u64)
}

/// A bijection in which every bit of `word` reaches every bit.
#[inline(always)]
const fn finish(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}
