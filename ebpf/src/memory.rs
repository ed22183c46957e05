//! The flow table's memory: the values of the maps that it lies in.

use portway_datapath::abi::{Bucket, Config, Record, Tuple};
use portway_datapath::atomic::AtomicU64;
use portway_datapath::record::Direction;
use portway_datapath::table::{self, Found, Memory, Refused, Rival};

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

    #[inline(always)]
    fn enter(&self, index: u32, _: &Record, direction: Direction) -> Result<(), Refused> {
        match table_enter(index, u32::from(direction == Direction::Back)) {
            DONE => Ok(()),
            FULL => Err(Refused::Full),
            TAKEN => Err(Refused::Taken),
            _ => Err(Refused::Race),
        }
    }

    #[inline(always)]
    fn rival(&self, index: u32, _: &Record, direction: Direction) -> Rival {
        match table_rival(index, u32::from(direction == Direction::Back)) {
            0 => Rival::None,
            1 => Rival::Withdraws,
            2 => Rival::Live,
            _ => Rival::Stays,
        }
    }

    #[inline(always)]
    fn leave(&self, index: u32, _: &Record, direction: Direction) {
        table_leave(index, u32::from(direction == Direction::Back));
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

/// [`table::enter`]. This and the following are global functions, numbers in and a number out: the verifier follows such a
/// one once, by itself, and needs to know nothing of who calls.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_enter(index: u32, back: u32) -> u64 {
    let Some(maps) = Maps::open() else { return FULL };
    let Some(record) = maps.record(index) else { return FULL };
    let direction = if back == 0 { Direction::Forth } else { Direction::Back };
    answer(table::enter(&maps, index, record, direction))
}

/// [`table::rival`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_rival(index: u32, back: u32) -> u64 {
    let Some(maps) = Maps::open() else { return FULL };
    let Some(record) = maps.record(index) else { return FULL };
    let direction = if back == 0 { Direction::Forth } else { Direction::Back };
    match table::rival(&maps, index, record, direction) {
        Rival::None => 0,
        Rival::Withdraws => 1,
        Rival::Live => 2,
        Rival::Stays => 3,
    }
}

/// [`table::leave`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_leave(index: u32, back: u32) -> u64 {
    let Some(maps) = Maps::open() else { return FULL };
    let Some(record) = maps.record(index) else { return FULL };
    let direction = if back == 0 { Direction::Forth } else { Direction::Back };
    table::leave(&maps, index, record, direction);
    DONE
}

/// [`table::lookup`] where it is not for speed: the record's number, with [`BACK`] for that direction, or [`FULL`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_lookup(tuple: *const Tuple) -> u64 {
    let Some(maps) = Maps::open() else { return FULL };
    // SAFETY: the verifier asks every caller for a whole tuple, and here for the comparison with null.
    let Some(tuple) = (unsafe { tuple.as_ref() }) else { return FULL };
    match table::lookup(&maps, tuple) {
        Some(found) => u64::from(found.index) | if found.direction == Direction::Back { BACK } else { 0 },
        None => FULL,
    }
}

/// The direction in the answer of [`table_lookup`].
const BACK: u64 = 1 << 33;

/// [`table::lookup`], followed by the verifier once and not wherever it is called.
#[inline(always)]
pub fn find(tuple: &Tuple) -> Option<Found<'static>> {
    let found = table_lookup(tuple);
    let index = found as u32;
    let record = if found == FULL { None } else { RECORDS.get(index) }?;
    let direction = if found & BACK != 0 { Direction::Back } else { Direction::Forth };
    Some(Found { index, direction, record })
}

/// [`table::claim`]: the record's number, or one that is none.
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
