//! The flow table against a slow model of it: after any sequence of operations both say the same.
//!
//! And what is not worth a sequence: the timeouts, the full table, the free map at its limits.
//!
//! Deliberately absent: several processors at once, and repair (`threads.rs`).
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod flows;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use flows::{TIMEOUT, Table, flow, verify};
use portway_datapath::abi::{Bucket, Clock, Config, GRACE, Record, phase, state};
use portway_datapath::atomic::AtomicU64;
use portway_datapath::free::MOST_RECORDS;
use portway_datapath::record::{Direction, timeout_of};
use portway_datapath::sweep::{sizes, sweep};
use portway_datapath::table::{Memory, Refused, claim, is_taken, lookup, publish, release, replace, restart};
use proptest::prelude::*;

/// What a test does.
#[derive(Clone, Debug)]
enum Step {
    /// A client opens a flow from a source port.
    Open(u32, u32),
    /// It opens one that takes the place of that which it has.
    Replace(u32, u32),
    /// Its flow begins anew.
    Restart(u32),
    /// A packet of its flow.
    Packet(u32),
    /// A record is taken and given back.
    Release,
    /// Time passes.
    Pass(u32),
    /// User space sweeps.
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, source) = (0..96_u32, 0..96_u32);
    let step = prop_oneof![
        8 => (client.clone(), source.clone()).prop_map(|(client, source)| Step::Open(client, source)),
        3 => (client.clone(), source).prop_map(|(client, source)| Step::Replace(client, source)),
        1 => client.clone().prop_map(Step::Restart),
        3 => client.prop_map(Step::Packet),
        1 => Just(Step::Release),
        1 => (0..TIMEOUT + GRACE + 2).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 1..400)
}

/// A flow of the model.
#[derive(Debug)]
struct Model {
    client: u32,
    source: u32,
    seen: u32,
    orphan: bool,
}

/// The flow of a client.
fn of(model: &BTreeMap<u32, Model>, client: u32) -> Option<u32> {
    model.iter().find(|(_, flow)| flow.client == client && !flow.orphan).map(|(index, _)| *index)
}

/// Takes a record, and takes from the model what that has cost.
fn take<'a>(
    table: &'a Table,
    model: &mut BTreeMap<u32, Model>,
    start: u32,
    now: u32,
) -> Option<(u32, &'a Record)> {
    let full = model.len() == 64;
    let found = claim(table, start, now);
    let Some((index, record)) = found else {
        // The hand looks at half of 64 records each time; that it passes over the expired ones is for the next call.
        assert!(full, "no record though there is a free one");
        return None;
    };
    let former = model.remove(&index);
    assert_eq!(former.is_some(), full, "only a full table takes a record that has a flow");
    if let Some(former) = former {
        assert!(now.wrapping_sub(former.seen) > TIMEOUT + GRACE, "a flow was taken alive: {former:?}");
    }
    Some((index, record))
}

