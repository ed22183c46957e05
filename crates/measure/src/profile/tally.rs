//! From samples to counts: whose each is, in which area and in which function. Pure but for the symbols that it is given.

use std::collections::{BTreeMap, HashMap};

use portway_lab::perf::records::{Mode, Record, Sample, records};

use super::areas::{Area, area};
use crate::record::Function;

/// Whose work it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The client's.
    Client,
    /// The server's.
    Server,
    /// The forwarder's.
    Forwarder,
    /// The lab's own. What it starts is a client.
    Lab,
}

/// Functions of the kernel that a record keeps.
const FUNCTIONS: usize = 25;
/// Processes that are remembered, at most: more begin in no run.
const PROCESSES: usize = 1 << 20;
/// In the stack of the thread that handles packets when they are too many for others to do it in passing.
const SOFTIRQ_THREAD: &str = "run_ksoftirqd";

/// What is counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Samples by area.
    pub areas: BTreeMap<Area, u64>,
    /// Samples of processors that were idle, or at others' work.
    pub elsewhere: u64,
    /// Samples that the kernel had no room for.
    pub lost: u64,
    functions: BTreeMap<(String, Area), u64>,
}

impl Tally {
    /// Counts samples. `processes` says whose those are that are there before, `counts_forwarder` whether the forwarder's are
    /// the run's, `function` the name at an address of the kernel.
    pub fn of<'a>(
        bytes: &[u8],
        processes: &HashMap<u32, Whose>,
        counts_forwarder: bool,
        function: impl Fn(u64) -> Option<&'a str>,
    ) -> Self {
        let mut processes = processes.clone();
        // First, since records of one processor come before those of the next.
        for record in records(bytes) {
            if let Record::Began { process, parent } = record
                && process != parent
                && processes.len() < PROCESSES
                && let Some(whose) = processes.get(&parent)
            {
                let whose = if *whose == Whose::Lab { Whose::Client } else { *whose };
                processes.entry(process).or_insert(whose);
            }
        }
        let mut tally = Self::default();
        for record in records(bytes) {
            match record {
                Record::Lost(count) => tally.lost = tally.lost.saturating_add(count),
                Record::Sample(sample) => {
                    let whose = processes.get(&sample.process).copied();
                    tally.add(&sample, whose, counts_forwarder, &function);
                }
                _ => (),
            }
        }
        tally
    }

    fn add<'a>(
        &mut self,
        sample: &Sample<'_>,
        whose: Option<Whose>,
        counts_forwarder: bool,
        function: &impl Fn(u64) -> Option<&'a str>,
    ) {
        let stack = || sample.stack().filter_map(function);
        let is_ours = match whose {
            Some(Whose::Client | Whose::Server) => true,
            Some(Whose::Forwarder) => counts_forwarder,
            Some(Whose::Lab) => false,
            None => sample.mode == Mode::Kernel && stack().any(|name| name == SOFTIRQ_THREAD),
        };
        let found = match (sample.mode, whose) {
            _ if !is_ours => None,
            (Mode::User, Some(Whose::Client)) => Some((None, Area::Client)),
            (Mode::User, Some(Whose::Server)) => Some((None, Area::Server)),
            (Mode::User, Some(Whose::Forwarder)) => Some((None, Area::Forwarder)),
            (Mode::Kernel, _) => {
                let known = stack().find_map(|name| Some((area(name)?, spoken(name))));
                Some(known.map_or((None, Area::Other), |(area, name)| (Some(name), area)))
            }
            _ => None,
        };
        let Some((name, area)) = found else {
            self.elsewhere += 1;
            return;
        };
        *self.areas.entry(area).or_default() += 1;
        // What nobody is known to call has at least its own name.
        let name = name.or_else(|| stack().next().filter(|_| area == Area::Other).map(spoken));
        if let Some(name) = name {
            *self.functions.entry((name, area)).or_default() += 1;
        }
    }

    /// Samples that count.
    pub fn samples(&self) -> u64 {
        self.areas.values().sum()
    }

    /// The functions of the kernel in which most samples are, each with those that count as its own; most first.
    pub fn functions(&self) -> Vec<Function> {
        let mut all: Vec<Function> = self
            .functions
            .iter()
            .map(|((name, area), samples)| Function {
                name: name.clone(),
                area: area.name().to_owned(),
                samples: *samples,
            })
            .collect();
        all.sort_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.name.cmp(&b.name)));
        all.truncate(FUNCTIONS);
        all
    }
}

