//! The map of free records: a bit for each, set while it is free, under three levels of summaries.
//!
//! A summary's bit is set if the word below it is not zero, so that a free record is found in four loads among 2^24. The
//! truth is the lowest level: whoever clears a bit there owns the record. Summaries follow: a set bit over an empty word
//! costs one attempt, and a clear bit over a word that is not empty is prevented by looking again after clearing (both
//! sides change first and then look, so one of them sees the other).
//!
//! Deliberately absent: what a record is ([`crate::table`]).

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::table::Memory;

/// How often [`take`] begins anew when others have emptied the word that it went to.
const ATTEMPTS: u32 = 8;

/// Records there can be at most: four levels of 64.
pub const MOST_RECORDS: u32 = 1 << 24;

/// Where each level begins, in words.
#[derive(Clone, Copy, Debug)]
struct Levels {
    /// The first summary. The lowest level is at 0.
    first: u32,
    /// The second.
    second: u32,
    /// The third: one word.
    third: u32,
}

impl Levels {
    #[inline(always)]
    const fn of(records: u32) -> Self {
        let lowest = records.div_ceil(64);
        let first = lowest.div_ceil(64);
        let second = first.div_ceil(64);
        Self { first: lowest, second: lowest + first, third: lowest + first + second }
    }
}

/// Words of the map, that of the clock hand included.
#[must_use]
pub const fn words(records: u32) -> u32 {
    hand(records) + 1
}

/// The word behind the summaries: where the search for expired records goes on.
#[inline(always)]
pub(crate) const fn hand(records: u32) -> u32 {
    Levels::of(records).third + 1
}

/// The first bit set in `word`, which is not 0, from bit `start` modulo 64 on, and around.
#[inline(always)]
const fn next(word: u64, start: u32) -> u32 {
    let above = word & u64::MAX << (start & 63);
    (if above != 0 { above } else { word }).trailing_zeros()
}

/// Takes a free record, near `start` where there is one: processors that begin at different places do not meet.
#[inline(always)]
pub(crate) fn take<M: Memory>(memory: &M, start: u32) -> Option<u32> {
    let levels = Levels::of(memory.config().records);
    for _ in 0..ATTEMPTS {
        let third = memory.free(levels.third)?.load(Relaxed);
        if third == 0 {
            return None;
        }
        let at = next(third, start >> 18);
        let second = memory.free(levels.second + at)?.load(Relaxed);
        if second == 0 {
            continue;
        }
        let at = at << 6 | next(second, start >> 12);
        let first = memory.free(levels.first + at)?.load(Relaxed);
        if first == 0 {
            continue;
        }
        let at = at << 6 | next(first, start >> 6);
        let word = memory.free(at)?;
        let lowest = word.load(Relaxed);
        if lowest == 0 {
            continue;
        }
        let bit = next(lowest, start);
        let mask = 1 << bit;
        let before = word.fetch_and(!mask, SeqCst);
        if before & mask == 0 {
            continue;
        }
        if before == mask {
            close(memory, &levels, at);
        }
        return Some(at << 6 | bit);
    }
    None
}

/// Clears the summaries over word `at` of the lowest level, which has become empty.
#[inline(always)]
fn close<M: Memory>(memory: &M, levels: &Levels, at: u32) {
    let above = [levels.first, levels.second, levels.third];
    let mut below = at;
    let mut position = at;
    for base in above {
        let bit = 1 << (position & 63);
        position >>= 6;
        let (Some(word), Some(child)) = (memory.free(base + position), memory.free(below)) else {
            return;
        };
        let left = word.fetch_and(!bit, SeqCst) & !bit;
        if child.load(SeqCst) != 0 {
            open(memory, levels, at);
            return;
        }
        if left != 0 {
            return;
        }
        below = base + position;
    }
}

/// Sets the summaries over word `at` of the lowest level.
#[inline(always)]
fn open<M: Memory>(memory: &M, levels: &Levels, at: u32) {
    let mut position = at;
    for base in [levels.first, levels.second, levels.third] {
        let bit = 1 << (position & 63);
        position >>= 6;
        if let Some(word) = memory.free(base + position)
            && word.load(SeqCst) & bit == 0
        {
            word.fetch_or(bit, SeqCst);
        }
    }
}

/// Gives a record back.
#[inline(always)]
pub(crate) fn give<M: Memory>(memory: &M, record: u32) {
    let at = record >> 6;
    if let Some(word) = memory.free(at) {
        word.fetch_or(1 << (record & 63), SeqCst);
        open(memory, &Levels::of(memory.config().records), at);
    }
}

/// Whether a record's bit is set.
pub(crate) fn is_free<M: Memory>(memory: &M, record: u32) -> bool {
    let word = memory.free(record >> 6).map_or(0, |word| word.load(SeqCst));
    word >> (record & 63) & 1 != 0
}
