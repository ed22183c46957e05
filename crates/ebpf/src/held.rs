//! What the engine holds of one network namespace while there are rules: maps, programs, and who has what in them.
//!
//! The maps outlive this: what is in them is read back when a daemon starts ([`Held::open`]), and the ids in them stay, so
//! that flows and counters live on. Deliberately absent: interfaces ([`crate::serve`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use portway_core::engine::{Changed, EngineError};
use portway_core::plan::ebpf::{Change, Plan, RulePlan};
use portway_core::ruleset::{EbpfSettings, RuleName};
use portway_datapath::abi;
use portway_datapath::sweep::sizes;

use crate::attach::Attachments;
use crate::host::Host;
use crate::maps::{Maps, Room};
use crate::object::Programs;
use crate::observe::{Figures, Known};
use crate::pins::Pins;
use crate::refusal::{failure, no_room, refused};
use crate::room::{Ids, Lists, Stretches};
use crate::route::Route;
use crate::serve::Serving;
use crate::state::{self, Allocations, MemberState, RuleState, Steps};
use crate::value::{self, Key, Place};
use crate::write::{self, Write};
use crate::{config, flow};

/// Gets one line per message.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// See the head of the file.
pub struct Held {
    pub(crate) pins: Pins,
    pub(crate) maps: Arc<Maps>,
    pub(crate) programs: Programs,
    pub(crate) attachments: Attachments,
    pub(crate) route: Route,
    pub(crate) host: Host,
    pub(crate) serving: Serving,
    pub(crate) allocations: Allocations,
    /// The rules of the plan, and those that are gone and have flows still.
    pub(crate) rules: BTreeMap<RuleName, RuleState>,
    /// What `listeners` and `ranges` hold.
    pub(crate) listening: BTreeMap<Key, abi::Listener>,
    /// Those of them that no rule has any more.
    leaving: BTreeSet<Key>,
    pub(crate) plan: Plan,
    pub(crate) log: Log,
    /// Whether state of an earlier daemon was found and not yet reported.
    adopted: bool,
    /// Whether nothing was pinned before and nothing has been committed since.
    pub(crate) is_new: bool,
    /// Counts what changes who has what in the maps: what was prepared before is then prepared again.
    pub(crate) epoch: u64,
    /// Who has which id; nothing after it has changed.
    known: Option<Arc<Known>>,
    /// Counts how often the host was looked at for a plan: what somebody else saw before is old.
    pub(crate) looks: u64,
    /// For which size of the flow table the file was last read.
    size_told: u32,
}

/// A plan for which everything stands ready.
pub struct Prepared {
    plan: Plan,
    allocations: Allocations,
    states: BTreeMap<RuleName, RuleState>,
    ready: Vec<Write>,
    switch: Vec<Write>,
    gone: Vec<RuleName>,
    epoch: u64,
}

