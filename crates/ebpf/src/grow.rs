//! Larger maps under traffic: when a plan does not fit, those that are too small are made anew beside the old ones, filled
//! with the same at the same places, and the programs replaced by the same programs on the larger maps.
//!
//! Until all of them are, everything can be taken back: where one interface refuses, the others get the programs on the old maps
//! again.
//!
//! The flow table is not among them: flows are entered while it is copied. Its size is what the file said when it was made.

use std::fs;
use std::io;
use std::sync::Arc;

use portway_core::engine::EngineError;
use portway_core::plan::ebpf::Plan;
use portway_datapath::abi::maps as name;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::attach::Hooks;
use crate::held::Held;
use crate::maps::{Maps, Room};
use crate::object::Programs;
use crate::observe::{sum_of_legs, sum_of_refusals};
use crate::pins;
use crate::refusal::{failure, refused};
use crate::value::Key;

/// The maps that grow.
const GROWING: [&str; 11] = [
    name::LISTENERS,
    name::RANGES,
    name::RULES,
    name::SLOTS,
    name::MEMBERS,
    name::SOURCES,
    name::TURNS,
    name::RATES,
    name::LEGS,
    name::REFUSALS,
    name::NAMES,
];

impl Held {
    /// Makes room for what `plan` needs beside what is held; `false` when the maps have it already.
    ///
    /// # Errors
    /// The kernel's; the old maps are still in use then.
    pub fn grow(&mut self, plan: &Plan) -> Result<bool, EngineError> {
        let mut entries = self.room_beside(plan).with_reserve().entries();
        let now = self.maps.entries();
        let grow: Vec<&str> = GROWING.into_iter().filter(|name| now.get(name) < entries.get(name)).collect();
        if grow.is_empty() {
            return Ok(false);
        }
        for (name, count) in now {
            if !grow.contains(&name) {
                entries.insert(name, count);
            }
        }
        let (old, next) = (self.pins.maps(), self.pins.next());
        let stage = || {
            pins::remove(&next)?;
            fs::create_dir(&next)?;
            let stay = entries.keys().filter(|name| !grow.contains(*name));
            stay.map(|name| (old.join(name), next.join(name)))
                .try_for_each(|(from, to)| fs::hard_link(from, to))
        };
        stage().map_err(|error| failure("make larger maps", &error))?;
        let mut programs =
            Programs::new(&next, &entries).map_err(|error| refused("load the programs", error))?;
        let maps = Maps::open(&next).and_then(|maps| copy(&self.maps, &maps).map(|()| maps));
        let maps = maps.map_err(|error| failure("fill larger maps", &error))?;
        let mut switched = Vec::new();
        let switch = self.attach_all(&mut programs, &mut switched).and_then(|()| {
            // A daemon that is killed before this finds the old maps and replaces the programs again.
            renameat_with(CWD, &next, CWD, &old, RenameFlags::EXCHANGE)
                .map_err(|error| failure("put larger maps in the place of the old ones", &error.into()))
        });
        if let Err(error) = switch {
            self.switch_back(&switched, &maps);
            let _ = pins::remove(&next);
            return Err(error);
        }
        programs.moved(&old);
        // What fails from here on leaves the new maps in force.
        let (copied, removed) = (copy_counters(&self.maps, &maps), pins::remove(&next));
        if let Err(error) = copied.and(removed) {
            (self.log)(&format!("ebpf: after larger maps have taken the place of the old ones: {error}"));
        }
        self.allocations.grow(&self.maps, &maps);
        self.maps = Arc::new(maps);
        self.programs = programs;
        self.epoch += 1;
        Ok(true)
    }

    /// Puts these programs in the place of those that hang on interfaces now. `switched` are those where it has been done, or
    /// begun.
    fn attach_all(
        &mut self,
        programs: &mut Programs,
        switched: &mut Vec<(u32, Hooks)>,
    ) -> Result<(), EngineError> {
        for (interface, hooks) in self.serving.attached() {
            switched.push((interface, hooks));
            let attached = self.attachments.attach(interface, hooks, programs);
            attached.map_err(|failed| refused(failed.doing, failed.reason))?;
        }
        Ok(())
    }

    /// Puts the programs on the old maps back, and what was counted in the new ones, `maps`, with the rest.
    fn switch_back(&mut self, switched: &[(u32, Hooks)], maps: &Maps) {
        for (interface, hooks) in switched {
            // What refused refuses again; its programs at the other hook are those that it had.
            if let Err(failed) = self.attachments.attach(*interface, *hooks, &mut self.programs) {
                (self.log)(&format!("ebpf: {}: {}", failed.doing, failed.reason));
            }
        }
        if let Err(error) = copy_counters(maps, &self.maps) {
            (self.log)(&format!("ebpf: counters of a moment are lost: {error}"));
        }
    }

    /// What `plan` needs and what is held, together.
    fn room_beside(&self, plan: &Plan) -> Room {
        let mut room = Room::needed(plan);
        for rule in self.rules.values() {
            room.rules += 1;
            room.members += rule.members.len() as u32;
            room.slots += rule.slots.len() as u32;
            room.sources += rule.members.values().map(|member| member.sources.len() as u32).sum::<u32>();
        }
        let ones = self.listening.keys().filter(|key| matches!(key, Key::One(_))).count();
        room.listeners += ones as u32;
        room.ranges += (self.listening.len() - ones) as u32;
        room
    }
}

/// Copies what the loader has written. Maps that stay are their own copies.
fn copy(from: &Maps, to: &Maps) -> io::Result<()> {
    from.listeners.all()?.iter().try_for_each(|(key, value)| to.listeners.set(key, value))?;
    from.ranges.all()?.iter().try_for_each(|(key, value)| to.ranges.set(key, value))?;
    from.rules.all()?.iter().try_for_each(|(key, value)| to.rules.set(key, value))?;
    from.members.all()?.iter().try_for_each(|(key, value)| to.members.set(key, value))?;
    from.names.all()?.iter().try_for_each(|(key, value)| to.names.set(key, value))?;
    to.slots.set_all(0, &from.slots.first(from.slots.capacity())?)?;
    to.sources.set_all(0, &from.sources.first(from.sources.capacity())?)?;
    to.turns.set_all(0, &from.turns.first(from.turns.capacity())?)?;
    to.rates.set_all(0, &from.rates.first(from.rates.capacity())?)
}

/// Adds what was counted before the programs were replaced to what has been counted since. What is counted while one
/// counter is added is lost.
fn copy_counters(from: &Maps, to: &Maps) -> io::Result<()> {
    if from.legs.capacity() != to.legs.capacity() {
        for (id, leg) in (0..).zip(from.legs.read(from.legs.capacity(), sum_of_legs)?) {
            if leg != Default::default() {
                to.legs.add(id, leg, sum_of_legs)?;
            }
        }
    }
    if from.refusals.capacity() != to.refusals.capacity() {
        for (id, refusals) in (0..).zip(from.refusals.read(from.refusals.capacity(), sum_of_refusals)?) {
            if refusals != Default::default() {
                to.refusals.add(id, refusals, sum_of_refusals)?;
            }
        }
    }
    Ok(())
}
