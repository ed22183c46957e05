//! From one family to the other.

use proptest::prelude::*;

use crate::bench::{AT, STATES, anywhere, can_be, check, headers, load, shared, tuple};
use crate::careful::work;
use crate::family::{DONE, IMPOSSIBLE, translate};
use crate::reference::vector::{Vector, crossed};
use crate::skb::SKB;

fn run(vector: &Vector) {
    for state in STATES.into_iter().filter(|state| can_be(&vector.arrives, *state)) {
        load(&vector.arrives, state);
        let work = work().unwrap();
        work.headers = headers();
        work.new = tuple(vector.ends.leaving(vector.forth), vector.arrives.protocol());
        let answer = translate::<AT>(SKB, work);
        let Some(leaves) = &vector.leaves else {
            assert_eq!(answer, IMPOSSIBLE, "{vector:?}");
            continue;
        };
        assert_eq!(answer, DONE, "{vector:?}");
        check(leaves, state);
    }
}

#[test]
fn packets_of_the_kernels_vectors_cross() {
    shared(crossed).for_each(|vector| run(&vector));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn packets_cross_as_the_reference_writes_them(seed: u64) {
        run(&anywhere(crossed, seed));
    }
}
