//! Who has which part of the maps: ids, stretches of arrays, and lists of source addresses that members share.
//!
//! All of it is small and can be copied, so that a change is tried on a copy and the copy thrown away when it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use portway_datapath::abi::Address;

/// How long a stretch that was let go of is left alone: a program that found it before runs for microseconds.
const REST: Duration = Duration::from_secs(1);

/// Ids from 1 on.
#[derive(Clone, Debug)]
pub struct Ids {
    /// Those from here on were never used.
    next: u32,
    end: u32,
    free: BTreeSet<u32>,
}

impl Ids {
    /// Ids below `end` of which these are used.
    pub fn new(end: u32, used: &BTreeSet<u32>) -> Self {
        let next = used.last().map_or(1, |last| last + 1);
        Self { next, end, free: (1..next).filter(|id| !used.contains(id)).collect() }
    }

    /// One that is not used; never used ones first, so that an old one rests as long as possible.
    pub fn take(&mut self) -> Option<u32> {
        if self.next < self.end {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.free.pop_first()
    }

    /// There are more now: all below `end`.
    pub fn grow(&mut self, end: u32) {
        self.end = self.end.max(end);
    }

    /// Gives one back.
    pub fn give(&mut self, id: u32) {
        self.free.insert(id);
    }
}

/// Stretches of an array.
#[derive(Clone, Debug)]
pub struct Stretches {
    /// Length by start; no two touch.
    free: BTreeMap<u32, u32>,
    /// Let go of, and when.
    resting: Vec<(Instant, u32, u32)>,
}

impl Stretches {
    /// An array of that length of which these are used: starts and lengths.
    pub fn new(length: u32, used: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut used: Vec<_> = used.into_iter().filter(|(_, length)| *length > 0).collect();
        used.sort_unstable();
        let (mut free, mut at) = (BTreeMap::new(), 0);
        for (start, taken) in used {
            if start > at {
                free.insert(at, start - at);
            }
            at = at.max(start.saturating_add(taken));
        }
        if at < length {
            free.insert(at, length - at);
        }
        Self { free, resting: Vec::new() }
    }

    /// The start of a stretch of that length; 0 for none at all.
    pub fn take(&mut self, length: u32) -> Option<u32> {
        if length == 0 {
            return Some(0);
        }
        self.wake();
        let (&start, &found) = self.free.iter().find(|(_, free)| **free >= length)?;
        self.free.remove(&start);
        if found > length {
            self.free.insert(start + length, found - length);
        }
        Some(start)
    }

    /// Gives a stretch back.
    pub fn give(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.resting.push((Instant::now(), start, length));
        }
    }

    /// The array is longer now by what begins at `from`.
    pub fn grow(&mut self, from: u32, to: u32) {
        if to > from {
            self.insert(from, to - from);
        }
    }

    fn wake(&mut self) {
        let rested: Vec<_> = self.resting.extract_if(.., |(since, ..)| since.elapsed() >= REST).collect();
        for (_, start, length) in rested {
            self.insert(start, length);
        }
    }

    /// Puts a stretch among the free ones, together with its neighbours.
    fn insert(&mut self, mut start: u32, mut length: u32) {
        if let Some((&before, &size)) = self.free.range(..start).next_back()
            && before + size == start
        {
            self.free.remove(&before);
            (start, length) = (before, length + size);
        }
        if let Some(size) = self.free.remove(&(start + length)) {
            length += size;
        }
        self.free.insert(start, length);
    }
}

/// Lists of addresses, each held once however many members see it.
#[derive(Clone, Debug)]
pub struct Lists {
    /// Where it starts and how many have it.
    held: BTreeMap<Vec<Address>, (u32, u32)>,
    room: Stretches,
}

impl Lists {
    /// An array of that length with these lists in it: where each starts, once for every member that has it.
    pub fn new(length: u32, used: impl IntoIterator<Item = (u32, Vec<Address>)>) -> Self {
        let mut held: BTreeMap<Vec<Address>, (u32, u32)> = BTreeMap::new();
        let mut stretches = Vec::new();
        for (start, list) in used.into_iter().filter(|(_, list)| !list.is_empty()) {
            stretches.push((start, list.len() as u32));
            held.entry(list).or_insert((start, 0)).1 += 1;
        }
        Self { held, room: Stretches::new(length, stretches) }
    }

    /// The array is longer now by what begins at `from`.
    pub fn grow(&mut self, from: u32, to: u32) {
        self.room.grow(from, to);
    }

    /// Where a list is, and whether it is to be written there.
    pub fn take(&mut self, list: &[Address]) -> Option<(u32, bool)> {
        if let Some((start, count)) = self.held.get_mut(list) {
            *count += 1;
            return Some((*start, false));
        }
        let start = self.room.take(list.len() as u32)?;
        if !list.is_empty() {
            self.held.insert(list.to_vec(), (start, 1));
        }
        Some((start, !list.is_empty()))
    }

    /// Gives one member's hold on a list back.
    pub fn give(&mut self, list: &[Address]) {
        if let Some((start, count)) = self.held.get_mut(list) {
            *count -= 1;
            if *count == 0 {
                self.room.give(*start, list.len() as u32);
                self.held.remove(list);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_never_overlap_and_come_together_again() {
        let mut room = Stretches::new(100, [(10, 20), (50, 10)]);
        assert_eq!(room.take(41), None);
        assert_eq!((room.take(40), room.take(10), room.take(20)), (Some(60), Some(0), Some(30)));
        assert_eq!(room.take(1), None);
        room.give(0, 10);
        room.give(10, 20);
        assert_eq!(room.take(1), None, "what was just let go of rests");
        room.resting.iter_mut().for_each(|(since, ..)| *since -= REST);
        assert_eq!(room.take(30), Some(0));
    }

    #[test]
    fn ids_rest_as_long_as_possible() {
        let mut ids = Ids::new(4, &BTreeSet::from([2]));
        assert_eq!(ids.take(), Some(3));
        assert_eq!(ids.take(), Some(1));
        assert_eq!(ids.take(), None);
        ids.give(2);
        assert_eq!(ids.take(), Some(2));
    }

    #[test]
    fn a_list_goes_with_its_last_member() {
        let list = [Address { high: 0, low: 1 }, Address { high: 0, low: 2 }];
        let mut lists = Lists::new(4, []);
        assert_eq!((lists.take(&list), lists.take(&list)), (Some((0, true)), Some((0, false))));
        assert_eq!(lists.take(&list[..1]), Some((2, true)));
        lists.give(&list);
        assert_eq!(lists.take(&list), Some((0, false)));
        lists.give(&list);
        lists.give(&list);
        assert_eq!(lists.take(&list), None, "it rests, and there is no room beside it");
    }
}
