//! What only user space does with the flow table: sizes, the first filling of the free map, freeing expired flows ahead of
//! need, and repair after a daemon that was killed while it did so.
//!
//! The kernel programs may be at work all the while.
//!
//! Deliberately absent: how often, and the waiting between [`suspect`] and [`settle`] (the loader).

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::abi::{Bucket, Record, phase};
use crate::free;
use crate::table::{Memory, dismantle, reclaim};

/// How large the maps of a flow table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Values of `records`.
    pub records: u32,
    /// Values of `buckets`.
    pub buckets: u32,
    /// Values of `free`.
    pub free: u32,
}

/// The sizes of a table for `records` flows, which are raised to 64 and lowered to [`free::MOST_RECORDS`] where they are
/// beyond: two entries for each flow fill 5/8 of the index.
#[must_use]
pub const fn sizes(records: u32) -> Sizes {
    let records = if records < 64 {
        64
    } else if records > free::MOST_RECORDS {
        free::MOST_RECORDS
    } else {
        records
    };
    Sizes { records, buckets: (records * 2).div_ceil(5), free: free::words(records) }
}

impl Sizes {
    /// Bytes of memory.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.records as u64 * size_of::<Record>() as u64
            + self.buckets as u64 * size_of::<Bucket>() as u64
            + self.free as u64 * size_of::<u64>() as u64
    }
}

/// Makes every record of a new table, all zeros until now, a free one. Before anybody uses it.
pub fn initialise<M: Memory>(memory: &M) {
    for record in 0..memory.config().records {
        free::give(memory, record);
    }
}

/// What [`sweep`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Records freed.
    pub freed: u32,
    /// Records that hold a flow.
    pub live: u32,
}

/// Frees the expired ones of `count` records from `first` on.
pub fn sweep<M: Memory>(memory: &M, first: u32, count: u32, now: u32) -> Swept {
    let mut swept = Swept::default();
    let end = first.saturating_add(count).min(memory.config().records);
    for index in first..end {
        let Some(record) = memory.record(index) else {
            break;
        };
        if record.phase.load(Relaxed) != phase::LIVE {
            continue;
        }
        if reclaim(memory, index, record, now) {
            swept.freed += 1;
        } else {
            swept.live += 1;
        }
    }
    swept
}

/// A record that is in somebody's hands, or in nobody's though it is not marked as free. A kernel program has one so for
/// microseconds; a daemon that was killed while it swept has left it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its number.
    pub index: u32,
    /// Its phase.
    phase: u32,
}

/// Whether the record is suspect. Those that are still so after a second are to be settled ([`settle`]).
pub fn suspect<M: Memory>(memory: &M, index: u32) -> Option<Suspect> {
    let phase = memory.record(index)?.phase.load(SeqCst);
    let sound = match phase {
        phase::LIVE => true,
        phase::FREE => free::is_free(memory, index),
        _ => false,
    };
    (!sound).then_some(Suspect { index, phase })
}

/// Frees a record that was `suspect` a second ago or longer and still is; whether it was done.
pub fn settle<M: Memory>(memory: &M, before: Suspect) -> bool {
    let Some(record) = memory.record(before.index) else {
        return false;
    };
    if suspect(memory, before.index) != Some(before) {
        return false;
    }
    // Removing entries that are not there does nothing, and of two that come here at once one changes the phase.
    let done =
        before.phase == phase::FREE || dismantle(memory, before.index, record, before.phase, phase::FREE);
    if done {
        free::give(memory, before.index);
    }
    done
}
