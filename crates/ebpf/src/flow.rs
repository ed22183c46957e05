//! Live flows: found by looking at every record, listed, ended. No call to the kernel: the records are memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;

use portway_core::address::Protocol;
use portway_core::flow::{Flow, FlowFilter, Flows};
use portway_core::ruleset::EngineKind;
use portway_datapath::abi::{Config, Record, phase, state};

use crate::config;
use crate::maps::FlowMemory;
use crate::table::now;
use crate::value;

/// The names of rules by their ids.
pub type Names = BTreeMap<u32, String>;

/// The ids of rules and of members that records have, whatever their state.
pub fn ids_in_use(flows: &FlowMemory) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let (mut rules, mut members) = (BTreeSet::new(), BTreeSet::new());
    for record in flows.records.iter().filter(|record| record.phase.load(Relaxed) != phase::FREE) {
        rules.insert(record.rule.load(Relaxed));
        members.insert(record.member.load(Relaxed));
    }
    (rules, members)
}

/// How far a flow is, in words; nothing of one that is over and only keeps its source port.
fn word(record: &Record, config: &Config, now: u32) -> Option<&'static str> {
    let bits = record.state.load(Relaxed);
    let has = |bit| bits & bit != 0;
    if has(state::ENDED) || record.is_expired(config, now) {
        return None;
    }
    if has(state::UDP) {
        return Some(if has(state::ANSWERED) { "answered" } else { "unanswered" });
    }
    match (has(state::FIN), has(state::FIN_BACK)) {
        _ if has(state::RST) => None,
        (true, true) => None,
        (false, false) if has(state::ESTABLISHED) => Some("established"),
        (false, false) => Some("connecting"),
        _ => Some("closing"),
    }
}

/// Calls `each` with every record that holds its tuples, and how far the flow is, in words; without one where it is over.
pub fn each(flows: &FlowMemory, mut each: impl FnMut(&Record, Option<&'static str>)) {
    let (config, now) = (config::read(flows), now());
    for record in flows.records.iter().filter(|record| record.phase.load(Relaxed) == phase::LIVE) {
        each(record, word(record, &config, now));
    }
}

/// Calls `see` with every live flow.
fn each_live(flows: &FlowMemory, mut see: impl FnMut(&Record, &'static str)) {
    each(flows, |record, word| {
        if let Some(word) = word {
            see(record, word);
        }
    });
}

/// Whether a flow is alive.
pub fn any_live(flows: &FlowMemory) -> bool {
    let (config, now) = (config::read(flows), now());
    flows.records.iter().any(|record| word(record, &config, now).is_some())
}

/// A record as every engine lists flows.
fn flow(record: &Record, word: &str, names: &Names, now: u32) -> Flow {
    let udp = record.state.load(Relaxed) & state::UDP != 0;
    let rule = record.rule.load(Relaxed);
    let fixed = record.flow();
    let age = value::duration(now.wrapping_sub(record.begun.load(Relaxed)));
    Flow {
        engine: EngineKind::Ebpf.to_string(),
        rule: names.get(&rule).cloned().unwrap_or_else(|| format!("#{rule}")),
        protocol: if udp { Protocol::Udp } else { Protocol::Tcp }.to_string(),
        client: value::socket(fixed.client, fixed.client_port),
        listener: value::socket(fixed.listener, fixed.listener_port),
        backend: Some(value::socket(fixed.backend, fixed.backend_port)),
        state: word.to_owned(),
        age_seconds: Some(age.as_secs()),
        bytes_in: None,
        bytes_out: None,
    }
}

/// Whether a flow cannot be meant, by what costs nothing to find out.
fn is_other(record: &Record, filter: &FlowFilter, names: &Names) -> bool {
    let rule = filter.rule.as_ref();
    rule.is_some_and(|rule| names.get(&record.rule.load(Relaxed)).is_some_and(|name| name != rule))
}

/// Lists the flows that `filter` means, at most `most`, and how many there are in all.
pub fn list(flows: &FlowMemory, names: &Names, filter: &FlowFilter, most: usize) -> Flows {
    let (mut found, now) = (Flows::default(), now());
    each_live(flows, |record, word| {
        if is_other(record, filter, names) {
            return;
        }
        let flow = flow(record, word, names, now);
        if filter.matches(&flow) {
            found.total += 1;
            if found.flows.len() < most {
                found.flows.push(flow);
            }
        }
    });
    found
}

/// Ends the flows that `filter` means and says how many there were. Their packets are the kernel's from then on, which knows
/// no such connection: it answers TCP by reset.
pub fn end(flows: &FlowMemory, names: &Names, filter: &FlowFilter) -> u64 {
    let (mut ended, now) = (0, now());
    each_live(flows, |record, word| {
        if is_other(record, filter, names) || !filter.matches(&flow(record, word, names, now)) {
            return;
        }
        // Who sets the bit has ended it, and not another flow that has the record since: of that the tuple would differ.
        let before = record.state.fetch_or(state::ENDED, Relaxed);
        ended += u64::from(before & state::ENDED == 0);
    });
    ended
}
