//! Reading counters and flows, and bringing them together as what the engine saw.
//!
//! A reader shares the maps and nothing else with the engine, so it may be on another thread.

use std::collections::{BTreeMap, HashMap};
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
use portway_datapath::abi::{self, DROPS, Drop, state};
use portway_datapath::record::Direction;

use crate::flow::{self, Names};
use crate::maps::Maps;
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
    /// The rules that are not gone, and how many members each has had.
    pub current: BTreeMap<u32, usize>,
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
                known.current.insert(rule.id, rule.members.len());
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

/// The reasons for dropping, in words.
const REASONS: [(Drop, &str); DROPS] = [
    (Drop::Empty, "no backend"),
    (Drop::TableFull, "flow table full"),
    (Drop::NoPort, "no source port"),
    (Drop::Rate, "new-flow rate"),
    (Drop::NoRoute, "no route"),
    (Drop::TooBig, "too big"),
    (Drop::Expired, "time to live over"),
    (Drop::Fragment, "fragment"),
    (Drop::Mangled, "not changed by the kernel"),
    (Drop::IcmpError, "ICMP error not translated"),
    (Drop::BadCookie, "bad SYN cookie"),
    (Drop::Family, "not translated between families"),
    (Drop::Race, "begun twice"),
];

/// What a new flow was refused for, rather than a packet of a flow.
const REFUSALS: [Drop; 5] = [Drop::Empty, Drop::TableFull, Drop::NoPort, Drop::Rate, Drop::NoRoute];

fn snapshot(maps: &Maps, known: &Known, figures: Figures) -> io::Result<EngineSnapshot> {
    let mut snapshot = EngineSnapshot::default();
    let mut rules: BTreeMap<u32, RuleCounters> =
        known.current.keys().map(|id| (*id, RuleCounters::default())).collect();
    let mut members: BTreeMap<u32, MemberCounters> = BTreeMap::new();

    let count = known.members.keys().last().map_or(0, |last| last + 1);
    for (id, leg) in (0..).zip(maps.legs.read(count, sum_of_legs)?) {
        let Some(KnownMember { rule, .. }) = known.members.get(&id) else { continue };
        members.entry(id).or_default().flows = leg.flows;
        if let Some(rule) = rules.get_mut(rule) {
            rule.flows += leg.flows;
            rule.bytes_in += leg.bytes_in;
            rule.bytes_out += leg.bytes_out;
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
        members.entry(id).or_default().live = live;
    }

    let count = known.rules.keys().last().map_or(1, |last| last + 1);
    let (mut drops, mut cookies) = (BTreeMap::new(), 0);
    for (id, dropped) in (0..).zip(maps.drops.read(count, sum_of_drops)?) {
        cookies += dropped.cookies;
        for (reason, word) in REASONS {
            let count = dropped.by_reason[reason as usize];
            if count == 0 {
                continue;
            }
            *drops.entry(word).or_insert(0) += count;
            let Some(name) = known.rules.get(&id) else { continue };
            snapshot.drops.entry(name.clone()).or_default().insert(word.to_owned(), count);
            if let Some(rule) = rules.get_mut(&id)
                && REFUSALS.contains(&reason)
            {
                rule.failed += count;
            }
        }
    }

    for (id, KnownMember { rule, target, planned }) in &known.members {
        let Some(name) = known.rules.get(rule) else { continue };
        if known.current.get(rule).is_some_and(|count| *count > 1) {
            let counters = members.get(id).copied().unwrap_or_default();
            // One that has left the pool is of interest while it has flows.
            if !planned && counters.live == 0 {
                continue;
            }
            snapshot.members.entry(name.clone()).or_default().insert(target.clone(), counters);
        }
    }
    for (id, counters) in rules {
        if let Some(name) = known.rules.get(&id) {
            snapshot.rules.insert(name.clone(), counters);
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
    for (word, count) in drops {
        snapshot.gauges.insert(format!("dropped_{}", word.to_lowercase().replace([' ', '-'], "_")), count);
    }
    Ok(snapshot)
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
    legs.iter().fold(abi::Leg::default(), |sum, leg| abi::Leg {
        flows: sum.flows + leg.flows,
        packets_in: sum.packets_in + leg.packets_in,
        bytes_in: sum.bytes_in + leg.bytes_in,
        packets_out: sum.packets_out + leg.packets_out,
        bytes_out: sum.bytes_out + leg.bytes_out,
    })
}

/// Of all processors.
pub fn sum_of_drops(drops: &[abi::Drops]) -> abi::Drops {
    let mut sum = abi::Drops::default();
    for drops in drops {
        sum.by_reason.iter_mut().zip(drops.by_reason).for_each(|(sum, count)| *sum += count);
        sum.cookies += drops.cookies;
    }
    sum
}
