//! Any bytes as what the kernel answers to a dump of the table: no panic, and never more elements than fit.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// An element is at least a header, a key and its value: three attributes of four bytes.
const SMALLEST: usize = 12;
/// Every set reads the same bytes.
const SETS: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    assert!(portway_nftables::elements_in(bytes) <= bytes.len() / SMALLEST * SETS);
});
