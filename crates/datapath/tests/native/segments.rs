//! What is done to TCP beside addresses and ports: the client's address in an option, and sequence numbers moved.

use portway_datapath::abi::Record;
use portway_datapath::record::{Direction, Flow};
use proptest::prelude::*;

use crate::bench::{AT, STATES, address, any_ends, anywhere, check, headers, load, shared, tuple};
use crate::careful::work;
use crate::reference::vector::{Vector, told};
use crate::reference::{Body, Ends, Random, any_tcp, flags};
use crate::shift::shift;
use crate::skb::SKB;
use crate::toa::{OPEN, SHUT, append, prepare};

/// The record of a flow.
pub fn record(ends: &Ends, state: u32) -> Record {
    let record = Record::default();
    let flow = Flow {
        client: address(ends.client.ip()),
        listener: address(ends.listener.ip()),
        source: address(ends.source.ip()),
        backend: address(ends.backend.ip()),
        client_port: ends.client.port().to_be(),
        listener_port: ends.listener.port().to_be(),
        source_port: ends.source.port().to_be(),
        backend_port: ends.backend.port().to_be(),
        member: 0,
        rule: 0,
    };
    record.fill(&flow, state, 0);
    record
}

/// As `careful.rs` has it.
fn tell(vector: &Vector) {
    let Body::Tcp { payload, .. } = &vector.arrives.body else { unreachable!() };
    for state in STATES {
        load(&vector.arrives, state);
        let work = work().unwrap();
        work.headers = headers();
        work.new = tuple(vector.ends.leaving(true), 6);
        let prepared = prepare(SKB, work);
        assert!(matches!(prepared, OPEN | SHUT), "{vector:?}");
        assert!(SKB.rewrite::<AT>(&work.headers, &work.new));
        if prepared == OPEN && payload.is_empty() {
            let record = record(&vector.ends, 0);
            assert_eq!(append::<AT>(SKB, work, &record), 0, "{vector:?}");
        }
        check(vector.leaves.as_ref().unwrap(), state);
    }
}

#[test]
fn segments_of_the_kernels_vectors_tell_the_client() {
    shared(told).for_each(|vector| tell(&vector));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn segments_tell_the_client_as_the_reference_writes_it(seed: u64) {
        tell(&anywhere(told, seed));
    }

    #[test]
    fn sequence_numbers_are_moved(seed: u64, ipv4: bool, forth: bool, acknowledges: bool, by: u32) {
        let mut random = Random(seed);
        let ends = any_ends(&mut random, ipv4);
        let bits = if acknowledges { flags::ACK } else { flags::RST };
        let arrives = any_tcp(&mut random, ipv4, bits).between(ends.arriving(forth));
        let mut leaves = arrives.clone();
        let Body::Tcp { sequence, acknowledged, .. } = &mut leaves.body else { unreachable!() };
        match (forth, acknowledges) {
            (true, true) => *acknowledged = acknowledged.wrapping_add(by),
            (true, false) => {}
            (false, _) => *sequence = sequence.wrapping_sub(by),
        }
        let direction = if forth { Direction::Forth } else { Direction::Back };
        for state in STATES {
            load(&arrives, state);
            assert!(shift(SKB, &headers(), by, direction));
            check(&leaves, state);
        }
    }
}
