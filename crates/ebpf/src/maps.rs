//! The maps of one network namespace, and how large they are made.
//!
//! Deliberately absent: what is in them ([`crate::state`]).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use portway_core::plan::ebpf::{Plan, Source};
use portway_datapath::abi::{self, maps as name};

use crate::map::{Counters, Map, Table};
use crate::sys;
use crate::value;
use crate::view::{Mapped, Plain};

/// The flow table as memory: what the kernel's programs and the sweep work on at the same time.
pub struct FlowMemory {
    /// The configuration, as words: each is read by the programs at any time.
    pub config: Mapped<AtomicU32>,
    /// `records`.
    pub records: Mapped<abi::Record>,
    /// `buckets`.
    pub buckets: Mapped<abi::Bucket>,
    /// `free`.
    pub free: Mapped<AtomicU64>,
}

/// All maps, with their types.
pub struct Maps {
    pub listeners: Table<abi::ListenerKey, abi::Listener>,
    pub ranges: Table<abi::RangeKey, abi::Listener>,
    pub rules: Table<u32, abi::Rule>,
    pub slots: Table<u32, u32>,
    pub members: Table<u32, abi::Member>,
    pub sources: Table<u32, abi::Address>,
    pub turns: Table<u32, u64>,
    pub rates: Table<u32, [u64; 3]>,
    pub ports: Table<u32, abi::Port>,
    pub interfaces: Table<u32, u32>,
    pub locals: Table<abi::Address, u32>,
    pub legs: Counters<abi::Leg>,
    pub refusals: Counters<abi::Refusals>,
    pub names: Table<u32, [u64; 8]>,
    /// The flow table.
    pub flows: Arc<FlowMemory>,
    /// How many elements each may have, by name.
    entries: BTreeMap<&'static str, u32>,
}

impl Maps {
    /// Opens the maps that are pinned in a directory.
    ///
    /// # Errors
    /// The kernel's; one is missing, or has not the sizes of this version.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let entries = RefCell::new(BTreeMap::new());
        let open = |name: &'static str| {
            let map = sys::get(&directory.join(name)).and_then(Map::new).map_err(named(name))?;
            entries.borrow_mut().insert(name, map.info.entries);
            Ok(map)
        };
        // Those that only the programs use.
        for name in [name::PERSIST, name::FRAGMENTS] {
            open(name)?;
        }
        Ok(Self {
            listeners: table(&open, name::LISTENERS)?,
            ranges: table(&open, name::RANGES)?,
            rules: table(&open, name::RULES)?,
            slots: table(&open, name::SLOTS)?,
            members: table(&open, name::MEMBERS)?,
            sources: table(&open, name::SOURCES)?,
            turns: table(&open, name::TURNS)?,
            rates: table(&open, name::RATES)?,
            ports: table(&open, name::PORTS)?,
            interfaces: table(&open, name::INTERFACES)?,
            locals: table(&open, name::LOCALS)?,
            legs: Counters::new(open(name::LEGS)?).map_err(named(name::LEGS))?,
            refusals: Counters::new(open(name::REFUSALS)?).map_err(named(name::REFUSALS))?,
            names: table(&open, name::NAMES)?,
            flows: Arc::new(FlowMemory {
                config: open(name::CONFIG)?.mapped().map_err(named(name::CONFIG))?,
                records: open(name::RECORDS)?.mapped().map_err(named(name::RECORDS))?,
                buckets: open(name::BUCKETS)?.mapped().map_err(named(name::BUCKETS))?,
                free: open(name::FREE)?.mapped().map_err(named(name::FREE))?,
            }),
            entries: entries.take(),
        })
    }
}

impl Maps {
    /// How many elements each may have, by name.
    pub fn entries(&self) -> BTreeMap<&'static str, u32> {
        self.entries.clone()
    }
}

