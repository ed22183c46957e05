//! A worker's own random numbers, for drawing members. Not for secrets: a client that could guess them would only
//! know where it is sent.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Marsaglia's xorshift64 with a multiplication at the end (Vigna, "An experimental exploration of Marsaglia's
/// xorshift generators, scrambled", 2016).
pub struct Random(u64);

impl Random {
    /// A generator whose seed is the process's own.
    pub fn new() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    fn seeded(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number below `bound` (at most 2^32, and not 0).
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * bound as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_as_often() {
        let mut random = Random::seeded(1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7)] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
