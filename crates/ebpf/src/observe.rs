//! Reading counters and flows, and bringing them together as what the engine saw.
//!
//! A reader shares the maps and nothing else with the engine, so it may be on another thread.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use portway_core::address::PortRange;
use portway_core::engine::{EngineError, Observer};
use portway_core::flow::{FlowFilter, Flows};
use portway_core::plan::ebpf::Plan;
use portway_core::ruleset::RuleName;
use portway_core::snapshot::{EngineSnapshot, Fill, MemberCounters, RuleCounters, SourcePorts};
use portway_datapath::abi::{self, state};
use portway_datapath::record::Direction;

use crate::flow::{self, Names};
use crate::maps::Maps;
use crate::reason::{DROPPED, Of, REFUSED};
use crate::refusal::failure;
use crate::state::RuleState;
use crate::value::{self, Place};

/// How many pairs of source address and backend are told of: the fullest.
const PAIRS: usize = 16;

/// Who has which id: made when it is wanted and kept until it changes, because ten thousand names take their time.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The names of rules by their ids, those that are gone and have flows still among them.
    pub rules: Names,
    /// The rules that are not gone.
    current: BTreeSet<u32>,
    /// The members by their ids.
    members: BTreeMap<u32, KnownMember>,
}

/// A member.
#[derive(Clone, Debug)]
struct KnownMember {
    /// The rule's id.
    rule: u32,
    /// The target as it is displayed.
    target: String,
    /// Whether the plan has it still.
    planned: bool,
}

impl Known {
    /// Of these rules, with what the plan says of their members.
    pub fn new(rules: &BTreeMap<RuleName, RuleState>, plan: &Plan) -> Self {
        let mut known = Self::default();
        for (name, rule) in rules {
            known.rules.insert(rule.id, name.to_string());
            let planned = plan.rules.get(name);
            if planned.is_some() {
                known.current.insert(rule.id);
            }
            let targets = planned.into_iter().flat_map(|plan| &plan.targets);
            let shown: BTreeMap<Place, String> =
                targets.map(|target| (Place::of(target), target.to_string())).collect();
            for (place, member) in &rule.members {
                let shown = shown.get(place);
                let target = shown.cloned().unwrap_or_else(|| place.to_string());
                let one = KnownMember { rule: rule.id, target, planned: shown.is_some() };
                known.members.insert(member.id, one);
            }
        }
        known
    }
}

/// Figures that are not in the maps.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Ports that sources are searched in.
    pub ports: PortRange,
    /// Members that this host has no route to.
    pub unreachable: u64,
    /// Interfaces that are served.
    pub interfaces: u64,
}

/// A reader of the counters and of the flows of an engine; of one that holds nothing, of nothing.
pub struct EbpfObserver(pub(crate) Option<Reader>);

/// What there is to read.
pub struct Reader {
    pub(crate) maps: Arc<Maps>,
    pub(crate) known: Arc<Known>,
    pub(crate) figures: Figures,
}

impl Observer for EbpfObserver {
    fn observe(&mut self) -> Result<EngineSnapshot, EngineError> {
        let Some(Reader { maps, known, figures }) = &self.0 else { return Ok(EngineSnapshot::default()) };
        snapshot(maps, known, *figures).map_err(|error| failure("read the counters", &error))
    }

    fn flows(&mut self, filter: &FlowFilter, most: usize) -> Result<Flows, EngineError> {
        let Some(Reader { maps, known, .. }) = &self.0 else { return Ok(Flows::default()) };
        Ok(flow::list(&maps.flows, &known.rules, filter, most))
    }
}