impl Held {
    /// Takes over the maps that are pinned, or makes them, as large as `plan` needs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(pins: &Pins, plan: &Plan, log: Log) -> Result<Self, EngineError> {
        pins.make().map_err(|error| failure("prepare /sys/fs/bpf/portway", &error))?;
        let wanted = Room::needed(plan).with_reserve().entries();
        let found = Maps::open(&pins.maps()).ok().filter(|maps| config::is_ours(&maps.flows));
        let adopted = found.is_some();
        if !adopted {
            if !Pins::names(&pins.maps()).is_empty() {
                log("ebpf: the maps found are of another version: flows begin anew");
            }
            crate::pins::remove(&pins.maps())
                .map_err(|error| failure("remove maps of another version", &error))?;
            pins.make().map_err(|error| failure("prepare /sys/fs/bpf/portway", &error))?;
        }
        drop(found);
        let programs =
            Programs::new(&pins.maps(), &wanted).map_err(|error| refused("load the programs", error))?;
        let open = |error: io::Error| failure("open the maps", &error);
        let maps = Maps::open(&pins.maps()).map_err(open)?;
        if !adopted {
            config::initialise(&maps.flows).map_err(|error| failure("begin a flow table", &error))?;
        }
        let mut route = Route::open().map_err(|error| failure("open a netlink socket", &error))?;
        let host = Host::look(&mut route).map_err(|error| failure("list the interfaces", &error))?;
        let (mut rules, listening, allocations) =
            read(&maps).map_err(|error| failure("read the maps back", &error))?;
        // What listens for a rule that is gone, or half removed, goes with the next plan.
        rules.values_mut().filter(|rule| rule.value.is_none()).for_each(|rule| rule.keys.clear());
        let kept: BTreeSet<Key> = rules.values().flat_map(|rule| rule.keys.keys().copied()).collect();
        let leaving = listening.keys().filter(|key| !kept.contains(key)).copied().collect();
        let attachments =
            Attachments::open(pins).map_err(|error| failure("open a netlink socket", &error))?;
        Ok(Self {
            pins: pins.clone(),
            serving: Serving::read(&maps).map_err(|error| failure("read the maps back", &error))?,
            maps: Arc::new(maps),
            programs,
            attachments,
            route,
            host,
            allocations,
            rules,
            leaving,
            epoch: 0,
            known: None,
            looks: 0,
            size_told: 0,
            listening,
            plan: Plan::default(),
            log,
            adopted,
            is_new: !adopted,
        })
    }

    /// Makes everything ready for `plan` where nobody looks.
    ///
    /// # Errors
    /// A map has no room, or the kernel's.
    pub fn prepare(&mut self, plan: &Plan) -> Result<Prepared, EngineError> {
        self.looks += 1;
        self.host = Host::look(&mut self.route).map_err(|error| failure("list the interfaces", &error))?;
        self.load_programs(&plan.settings)?;
        self.tell_size(&plan.settings);
        let mut prepared = Prepared {
            plan: plan.clone(),
            allocations: self.allocations.clone(),
            states: BTreeMap::new(),
            ready: Vec::new(),
            switch: Vec::new(),
            epoch: self.epoch,
            gone: self
                .rules
                .iter()
                .filter(|(name, rule)| rule.value.is_some() && !plan.rules.contains_key(*name))
                .map(|(name, _)| name.clone())
                .collect(),
        };
        for (name, rule) in &plan.rules {
            let before = self.rules.get(name);
            let is_held = before.is_some_and(|before| before.value.is_some());
            if is_held && self.plan.rules.get(name) == Some(rule) {
                continue;
            }
            let placed = state::place(name, rule, before, &mut prepared.allocations, &mut self.host);
            let (state, steps) = match placed {
                // What flows have held until now may be free.
                Err(_) if self.collect()? > 0 || self.grow(plan)? => return self.prepare(plan),
                other => other?,
            };
            prepared.ready.extend(steps.ready);
            prepared.switch.extend(steps.switch);
            prepared.states.insert(name.clone(), state);
        }
        match self.check_listeners(&prepared) {
            Err(_) if self.grow(plan)? => return self.prepare(plan),
            other => other?,
        }
        write::carry_out(&self.maps, &prepared.ready).map_err(|error| failure("write the maps", &error))?;
        Ok(prepared)
    }

    /// Says once that the file asks for a flow table of another size.
    fn tell_size(&mut self, settings: &EbpfSettings) {
        let (there, wanted) = (self.maps.flows.records.len() as u32, sizes(settings.max_flows).records);
        if std::mem::replace(&mut self.size_told, wanted) != wanted && there != wanted {
            (self.log)(&format!(
                "ebpf: max-flows: the flow table stays at {there} flows until `portway clear`: one of {wanted} would begin \
                 without those that live"
            ));
        }
    }

    /// Whether there is room for all that listens, what leaves included.
    fn check_listeners(&self, prepared: &Prepared) -> Result<(), EngineError> {
        let (mut ones, mut ranges) = (0u32, 0u32);
        for key in self.listening.keys() {
            *if matches!(key, Key::One(_)) { &mut ones } else { &mut ranges } += 1;
        }
        for (name, state) in &prepared.states {
            for key in state.keys.keys().filter(|key| !self.listening.contains_key(*key)) {
                *if matches!(key, Key::One(_)) { &mut ones } else { &mut ranges } += 1;
            }
            if ones > self.maps.listeners.capacity() || ranges > self.maps.ranges.capacity() {
                return Err(no_room(name, "listeners"));
            }
        }
        Ok(())
    }

    /// Forgets what was prepared.
    pub fn abort(&mut self, prepared: &Prepared) {
        let undo: Vec<Write> = prepared
            .ready
            .iter()
            .filter_map(|write| match write {
                Write::Name(id, _) => Some(Write::Name(*id, None)),
                Write::Member(id, _) => Some(Write::Member(*id, None)),
                _ => None,
            })
            .collect();
        // What stays is seen by nobody, and is written over when its id is given out again.
        let _ = write::carry_out(&self.maps, &undo);
    }

    /// Switches to what was prepared. What the plan has no longer goes on until [`Self::retire`].
    ///
    /// # Errors
    /// The kernel's; the old state is still whole.
    pub fn commit(&mut self, mut prepared: Prepared) -> Result<Changed, EngineError> {
        if prepared.epoch != self.epoch {
            self.abort(&prepared);
            prepared = self.prepare(&prepared.plan)?;
        }
        let Prepared { plan, allocations, states, switch: mut writes, gone, .. } = prepared;
        let rules = writes.len();
        for state in states.values() {
            for (key, value) in &state.keys {
                let before = self.listening.get(key).copied();
                if before != Some(*value) {
                    writes.push(Write::Listener(*key, Some(*value), before));
                }
            }
        }
        let added = writes.len() - rules;
        // What the programs ask is set before there is something to find.
        let flags =
            config::flags(self.listening.keys().chain(states.values().flat_map(|state| state.keys.keys())))
                | config::persists(self.rules.values().chain(states.values()));
        config::set(&self.maps.flows, &plan.settings, flags);
        if let Err(error) = write::carry_out(&self.maps, &writes) {
            config::set(&self.maps.flows, &self.plan.settings, flags);
            return Err(failure("change the maps", &error));
        }
        for write in &writes {
            if let Write::Listener(key, Some(value), _) = write {
                self.listening.insert(*key, *value);
            }
        }
        let former = states.keys().chain(&gone).filter_map(|name| self.rules.get(name));
        self.leaving.extend(former.flat_map(|state| state.keys.keys().copied()));
        for key in states.values().flat_map(|state| state.keys.keys()) {
            self.leaving.remove(key);
        }
        self.allocations = allocations;
        self.epoch += 1;
        self.rules.extend(states);
        self.plan = plan;
        self.known = None;
        self.is_new = false;
        self.serve();
        let removed = self.leaving.len();
        Ok(Changed { added, removed, adopted: std::mem::take(&mut self.adopted) })
    }

    /// Lets go of what the plan has no longer.
    ///
    /// # Errors
    /// The kernel's; what could not be let go of stays.
    pub fn retire(&mut self) -> Result<(), EngineError> {
        let mut writes: Vec<Write> = self
            .leaving
            .iter()
            .map(|key| Write::Listener(*key, None, self.listening.get(key).copied()))
            .collect();
        let mut allocations = self.allocations.clone();
        let mut left = BTreeMap::new();
        for (name, rule) in &self.rules {
            if rule.value.is_some() && !self.plan.rules.contains_key(name) {
                let (state, steps) = state::leave(rule, &mut allocations);
                writes.extend(steps);
                left.insert(name.clone(), state);
            }
        }
        write::carry_out(&self.maps, &writes).map_err(|error| failure("change the maps", &error))?;
        for key in std::mem::take(&mut self.leaving) {
            self.listening.remove(&key);
        }
        self.allocations = allocations;
        self.epoch += 1;
        // Those that left before this time: a program that still saw one has ended long since.
        self.collect_rules()?;
        self.rules.extend(left);
        self.known = None;
        let flags = config::flags(self.listening.keys()) | config::persists(self.rules.values());
        config::set(&self.maps.flows, &self.plan.settings, flags);
        Ok(())
    }

    /// Carries out a change of members.
    ///
    /// # Errors
    /// It changes more than members, or the kernel's; the old state is still whole.
    pub fn adjust(&mut self, change: &Change) -> Result<(), EngineError> {
        let fits = |name: &RuleName| {
            let (planned, wanted) = (self.plan.rules.get(name), change.changed.get(name));
            planned.zip(wanted).is_some_and(|(planned, wanted)| planned.listeners == wanted.listeners)
        };
        let only_members = change.settings.is_none() && change.added.is_empty() && change.removed.is_empty();
        if !only_members || !change.changed.keys().all(fits) {
            return Err(refused("change members", "more than the members differs from the plan in force"));
        }
        self.host.forget_sources();
        let mut allocations = self.allocations.clone();
        let (mut all, mut states) = (Steps::default(), BTreeMap::new());
        for (name, rule) in &change.changed {
            let placed = state::place(name, rule, self.rules.get(name), &mut allocations, &mut self.host);
            let (state, steps) = match placed {
                Err(_) if self.collect()? > 0 || self.grow(&self.plan.clone().apply(change))? => {
                    return self.adjust(change);
                }
                other => other?,
            };
            all.ready.extend(steps.ready);
            all.switch.extend(steps.switch);
            states.insert(name.clone(), state);
        }
        all.ready.append(&mut all.switch);
        write::carry_out(&self.maps, &all.ready).map_err(|error| failure("change members", &error))?;
        self.allocations = allocations;
        self.epoch += 1;
        // A verdict changes who is a member, not who has an id.
        let new_ids = all.ready.iter().any(|write| matches!(write, Write::FreshMember(_)));
        let targets = |(name, rule): (&RuleName, &RulePlan)| {
            self.plan.rules.get(name).map(|before| &before.targets) != Some(&rule.targets)
        };
        if new_ids || change.changed.iter().any(targets) {
            self.known = None;
        }
        self.rules.extend(states);
        self.plan.rules.extend(change.changed.iter().map(|(name, rule)| (name.clone(), rule.clone())));
        Ok(())
    }

    /// Forgets rules that are gone and members that nobody plans, as far as no flow has them; how many ids that frees.
    fn collect(&mut self) -> Result<usize, EngineError> {
        self.epoch += 1;
        self.known = None;
        Ok(self.collect_rules()? + self.collect_members()?)
    }

    /// Of rules. Their members' ids go with them.
    fn collect_rules(&mut self) -> Result<usize, EngineError> {
        if self.rules.values().all(|rule| rule.value.is_some()) {
            return Ok(0);
        }
        let (used, _) = flow::ids_in_use(&self.maps.flows);
        let idle = |rule: &RuleState| rule.value.is_none() && !used.contains(&rule.id);
        let names: Vec<RuleName> =
            self.rules.iter().filter(|(_, rule)| idle(rule)).map(|(name, _)| name.clone()).collect();
        for name in &names {
            let Some(rule) = self.rules.get(name) else { continue };
            let mut writes: Vec<Write> =
                rule.members.values().map(|member| Write::Member(member.id, None)).collect();
            // The name goes last: a member without the name of its rule would be nobody's.
            writes.push(Write::Name(rule.id, None));
            write::carry_out(&self.maps, &writes).map_err(|error| failure("forget a rule", &error))?;
            for member in rule.members.values() {
                self.allocations.members.give(member.id);
                self.allocations.sources.give(&member.sources);
            }
            self.allocations.rules.give(rule.id);
            self.rules.remove(name);
        }
        Ok(names.len())
    }

    /// Of members, whose counters go with them; so only when there is no other room.
    fn collect_members(&mut self) -> Result<usize, EngineError> {
        let (_, used) = flow::ids_in_use(&self.maps.flows);
        let mut count = 0;
        for (name, rule) in &mut self.rules {
            let Some(plan) = self.plan.rules.get(name) else { continue };
            let planned: BTreeSet<Place> = plan.targets.iter().map(Place::of).collect();
            let idle =
                |place: &Place, member: &MemberState| !planned.contains(place) && !used.contains(&member.id);
            let places: Vec<Place> = rule
                .members
                .iter()
                .filter(|(place, member)| idle(place, member))
                .map(|(place, _)| *place)
                .collect();
            for place in places {
                let Some(member) = rule.members.remove(&place) else { continue };
                self.maps.members.remove(&member.id).map_err(|error| failure("forget a member", &error))?;
                self.allocations.members.give(member.id);
                self.allocations.sources.give(&member.sources);
                count += 1;
            }
        }
        Ok(count)
    }

    /// Who has which id.
    pub fn known(&mut self) -> Arc<Known> {
        let known = self.known.get_or_insert_with(|| Arc::new(Known::new(&self.rules, &self.plan)));
        Arc::clone(known)
    }

    /// Figures that are not in the maps.
    pub fn figures(&self) -> Figures {
        Figures {
            ports: u64::from(self.plan.settings.source_ports.count()),
            unreachable: self.serving.unreachable.len() as u64,
            interfaces: self.served() as u64,
        }
    }

    /// In what the maps differ from a plan, read afresh; nothing when they do not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn verify(&mut self, plan: &Plan) -> Result<Vec<String>, EngineError> {
        crate::verify::verify(self, plan)
    }
}

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
