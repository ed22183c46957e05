//! Reaching the bytes of a packet.
//!
//! [`Packet`] is what both hooks have in common; the rest of the programs is written over it once and compiled for each. A
//! [`Window`] is a run of bytes that the verifier has seen to be within the packet, so what reads and writes through it
//! needs no `unsafe`: its offsets are checked when the program is compiled.
//!
//! Deliberately absent: what the bytes mean.

use core::ffi::c_void;
use core::marker::PhantomData;

use portway_datapath::abi::Address;

/// A packet at one of the hooks.
pub trait Packet: Copy {
    /// Leaves the packet to whoever comes next, the kernel at last.
    const PASS: i32;
    /// Ends it.
    const DROP: i32;

    /// The context, as the kernel's functions for programs take it.
    fn context(self) -> *mut c_void;
    /// Where the bytes begin.
    fn start(self) -> usize;
    /// Where those end that can be reached directly.
    fn end(self) -> usize;
    /// Whether it has `length` bytes, wherever they are.
    fn has(self, length: u32) -> bool;
    /// The index of the interface that it came in by.
    fn interface(self) -> u32;

    /// `N` bytes from `offset`, if they can be reached directly. Whatever changes the packet (as said at each) invalidates
    /// it; the verifier finds whoever forgets.
    #[inline(always)]
    fn window<const N: usize>(self, offset: u32) -> Option<Window<N>> {
        // The mask is for the verifier, which wants a bound for an offset that is not constant; no header begins later.
        let start = add(self.start(), offset & 0xff);
        if start + N > self.end() {
            return None;
        }
        Some(Window { start: start as *mut u8, not_shared: PhantomData })
    }
}

/// The sum, out of the compiler's sight: it would compute it anew where it is used, in another register than the one that
/// the verifier has seen compared with the end.
#[inline(always)]
fn add(mut pointer: usize, offset: u32) -> usize {
    // SAFETY: an addition.
    unsafe {
        core::arch::asm!(
            "{pointer} += {offset}",
            pointer = inout(reg) pointer,
            offset = in(reg) u64::from(offset),
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    pointer
}

/// `N` bytes of a packet.
#[derive(Clone, Copy)]
pub struct Window<const N: usize> {
    start: *mut u8,
    not_shared: PhantomData<*mut u8>,
}

impl<const N: usize> Window<N> {
    /// What lies at `AT`, in network order.
    #[inline(always)]
    pub fn get<T: Plain, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: within what was compared with the packet's end.
        unsafe { T::load::<AT>(self.start) }
    }

    /// Puts `value` at `AT`.
    #[inline(always)]
    pub fn set<T: Plain, const AT: usize>(self, value: T) {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: as above.
        unsafe { value.store::<AT>(self.start) }
    }
}

/// What is read and written at once. Packets are not aligned (the Ethernet header has 14 bytes), which the instruction set
/// allows with packets and forbids on the stack; the compiler knows no such difference, so these are written out.
pub trait Plain: Copy {
    /// Reads the value `AT` bytes behind `start`.
    ///
    /// # Safety
    ///
    /// The verifier has seen that it is within the packet.
    unsafe fn load<const AT: usize>(start: *const u8) -> Self;

    /// Writes the value.
    ///
    /// # Safety
    ///
    /// As for [`Self::load`].
    unsafe fn store<const AT: usize>(self, start: *mut u8);
}

macro_rules! plain {
    ($integer:ty, $width:literal) => {
        impl Plain for $integer {
            #[inline(always)]
            unsafe fn load<const AT: usize>(start: *const u8) -> Self {
                let value: u64;
                // SAFETY: one load, of what the caller has been promised.
                unsafe {
                    core::arch::asm!(
                        concat!("{value} = *(", $width, " *)({start} + {at})"),
                        value = lateout(reg) value,
                        start = in(reg) start,
                        at = const AT,
                        options(pure, readonly, nostack, preserves_flags),
                    );
                }
                value as Self
            }

            #[inline(always)]
            unsafe fn store<const AT: usize>(self, start: *mut u8) {
                // SAFETY: one store.
                unsafe {
                    core::arch::asm!(
                        concat!("*(", $width, " *)({start} + {at}) = {value}"),
                        value = in(reg) u64::from(self),
                        start = in(reg) start,
                        at = const AT,
                        options(nostack, preserves_flags),
                    );
                }
            }
        }
    };
}

plain!(u8, "u8");
plain!(u16, "u16");
plain!(u32, "u32");
plain!(u64, "u64");

impl<const N: usize> Window<N> {
    /// The address at `AT`, of which `REST` is `AT` plus 8.
    #[inline(always)]
    pub fn address<const AT: usize, const REST: usize>(self) -> Address {
        const { assert!(REST == AT + 8) };
        Address { high: self.get::<u64, AT>(), low: self.get::<u64, REST>() }
    }

    /// Puts an address at `AT`, of which `REST` is `AT` plus 8.
    #[inline(always)]
    pub fn set_address<const AT: usize, const REST: usize>(self, address: Address) {
        const { assert!(REST == AT + 8) };
        self.set::<u64, AT>(address.high);
        self.set::<u64, REST>(address.low);
    }
}
