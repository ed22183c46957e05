//! A flow table in ordinary memory, and flows to put into it.
//!
//! Deliberately absent: any test.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portway_datapath::abi::{ABI, Address, Bucket, CLOCKS, Config, Record, phase, state};
use portway_datapath::record::{Direction, Flow};
use portway_datapath::sweep::{Sizes, initialise, sizes, suspect};
use portway_datapath::table::{Memory, lookup};

/// Each of [`Config::timeouts`] in [`Table::new`], in ticks.
pub const TIMEOUT: u32 = 100;

/// The maps.
pub struct Table {
    config: Config,
    buckets: Vec<Bucket>,
    records: Vec<Record>,
    free: Vec<AtomicU64>,
}

impl Table {
    /// An empty one for `records` flows. `buckets`: of these instead of as many as belong to it.
    pub fn new(records: u32, buckets: Option<u32>, seed: u64) -> Self {
        let Sizes { records, buckets: usual, free } = sizes(records);
        let buckets = buckets.unwrap_or(usual);
        let mut random = Random(seed);
        let table = Self {
            config: Config {
                abi: ABI,
                seeds: std::array::from_fn(|_| random.next()),
                records,
                buckets,
                timeouts: [TIMEOUT; CLOCKS],
                ..Config::default()
            },
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            records: (0..records).map(|_| Record::default()).collect(),
            free: (0..free).map(|_| AtomicU64::new(0)).collect(),
        };
        initialise(&table);
        table
    }
}

impl Memory for Table {
    fn config(&self) -> &Config {
        &self.config
    }

    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.buckets.get(index as usize)
    }

    fn record(&self, index: u32) -> Option<&Record> {
        self.records.get(index as usize)
    }

    fn free(&self, index: u32) -> Option<&AtomicU64> {
        self.free.get(index as usize)
    }
}

/// SplitMix64: numbers that a test can repeat.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }
}

/// An address as the maps have it.
pub fn address(address: IpAddr) -> Address {
    let bytes = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let (high, low) = bytes.split_at(8);
    Address {
        high: u64::from_ne_bytes(high.try_into().unwrap()),
        low: u64::from_ne_bytes(low.try_into().unwrap()),
    }
}

/// The flow of client number `client` that holds source port number `source`: of each 2^16 for 2^16 addresses.
pub fn flow(client: u32, source: u32) -> Flow {
    let of = |high: [u8; 2], low: u32| {
        let low = low.to_be_bytes();
        address(Ipv4Addr::new(high[0], high[1], low[0], low[1]).into())
    };
    Flow {
        client: of([10, 1], client),
        listener: of([192, 0], 0x0201_0000),
        source: of([192, 168], source),
        backend: of([198, 51], 0x6407_0000),
        client_port: (client as u16).to_be(),
        listener_port: 80_u16.to_be(),
        source_port: (source as u16).to_be(),
        backend_port: 8080_u16.to_be(),
        member: client,
        rule: 1,
    }
}

/// What must be so in a table that nobody is at work on: every live record is found by both its tuples (an orphan by its
/// backend's only), no other entry is in the index, and a record is free exactly if its bit is set. Returns how many are live.
pub fn verify(table: &Table) -> usize {
    let mut entries = 0;
    let mut live = 0;
    for index in 0..table.config.records {
        let record = table.record(index).unwrap();
        match record.phase.load(Relaxed) {
            phase::FREE => {}
            phase::LIVE => {
                live += 1;
                for direction in [Direction::Forth, Direction::Back] {
                    let found =
                        lookup(table, &record.tuple(direction)).map(|found| (found.index, found.direction));
                    let orphan = record.state.load(Relaxed) & state::ORPHAN != 0;
                    if orphan && direction == Direction::Forth {
                        assert_ne!(found, Some((index, direction)), "the client's tuple of orphan {index}");
                    } else {
                        assert_eq!(found, Some((index, direction)), "the tuples of record {index}");
                        entries += 1;
                    }
                }
            }
            other => panic!("record {index} is in phase {other}"),
        }
        assert_eq!(suspect(table, index), None, "record {index}");
    }
    let slots = table.buckets.iter().flat_map(|bucket| &bucket.slots);
    assert_eq!(slots.filter(|slot| slot.load(Relaxed) != 0).count(), entries, "entries");
    live
}