fn run(steps: Vec<Step>, begin: u32) {
    let table = Table::new(64, None, 1);
    let mut model: BTreeMap<u32, Model> = BTreeMap::new();
    let mut now = begin;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Open(client, source) => {
                let Some((index, record)) = take(&table, &mut model, number as u32 * 77, now) else {
                    continue;
                };
                record.fill(&flow(client, source), state::SYN, now);
                let taken = of(&model, client).is_some() || model.values().any(|flow| flow.source == source);
                assert_eq!(
                    is_taken(&table, &record.tuple(Direction::Back)),
                    model.values().any(|flow| flow.source == source)
                );
                let result = publish(&table, index, record);
                assert_eq!(result, if taken { Err(Refused::Taken) } else { Ok(()) });
                if !taken {
                    let flow = Model { client, source, seen: now, orphan: false };
                    model.insert(index, flow);
                }
            }
            Step::Replace(client, source) => {
                let tuple = flow_tuple(client);
                let Some(former) = lookup(&table, &tuple) else {
                    assert_eq!(of(&model, client), None);
                    continue;
                };
                let before = former.index;
                let Some((index, record)) = take(&table, &mut model, number as u32 * 77, now) else {
                    continue;
                };
                record.fill(&flow(client, source), state::SYN, now);
                let taken = model.values().any(|flow| flow.source == source);
                let expected = if taken {
                    Err(Refused::Taken)
                } else if index == before {
                    // The clock hand came to the very one.
                    Err(Refused::Race)
                } else {
                    Ok(())
                };
                if index == before {
                    // A kernel program would see the packet's flow as expired, and so would not replace it.
                    release(&table, index, record);
                    continue;
                }
                assert_eq!(replace(&table, former, index, record), expected);
                if expected.is_ok() {
                    model.get_mut(&before).unwrap().orphan = true;
                    model.insert(index, Model { client, source, seen: now, orphan: false });
                }
            }
            Step::Restart(client) => {
                if let Some(found) = lookup(&table, &flow_tuple(client)) {
                    assert!(restart(found.record, state::SYN, now));
                    model.get_mut(&found.index).unwrap().seen = now;
                }
            }
            Step::Packet(client) => {
                let found = lookup(&table, &flow_tuple(client));
                assert_eq!(found.map(|found| found.index), of(&model, client));
                if let Some(found) = found {
                    let flow = model.get_mut(&found.index).unwrap();
                    let alive = now.wrapping_sub(flow.seen) <= TIMEOUT;
                    assert_eq!(found.record.is_usable(table.config(), now), alive);
                    if alive {
                        found.record.seen.store(now, Relaxed);
                        flow.seen = now;
                    }
                }
            }
            Step::Release => {
                if let Some((index, record)) = take(&table, &mut model, number as u32, now) {
                    release(&table, index, record);
                }
            }
            Step::Pass(ticks) => now = now.wrapping_add(ticks),
            Step::Sweep => {
                let swept = sweep(&table, 0, 64, now);
                let before = model.len();
                model.retain(|_, flow| now.wrapping_sub(flow.seen) <= TIMEOUT + GRACE);
                assert_eq!((swept.freed as usize, swept.live as usize), (before - model.len(), model.len()));
            }
        }
        assert_eq!(verify(&table), model.len());
        for (index, expected) in &model {
            let record = table.record(*index).unwrap();
            assert_eq!(record.flow(), flow(expected.client, expected.source));
            assert_eq!(record.state.load(Relaxed) & state::ORPHAN != 0, expected.orphan);
        }
    }
}

/// What a client's packets look like.
fn flow_tuple(client: u32) -> portway_datapath::abi::Tuple {
    let record = Record::default();
    record.fill(&flow(client, 0), 0, 0);
    record.tuple(Direction::Forth)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn the_table_does_what_a_map_would(steps in steps(), begin in prop_oneof![Just(0), Just(u32::MAX - 200), any::<u32>()]) {
        run(steps, begin);
    }

    #[test]
    fn every_free_record_is_found(records in 64..20_000_u32, start in any::<u32>()) {
        let table = Table::new(records, Some(1), 1);
        let mut seen = vec![false; records as usize];
        for number in 0..records {
            let (index, _) = claim(&table, start.wrapping_mul(number), 0).unwrap();
            prop_assert!(!std::mem::replace(&mut seen[index as usize], true));
        }
        prop_assert!(claim(&table, start, 0).is_none());
        let last = start % records;
        release(&table, last, table.record(last).unwrap());
        prop_assert_eq!(claim(&table, start, 0).map(|(index, _)| index), Some(last));
    }
}

/// A table without records: only the free map, at its largest.
struct FreeMap {
    config: Config,
    free: Vec<AtomicU64>,
    record: Record,
}

impl Memory for FreeMap {
    fn config(&self) -> &Config {
        &self.config
    }

    fn bucket(&self, _: u32) -> Option<&Bucket> {
        None
    }

    fn record(&self, index: u32) -> Option<&Record> {
        (index < self.config.records).then_some(&self.record)
    }

    fn free(&self, index: u32) -> Option<&AtomicU64> {
        self.free.get(index as usize)
    }
}

#[test]
fn the_largest_table_has_its_last_record() {
    let sizes = sizes(u32::MAX);
    assert_eq!(sizes.records, MOST_RECORDS);
    let map = FreeMap {
        config: Config { records: sizes.records, ..Config::default() },
        free: (0..sizes.free).map(|_| AtomicU64::new(0)).collect(),
        record: Record::default(),
    };
    assert!(claim(&map, 0, 0).is_none(), "an empty map");
    for last in [MOST_RECORDS - 1, 0, 1 << 18] {
        map.record.phase.store(phase::CLAIMED, Relaxed);
        release(&map, last, &map.record);
        assert_eq!(claim(&map, 77, 0).map(|(index, _)| index), Some(last));
        assert!(claim(&map, 77, 0).is_none());
    }
}

