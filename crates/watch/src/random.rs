//! Random numbers for jitter and for the ids of queries: SipHash of a counter, with a key from the system.
//!
//! Deliberately absent: anything for long-lived secrets.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers.
pub(crate) struct Random {
    key: RandomState,
    count: AtomicU64,
}

impl Random {
    /// A source with a key of its own.
    pub(crate) fn new() -> Self {
        Self { key: RandomState::new(), count: AtomicU64::new(0) }
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        self.key.hash_one(self.count.fetch_add(1, Ordering::Relaxed))
    }
}
