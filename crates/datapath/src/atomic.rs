//! Reading and writing shared words where the instruction set has no atomic loads and stores.
//!
//! BPF has read-modify-write instructions from the third version of its instruction set (kernel 5.12), but loads with an
//! order only from the fourth, and LLVM refuses even relaxed ones before it. A plain aligned load of a word is one
//! instruction of the machine in every JIT, so a volatile read is what a relaxed load would be; a write goes by exchange,
//! which is a full barrier. Code of the flow table and the kernel programs therefore uses [`Word::read`] and
//! [`Word::write`] instead of `load` and `store`; `compare_exchange`, `fetch_or` and the like are used as they are.
//!
//! The only file of this crate with `unsafe` in it.
#![allow(unsafe_code, reason = "volatile reads, see above")]

use core::sync::atomic::{AtomicU32, AtomicU64};

/// A word that several processors read and write.
pub trait Word {
    /// What is in it.
    type Value;

    /// Its value. What was written before the value was is seen by who has read it (on BPF: as far as the reads that
    /// follow depend on it).
    fn read(&self) -> Self::Value;

    /// Sets it, after everything that was written before.
    fn write(&self, value: Self::Value);
}

macro_rules! word {
    ($atomic:ty, $value:ty) => {
        impl Word for $atomic {
            type Value = $value;

            #[cfg(target_arch = "bpf")]
            #[inline(always)]
            fn read(&self) -> $value {
                // SAFETY: the pointer is that of a live reference, aligned; a volatile read of a word does not tear.
                unsafe { self.as_ptr().read_volatile() }
            }

            #[cfg(not(target_arch = "bpf"))]
            #[inline(always)]
            fn read(&self) -> $value {
                self.load(core::sync::atomic::Ordering::Acquire)
            }

            #[cfg(target_arch = "bpf")]
            #[inline(always)]
            fn write(&self, value: $value) {
                self.swap(value, core::sync::atomic::Ordering::AcqRel);
            }

            #[cfg(not(target_arch = "bpf"))]
            #[inline(always)]
            fn write(&self, value: $value) {
                self.store(value, core::sync::atomic::Ordering::Release);
            }
        }
    };
}

word!(AtomicU32, u32);
word!(AtomicU64, u64);
