//! New flows that are refused: at a full table, beyond a rate, without a port. Each is dropped as it came, and counted.

use std::collections::BTreeMap;

use portway_ebpf::trial::Program;

use crate::bench::{Bench, TC_REDIRECT, TC_SHOT, any, begin, ends, same};
use crate::reference::vector::between;
use crate::reference::{Random, flags};

/// Insists that so many new flows of a rule were refused when its backend had been chosen: counted for both, as what they are.
#[track_caller]
fn refused_at_its_backend(bench: &mut Bench, rule: &str, reason: &str, count: u64) {
    let drops = BTreeMap::from([(reason.to_owned(), count)]);
    let (snapshot, member) = (bench.snapshot(), bench.member(rule));
    assert_eq!((&snapshot.drops[rule], &member.drops), (&drops, &drops));
    assert_eq!((snapshot.rules[rule].failed, member.failed), (Some(count), Some(count)));
}

#[test]
fn a_full_table_refuses_a_thousand_and_keeps_the_old() {
    let mut bench = Bench::new("max-flows = 1024\n");
    let mut random = Random(7);
    let flow = |number: u16| ends(true, true, 50_000 + number);
    for number in 0..1024 {
        begin(&mut bench, &mut random, &flow(number), true);
    }
    for number in 1024..2024 {
        let packet = any(&mut random, true, true, flags::SYN).between(flow(number).arriving(true));
        let frame = bench.arriving(true, &packet.bytes());
        let ran = bench.run(Program::TcEthernet, true, &frame);
        assert_eq!(ran.result, TC_SHOT, "flow {number}");
        assert!(ran.packet == frame);
    }
    refused_at_its_backend(&mut bench, "tcp4", "flow table full", 1000);
    for number in 0..1024 {
        let ends = flow(number);
        for forth in [true, false] {
            let packet = any(&mut random, true, true, flags::ACK).between(ends.arriving(forth));
            let frame = bench.arriving(forth, &packet.bytes());
            let ran = bench.run(Program::TcEthernet, forth, &frame);
            assert_eq!(ran.result, TC_REDIRECT, "flow {number}");
            let expected = bench.leaving(forth, &packet.carried(&ends, forth).bytes());
            same("an old flow", &packet, &ran.packet, &expected);
        }
    }
}

/// More new flows than the rule takes: those that are too many are dropped as they came, and counted; those that are there go on.
#[test]
fn a_rate_of_new_flows_refuses_the_rest() {
    let mut bench = Bench::new("");
    let mut random = Random(20);
    let flow = |number: u16| between(true, true, (55, 5353), 20_000 + number);
    let (start, mut begun) = (std::time::Instant::now(), Vec::new());
    for number in 0..500 {
        let packet = any(&mut random, true, false, 0).between(flow(number).arriving(true));
        let frame = bench.arriving(true, &packet.bytes());
        let ran = bench.run(Program::TcEthernet, true, &frame);
        if ran.result == TC_REDIRECT {
            let expected = bench.leaving(true, &packet.carried(&flow(number), true).bytes());
            same("a first packet", &packet, &ran.packet, &expected);
            begun.push(number);
        } else {
            assert_eq!((ran.result, ran.packet == frame), (TC_SHOT, true), "flow {number}");
        }
    }
    // Five in each second that has begun.
    let seconds = start.elapsed().as_secs() as usize + 2;
    assert!((5..=seconds * 5).contains(&begun.len()), "{begun:?} in {seconds} s");
    let refused = 500 - begun.len() as u64;
    assert_eq!(bench.drops("slow"), BTreeMap::from([("new-flow rate".to_owned(), refused)]));
    assert_eq!(bench.snapshot().rules["slow"].failed, Some(refused));
    // Nobody had been chosen yet.
    let member = bench.member("slow");
    assert_eq!((member.failed, member.drops), (Some(0), BTreeMap::new()));
    for number in begun {
        let packet = any(&mut random, true, false, 0).between(flow(number).arriving(false));
        let frame = bench.arriving(false, &packet.bytes());
        let ran = bench.run(Program::TcEthernet, false, &frame);
        assert_eq!(ran.result, TC_REDIRECT, "flow {number}");
        let expected = bench.leaving(false, &packet.carried(&flow(number), false).bytes());
        same("an answer", &packet, &ran.packet, &expected);
    }
}

/// Every source port that may be had is taken: no two flows get the same, and the rest are dropped as they came, and counted.
#[test]
fn without_a_free_port_flows_are_refused() {
    let mut bench = Bench::new("source-ports = '40000-40007'\n");
    let mut random = Random(21);
    let mut taken = BTreeMap::new();
    let mut refused = 0;
    for number in 0..200 {
        // Ports that the host's own sockets may have, so they are not kept.
        let mut leaves = ends(true, true, 42_000 + number);
        let packet = any(&mut random, true, true, flags::SYN).between(leaves.arriving(true));
        let frame = bench.arriving(true, &packet.bytes());
        let ran = bench.run(Program::TcEthernet, true, &frame);
        if ran.result == TC_REDIRECT {
            let at = 14 + 20 + packet.ip.options.len();
            let port = u16::from_be_bytes([ran.packet[at], ran.packet[at + 1]]);
            leaves.source.set_port(port);
            let expected = bench.leaving(true, &packet.carried(&leaves, true).bytes());
            same("a first packet", &packet, &ran.packet, &expected);
            assert!((40_000..=40_007).contains(&port) && taken.insert(port, leaves).is_none(), "{port}");
        } else {
            assert_eq!((ran.result, ran.packet == frame), (TC_SHOT, true), "flow {number}");
            refused += 1;
        }
    }
    assert_eq!(taken.len(), 8);
    refused_at_its_backend(&mut bench, "tcp4", "no source port", refused);
    for ends in taken.values() {
        let packet = any(&mut random, true, true, flags::SYN | flags::ACK).between(ends.arriving(false));
        let frame = bench.arriving(false, &packet.bytes());
        let ran = bench.run(Program::TcEthernet, false, &frame);
        assert_eq!(ran.result, TC_REDIRECT, "{ends:?}");
        same("an answer", &packet, &ran.packet, &bench.leaving(false, &packet.carried(ends, false).bytes()));
    }
}
