//! What the maps hold of each rule, and what they shall hold: one rule at a time, pure but for the two questions about the
//! host ([`World`]).
//!
//! Deliberately absent: when it is written ([`crate::held`]).

use std::collections::BTreeMap;
use std::net::IpAddr;

use portway_core::balance;
use portway_core::engine::EngineError;
use portway_core::plan::ebpf::{Choose, Empty, RulePlan, Source};
use portway_core::ruleset::RuleName;
use portway_datapath::abi::{self, choose, member_flags, rule_flags};

use crate::maps::Maps;
use crate::refusal::no_room;
use crate::room::{Ids, Lists, Stretches};
use crate::value::{self, Key, Place};
use crate::write::Write;

/// What of the host a rule's place in the maps depends on.
pub trait World {
    /// The index of an interface.
    fn interface(&self, name: &str) -> Option<u32>;
    /// The address of this host that packets to `destination` have.
    fn source(&mut self, destination: IpAddr) -> Option<IpAddr>;
}

/// Who has which part of the maps.
#[derive(Clone, Debug)]
pub struct Allocations {
    /// Of rules.
    pub rules: Ids,
    /// Of members.
    pub members: Ids,
    /// In `slots`.
    pub slots: Stretches,
    /// In `sources`.
    pub sources: Lists,
}

impl Allocations {
    /// There is more room now. `before` had the rest.
    pub fn grow(&mut self, before: &Maps, maps: &Maps) {
        self.rules.grow(maps.rules.capacity());
        self.members.grow(maps.legs.capacity());
        self.slots.grow(before.slots.capacity(), maps.slots.capacity());
        self.sources.grow(before.sources.capacity(), maps.sources.capacity());
    }
}

/// What the maps hold of one rule.
#[derive(Clone, Debug)]
pub struct RuleState {
    /// Its id.
    pub id: u32,
    /// Its value; nothing of a rule that is gone and has flows still.
    pub value: Option<abi::Rule>,
    /// Its slots, as they stand in the map.
    pub slots: Vec<u32>,
    /// Its members, those that are gone and have flows still among them.
    pub members: BTreeMap<Place, MemberState>,
    /// What it listens on.
    pub keys: BTreeMap<Key, abi::Listener>,
}

/// What the maps hold of one member.
#[derive(Clone, Debug)]
pub struct MemberState {
    /// Its id.
    pub id: u32,
    /// Its value.
    pub value: abi::Member,
    /// The addresses that it may see.
    pub sources: Vec<abi::Address>,
}

/// How the maps get from one state of a rule to another.
#[derive(Debug, Default)]
pub struct Steps {
    /// What nobody looks at yet.
    pub ready: Vec<Write>,
    /// What changes what new flows meet; listeners apart.
    pub switch: Vec<Write>,
}

/// Plans the place of a rule in the maps, beside or in the place of the one that it has.
///
/// # Errors
/// A map has no room. `allocations` are to be thrown away then.
pub fn place(
    name: &RuleName,
    plan: &RulePlan,
    before: Option<&RuleState>,
    allocations: &mut Allocations,
    world: &mut dyn World,
) -> Result<(RuleState, Steps), EngineError> {
    let mut steps = Steps::default();
    let id = match before {
        Some(before) => before.id,
        None => {
            let id = allocations.rules.take().ok_or_else(|| no_room(name, "id"))?;
            steps.ready.extend([Write::FreshRule(id), Write::Name(id, Some(value::name(name)))]);
            id
        }
    };
    let mut members = before.map(|before| before.members.clone()).unwrap_or_default();
    let places: Vec<Place> = plan.members.iter().map(Place::of).collect();
    for target in &plan.targets {
        let place = Place::of(target);
        if let std::collections::btree_map::Entry::Vacant(entry) = members.entry(place) {
            let id = allocations.members.take().ok_or_else(|| no_room(name, "members"))?;
            steps.ready.push(Write::FreshMember(id));
            entry.insert(MemberState { id, value: abi::Member::default(), sources: Vec::new() });
        }
    }
    let mut left = Vec::new();
    let fresh = |member: &MemberState| member.value == abi::Member::default();
    for (place, member) in &mut members {
        let live = if places.contains(place) { member_flags::LIVE } else { 0 };
        let sources = sources(&plan.source, place.address, world);
        let (first_source, missing) =
            allocations.sources.take(&sources).ok_or_else(|| no_room(name, "source addresses"))?;
        if missing {
            steps.ready.push(Write::Sources(first_source, sources.clone()));
        }
        allocations.sources.give(&member.sources);
        let value = abi::Member {
            address: place.address,
            rule: id,
            first_source,
            sources: sources.len() as u32,
            port: place.port,
            flags: place.flags | live,
        };
        if value != member.value {
            // Who takes no new flows any more says so only when no slot leads there.
            let leaves = member.value.flags & member_flags::LIVE != 0 && live == 0;
            let steps = match (fresh(member), leaves) {
                (true, _) => &mut steps.ready,
                (false, false) => &mut steps.switch,
                (false, true) => &mut left,
            };
            steps.push(Write::Member(member.id, Some(value)));
        }
        (member.value, member.sources) = (value, sources);
    }
    let ids: Vec<u32> =
        places.iter().filter_map(|place| members.get(place)).map(|member| member.id).collect();
    let slots: Vec<u32> = plan.slots.iter().filter_map(|nth| ids.get(usize::from(*nth)).copied()).collect();
    let first_slot = match before {
        Some(RuleState { value: Some(value), slots: same, .. }) if *same == slots => value.first_slot,
        _ => {
            let first = allocations.slots.take(slots.len() as u32).ok_or_else(|| no_room(name, "slots"))?;
            if !slots.is_empty() {
                steps.ready.push(Write::Slots(first, slots.clone()));
            }
            if let Some(RuleState { value: Some(value), .. }) = before {
                allocations.slots.give(value.first_slot, value.slots);
            }
            first
        }
    };
    let value = rule_value(plan, first_slot, slots.len() as u32);
    if before.and_then(|before| before.value) != Some(value) {
        // A rule that nothing leads to yet is seen by nobody.
        steps.switch.push(Write::Rule(id, Some(value)));
    }
    steps.switch.extend(left);
    let keys = keys(plan, id, world);
    Ok((RuleState { id, value: Some(value), slots, members, keys }, steps))
}

