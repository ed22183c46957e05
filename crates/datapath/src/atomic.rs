//! Atomic words, also where the instruction set has no atomic loads and stores.
//!
//! BPF has read-modify-write instructions from the third version of its instruction set (kernel 5.12), but loads and
//! stores with an order only from the fourth, and LLVM refuses even relaxed ones before it. A plain aligned access to a
//! word is one instruction of the machine in every JIT, so volatile accesses are what relaxed ones would be. On BPF the
//! types here therefore load and store by volatile access; a store that asks for an order goes by exchange, which is a
//! full barrier; a load that asks for one gets only that of what depends on it, which is said at each. Everywhere else they are
//! those of the standard library.
//!
//! LLVM 22 makes of a relaxed read-modify-write the instruction that does not return the old value, also where the low half
//! of that value is used, which is then the operand. An addition therefore always asks for an order here; who uses what a
//! relaxed `fetch_or` or `fetch_and` returns must ask for one, too.
//!
//! The only file of this crate with `unsafe` in it.

#[cfg(not(target_arch = "bpf"))]
pub use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

#[cfg(target_arch = "bpf")]
pub use bpf::{AtomicU16, AtomicU32, AtomicU64};

#[cfg(target_arch = "bpf")]
#[allow(
    unsafe_code,
    missing_docs,
    reason = "volatile accesses, see above; the methods are the standard library's"
)]
mod bpf {
    use core::cell::UnsafeCell;
    use core::sync::atomic::{self, Ordering};

    /// Loaded and stored only: BPF has no other atomic instructions for half words.
    #[repr(transparent)]
    #[derive(Debug, Default)]
    pub struct AtomicU16(UnsafeCell<u16>);

    // SAFETY: all access is by the two functions below, and an aligned half word does not tear.
    unsafe impl Sync for AtomicU16 {}

    impl AtomicU16 {
        #[inline(always)]
        pub fn load(&self, _: Ordering) -> u16 {
            // SAFETY: the pointer is that of a live reference, and aligned.
            unsafe { self.0.get().read_volatile() }
        }

        #[inline(always)]
        pub fn store(&self, value: u16, _: Ordering) {
            // SAFETY: as above.
            unsafe { self.0.get().write_volatile(value) }
        }
    }

    macro_rules! word {
        ($name:ident, $value:ty) => {
            #[repr(transparent)]
            #[derive(Debug, Default)]
            pub struct $name(atomic::$name);

            impl $name {
                #[inline(always)]
                pub fn load(&self, _: Ordering) -> $value {
                    // SAFETY: the pointer is that of a live reference, and aligned; a word does not tear.
                    unsafe { self.0.as_ptr().read_volatile() }
                }

                #[inline(always)]
                pub fn store(&self, value: $value, order: Ordering) {
                    match order {
                        // SAFETY: as above.
                        Ordering::Relaxed => unsafe { self.0.as_ptr().write_volatile(value) },
                        _ => {
                            self.0.swap(value, order);
                        }
                    }
                }

                #[inline(always)]
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    self.0.swap(value, order)
                }

                #[inline(always)]
                pub fn compare_exchange(
                    &self,
                    from: $value,
                    to: $value,
                    done: Ordering,
                    failed: Ordering,
                ) -> Result<$value, $value> {
                    self.0.compare_exchange(from, to, done, failed)
                }

                #[inline(always)]
                pub fn fetch_add(&self, value: $value, _: Ordering) -> $value {
                    self.0.fetch_add(value, Ordering::SeqCst)
                }

                #[inline(always)]
                pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                    self.0.fetch_or(value, order)
                }

                #[inline(always)]
                pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                    self.0.fetch_and(value, order)
                }
            }
        };
    }

    word!(AtomicU32, u32);
    word!(AtomicU64, u64);
}
