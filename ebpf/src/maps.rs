//! The maps, under the names and with the types of `portway_datapath::abi`.
//!
//! The sizes here are placeholders of a loader that sets its own; what is mapped into user space carries the flag for it.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use portway_datapath::abi;

/// A key of `ranges` as the trie has it: the bits that count, and the rest of [`abi::RangeKey`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RangeBits {
    /// The protocol's number.
    pub protocol: u32,
    /// The interface's index.
    pub interface: u32,
    /// The address.
    pub address: [u32; 4],
    /// The port, be.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// The key of a look-up in `ranges`.
pub type RangeKey = Key<RangeBits>;

#[map(name = "config")]
pub static CONFIG: Array<abi::Config> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "records")]
pub static RECORDS: Array<abi::Record> = Array::with_max_entries(1024, BPF_F_MMAPABLE);
#[map(name = "buckets")]
pub static BUCKETS: Array<abi::Bucket> = Array::with_max_entries(410, BPF_F_MMAPABLE);
#[map(name = "free")]
pub static FREE: Array<u64> = Array::with_max_entries(32, BPF_F_MMAPABLE);
#[map(name = "listeners")]
pub static LISTENERS: HashMap<abi::ListenerKey, abi::Listener> = HashMap::with_max_entries(1024, 0);
#[map(name = "ranges")]
pub static RANGES: LpmTrie<RangeBits, abi::Listener> = LpmTrie::with_max_entries(1024, 1);
#[map(name = "rules")]
pub static RULES: HashMap<u32, abi::Rule> = HashMap::with_max_entries(1024, 0);
#[map(name = "slots")]
pub static SLOTS: Array<u32> = Array::with_max_entries(1024, 0);
#[map(name = "members")]
pub static MEMBERS: HashMap<u32, abi::Member> = HashMap::with_max_entries(1024, 0);
#[map(name = "sources")]
pub static SOURCES: Array<abi::Address> = Array::with_max_entries(1024, 0);
#[map(name = "turns")]
pub static TURNS: Array<u64> = Array::with_max_entries(1024, 0);
#[map(name = "rates")]
pub static RATES: Array<abi::Rate> = Array::with_max_entries(1024, 0);
#[map(name = "persist")]
pub static PERSIST: LruHashMap<abi::PersistKey, abi::Persist> = LruHashMap::with_max_entries(1024, 0);
#[map(name = "fragments")]
pub static FRAGMENTS: LruHashMap<abi::FragmentKey, abi::Fragment> = LruHashMap::with_max_entries(1024, 0);
#[map(name = "ports")]
pub static PORTS: Array<abi::Port> = Array::with_max_entries(256, 0);
#[map(name = "interfaces")]
pub static INTERFACES: HashMap<u32, u32> = HashMap::with_max_entries(256, 0);
#[map(name = "locals")]
pub static LOCALS: HashMap<abi::Address, u32> = HashMap::with_max_entries(1024, 0);
#[map(name = "legs")]
pub static LEGS: PerCpuArray<abi::Leg> = PerCpuArray::with_max_entries(1024, 0);
#[map(name = "refusals")]
pub static REFUSALS: PerCpuArray<abi::Refusals> = PerCpuArray::with_max_entries(1024, 0);
#[map(name = "names")]
pub static NAMES: HashMap<u32, [u8; 64]> = HashMap::with_max_entries(1024, 0);
