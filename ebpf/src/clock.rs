//! The time, in ticks of the kernel's coarse monotonic clock.
//!
//! Asking the kernel costs as much as a third of all that is done with a packet, but its count of timer interrupts is a load
//! from memory, and the coarse clock is set by the same interrupt. So each processor asks once in each of them, and is
//! behind by one at most: a few milliseconds, of ticks of 17.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portway_datapath::abi::TICK_SHIFT;

/// When a processor last asked.
struct Asked {
    /// The count of timer interrupts then, plus 1: 0 is before the first time.
    at: u64,
    /// The tick.
    tick: u32,
}

/// One for each processor.
#[map(name = "clock")]
static ASKED: PerCpuArray<Asked> = PerCpuArray::with_max_entries(1, 0);

/// The tick that it is.
#[inline(always)]
pub fn ticks() -> u32 {
    let Some(asked) = ASKED.get_ptr_mut(0) else { return 0 };
    // SAFETY: this processor's; programs of both hooks do not interrupt each other. No arguments.
    let (asked, interrupts) = unsafe { (&mut *asked, bpf_jiffies64().wrapping_add(1)) };
    if asked.at != interrupts {
        asked.at = interrupts;
        // SAFETY: no arguments.
        asked.tick = (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32;
    }
    asked.tick
}
