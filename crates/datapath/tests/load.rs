//! How full the flow table's index can be: a table for 1,000,000 flows takes every one of them, in at most 160 bytes a flow,
//! and goes on while flows come and go. And how even the hash is, whatever the tuples have in common.
//!
//! Deliberately absent: several processors at once (`threads.rs`).
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod flows;

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use flows::{Random, TIMEOUT, Table, flow, verify};
use portway_datapath::abi::{Address, GRACE, SEEDS, Tuple, state};
use portway_datapath::hash::hash;
use portway_datapath::sweep::sizes;
use portway_datapath::table::{Memory, Refused, claim, publish, reclaim};

/// Flows in the large table.
const FLOWS: u32 = 1_000_000;

/// Opens flow number `id`.
fn open(table: &Table, random: &mut Random, id: u32) -> Result<(), Refused> {
    let (index, record) = claim(table, random.next() as u32, 0).ok_or(Refused::Full)?;
    record.fill(&flow(id, id), state::SYN, 0);
    publish(table, index, record)
}

/// Ends a flow of the table, whichever it is.
fn close(table: &Table, random: &mut Random) {
    loop {
        let index = random.below(FLOWS);
        let record = table.record(index).unwrap();
        record.seen.store(0_u32.wrapping_sub(TIMEOUT + GRACE + 1), Relaxed);
        if reclaim(table, index, record, 0) {
            return;
        }
    }
}

/// Buckets by how many entries they have.
fn histogram(table: &Table) -> [u32; 9] {
    let mut buckets = [0; 9];
    for index in 0..table.config().buckets {
        let bucket = table.bucket(index).unwrap();
        buckets[bucket.slots.iter().filter(|slot| slot.load(Relaxed) != 0).count()] += 1;
    }
    buckets
}

/// Replaces `times` flows; how many of the new ones were refused.
fn churn(table: &Table, random: &mut Random, id: &mut u32, times: u32) -> u32 {
    let mut refused = 0;
    for _ in 0..times {
        close(table, random);
        while open(table, random, *id).is_err() {
            refused += 1;
            *id += 1;
        }
        *id += 1;
    }
    refused
}

#[test]
fn a_table_for_a_million_flows_takes_them_all_and_goes_on() {
    let table = Table::new(FLOWS, None, 7);
    let mut random = Random(3);
    for id in 0..FLOWS {
        assert_eq!(open(&table, &mut random, id), Ok(()), "flow {id}");
    }
    println!("buckets by entries, filled: {:?}", histogram(&table));
    assert_eq!(open(&table, &mut random, FLOWS), Err(Refused::Full));
    assert_eq!(verify(&table), FLOWS as usize);

    // Any flow goes, and another comes: the worst there is, for the table is never less than full.
    let mut id = FLOWS;
    let refused = churn(&table, &mut random, &mut id, 2 * FLOWS);
    println!("buckets by entries, exchanged: {:?}", histogram(&table));
    println!("refused at a full table, of {}: {refused}", 2 * FLOWS);
    assert!(refused < 2 * FLOWS / 5_000);

    // A twentieth of room.
    for _ in 0..FLOWS / 20 {
        close(&table, &mut random);
    }
    churn(&table, &mut random, &mut id, FLOWS);
    let refused = churn(&table, &mut random, &mut id, FLOWS);
    println!("refused at 95 %, of {FLOWS}: {refused}");
    assert!(refused < FLOWS / 10_000);
    assert_eq!(verify(&table), (FLOWS - FLOWS / 20) as usize);

    let bytes = sizes(FLOWS).bytes() as f64 / f64::from(FLOWS);
    println!("{bytes:.1} bytes a flow");
    assert!(bytes < 160.0);
}

