//! From one family to the other (RFC 7915): packets and errors.

use std::net::IpAddr;

use portway_ebpf::trial::Program;

use crate::bench::{Bench, KINDS, TC_SHOT, any, carry};
use crate::reference::vector::{OF_IPV4, OF_IPV6, Said, between, syn};
use crate::reference::{Body, Random, any_error, flags};

#[test]
fn packets_cross_to_the_other_family() {
    let mut bench = Bench::new("");
    let mut random = Random(9);
    let mut unchecked_packets = 0;
    for round in 0..200_u16 {
        let (ipv4, tcp) = KINDS[usize::from(round) % 4];
        let ends = between(ipv4, !ipv4, if tcp { (81, 8080) } else { (54, 5353) }, 47_000 + round);
        for number in 0..8 {
            let forth = number == 0 || number != 1 && random.once_in(2);
            let here = ipv4 == forth;
            let mut packet = match number {
                0 if tcp => syn(&mut random, here, 0),
                1 if tcp => syn(&mut random, here, flags::ACK),
                _ => any(&mut random, here, tcp, flags::ACK),
            }
            .between(ends.arriving(forth));
            packet.ip.options.clear();
            let unchecked = matches!(packet.body, Body::Udp { checksum: false, .. });
            if unchecked && number > 0 {
                let frame = bench.arriving(forth, &packet.bytes());
                assert_eq!(bench.run(Program::TcEthernet, forth, &frame).result, TC_SHOT, "{packet:?}");
                unchecked_packets += 1;
            }
            if let Body::Udp { checksum, .. } = &mut packet.body {
                *checksum = true;
            }
            let packet = if random.once_in(4) { packet.tuned() } else { packet };
            carry(&mut bench, forth, &packet, &packet.crossed(&ends, forth));
        }
    }
    let refused: u64 = ["udp46", "udp64"]
        .into_iter()
        .filter_map(|rule| bench.drops(rule).remove("not translated between families"))
        .sum();
    assert_eq!(refused, unchecked_packets);
}

#[test]
fn errors_cross_to_the_other_family() {
    let mut bench = Bench::new("");
    let mut random = Random(11);
    let mut untold = 0;
    for round in 0..200_u16 {
        let (ipv4, tcp) = KINDS[usize::from(round) % 4];
        let ends = between(ipv4, !ipv4, if tcp { (81, 8080) } else { (54, 5353) }, 51_000 + round);
        let mut first = any(&mut random, ipv4, tcp, flags::SYN).between(ends.arriving(true));
        first.ip.options.clear();
        if let Body::Udp { checksum, .. } = &mut first.body {
            *checksum = true;
        }
        carry(&mut bench, true, &first, &first.crossed(&ends, true));
        for _ in 0..8 {
            let forth = random.once_in(2);
            let here = ipv4 == forth;
            let mut quoted = any(&mut random, here, tcp, flags::ACK).between(ends.leaving(!forth));
            if let Body::Udp { checksum, .. } = &mut quoted.body {
                *checksum = true;
            }
            let mut packet = any_error(&mut random, quoted);
            let listed: &[Said] = if here { &OF_IPV4 } else { &OF_IPV6 };
            let (arrives, says) = listed[random.below(listed.len())];
            let Body::Error { kind, code, rest, .. } = &mut packet.body else { unreachable!() };
            (*kind, *code, *rest) = arrives;
            let (from, to) = ends.arriving(forth);
            packet.ip.source = if random.once_in(2) {
                from.ip()
            } else {
                // A router on the way.
                if here { "10.9.9.9" } else { "fd09::9" }.parse::<IpAddr>().unwrap()
            };
            packet.ip.destination = to.ip();
            if let Some(says) = says {
                carry(&mut bench, forth, &packet, &packet.crossed_error(&ends, forth, says));
            } else {
                let frame = bench.arriving(forth, &packet.bytes());
                assert_eq!(bench.run(Program::TcEthernet, forth, &frame).result, TC_SHOT, "{packet:?}");
                untold += 1;
            }
        }
    }
    let rules = ["tcp46", "udp46", "tcp64", "udp64"];
    let drops: Vec<_> = rules.into_iter().map(|rule| bench.drops(rule)).collect();
    let counted: u64 = drops.iter().flatten().map(|(_, count)| count).sum();
    assert_eq!(counted, untold, "{drops:?}");
}
