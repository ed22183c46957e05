//! The packets that the programs' code is run on in user space (`crates/datapath/tests/native`), by the same seeds.

use portway_ebpf::trial::Program;

use crate::bench::{Bench, TC_REDIRECT, TC_SHOT, any, carry, same};
use crate::reference::vector::{ALL, SEEDS, TOLD, Vector, at_gateway};
use crate::reference::{Body, Packet, Random, flags};

/// Begins the flow of a vector, with a packet that all flows can begin with.
fn begin(bench: &mut Bench, random: &mut Random, vector: &Vector) {
    let Vector { ends, tcp, .. } = vector;
    let mut packet = any(random, ends.client.is_ipv4(), *tcp, flags::SYN).between(ends.arriving(true));
    packet.ip.options.clear();
    if let Body::Udp { checksum, .. } = &mut packet.body {
        *checksum = true;
    }
    let leaves = leaving(&packet, vector);
    let told = ends.listener.port() == TOLD;
    carry(bench, true, &packet, &if told { leaves.told(ends.client) } else { leaves });
}

fn leaving(packet: &Packet, Vector { ends, .. }: &Vector) -> Packet {
    if ends.client.is_ipv4() == ends.backend.is_ipv4() {
        packet.carried(ends, true)
    } else {
        packet.crossed(ends, true)
    }
}

#[test]
fn packets_of_user_spaces_seeds_leave_as_there() {
    let mut bench = Bench::new("");
    let mut random = Random(30);
    for (number, (what, _)) in ALL.into_iter().enumerate() {
        for seed in SEEDS {
            let vector = at_gateway(number, seed);
            begin(&mut bench, &mut random, &vector);
            let frame = bench.arriving(vector.forth, &vector.arrives.bytes());
            let ran = bench.run(Program::TcEthernet, vector.forth, &frame);
            let Some(leaves) = &vector.leaves else {
                assert_eq!(ran.result, TC_SHOT, "{what} of seed {seed}: {vector:?}");
                continue;
            };
            assert_eq!(ran.result, TC_REDIRECT, "{what} of seed {seed}: {vector:?}");
            let expected = bench.leaving(vector.forth, &leaves.bytes());
            same(what, &vector.arrives, &ran.packet, &expected);
        }
    }
}
