//! The flow table's memory: the values of the maps that it lies in.

use portway_datapath::abi::{Bucket, Config, Record};
use portway_datapath::atomic::AtomicU64;
use portway_datapath::record::Direction;
use portway_datapath::table::{self, Memory, Refused};

use crate::maps::{BUCKETS, CONFIG, FREE, RECORDS};

/// Access to the maps of the flow table, with the settings at hand.
#[derive(Clone, Copy)]
pub struct Maps {
    config: &'static Config,
}

impl Maps {
    /// `None` never happens: the verifier wants to be asked.
    #[inline(always)]
    pub fn open() -> Option<Self> {
        Some(Self { config: CONFIG.get(0)? })
    }
}

impl Memory for Maps {
    #[inline(always)]
    fn config(&self) -> &Config {
        self.config
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        BUCKETS.get(index)
    }

    #[inline(always)]
    fn record(&self, index: u32) -> Option<&Record> {
        RECORDS.get(index)
    }

    #[inline(always)]
    fn free(&self, index: u32) -> Option<&AtomicU64> {
        // SAFETY: the map's value is eight bytes, aligned, and is accessed by atomic instructions only.
        FREE.get_ptr(index).map(|word| unsafe { &*word.cast::<AtomicU64>() })
    }
}

/// What the functions below answer, where it is not a record's number: it is done.
pub const DONE: u64 = 1 << 32;
/// The flow table, or a part of it, is full.
pub const FULL: u64 = DONE + 1;
/// A flow has the tuple.
const TAKEN: u64 = DONE + 2;
/// Others have tried the same at the same time.
pub const RACE: u64 = DONE + 3;

#[inline(always)]
fn answer(entered: Result<(), Refused>) -> u64 {
    match entered {
        Ok(()) => DONE,
        Err(Refused::Full) => FULL,
        Err(Refused::Taken) => TAKEN,
        Err(Refused::Race) => RACE,
    }
}

/// [`table::claim`]: the record's number, or one that is none. This and the following are global functions, numbers in and a number out: the
/// verifier follows such a one once, by itself, and needs to know nothing of who calls.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn table_claim(start: u32, now: u32) -> u64 {
    let Some(maps) = Maps::open() else { return FULL };
    table::claim(&maps, start, now).map_or(u64::MAX, |(index, _)| u64::from(index))
}

/// [`table::publish`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn table_publish(index: u32) -> u64 {
    let Some(maps) = Maps::open() else { return FULL };
    let Some(record) = maps.record(index) else { return FULL };
    answer(table::publish(&maps, index, record))
}

/// [`table::replace`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn table_replace(former: u32, index: u32) -> u64 {
    let Some(maps) = Maps::open() else { return FULL };
    let Some(record) = maps.record(index) else { return FULL };
    let Some(of_former) = maps.record(former) else { return FULL };
    let former = table::Found { index: former, direction: Direction::Forth, record: of_former };
    answer(table::replace(&maps, former, index, record))
}

/// [`table::reclaim`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn table_reclaim(index: u32, now: u32) -> u64 {
    let Some(maps) = Maps::open() else { return FULL };
    let Some(record) = maps.record(index) else { return FULL };
    if table::reclaim(&maps, index, record, now) { DONE } else { TAKEN }
}
