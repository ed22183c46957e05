//! The flow table: records, and an index that leads to each from both directions.
//!
//! A flow is one [`Record`]; the index has two entries for it, one for the tuple of each direction. A bucket of the index
//! is a cache line of eight entries, and a tuple's entry is in one of two buckets, so that a look-up reads one or two
//! lines of the index and the record. There are as many buckets that a full table uses 5/8 of their slots
//! ([`crate::sweep::sizes`]). Both buckets of a tuple are full for one new flow in some ten thousand where the table is kept
//! completely full, and for one in a hundred thousand where a twentieth of it is free (`tests/load.rs`); such a flow is
//! refused as by a full table.
//!
//! **Entries.** Bits 0 to 31: the record's number plus 1; bit 32: the direction, 1 for [`Direction::Back`]; above: 30 bits
//! of the tuple's hash, and bit 63, which is always set. 0 is an empty slot. An entry is complete in itself: inserting and removing are one compare and
//! exchange, and neither moves anything, so that look-ups need no lock.
//!
//! **Who may do what** is [`Record::phase`]. Whoever takes a record's bit in the free map ([`crate::free`]) claims it, fills
//! it ([`Record::fill`]), enters it and makes it live ([`publish`]). Whoever changes it from LIVE to LEAVING takes it apart
//! ([`reclaim`]). Entries go before the record does, so no entry ever leads to a record of another flow, except to those
//! who found it before: they are gone long before the record's new life begins ([`crate::abi::GRACE`]).
//!
//! **Two of the same key.** Two processors may enter the same tuple at the same time. Each inserts first and then looks
//! through both buckets: of a live other it withdraws; of two that are both claimed the larger record's number withdraws,
//! and the smaller waits for that, bounded. Both may lose, both never win: then the packet is dropped, and its sender
//! sends it again.
//!
//! Every loop is bounded by a constant, no index is unchecked, and nothing panics: it is the verifier's kind of Rust.
//!
//! Deliberately absent: how a map's values are reached ([`Memory`] is implemented by the kernel programs and by the loader),
//! which flow a packet begins, and what only user space does ([`crate::sweep`]).

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::abi::{Bucket, Config, Record, SEEDS, Tuple, phase, state};
use crate::atomic::AtomicU64;
use crate::free;
use crate::hash::hash;
use crate::record::Direction;

/// The direction's bit of an entry.
const BACK: u64 = 1 << 32;

/// The record's bits of an entry.
const RECORD: u64 = BACK - 1;

/// The hash's bits of an entry.
const TAG: u64 = !(BACK | RECORD);

/// The bit that every entry has.
const USED: u64 = 1 << 63;

/// The first bucket is taken while it has no more entries than this, so that most look-ups read one bucket.
const FIRST_CHOICE: u64 = 4;

/// Mixes the high half of the hash to the number of the second bucket: 2^32 divided by the golden ratio.
const SECOND: u64 = 0x9e37_79b9;

/// How often an insertion chooses a bucket, when others have just filled the one it chose.
const INSERTIONS: u32 = 2;

/// How often it is looked whether somebody else has entered the same tuple, while the other is to withdraw: for about as
/// long as it takes the other to see that.
const ROUNDS: u32 = 4;

/// How many records the clock hand looks at for an expired one.
const HAND: u32 = 32;

/// Access to the maps.
pub trait Memory {
    /// The map `config`.
    fn config(&self) -> &Config;
    /// A value of `buckets`.
    fn bucket(&self, index: u32) -> Option<&Bucket>;
    /// A value of `records`.
    fn record(&self, index: u32) -> Option<&Record>;
    /// A value of `free`.
    fn free(&self, index: u32) -> Option<&AtomicU64>;

    /// [`enter`]. The kernel programs make it and [`Self::leave`] functions that the verifier follows once, rather than
    /// wherever they are called.
    #[inline(always)]
    fn enter(&self, index: u32, record: &Record, direction: Direction) -> Result<(), Refused>
    where
        Self: Sized,
    {
        enter(self, index, record, direction)
    }

    /// [`rival`], for the same reason.
    #[inline(always)]
    fn rival(&self, index: u32, record: &Record, direction: Direction) -> Rival
    where
        Self: Sized,
    {
        rival(self, index, record, direction)
    }