fn snapshot(maps: &Maps, known: &Known, figures: Figures) -> io::Result<EngineSnapshot> {
    let mut snapshot = EngineSnapshot::default();
    let none =
        RuleCounters { packets_in: Some(0), packets_out: Some(0), failed: Some(0), ..Default::default() };
    let mut rules: BTreeMap<u32, RuleCounters> = known.current.iter().map(|id| (*id, none)).collect();
    let mut lost = Lost::default();

    let count = known.members.keys().last().map_or(1, |last| last + 1);
    let mut members: BTreeMap<u32, MemberCounters> = BTreeMap::new();
    for (id, leg) in (0..).zip(maps.legs.read(count, sum_of_legs)?) {
        let known_as = known.members.get(&id);
        let rule = known_as.map(|member| member.rule);
        let (mut drops, mut failed) = (BTreeMap::new(), 0);
        for (reason, of, word) in DROPPED {
            let count = leg.drops[reason as usize];
            lost.add(rule, word, count);
            if count > 0 {
                *drops.entry(word.to_owned()).or_default() += count;
                failed += if of == Of::NewFlow { count } else { 0 };
            }
        }
        if let Some(rule) = rule.and_then(|rule| rules.get_mut(&rule)) {
            rule.flows += leg.flows;
            rule.packets_in = rule.packets_in.map(|sum| sum + leg.packets_in);
            rule.packets_out = rule.packets_out.map(|sum| sum + leg.packets_out);
            rule.bytes_in += leg.bytes_in;
            rule.bytes_out += leg.bytes_out;
            rule.failed = rule.failed.map(|sum| sum + failed);
        }
        if known_as.is_some() {
            let counters = MemberCounters {
                live: 0,
                flows: leg.flows,
                packets_in: Some(leg.packets_in),
                packets_out: Some(leg.packets_out),
                bytes_in: Some(leg.bytes_in),
                bytes_out: Some(leg.bytes_out),
                failed: Some(failed),
                ejected: false,
                drops,
            };
            members.insert(id, counters);
        }
    }

    let count = known.rules.keys().last().map_or(1, |last| last + 1);
    let mut cookies = 0;
    for (id, refusals) in (0..).zip(maps.refusals.read(count, sum_of_refusals)?) {
        cookies += refusals.cookies;
        for (reason, of, word) in REFUSED {
            let count = refusals.by_reason[reason as usize];
            lost.add(Some(id), word, count);
            if let Some(rule) = rules.get_mut(&id).filter(|_| of == Of::NewFlow) {
                rule.failed = rule.failed.map(|sum| sum + count);
            }
        }
    }

    // Millions of flows: hashed, not ordered.
    let (mut live, mut by_rule, mut by_member) = (0u64, HashMap::new(), HashMap::new());
    let (mut held, mut pairs) = (0u64, HashMap::<Pair, u64>::new());
    flow::each(&maps.flows, |record, word| {
        let udp = record.state.load(Relaxed) & state::UDP != 0;
        let back = record.tuple(Direction::Back);
        let pair = (udp, back.destination, back.source, back.source_port);
        held += 1;
        // A client's own port that was kept may lie outside.
        if figures.ports.contains(u16::from_be(back.destination_port)) {
            *pairs.entry(pair).or_default() += 1;
        }
        if word.is_some() {
            live += 1;
            *by_rule.entry(record.rule.load(Relaxed)).or_default() += 1;
            *by_member.entry(record.member.load(Relaxed)).or_default() += 1;
        }
    });
    for (id, live) in by_rule {
        if let Some(rule) = rules.get_mut(&id) {
            rule.live = live;
        }
    }
    for (id, live) in by_member {
        if let Some(member) = members.get_mut(&id) {
            member.live = live;
        }
    }

    for (id, counters) in members {
        let KnownMember { rule, target, planned } = &known.members[&id];
        let Some(name) = known.rules.get(rule).filter(|_| known.current.contains(rule)) else { continue };
        // One that has left the pool is of interest while it has flows.
        if *planned || counters.live > 0 {
            snapshot.members.entry(name.clone()).or_default().insert(target.clone(), counters);
        }
    }
    for (id, counters) in rules {
        if let Some(name) = known.rules.get(&id) {
            snapshot.rules.insert(name.clone(), counters);
        }
    }
    for (id, drops) in lost.by_rule {
        if let Some(name) = known.rules.get(&id) {
            let drops = drops.into_iter().map(|(word, count)| (word.to_owned(), count));
            snapshot.drops.insert(name.clone(), drops.collect());
        }
    }
    let capacity = maps.flows.records.len() as u64;
    snapshot.table = Some(Fill { used: held, of: capacity });
    snapshot.source_ports = fullest(&pairs, u64::from(figures.ports.count()));
    let gauges = [
        ("live_flows", live),
        ("flow_table_used", held),
        ("flow_table_size", capacity),
        ("syn_cookies", cookies),
        ("interfaces", figures.interfaces),
        ("members_without_route", figures.unreachable),
    ];
    snapshot.gauges = gauges.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for (word, count) in lost.all {
        snapshot.gauges.insert(format!("dropped_{}", word.to_lowercase().replace([' ', '-'], "_")), count);
    }
    Ok(snapshot)
}

/// What was not carried, by reason.
#[derive(Default)]
struct Lost {
    /// By the rule's id.
    by_rule: BTreeMap<u32, BTreeMap<&'static str, u64>>,
    /// Of all, nobody's among them.
    all: BTreeMap<&'static str, u64>,
}

impl Lost {
    /// Reasons that never happened are left out.
    fn add(&mut self, rule: Option<u32>, word: &'static str, count: u64) {
        if count > 0 {
            *self.all.entry(word).or_default() += count;
            if let Some(rule) = rule {
                *self.by_rule.entry(rule).or_default().entry(word).or_default() += count;
            }
        }
    }
}

type Pair = (bool, abi::Address, abi::Address, u16);

/// The pairs that have used up most of the ports that sources are searched in.
fn fullest(pairs: &HashMap<Pair, u64>, ports: u64) -> Vec<SourcePorts> {
    let mut all: Vec<(&Pair, u64)> = pairs.iter().map(|(pair, used)| (pair, *used)).collect();
    all.sort_by_key(|(pair, used)| (std::cmp::Reverse(*used), **pair));
    let tell = |((udp, source, backend, port), used): (&Pair, u64)| SourcePorts {
        protocol: if *udp { 17 } else { 6 },
        source: IpAddr::to_canonical(&value::ip(*source)),
        backend: SocketAddr::new(value::ip(*backend), u16::from_be(*port)),
        fill: Fill { used, of: ports },
    };
    all.into_iter().take(PAIRS).map(tell).collect()
}

/// Of all processors.
pub fn sum_of_legs(legs: &[abi::Leg]) -> abi::Leg {
    let mut sum = abi::Leg::default();
    for leg in legs {
        sum.flows += leg.flows;
        sum.packets_in += leg.packets_in;
        sum.bytes_in += leg.bytes_in;
        sum.packets_out += leg.packets_out;
        sum.bytes_out += leg.bytes_out;
        add(&mut sum.drops, leg.drops);
    }
    sum
}

/// Of all processors.
pub fn sum_of_refusals(refusals: &[abi::Refusals]) -> abi::Refusals {
    let mut sum = abi::Refusals::default();
    for refusals in refusals {
        add(&mut sum.by_reason, refusals.by_reason);
        sum.cookies += refusals.cookies;
    }
    sum
}

fn add<const N: usize>(sums: &mut [u64; N], counts: [u64; N]) {
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}
