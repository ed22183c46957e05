//! ICMP errors about flows, within their family and to the other.

use proptest::prelude::*;

use portway_datapath::abi::Tuple;

use crate::bench::{AT, STATES, anywhere, can_be, check, load, shared, tuple};
use crate::crossing::cross;
use crate::error::{Error, read, write};
use crate::parse::Headers;
use crate::reference::Body;
use crate::reference::vector::{self, Vector};
use crate::skb::SKB;

/// What the way out takes.
const MTU: u32 = 1500;

/// `shift`: what the quoted sequence number is less than the sender's own.
fn run(vector: &Vector, shift: u32) {
    let Body::Error { quoted, .. } = &vector.arrives.body else { unreachable!() };
    let protocol = quoted.protocol();
    let sent = tuple(vector.ends.arriving(!vector.forth), protocol);
    let crosses = vector.ends.client.is_ipv4() != vector.ends.backend.is_ipv4();
    let shift = if protocol == 6 { shift } else { 0 };
    let leaves = vector.leaves.clone().map(|mut leaves| {
        if let Body::Error { quoted, .. } = &mut leaves.body
            && let Body::Tcp { sequence, .. } = &mut quoted.body
        {
            // The quoted checksum covers it.
            *sequence = sequence.wrapping_add(shift);
        }
        leaves
    });
    for state in STATES.into_iter().filter(|state| can_be(&vector.arrives, *state)) {
        load(&vector.arrives, state);
        let none = Tuple::default();
        let mut error =
            Error { headers: Headers::new(), quoted: none, inner: 0, inner_transport: 0, shift: 0 };
        read::<AT>(SKB, &mut error).unwrap();
        assert_eq!(error.quoted, tuple(vector.ends.leaving(!vector.forth), protocol));
        error.shift = shift;
        let done =
            if crosses { cross::<AT>(SKB, &error, &sent, MTU) } else { write::<AT>(SKB, &error, &sent) };
        let Some(leaves) = &leaves else {
            assert!(!done, "{vector:?}");
            continue;
        };
        assert!(done, "{vector:?}");
        check(leaves, state);
    }
}

#[test]
fn errors_of_the_kernels_vectors_are_translated() {
    shared(vector::error).for_each(|vector| run(&vector, 0));
    shared(vector::crossed_error).for_each(|vector| run(&vector, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn errors_are_translated_as_the_reference_writes_them(seed: u64, shift in prop_oneof![Just(0), any::<u32>()]) {
        run(&anywhere(vector::error, seed), shift);
    }

    #[test]
    fn errors_cross_as_the_reference_writes_them(seed: u64, shift in prop_oneof![Just(0), any::<u32>()]) {
        run(&anywhere(vector::crossed_error, seed), shift);
    }
}
