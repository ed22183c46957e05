//! The flow table under several processors at once, and under a daemon that is killed while it frees records.
//!
//! Threads are worse than the kernel's processors: the scheduler stops them anywhere for milliseconds, where a program in
//! the kernel runs through.
//!
//! Deliberately absent: what one processor alone can show (`model.rs`, `load.rs`).
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod flows;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use flows::{Random, TIMEOUT, Table, flow, verify};
use portway_datapath::abi::{Bucket, Config, GRACE, Record, Tuple, phase, state};
use portway_datapath::atomic::AtomicU64;
use portway_datapath::record::Direction;
use portway_datapath::sweep::{settle, suspect, sweep};
use portway_datapath::table::{Memory, Refused, claim, lookup, publish, replace};

/// Threads. More than processors, so that they are stopped in the middle.
const THREADS: u32 = 8;

/// Long ago.
const AGED: u32 = 0_u32.wrapping_sub(TIMEOUT + GRACE + 1);

/// A flow that a thread has opened.
struct Own {
    index: u32,
    client: u32,
    source: u32,
}

/// Who has which client's tuple and which source port, counted by the threads themselves.
struct Holders {
    clients: Vec<AtomicU32>,
    sources: Vec<AtomicU32>,
}

impl Holders {
    fn new(keys: u32) -> Self {
        let zeros = || (0..keys).map(|_| AtomicU32::new(0)).collect();
        Self { clients: zeros(), sources: zeros() }
    }

    /// A thread has opened a flow, so nobody else has.
    fn hold(&self, own: &Own) {
        assert_eq!(self.clients[own.client as usize].fetch_add(1, SeqCst), 0, "two flows of one client");
        assert_eq!(self.sources[own.source as usize].fetch_add(1, SeqCst), 0, "two flows of one source port");
    }
}

/// Opens a flow, taking no record that another thread could still use as its own: the clock stands at 0.
fn open(table: &Table, random: &mut Random, client: u32, source: u32) -> Result<Own, Refused> {
    let (index, record) = claim(table, random.next() as u32, 0).ok_or(Refused::Full)?;
    record.fill(&flow(client, source), state::SYN, 0);
    publish(table, index, record)?;
    Ok(Own { index, client, source })
}

/// What a thread does over and over: opens, looks up, replaces and gives up flows of few keys, which it shares with the
/// others.
fn work(table: &Table, holders: &Holders, random: &mut Random, own: &mut Vec<Own>) {
    let keys = holders.clients.len() as u32;
    match random.below(8) {
        0..=3 => {
            let (client, source) = (random.below(keys), random.below(keys));
            if let Ok(new) = open(table, random, client, source) {
                holders.hold(&new);
                own.push(new);
            }
        }
        4 | 5 if !own.is_empty() => {
            let Own { index, client, source } = own.swap_remove(random.below(own.len() as u32) as usize);
            // First give up, then expire: from then on anybody may take it.
            holders.clients[client as usize].fetch_sub(1, SeqCst);
            holders.sources[source as usize].fetch_sub(1, SeqCst);
            table.record(index).unwrap().seen.store(AGED, SeqCst);
        }
        6 if !own.is_empty() => {
            let at = random.below(own.len() as u32) as usize;
            let tuple = table.record(own[at].index).unwrap().tuple(Direction::Forth);
            let former = lookup(table, &tuple).unwrap();
            let source = random.below(keys);
            if let Some((index, record)) = claim(table, random.next() as u32, 0) {
                record.fill(&flow(own[at].client, source), state::SYN, 0);
                if replace(table, former, index, record).is_ok() {
                    assert_eq!(
                        holders.sources[source as usize].fetch_add(1, SeqCst),
                        0,
                        "two flows of one source port"
                    );
                    let before = std::mem::replace(&mut own[at].index, index);
                    let left = std::mem::replace(&mut own[at].source, source);
                    holders.sources[left as usize].fetch_sub(1, SeqCst);
                    table.record(before).unwrap().seen.store(AGED, SeqCst);
                }
            }
        }
        _ => {
            for own in own.iter() {
                check(table, own);
            }
        }
    }
}