/// Tuples that differ little, or only where a bad hash looks away.
fn families() -> Vec<(&'static str, Vec<Tuple>)> {
    let count = 1 << 16;
    let base = Tuple {
        source: Address { high: u64::from_ne_bytes([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0]), low: 0 },
        destination: Address { high: 1, low: 2 },
        source_port: 1,
        destination_port: 80_u16.to_be(),
        protocol: 6,
    };
    let family = |change: fn(&mut Tuple, u32)| -> Vec<Tuple> {
        let one = |number| {
            let mut tuple = base;
            change(&mut tuple, number);
            tuple
        };
        (0..count).map(one).collect()
    };
    vec![
        ("ports", family(|tuple, number| tuple.source_port = (number as u16).to_be())),
        (
            "IPv4",
            family(|tuple, number| tuple.source.low = 0xffff_0000 | u64::from(number.swap_bytes()) << 32),
        ),
        (
            "addresses and ports",
            family(|tuple, number| {
                tuple.source.low = u64::from(number >> 8) << 56;
                tuple.source_port = (number as u16 & 0xff).to_be();
            }),
        ),
        // What multiplying by constants does not see: differences in the top bits, which the next word cancels.
        (
            "top bits",
            family(|tuple, number| {
                tuple.source.high ^= u64::from(number & 0xff) << 56;
                tuple.source.low ^= u64::from(number & 0xff) << 56 | u64::from(number & 0xff) << 24;
                tuple.destination.low ^= u64::from(number >> 8) << 56;
            }),
        ),
        (
            "sums",
            family(|tuple, number| {
                tuple.source.low = u64::from(number);
                tuple.destination.low = u64::from(count_down(number));
            }),
        ),
    ]
}

/// Which falls as the number rises, so that their sum stays.
fn count_down(number: u32) -> u32 {
    (1 << 16) - 1 - number
}

#[test]
fn the_hash_is_even_whatever_the_tuples_have_in_common() {
    let mut random = Random(11);
    for (name, tuples) in families() {
        for _ in 0..4 {
            let seeds: [u64; SEEDS] = std::array::from_fn(|_| random.next());
            let hashes: Vec<u64> = tuples.iter().map(|tuple| hash(tuple, &seeds)).collect();
            assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), tuples.len(), "{name}: two of one hash");
            // Chi squared of 1024 cells, by bits of either half and by both: 1023 expected, deviation 45.
            for shift in [0, 13, 22, 32, 43, 54] {
                let mut cells = [0_f64; 1024];
                for hash in &hashes {
                    cells[(hash >> shift & 1023) as usize] += 1.0;
                }
                let expected = tuples.len() as f64 / 1024.0;
                let chi: f64 = cells.iter().map(|cell| (cell - expected).powi(2) / expected).sum();
                assert!(chi < 1023.0 + 6.0 * 45.3, "{name}: bits {shift} on, chi squared {chi:.0}");
            }
        }
    }
}

#[test]
fn every_bit_of_a_tuple_reaches_every_bit_of_its_hash() {
    let mut random = Random(5);
    let rounds = 512;
    for bit in 0..(16 + 16 + 4 + 4) * 8_u32 {
        let mut changed = [0_u32; 64];
        for _ in 0..rounds {
            let seeds: [u64; SEEDS] = std::array::from_fn(|_| random.next());
            let mut words: [u64; 5] = std::array::from_fn(|_| random.next());
            let before = hash(&tuple(words), &seeds);
            words[(bit / 64) as usize] ^= 1 << (bit % 64);
            let difference = before ^ hash(&tuple(words), &seeds);
            for (position, count) in changed.iter_mut().enumerate() {
                *count += (difference >> position & 1) as u32;
            }
        }
        for (position, count) in changed.iter().enumerate() {
            // Half of them, within 6.5 deviations.
            assert!(count.abs_diff(rounds / 2) < 74, "bit {bit} to bit {position}: {count} of {rounds}");
        }
    }
}

/// A tuple of any bits.
fn tuple(words: [u64; 5]) -> Tuple {
    let [a, b, c, d, e] = words;
    Tuple {
        source: Address { high: a, low: b },
        destination: Address { high: c, low: d },
        source_port: e as u16,
        destination_port: (e >> 16) as u16,
        protocol: (e >> 32) as u32,
    }
}
