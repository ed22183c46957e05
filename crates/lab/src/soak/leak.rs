//! What may not grow: the daemon's memory, descriptors and threads, what is pinned, and the kernel's programs, maps and
//! links.
//!
//! An object of bpf(2) lives by a descriptor, a pin, an attachment or another object, so what belongs to one daemon can
//! be told from what others on the machine have loaded: by what it has pinned.

use std::collections::BTreeSet;
use std::time::Duration;
use std::{fs, thread};

use aya::maps::{MapInfo, loaded_maps};
use aya::programs::{loaded_links, loaded_programs};
use portway_lab::{Namespace, Portway, pins};

/// One daemon's share at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// KiB of its own memory (`RssAnon`): mapped tables are the kernel's.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Files in its directory of the BPF file system.
    pub pins: u64,
    /// Programs that use one of the pinned maps.
    pub programs: u64,
    /// Maps of these programs.
    pub maps: u64,
    /// Flows alive, as the status has them.
    pub flows: u64,
}

/// Programs and maps by their ids, which the kernel gives once (`bpf_prog_alloc_id`, `bpf_map_alloc_id`: in a circle of 2^31).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Objects {
    /// What lives by what is pinned for a namespace.
    pub fn of(gateway: &Namespace) -> Self {
        let pinned = pins::of(gateway);
        let mut maps: BTreeSet<u32> =
            pinned.iter().filter_map(|path| MapInfo::from_pin(path).ok()).map(|map| map.id()).collect();
        let own = maps.clone();
        let mut programs = BTreeSet::new();
        for program in loaded_programs().flatten() {
            let used = program.map_ids().ok().flatten().unwrap_or_default();
            if used.iter().any(|map| own.contains(map)) {
                programs.insert(program.id());
                maps.extend(used);
            }
        }
        Self { programs, maps }
    }

    /// Those of both.
    pub fn add(&mut self, others: Self) {
        self.programs.extend(others.programs);
        self.maps.extend(others.maps);
    }

    /// Those that the kernel still has, in words. It frees them a moment after nobody uses them any more.
    pub fn left(&self) -> Option<String> {
        let mut left = Self::default();
        for _ in 0..50 {
            let programs = loaded_programs().flatten().map(|program| program.id());
            let maps = loaded_maps().flatten().map(|map| map.id());
            left = Self {
                programs: programs.filter(|id| self.programs.contains(id)).collect(),
                maps: maps.filter(|id| self.maps.contains(id)).collect(),
            };
            if left == Self::default() {
                return None;
            }
            thread::sleep(Duration::from_millis(100));
        }
        Some(format!("programs {:?}, maps {:?}", left.programs, left.maps))
    }
}

impl Share {
    /// `objects` are those of the same moment.
    pub fn of(portway: &Portway, gateway: &Namespace, objects: &Objects) -> Self {
        let process = portway.process();
        // A thread that reads for a status comes and goes: what stays is the least of some moments.
        let count = |what: &str| {
            let counts = (0..5).map(|_| {
                thread::sleep(Duration::from_millis(50));
                fs::read_dir(format!("/proc/{}/{what}", process.id())).map_or(0, |dir| dir.count() as u64)
            });
            counts.min().unwrap_or_default()
        };
        let [descriptors, threads] = ["fd", "task"].map(count);
        Self {
            memory: process.status_kib("RssAnon"),
            descriptors,
            threads,
            pins: pins::of(gateway).len() as u64,
            programs: objects.programs.len() as u64,
            maps: objects.maps.len() as u64,
            flows: flows(portway),
        }
    }

    /// What has grown from here to there, in words. Memory may breathe by a quarter and 2 MiB.
    pub fn grown(&self, later: &Self) -> Vec<String> {
        let memory = ("memory", self.memory + self.memory / 4 + 2048, later.memory);
        let rest = [
            ("descriptors", self.descriptors, later.descriptors),
            ("threads", self.threads, later.threads),
            ("pins", self.pins, later.pins),
            ("programs", self.programs, later.programs),
            ("maps", self.maps, later.maps),
        ];
        let grown = rest.into_iter().chain([memory]).filter(|(_, before, now)| now > before);
        grown.map(|(what, before, now)| format!("{what}: {now}, at most {before} expected")).collect()
    }
}

/// Flows alive, as the status has them.
pub fn flows(portway: &Portway) -> u64 {
    let status = portway.status();
    status["rules"].as_array().into_iter().flatten().filter_map(|rule| rule["live"].as_u64()).sum()
}

/// Everything of bpf(2) on this machine, whoever's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub programs: usize,
    pub maps: usize,
    pub links: usize,
}

impl Machine {
    pub fn now() -> Self {
        Self {
            programs: loaded_programs().flatten().count(),
            maps: loaded_maps().flatten().count(),
            links: loaded_links().flatten().count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_named() {
        let before =
            Share { memory: 4000, descriptors: 10, threads: 3, pins: 20, programs: 3, maps: 20, flows: 9 };
        assert!(before.grown(&Share { memory: 7000, flows: 100, ..before }).is_empty());
        assert_eq!(before.grown(&Share { memory: 7100, pins: 21, ..before }).len(), 2);
        assert!(before.grown(&Share { pins: 19, ..before }).is_empty());
    }
}