/// Nobody takes from a thread what it holds.
fn check(table: &Table, own: &Own) {
    let record = table.record(own.index).unwrap();
    assert_eq!(record.phase.load(SeqCst), phase::LIVE);
    for direction in [Direction::Forth, Direction::Back] {
        let found = lookup(table, &record.tuple(direction)).map(|found| (found.index, found.direction));
        assert_eq!(found, Some((own.index, direction)));
    }
    assert_eq!(record.flow(), flow(own.client, own.source));
}

/// Runs `THREADS` threads of `work` for two seconds beside `daemon`; the table then has what they hold, and no more once
/// all that has expired is swept.
fn hammer(records: u32, keys: u32, daemon: impl Fn(&Table, &RwLock<()>, &AtomicBool) + Sync) {
    let table = Table::new(records, None, 99);
    let holders = Holders::new(keys);
    let stop = AtomicBool::new(false);
    // Held for reading through each operation, as none in the kernel lasts as long as a second.
    let still = RwLock::new(());
    let held: Vec<Own> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|number| {
                let (table, holders, stop, still) = (&table, &holders, &stop, &still);
                scope.spawn(move || {
                    let mut random = Random(u64::from(number) << 32);
                    let mut own = Vec::new();
                    let end = Instant::now() + Duration::from_secs(2);
                    while Instant::now() < end && !stop.load(SeqCst) {
                        for _ in 0..64 {
                            let _busy = still.read().unwrap();
                            work(table, holders, &mut random, &mut own);
                        }
                    }
                    own
                })
            })
            .collect();
        let daemon = scope.spawn(|| daemon(&table, &still, &stop));
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, SeqCst);
        daemon.join().unwrap();
        results.into_iter().flat_map(|own| own.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    held.iter().for_each(|own| check(&table, own));
    sweep(&table, 0, records, 0);
    assert_eq!(verify(&table), held.len());
}

#[test]
fn threads_of_few_keys_in_a_large_table() {
    hammer(4096, 64, |table, _, stop| {
        while !stop.load(SeqCst) {
            sweep(table, 0, 4096, 0);
        }
    });
}

#[test]
fn threads_at_a_full_table_without_a_daemon() {
    hammer(128, 1024, |_, _, _| {});
}

#[test]
fn all_at_once_for_the_same_key() {
    let rounds = 3000;
    let table = Table::new(1024, None, 5);
    let barrier = Barrier::new(THREADS as usize);
    let (won, taken, raced) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let opened: Vec<AtomicU32> = (0..rounds).map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (table, barrier, opened) = (&table, &barrier, &opened);
            let (won, taken, raced) = (&won, &taken, &raced);
            scope.spawn(move || {
                let mut random = Random(u64::from(number));
                for (round, opened) in opened.iter().enumerate() {
                    barrier.wait();
                    // In odd rounds the client's tuple is the same, in even ones the source port.
                    let both = [round as u32, round as u32 + 10_000 * (number + 1)];
                    let result = open(table, &mut random, both[round % 2], both[(round + 1) % 2]);
                    match &result {
                        Ok(_) => won.fetch_add(1, SeqCst) + opened.fetch_add(1, SeqCst),
                        Err(Refused::Taken) => taken.fetch_add(1, SeqCst),
                        Err(Refused::Race) => raced.fetch_add(1, SeqCst),
                        Err(Refused::Full) => panic!("full"),
                    };
                    barrier.wait();
                    assert!(
                        opened.load(SeqCst) <= 1,
                        "round {round}: {} flows of one key",
                        opened.load(SeqCst)
                    );
                    if let Ok(own) = result {
                        let record = table.record(own.index).unwrap();
                        record.seen.store(AGED, SeqCst);
                        assert!(portway_datapath::table::reclaim(table, own.index, record, 0));
                    }
                }
            });
        }
    });
    println!("{won:?} of {rounds} opened; refused as taken {taken:?}, as raced {raced:?}");
    assert!(won.load(SeqCst) > rounds * 9 / 10);
    assert_eq!(verify(&table), 0);
}

/// A table whose user is killed after so many accesses.
struct Killed<'a> {
    table: &'a Table,
    left: Cell<u32>,
}

impl Killed<'_> {
    fn count(&self) {
        // Not a panic of the test's own, which would be reported.
        self.left.set(self.left.get().checked_sub(1).unwrap_or_else(|| resume_unwind(Box::new("killed"))));
    }
}

