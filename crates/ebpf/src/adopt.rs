//! What the maps hold, read back: for a daemon that takes over what an earlier one left, and for comparing.
//!
//! Flows name rules and members by ids, so the ids in the maps stay what they are.

use std::collections::BTreeMap;
use std::io;

use portway_core::ruleset::RuleName;
use portway_datapath::abi;

use crate::maps::Maps;
use crate::room::{Ids, Lists, Stretches};
use crate::state::{Allocations, MemberState, RuleState};
use crate::value::{self, Key, Place};

type Read = (BTreeMap<RuleName, RuleState>, BTreeMap<Key, abi::Listener>, Allocations);

/// What the maps hold, as an earlier daemon left it. What belongs to no rule with a name is what it was about to write, or to
/// remove, when it was killed: it goes.
pub fn read(maps: &Maps) -> io::Result<Read> {
    let names: BTreeMap<u32, RuleName> = maps
        .names
        .all()?
        .into_iter()
        .filter_map(|(id, words)| Some((id, value::rule_name(words)?)))
        .collect();
    let mut by_id: BTreeMap<u32, RuleState> = names
        .keys()
        .map(|id| {
            let state = RuleState {
                id: *id,
                value: None,
                slots: Vec::new(),
                members: BTreeMap::new(),
                keys: BTreeMap::new(),
            };
            (*id, state)
        })
        .collect();
    let slots = maps.slots.first(maps.slots.capacity())?;
    let sources = maps.sources.first(maps.sources.capacity())?;
    for (id, value) in maps.rules.all()? {
        let stretch = stretch(&slots, value.first_slot, value.slots);
        match (by_id.get_mut(&id), stretch) {
            (Some(state), Some(slots)) => (state.value, state.slots) = (Some(value), slots.to_vec()),
            _ => _ = maps.rules.remove(&id)?,
        }
    }
    let mut lists = Vec::new();
    for (id, value) in maps.members.all()? {
        let stretch = stretch(&sources, value.first_source, value.sources);
        match (by_id.get_mut(&value.rule), stretch) {
            (Some(state), Some(sources)) => {
                let sources = sources.to_vec();
                lists.push((value.first_source, sources.clone()));
                state.members.insert(Place::of_member(&value), MemberState { id, value, sources });
            }
            _ => _ = maps.members.remove(&id)?,
        }
    }
    let mut listening = BTreeMap::new();
    let ones = maps.listeners.all()?.into_iter().map(|(key, value)| (Key::One(key), value));
    let ranges = maps.ranges.all()?.into_iter().map(|(key, value)| (Key::Range(key), value));
    for (key, value) in ones.chain(ranges) {
        listening.insert(key, value);
        if let Some(state) = by_id.get_mut(&value.rule) {
            state.keys.insert(key, value);
        }
    }
    let stretches =
        by_id.values().filter_map(|state| state.value).map(|value| (value.first_slot, value.slots));
    let members = by_id.values().flat_map(|state| state.members.values().map(|member| member.id)).collect();
    let allocations = Allocations {
        rules: Ids::new(maps.rules.capacity(), &by_id.keys().copied().collect()),
        members: Ids::new(maps.legs.capacity(), &members),
        slots: Stretches::new(maps.slots.capacity(), stretches),
        sources: Lists::new(maps.sources.capacity(), lists),
    };
    let named = by_id.into_iter().filter_map(|(id, state)| Some((names.get(&id)?.clone(), state)));
    Ok((named.collect(), listening, allocations))
}

fn stretch<T>(all: &[T], first: u32, count: u32) -> Option<&[T]> {
    let first = first as usize;
    all.get(first..first.checked_add(count as usize)?)
}