/// A function's name for readers: a BPF program's has a sum of its instructions in it, and the kernel's copies of one function have
/// endings that say for whom (`_noprof`).
fn spoken(name: &str) -> String {
    let program = name.strip_prefix("bpf_prog_").and_then(|rest| rest.split_once('_'));
    match program {
        Some((_, name)) => format!("BPF program {name}"),
        None => name.strip_suffix("_noprof").unwrap_or(name).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: u16 = 1;
    const USER: u16 = 2;

    /// A record of a sample, as `portway_lab::perf::records` reads it.
    fn sample(mode: u16, process: u32, stack: &[u64]) -> Vec<u8> {
        let words: Vec<u64> = [stack[0], u64::from(process), stack.len() as u64]
            .into_iter()
            .chain(stack.iter().copied())
            .collect();
        record(9, mode, &words)
    }

    fn began(process: u32, parent: u32) -> Vec<u8> {
        record(7, 0, &[u64::from(process) | u64::from(parent) << 32, 0, 0])
    }

    fn record(kind: u32, mode: u16, words: &[u64]) -> Vec<u8> {
        let length = 8 + 8 * words.len() as u64;
        let header = u64::from(kind) | u64::from(mode) << 32 | length << 48;
        std::iter::once(&header).chain(words).flat_map(|word| word.to_le_bytes()).collect()
    }

    const NAMES: [&str; 9] = [
        "",
        "nf_conntrack_in",
        "nf_hook_slow",
        "_raw_spin_unlock_irqrestore",
        "tcp_v4_rcv",
        "do_idle",
        "run_ksoftirqd",
        "bpf_prog_6deef7357e7b4530_forward",
        "ret_from_nowhere",
    ];

    fn tally(bytes: &[Vec<u8>], counts_forwarder: bool) -> Tally {
        let processes = HashMap::from([(1, Whose::Lab), (20, Whose::Server), (30, Whose::Forwarder)]);
        Tally::of(&bytes.concat(), &processes, counts_forwarder, |at| NAMES.get(at as usize).copied())
    }

    fn counted(tally: &Tally) -> Vec<(Area, u64)> {
        tally.areas.iter().map(|(area, samples)| (*area, *samples)).collect()
    }

    #[test]
    fn a_sample_is_of_the_innermost_function_with_an_area() {
        let tally = tally(
            &[
                sample(KERNEL, 20, &[3, 1, 2]),
                sample(KERNEL, 20, &[2]),
                sample(KERNEL, 20, &[7, 4]),
                sample(KERNEL, 20, &[8]),
            ],
            true,
        );
        let expected = [(Area::Netfilter, 1), (Area::Conntrack, 1), (Area::Bpf, 1), (Area::Other, 1)];
        assert_eq!(counted(&tally), expected);
        let names: Vec<String> = tally.functions().into_iter().map(|each| each.name).collect();
        assert_eq!(names, ["BPF program forward", "nf_conntrack_in", "nf_hook_slow", "ret_from_nowhere"]);
    }

    #[test]
    fn programs_are_told_apart_by_process_and_children_are_their_parents() {
        // The child is told on the ring of another processor, after the sample.
        let tally = tally(
            &[
                sample(USER, 31, &[0x5555]),
                sample(USER, 40, &[0x5555]),
                sample(USER, 20, &[0x5555]),
                began(31, 30),
                began(40, 1),
                began(1, 1),
            ],
            true,
        );
        assert_eq!(counted(&tally), [(Area::Client, 1), (Area::Server, 1), (Area::Forwarder, 1)]);
        assert_eq!((tally.elsewhere, tally.functions()), (0, Vec::new()));
    }

    #[test]
    fn idle_others_and_the_lab_do_not_count_and_the_thread_for_packets_does() {
        let bytes = [
            sample(KERNEL, 0, &[5]),
            sample(USER, 77, &[0x5555]),
            sample(KERNEL, 1, &[4]),
            sample(KERNEL, 0, &[4, 6]),
            sample(KERNEL, 15, &[4, 6]),
            sample(KERNEL, 30, &[4]),
            record(2, 0, &[0, 3]),
        ];
        let without = tally(&bytes, false);
        assert_eq!((counted(&without), without.elsewhere, without.lost), (vec![(Area::Transport, 2)], 4, 3));
        assert_eq!(tally(&bytes, true).samples(), 3);
    }
}