impl Memory for Killed<'_> {
    fn config(&self) -> &Config {
        self.count();
        self.table.config()
    }

    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.count();
        self.table.bucket(index)
    }

    fn record(&self, index: u32) -> Option<&Record> {
        self.count();
        self.table.record(index)
    }

    fn free(&self, index: u32) -> Option<&AtomicU64> {
        self.count();
        self.table.free(index)
    }
}

/// Sweeps, and is killed after `accesses`; whether it was.
fn sweep_and_die(table: &Table, accesses: u32) -> bool {
    let killed = Killed { table, left: Cell::new(accesses) };
    let count = table.config().records;
    catch_unwind(AssertUnwindSafe(|| sweep(&killed, 0, count, 0))).is_err()
}

/// Settles all that is suspect while nobody works; how many there were.
fn repair(table: &Table) -> usize {
    let suspects: Vec<_> = (0..table.config().records).filter_map(|index| suspect(table, index)).collect();
    for before in &suspects {
        assert!(settle(table, *before));
        assert!(!settle(table, *before), "twice");
    }
    suspects.len()
}

#[test]
fn a_daemon_killed_at_any_access_leaves_what_the_next_repairs() {
    let mut repaired = 0;
    for accesses in 0.. {
        let table = Table::new(64, None, 1);
        let mut random = Random(1);
        let flows: Vec<Own> = (0..64).map(|id| open(&table, &mut random, id, id).unwrap()).collect();
        let (gone, stay) = flows.split_at(3);
        gone.iter().for_each(|own| table.record(own.index).unwrap().seen.store(AGED, SeqCst));
        let killed = sweep_and_die(&table, accesses);

        repaired += repair(&table);
        stay.iter().for_each(|own| check(&table, own));
        assert!((61..=64).contains(&verify(&table)));
        sweep(&table, 0, 64, 0);
        assert_eq!(verify(&table), 61);
        for id in 100..103 {
            open(&table, &mut random, id, id).unwrap();
        }
        assert_eq!(verify(&table), 64);
        if !killed {
            break;
        }
    }
    assert!(repaired > 10, "only {repaired} times there was something to repair");
}

#[test]
fn a_daemon_killed_and_restarted_under_traffic() {
    let repaired = AtomicU32::new(0);
    hammer(256, 512, |table, still, stop| {
        let mut random = Random(6);
        while !stop.load(SeqCst) {
            sweep_and_die(table, random.below(2000));
            let _quiet = still.write().unwrap();
            repaired.fetch_add(repair(table) as u32, SeqCst);
        }
        let _quiet = still.write().unwrap();
        repair(table);
    });
    println!("repaired {repaired:?}");
    assert!(repaired.load(SeqCst) > 0);
}

/// Who finds a record by an entry of its former flow must not take it for a live one of that flow.
#[test]
fn readers_never_see_a_record_of_another_key() {
    let table = Table::new(64, None, 2);
    let stop = AtomicBool::new(false);
    let tuples: Vec<Tuple> = (0..64)
        .map(|id| {
            let record = Record::default();
            record.fill(&flow(id, id), 0, 0);
            record.tuple(Direction::Forth)
        })
        .collect();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (table, tuples, stop) = (&table, &tuples, &stop);
            scope.spawn(move || {
                let mut random = Random(u64::from(number));
                while !stop.load(SeqCst) {
                    let tuple = &tuples[random.below(64) as usize];
                    if let Some(found) = lookup(table, tuple)
                        && found.record.phase.load(SeqCst) == phase::LIVE
                    {
                        // All flows have `source` and `client` alike; a record of two flows has not.
                        let flow = found.record.flow();
                        let live = found.record.phase.load(SeqCst) == phase::LIVE;
                        let same = lookup(table, tuple).is_some_and(|again| again.index == found.index);
                        if live && same && found.record.has(Direction::Forth, tuple) {
                            assert_eq!(flow.client_port, flow.source_port);
                        }
                    }
                }
            });
        }
        let mut random = Random(8);
        for _ in 0..200_000 {
            let id = random.below(64);
            if let Ok(own) = open(&table, &mut random, id, id) {
                table.record(own.index).unwrap().seen.store(AGED, SeqCst);
            }
            let first = random.below(64);
            sweep(&table, first, 2, 0);
        }
        stop.store(true, SeqCst);
    });
    sweep(&table, 0, 64, 0);
    assert_eq!(verify(&table), 0);
}