    /// [`leave`].
    #[inline(always)]
    fn leave(&self, index: u32, record: &Record, direction: Direction)
    where
        Self: Sized,
    {
        leave(self, index, record, direction);
    }
}

/// A record that a tuple led to.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its number.
    pub index: u32,
    /// Which of its tuples it was.
    pub direction: Direction,
    /// The record.
    pub record: &'a Record,
}

/// Why a flow was not entered. Its record has been given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Both buckets of one of its tuples are full.
    Full,
    /// A flow has the client's tuple, or the source port.
    Taken,
    /// Others have tried the same at the same time.
    Race,
}

/// Where the entries of a tuple may be.
#[derive(Clone, Copy)]
struct Place {
    tag: u64,
    first: u32,
    second: u32,
}

/// What a flow is looked up by: a tuple, or a packet that has one.
pub trait Key {
    /// [`hash`] of the tuple.
    fn hash(&self, seeds: &[u64; SEEDS]) -> u64;
    /// Whether the packets of a record's flow have the tuple in this direction.
    fn is_of(&self, record: &Record, direction: Direction) -> bool;
}

impl Key for Tuple {
    #[inline(always)]
    fn hash(&self, seeds: &[u64; SEEDS]) -> u64 {
        hash(self, seeds)
    }

    #[inline(always)]
    fn is_of(&self, record: &Record, direction: Direction) -> bool {
        record.has(direction, self)
    }
}

impl Place {
    #[inline(always)]
    fn of<K: Key>(key: &K, config: &Config) -> Self {
        let hash = key.hash(&config.seeds);
        let first = scale(hash, config.buckets);
        let mut second = scale((hash >> 32).wrapping_mul(SECOND), config.buckets);
        if second == first {
            second = if first == 0 { config.buckets.wrapping_sub(1) } else { first - 1 };
        }
        Self { tag: hash & TAG | USED, first, second }
    }

    #[inline(always)]
    fn entry(&self, index: u32, direction: Direction) -> u64 {
        let direction = match direction {
            Direction::Forth => 0,
            Direction::Back => BACK,
        };
        self.tag | direction | u64::from(index.wrapping_add(1))
    }
}

/// The low half of `hash` scaled to `0..buckets`.
#[inline(always)]
const fn scale(hash: u64, buckets: u32) -> u32 {
    ((hash as u32 as u64).wrapping_mul(buckets as u64) >> 32) as u32
}

/// The record that `key` leads to, if it is live. It may be expired ([`Record::is_expired`]) or ended
/// ([`state::ENDED`]): then it carries no packets, but it still holds its tuples, and [`restart`] or [`replace`] begins it
/// anew.
#[inline(always)]
pub fn lookup<'a, M: Memory, K: Key>(memory: &'a M, key: &K) -> Option<Found<'a>> {
    let place = Place::of(key, memory.config());
    find(memory, &place, key, 0, false)
}

/// Whether a flow has `tuple` or is about to. For the search for a source port; only [`publish`] decides.
#[inline(always)]
pub fn is_taken<M: Memory>(memory: &M, tuple: &Tuple) -> bool {
    let place = Place::of(tuple, memory.config());
    find(memory, &place, tuple, 0, true).is_some()
}

/// The first entry of `key` other than `own` whose record is live, or `claimed` too.
#[inline(always)]
fn find<'a, M: Memory, K: Key>(
    memory: &'a M,
    place: &Place,
    key: &K,
    own: u64,
    claimed: bool,
) -> Option<Found<'a>> {
    for bucket in [place.first, place.second] {
        for slot in &memory.bucket(bucket)?.slots {
            let entry = slot.load(Relaxed);
            if entry & TAG != place.tag || entry == own {
                continue;
            }
            let index = ((entry & RECORD) as u32).wrapping_sub(1);
            let Some(record) = memory.record(index) else {
                continue;
            };
            let now = record.phase.load(Relaxed);
            if now != phase::LIVE && !(claimed && now == phase::CLAIMED) {
                continue;
            }
            let direction = if entry & BACK == 0 { Direction::Forth } else { Direction::Back };
            if key.is_of(record, direction) {
                let found = Found { index, direction, record };
                return Some(found);
            }
        }
    }
    None
}

