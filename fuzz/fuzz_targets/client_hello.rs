//! Any bytes as what a TLS client sends, in parts: no panic, and the parts make no difference to the name found.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (part, bytes) = input;
    let found = portway_proxy::server_name_in(bytes, usize::from(part) + 1);
    assert_eq!(found, portway_proxy::server_name_in(bytes, bytes.len()));
});
