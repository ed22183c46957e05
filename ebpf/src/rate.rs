//! How many new flows, and SYNs, a rule has had in this second.

use core::sync::atomic::Ordering::SeqCst;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use portway_datapath::atomic::AtomicU64;
use portway_datapath::cookie;

use crate::maps::RATES;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Which of a rule's rates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// New flows.
    Flows,
    /// SYNs.
    Syns,
}

/// Counts one more; how many there are with it.
#[inline(always)]
pub fn count(rule: u32, of: Of) -> u32 {
    let Some(rate) = RATES.get(rule) else { return 0 };
    let word: &AtomicU64 = match of {
        Of::Flows => &rate.flows,
        Of::Syns => &rate.syns,
    };
    let second = second();
    let before = word.load(SeqCst);
    // Whoever comes first in a second begins to count at one.
    if before >> 32 != second && word.compare_exchange(before, second << 32 | 1, SeqCst, SeqCst).is_ok() {
        return 1;
    }
    (word.fetch_add(1, SeqCst) as u32).wrapping_add(1)
}

/// The second that it is, in 32 bits.
#[inline(always)]
fn second() -> u64 {
    // SAFETY: no arguments.
    (unsafe { bpf_ktime_get_coarse_ns() } / SECOND) & 0xffff_ffff
}

/// How many SYNs there have been in this second.
#[inline(always)]
pub fn syns(rule: u32) -> u32 {
    let Some(rate) = RATES.get(rule) else { return 0 };
    let word = rate.syns.load(SeqCst);
    if word >> 32 == second() { word as u32 } else { 0 }
}

/// Notes that a SYN is answered by a cookie.
#[inline(always)]
pub fn cookie_sent(rule: u32) {
    let Some(rate) = RATES.get(rule) else { return };
    let noted = 1 << 32 | second();
    if rate.cookies.load(SeqCst) != noted {
        rate.cookies.swap(noted, SeqCst);
    }
}

/// Whether a cookie of the rule may still come back.
#[inline(always)]
pub fn expects_cookies(rule: u32) -> bool {
    RATES.get(rule).is_some_and(|rate| cookie::is_recent(rate.cookies.load(SeqCst), second() as u32))
}