/// Takes a record for a new flow: a free one near `start` (any number that differs between flows), or else an expired one
/// that the clock hand comes to. `None`: the table is full. The record is the caller's to fill, and to [`publish`] or
/// [`release`].
#[inline(always)]
pub fn claim<M: Memory>(memory: &M, start: u32, now: u32) -> Option<(u32, &Record)> {
    if let Some(index) = free::take(memory, start) {
        let record = memory.record(index)?;
        record.phase.swap(phase::CLAIMED, SeqCst);
        return Some((index, record));
    }
    let config = memory.config();
    let hand = memory.free(free::hand(config.records))?.fetch_add(u64::from(HAND), SeqCst);
    for step in 0..HAND {
        // A remainder at each step, not a counter that is set back: of the one the verifier knows nothing and goes the way
        // behind the loop once, of the other it knows enough to go it for every step. (The hand's low half does as well:
        // it wraps once in 2^32 steps.)
        let index = (hand as u32).wrapping_add(step).checked_rem(config.records)?;
        let record = memory.record(index)?;
        if record.phase.load(Relaxed) == phase::LIVE && record.is_reclaimable(config, now) {
            return take_apart(memory, index, record, now, phase::CLAIMED).then_some((index, record));
        }
    }
    None
}

/// Gives back a record that was claimed and has not been entered.
#[inline(always)]
pub fn release<M: Memory>(memory: &M, index: u32, record: &Record) {
    if record.phase.compare_exchange(phase::CLAIMED, phase::FREE, SeqCst, Relaxed).is_ok() {
        free::give(memory, index);
    }
}

/// Enters a record that the caller has claimed and filled, and makes it live. Refused, it is given back.
#[inline(always)]
pub fn publish<M: Memory>(memory: &M, index: u32, record: &Record) -> Result<(), Refused> {
    let entered = memory.enter(index, record, Direction::Back).and_then(|()| {
        memory
            .enter(index, record, Direction::Forth)
            .inspect_err(|_| memory.leave(index, record, Direction::Back))
    });
    match entered {
        Ok(()) => {
            record.phase.swap(phase::LIVE, SeqCst);
        }
        Err(_) => release(memory, index, record),
    }
    entered
}

/// Enters a record that the caller has claimed and filled in the place of `former`, a live one with the same client's
/// tuple, which becomes an orphan ([`state::ORPHAN`]). Refused, the record is given back.
#[inline(always)]
pub fn replace<M: Memory>(memory: &M, former: Found<'_>, index: u32, record: &Record) -> Result<(), Refused> {
    let exchanged = memory.enter(index, record, Direction::Back).and_then(|()| {
        // First, so that it is never neither: who repairs must not take the exchanged entry for a lost one.
        former.record.state.fetch_or(state::ORPHAN, SeqCst);
        let tuple = record.tuple(Direction::Forth);
        let place = Place::of(&tuple, memory.config());
        let from = place.entry(former.index, Direction::Forth);
        let to = place.entry(index, Direction::Forth);
        if exchange(memory, &place, from, to) {
            return Ok(());
        }
        memory.leave(index, record, Direction::Back);
        Err(Refused::Race)
    });
    match exchanged {
        Ok(()) => {
            record.phase.swap(phase::LIVE, SeqCst);
        }
        Err(_) => release(memory, index, record),
    }
    exchanged
}

/// Begins a live flow anew with the same mapping, though it is expired or ended: sets its state and its time. `false`: it
/// is just being reclaimed.
#[inline(always)]
pub fn restart(record: &Record, bits: u32, now: u32) -> bool {
    // Who reclaims changes the phase and then reads the time; this is the other way round, so one sees the other.
    record.seen.swap(now, SeqCst);
    if record.phase.load(SeqCst) != phase::LIVE {
        return false;
    }
    let fixed = record.state.load(Relaxed) & state::FIXED;
    record.state.swap(bits | fixed, SeqCst);
    record.begun.store(now, Relaxed);
    true
}

/// Frees a live record whose time has been over for [`crate::abi::GRACE`]. `false`: it is not so, or somebody else does it.
#[inline(always)]
pub fn reclaim<M: Memory>(memory: &M, index: u32, record: &Record, now: u32) -> bool {
    record.is_reclaimable(memory.config(), now) && take_apart(memory, index, record, now, phase::FREE) && {
        free::give(memory, index);
        true
    }
}

