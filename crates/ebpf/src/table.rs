//! The flow table as user space sees it: `portway_datapath`'s code over mapped memory.

use portway_datapath::abi::{Bucket, Config, Record, TICK_SHIFT};
use portway_datapath::atomic::AtomicU64;
use portway_datapath::table::Memory;
use rustix::time::{ClockId, clock_gettime};

use crate::config;
use crate::maps::FlowMemory;

/// The table, with the configuration as it was when this was made.
pub struct View<'a> {
    flows: &'a FlowMemory,
    config: Config,
}

impl<'a> View<'a> {
    /// The table in these maps.
    pub fn new(flows: &'a FlowMemory) -> Self {
        Self { flows, config: config::read(flows) }
    }
}

impl Memory for View<'_> {
    fn config(&self) -> &Config {
        &self.config
    }

    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.flows.buckets.get(index as usize)
    }

    fn record(&self, index: u32) -> Option<&Record> {
        self.flows.records.get(index as usize)
    }

    fn free(&self, word: u32) -> Option<&AtomicU64> {
        self.flows.free.get(word as usize)
    }
}

/// The time as records have it: ticks of the coarse monotonic clock, as `bpf_ktime_get_coarse_ns` tells it.
pub fn now() -> u32 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    // Neither is negative.
    let nanoseconds = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
    (nanoseconds >> TICK_SHIFT) as u32
}
