//! Counters: each processor has its own, and what is read is all of them together.

use portway_core::snapshot::MemberCounters;
use portway_ebpf::trial::Program;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::bench::{Bench, KINDS, TC_REDIRECT, XDP_REDIRECT, any, begin, ends};
use crate::reference::{Random, flags};

/// The rules of the bench for [`KINDS`].
const RULES: [&str; 4] = ["tcp4", "udp4", "tcp6", "udp6"];

/// The processors that this thread may run on.
fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect()
}

/// This thread, and those that it starts, run here from now on.
fn run_on(processor: usize) {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only).unwrap();
}

/// Packets of known sizes on one processor after the other, at both hooks, in both directions; and some that are not carried.
/// A sum that left out a processor, or took one twice, would be another.
#[test]
fn what_every_processor_counts_is_read_as_one() {
    let mut bench = Bench::new("");
    let mut random = Random(30);
    let processors = processors();
    assert!(processors.len() > 1, "one processor shows nothing");
    for ((ipv4, tcp), rule) in KINDS.into_iter().zip(RULES) {
        let ends = ends(ipv4, tcp, 41_000);
        begin(&mut bench, &mut random, &ends, tcp);
        let mut expected = bench.member(rule);
        assert_eq!((expected.flows, expected.packets_in), (1, Some(1)), "{rule}");
        for (nth, processor) in processors.iter().enumerate() {
            run_on(*processor);
            for number in 0..30 * (nth + 1) {
                let forth = number % 3 > 0;
                let mut packet = any(&mut random, ipv4, tcp, flags::ACK).between(ends.arriving(forth));
                packet.ip.options.clear();
                let bytes = packet.bytes();
                let (program, carried) = match number % 2 {
                    0 => (Program::TcEthernet, TC_REDIRECT),
                    _ => (Program::XdpEthernet, XDP_REDIRECT),
                };
                let frame = bench.arriving(forth, &bytes);
                assert_eq!(bench.run(program, forth, &frame).result, carried, "{rule}: {packet:?}");
                let (packets, sum) = match forth {
                    true => (&mut expected.packets_in, &mut expected.bytes_in),
                    false => (&mut expected.packets_out, &mut expected.bytes_out),
                };
                *packets = packets.map(|packets| packets + 1);
                *sum = sum.map(|sum| sum + bytes.len() as u64);
            }
            for _ in 0..=nth {
                let mut packet = any(&mut random, ipv4, tcp, flags::ACK).between(ends.arriving(true));
                packet.ip.ttl = 1;
                let frame = bench.arriving(true, &packet.bytes());
                bench.run(Program::TcEthernet, true, &frame);
                *expected.drops.entry("time to live over".to_owned()).or_default() += 1;
            }
        }
        let counted = bench.member(rule);
        assert_eq!(counted, expected, "{rule}");
        // A packet of a flow that is there is no flow that was refused.
        assert_eq!(counted.failed, Some(0), "{rule}");
        let MemberCounters { packets_in, packets_out, bytes_in, bytes_out, drops, .. } = counted;
        let snapshot = bench.snapshot();
        let sums = snapshot.rules[rule];
        assert_eq!((sums.packets_in, sums.packets_out), (packets_in, packets_out), "{rule}");
        assert_eq!((Some(sums.bytes_in), Some(sums.bytes_out)), (bytes_in, bytes_out), "{rule}");
        assert_eq!(snapshot.drops[rule], drops, "{rule}");
    }
}