#[test]
fn the_clock_is_that_of_the_state() {
    let config = Config { timeouts: std::array::from_fn(|clock| clock as u32), ..Config::default() };
    use state::{
        ANSWERED, BACKEND_FIRST, COOKIE, ENDED, ESTABLISHED, FIN, FIN_BACK, RST, SYN, SYN_BACK, TOA, UDP,
    };
    let open = SYN | SYN_BACK | ESTABLISHED;
    for (bits, clock) in [
        (SYN, Clock::Opening),
        (SYN | SYN_BACK | TOA, Clock::Opening),
        (SYN | COOKIE, Clock::Opening),
        (open, Clock::Established),
        (open | FIN, Clock::Closing),
        (open | FIN_BACK | BACKEND_FIRST, Clock::Closing),
        (open | FIN | FIN_BACK | BACKEND_FIRST, Clock::TimeWait),
        (open | FIN | FIN_BACK, Clock::Closed),
        (SYN | RST, Clock::Closed),
        (SYN | SYN_BACK | RST, Clock::Closed),
        (open | RST, Clock::Reset),
        (open | FIN | RST, Clock::Reset),
        (open | FIN | FIN_BACK | RST, Clock::Closed),
        (open | RST | ENDED, Clock::Closed),
        (open | ENDED, Clock::Closed),
        (UDP, Clock::UdpUnanswered),
        (UDP | ANSWERED, Clock::UdpAnswered),
        (UDP | ANSWERED | ENDED, Clock::Closed),
    ] {
        assert_eq!(timeout_of(bits, &config), clock as u32, "{bits:#x}");
    }
}

#[test]
fn a_clock_that_is_behind_does_not_end_flows() {
    let table = Table::new(64, None, 1);
    let record = table.record(0).unwrap();
    for begin in [0, 1, u32::MAX, u32::MAX - TIMEOUT] {
        record.fill(&flow(1, 1), 0, begin);
        for (later, usable, reclaimable) in [
            (0, true, false),
            (TIMEOUT, true, false),
            (TIMEOUT + 1, false, false),
            (TIMEOUT + GRACE, false, false),
            (TIMEOUT + GRACE + 1, false, true),
            (u32::MAX, true, false), // One tick back: another processor's clock.
        ] {
            let now = begin.wrapping_add(later);
            assert_eq!(record.is_usable(table.config(), now), usable, "{begin} + {later}");
            assert_eq!(record.is_reclaimable(table.config(), now), reclaimable, "{begin} + {later}");
        }
    }
}

#[test]
fn a_full_table_refuses_and_keeps_the_old() {
    let table = Table::new(64, None, 1);
    for id in 0..64 {
        let (index, record) = claim(&table, id, 0).unwrap();
        record.fill(&flow(id, id), state::SYN, 0);
        publish(&table, index, record).unwrap();
    }
    for now in 0..TIMEOUT + GRACE {
        assert!(claim(&table, now, now).is_none(), "at {now}");
    }
    assert_eq!(verify(&table), 64);
    for id in 0..64 {
        assert!(lookup(&table, &flow_tuple(id)).is_some());
    }
    // And when they have expired, the kernel needs no daemon: the hand finds one in the first 32 it looks at.
    for id in 100..164 {
        let (index, record) = claim(&table, id, TIMEOUT + GRACE + 1).unwrap();
        record.fill(&flow(id, id), state::SYN, TIMEOUT + GRACE + 1);
        publish(&table, index, record).unwrap();
    }
    assert_eq!(verify(&table), 64);
}

#[test]
fn a_flow_whose_two_tuples_are_one_is_refused() {
    let table = Table::new(64, None, 1);
    let (index, record) = claim(&table, 0, 0).unwrap();
    let mut odd = flow(1, 1);
    odd.backend = odd.client;
    odd.source = odd.listener;
    odd.backend_port = odd.client_port;
    odd.source_port = odd.listener_port;
    record.fill(&odd, state::SYN, 0);
    assert!(publish(&table, index, record).is_err());
    assert_eq!(verify(&table), 0);
}