/// What a rule listens on.
pub fn keys(plan: &RulePlan, id: u32, world: &dyn World) -> BTreeMap<Key, abi::Listener> {
    let keys = |listener| value::keys(listener, id, |name| world.interface(name));
    plan.listeners.iter().flat_map(keys).collect()
}

/// The addresses that a member may see.
fn sources(source: &Source, member: abi::Address, world: &mut dyn World) -> Vec<abi::Address> {
    let member = value::ip(member);
    let of_family = |pool: &[IpAddr]| {
        let same = pool.iter().filter(|address| address.is_ipv4() == member.is_ipv4());
        same.map(|address| value::address(*address)).collect::<Vec<_>>()
    };
    let pool = match source {
        Source::Pool(pool) => of_family(pool),
        Source::Route => Vec::new(),
    };
    if pool.is_empty() { world.source(member).map(value::address).into_iter().collect() } else { pool }
}

/// The addresses of members that see this host's address on the way to them.
pub fn destinations<'a>(plan: &'a RulePlan, rule: &'a RuleState) -> impl Iterator<Item = IpAddr> + 'a {
    let by_route = |member: &IpAddr| match &plan.source {
        Source::Route => true,
        Source::Pool(pool) => pool.iter().all(|address| address.is_ipv4() != member.is_ipv4()),
    };
    rule.members.keys().map(|place| value::ip(place.address)).filter(by_route)
}

/// Whether every member of a rule sees the addresses that it would see if it were placed now.
pub fn sees_the_same(plan: &RulePlan, rule: &RuleState, world: &mut dyn World) -> bool {
    rule.members.iter().all(|(place, member)| sources(&plan.source, place.address, world) == member.sources)
}

fn rule_value(plan: &RulePlan, first_slot: u32, slots: u32) -> abi::Rule {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    abi::Rule {
        flags: flag(plan.empty == Empty::Refuse, rule_flags::REFUSE)
            | flag(plan.toa, rule_flags::TOA)
            | flag(plan.cookies_above.is_some(), rule_flags::COOKIES),
        choose: match plan.choose {
            Choose::InTurn => choose::IN_TURN,
            Choose::Source => choose::SOURCE,
            Choose::SourcePort => choose::SOURCE_PORT,
            Choose::First => choose::FIRST,
        },
        first_slot,
        slots,
        seed: balance::SEED,
        persist: plan.persist.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX)),
        new_flows: plan.new_flow_rate.map_or(0, std::num::NonZeroU32::get),
        cookies_above: plan.cookies_above.unwrap_or(0),
    }
}

/// What of a rule that the plan has no longer changes: its members take no new flows, its slots are given back.
pub fn leave(before: &RuleState, allocations: &mut Allocations) -> (RuleState, Vec<Write>) {
    let mut after = before.clone();
    let mut writes = vec![Write::Rule(before.id, None)];
    if let Some(value) = after.value.take() {
        allocations.slots.give(value.first_slot, value.slots);
    }
    after.slots.clear();
    after.keys.clear();
    for member in after.members.values_mut().filter(|member| member.value.flags & member_flags::LIVE != 0) {
        member.value.flags &= !member_flags::LIVE;
        writes.push(Write::Member(member.id, Some(member.value)));
    }
    (after, writes)
}