/// Removes the entries of a live record that is reclaimable, which is then `to`.
#[inline(always)]
fn take_apart<M: Memory>(memory: &M, index: u32, record: &Record, now: u32, to: u32) -> bool {
    if record.phase.compare_exchange(phase::LIVE, phase::LEAVING, SeqCst, Relaxed).is_err() {
        return false;
    }
    if !record.is_reclaimable(memory.config(), now) {
        // It has just been begun anew.
        record.phase.swap(phase::LIVE, SeqCst);
        return false;
    }
    dismantle(memory, index, record, phase::LEAVING, to)
}

/// Removes the entries of a record, and changes its phase from `from` to `to`; whether that was done here.
#[inline(always)]
pub(crate) fn dismantle<M: Memory>(memory: &M, index: u32, record: &Record, from: u32, to: u32) -> bool {
    memory.leave(index, record, Direction::Forth);
    memory.leave(index, record, Direction::Back);
    record.phase.compare_exchange(from, to, SeqCst, Relaxed).is_ok()
}

/// Inserts the entry of one direction, and makes sure that it is the only one of its tuple.
#[inline(always)]
pub fn enter<M: Memory>(
    memory: &M,
    index: u32,
    record: &Record,
    direction: Direction,
) -> Result<(), Refused> {
    let tuple = record.tuple(direction);
    let place = Place::of(&tuple, memory.config());
    let own = place.entry(index, direction);
    if !insert(memory, &place, own) {
        return Err(Refused::Full);
    }
    let mut refused = Refused::Race;
    for _ in 0..ROUNDS {
        match memory.rival(index, record, direction) {
            Rival::None => return Ok(()),
            Rival::Withdraws => {}
            Rival::Stays => break,
            Rival::Live => {
                refused = Refused::Taken;
                break;
            }
        }
    }
    exchange(memory, &place, own, 0);
    Err(refused)
}

/// Who else has entered a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// Nobody.
    None,
    /// A claimed record of a larger number, which is to withdraw when it sees ours.
    Withdraws,
    /// A claimed record of a smaller number, or of the same: a flow whose two tuples are one.
    Stays,
    /// A flow.
    Live,
}

/// Who has entered a record's tuple besides the record.
#[inline(always)]
pub fn rival<M: Memory>(memory: &M, index: u32, record: &Record, direction: Direction) -> Rival {
    let tuple = record.tuple(direction);
    let place = Place::of(&tuple, memory.config());
    let own = place.entry(index, direction);
    match find(memory, &place, &tuple, own, true) {
        None => Rival::None,
        Some(other) if other.record.phase.load(SeqCst) == phase::LIVE => Rival::Live,
        Some(other) if u64::from(other.index) >= own & RECORD => Rival::Withdraws,
        Some(_) => Rival::Stays,
    }
}

/// Removes the entry of one direction if it is there.
#[inline(always)]
pub fn leave<M: Memory>(memory: &M, index: u32, record: &Record, direction: Direction) {
    let place = Place::of(&record.tuple(direction), memory.config());
    exchange(memory, &place, place.entry(index, direction), 0);
}

/// Puts `entry` into an empty slot; whether there was one.
#[inline(never)]
fn insert<M: Memory>(memory: &M, place: &Place, entry: u64) -> bool {
    for _ in 0..INSERTIONS {
        let Some(mut bucket) = memory.bucket(place.first) else {
            return false;
        };
        let used = used(bucket);
        if used > FIRST_CHOICE
            && let Some(other) = memory.bucket(place.second)
            && self::used(other) < used
        {
            bucket = other;
        }
        for slot in &bucket.slots {
            if slot.load(Relaxed) == 0 && slot.compare_exchange(0, entry, SeqCst, Relaxed).is_ok() {
                return true;
            }
        }
    }
    false
}

/// How many slots of a bucket are used. Without branches: the verifier would follow every combination.
#[inline(always)]
fn used(bucket: &Bucket) -> u64 {
    let mut used = 0;
    for slot in &bucket.slots {
        used += slot.load(Relaxed) >> 63;
    }
    used
}

/// Changes an entry where it is; whether it was there.
#[inline(always)]
fn exchange<M: Memory>(memory: &M, place: &Place, from: u64, to: u64) -> bool {
    for bucket in [place.first, place.second] {
        let Some(bucket) = memory.bucket(bucket) else {
            return false;
        };
        for slot in &bucket.slots {
            if slot.load(Relaxed) == from && slot.compare_exchange(from, to, SeqCst, Relaxed).is_ok() {
                return true;
            }
        }
    }
    false
}