/// A map with its types.
fn table<K: Plain, V: Plain>(
    open: &impl Fn(&'static str) -> io::Result<Map>,
    name: &'static str,
) -> io::Result<Table<K, V>> {
    open(name).and_then(|map| Table::new(map).map_err(named(name)))
}

/// Errors that say which map.
fn named(name: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("map {name}: {error}"))
}

/// How much room the maps have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Flows.
    pub flows: u32,
    /// Ids of rules.
    pub rules: u32,
    /// Ids of members.
    pub members: u32,
    /// Slots of all rules.
    pub slots: u32,
    /// Source addresses of all members.
    pub sources: u32,
    /// Single ports that are listened on.
    pub listeners: u32,
    /// Prefixes of port ranges that are listened on.
    pub ranges: u32,
}

impl Room {
    /// What there is room for at least, however small the file: so that most changes of a file fit in the maps that are
    /// there. Together about 3 MB, and 1.2 MB for each processor.
    pub const LEAST: Self = Self {
        flows: 1024,
        rules: 4096,
        members: 8192,
        slots: 1 << 17,
        sources: 1 << 14,
        listeners: 8192,
        ranges: 8192,
    };

    /// What a plan needs.
    pub fn needed(plan: &Plan) -> Self {
        let mut room =
            Self { flows: plan.settings.max_flows, rules: plan.rules.len() as u32, ..Self::default() };
        for rule in plan.rules.values() {
            let members = rule.targets.len() as u32;
            let each = match &rule.source {
                Source::Route => 1,
                Source::Pool(pool) => pool.len() as u32,
            };
            room.members += members;
            room.sources += members * each;
            room.slots += rule.slots.len() as u32;
            for listener in &rule.listeners {
                if listener.ports.is_single() {
                    room.listeners += 1;
                } else {
                    room.ranges += value::prefixes(listener.ports).len() as u32;
                }
            }
        }
        room
    }

    /// As much, and half as much again, in powers of two: what is replaced stands beside what replaces it for a while.
    pub fn with_reserve(self) -> Self {
        let reserve = |need: u32, least: u32| {
            (need.saturating_add(need / 2)).checked_next_power_of_two().unwrap_or(1 << 31).max(least)
        };
        Self {
            flows: self.flows,
            rules: reserve(self.rules, Self::LEAST.rules),
            members: reserve(self.members, Self::LEAST.members),
            slots: reserve(self.slots, Self::LEAST.slots),
            sources: reserve(self.sources, Self::LEAST.sources),
            listeners: reserve(self.listeners, Self::LEAST.listeners),
            ranges: reserve(self.ranges, Self::LEAST.ranges),
        }
    }

    /// The maps' sizes by name.
    pub fn entries(self) -> BTreeMap<&'static str, u32> {
        let flows = portway_datapath::sweep::sizes(self.flows);
        BTreeMap::from([
            (name::CONFIG, 1),
            (name::RECORDS, flows.records),
            (name::BUCKETS, flows.buckets),
            (name::FREE, flows.free),
            (name::LISTENERS, self.listeners),
            (name::RANGES, self.ranges),
            (name::RULES, self.rules),
            (name::SLOTS, self.slots),
            (name::MEMBERS, self.members),
            (name::SOURCES, self.sources),
            (name::TURNS, self.rules),
            (name::RATES, self.rules),
            (name::PERSIST, PERSIST),
            (name::FRAGMENTS, FRAGMENTS),
            (name::PORTS, PORTS),
            (name::INTERFACES, PORTS),
            (name::LOCALS, LOCALS),
            (name::LEGS, self.members),
            (name::REFUSALS, self.rules),
            (name::NAMES, self.rules),
        ])
    }
}

/// Clients that are remembered; the map forgets the one that was longest unused.
const PERSIST: u32 = 1 << 16;
/// Datagrams in parts under way.
const FRAGMENTS: u32 = 1 << 12;
/// Interfaces that are served, and port 0.
pub const PORTS: u32 = 1 << 10;
/// Addresses of this host.
const LOCALS: u32 = 1 << 13;
