//! TCP option 254, by which a backend learns of the client.

use portway_ebpf::trial::Program;

use crate::bench::{Bench, TC_REDIRECT, carry, same};
use crate::reference::vector::{between, syn};
use crate::reference::{self, Packet, Random, any_tcp, flags};

#[test]
fn the_client_is_told_by_option_254() {
    let mut bench = Bench::new("");
    let mut random = Random(10);
    for round in 0..200_u16 {
        let ipv4 = round % 2 == 0;
        let ends = between(ipv4, ipv4, (82, 8080), 48_000 + round);
        let packet = syn(&mut random, ipv4, 0).between(ends.arriving(true));
        // Options of IP leave no room that could be found quickly.
        let packet = Packet { ip: reference::Ip { options: Vec::new(), ..packet.ip }, ..packet };
        carry(&mut bench, true, &packet, &packet.carried(&ends, true).told(ends.client));
        let answer = syn(&mut random, ipv4, flags::ACK).between(ends.arriving(false));
        let frame = bench.arriving(false, &answer.bytes());
        let ran = bench.run(Program::TcEthernet, false, &frame);
        same(
            "the answer",
            &answer,
            &ran.packet,
            &bench.leaving(false, &answer.carried(&ends, false).bytes()),
        );
        // The ACK, perhaps sent twice, and data.
        for _ in 0..3 {
            let mut packet = any_tcp(&mut random, ipv4, flags::ACK).between(ends.arriving(true));
            packet.ip.options.clear();
            let frame = bench.arriving(true, &packet.bytes());
            let ran = bench.run(Program::TcEthernet, true, &frame);
            assert_eq!(ran.result, TC_REDIRECT, "{packet:?}");
            let expected = packet.carried(&ends, true).told(ends.client);
            same("a segment", &packet, &ran.packet, &bench.leaving(true, &expected.bytes()));
        }
    }
}
