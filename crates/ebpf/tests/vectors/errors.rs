//! ICMP errors about flows: those of others are translated, and ours are right.

use std::net::IpAddr;

use portway_ebpf::trial::Program;

use crate::bench::{Bench, KINDS, TC_NEXT, TC_REDIRECT, XDP_PASS, any, begin, ends, same};
use crate::fragments::part;
use crate::reference::{Body, Packet, Random, any_error, checksum, flags};
use crate::told::check_told;

#[test]
fn errors_about_flows_are_translated() {
    let mut bench = Bench::new("");
    let mut random = Random(2);
    for round in 0..400 {
        let (ipv4, tcp) = KINDS[round % 4];
        let ends = ends(ipv4, tcp, 42_000 + round as u16);
        begin(&mut bench, &mut random, &ends, tcp);
        for _ in 0..4 {
            // From the side that the error is sent by: about what has left for there.
            let forth = random.once_in(2);
            let quoted = any(&mut random, ipv4, tcp, flags::ACK).between(ends.leaving(!forth));
            let mut packet = any_error(&mut random, quoted);
            let (from, to) = ends.arriving(forth);
            packet.ip.source = from.ip();
            if random.once_in(2) {
                // A router on the way.
                packet.ip.source = if ipv4 { "10.9.9.9" } else { "fd09::9" }.parse::<IpAddr>().unwrap();
            }
            packet.ip.destination = to.ip();
            let frame = bench.arriving(forth, &packet.bytes());
            let expected = bench.leaving(forth, &packet.carried(&ends, forth).bytes());
            let ran = bench.run(Program::TcEthernet, forth, &frame);
            assert_eq!(ran.result, TC_REDIRECT, "round {round}: {packet:?}");
            same("an error", &packet, &ran.packet, &expected);
            if !ipv4 {
                // About a first fragment; and about another one, which says nothing of ports.
                let quoting = |packet: &Packet, offset| quoting_fragment(&packet.bytes(), offset);
                let frame = bench.arriving(forth, &quoting(&packet, 0));
                let expected = bench.leaving(forth, &quoting(&packet.carried(&ends, forth), 0));
                let ran = bench.run(Program::TcEthernet, forth, &frame);
                assert_eq!(ran.result, TC_REDIRECT, "round {round}: {packet:?}");
                same("an error about a fragment", &packet, &ran.packet, &expected);
                let frame = bench.arriving(forth, &quoting(&packet, 181));
                let ran = bench.run(Program::TcEthernet, forth, &frame);
                assert_eq!((ran.result, ran.packet == frame), (TC_NEXT, true), "{packet:?}");
            }
            let ran = bench.run(Program::XdpEthernet, forth, &frame);
            if ran.result == XDP_PASS {
                same("an error, passed", &packet, &ran.packet, &frame);
            } else {
                same("an error at XDP", &packet, &ran.packet, &expected);
            }
        }
    }
}

/// The same error of ICMPv6, about a fragment of a datagram that begins so many times eight bytes behind its beginning.
fn quoting_fragment(error: &[u8], offset: u16) -> Vec<u8> {
    /// Where the quoted packet begins, and where its header ends.
    const QUOTED: (usize, usize) = (48, 88);
    let mut bytes = error[..QUOTED.1].to_vec();
    let protocol = std::mem::replace(&mut bytes[QUOTED.0 + 6], 44);
    bytes.extend([protocol, 0]);
    bytes.extend((offset << 3 | 1).to_be_bytes());
    bytes.extend([1, 2, 3, 4]);
    bytes.extend(&error[QUOTED.1..]);
    for at in [4, QUOTED.0 + 4] {
        let length = u16::from_be_bytes([bytes[at], bytes[at + 1]]) + 8;
        bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
    bytes[42..44].fill(0);
    let mut pseudo = bytes[8..40].to_vec();
    pseudo.extend((bytes.len() as u32 - 40).to_be_bytes());
    pseudo.extend([0, 0, 0, 58]);
    let check = checksum(&[&pseudo, &bytes[40..]]);
    bytes[42..44].copy_from_slice(&check.to_be_bytes());
    bytes
}

#[test]
fn senders_are_told_what_cannot_be_carried() {
    let mut bench = Bench::new("");
    let mut random = Random(8);
    for round in 0..64 {
        let (ipv4, tcp) = KINDS[round % 4];
        let ends = ends(ipv4, tcp, 46_000 + round as u16);
        begin(&mut bench, &mut random, &ends, tcp);
        for forth in [true, false] {
            let mut packet = any(&mut random, ipv4, tcp, flags::ACK).between(ends.arriving(forth));
            packet.ip.ttl = random.below(2) as u8;
            let frame = bench.arriving(forth, &packet.bytes());
            let ran = bench.run(Program::TcEthernet, forth, &frame);
            assert_eq!(ran.result, TC_REDIRECT, "{packet:?}");
            let told = if ipv4 { (11, 0, 0) } else { (3, 0, 0) };
            assert_eq!(check_told(&frame, &ran.packet), told);
            let passed = bench.run(Program::XdpEthernet, forth, &frame);
            assert_eq!((passed.result, passed.packet == frame), (XDP_PASS, true));

            packet.ip.ttl = 9;
            let (Body::Tcp { payload, .. } | Body::Udp { payload, .. }) = &mut packet.body else {
                unreachable!()
            };
            *payload = random.bytes(1490);
            for whole in [true, false] {
                packet.ip.dont_fragment = whole;
                let frame = bench.arriving(forth, &packet.bytes());
                let ran = bench.run(Program::TcEthernet, forth, &frame);
                assert_eq!(ran.result, TC_REDIRECT, "{packet:?}");
                if ipv4 && !whole && packet.ip.options.is_empty() {
                    // In parts, of which this is the last.
                    let carried = packet.carried(&ends, forth);
                    let last = part(&carried, u32::from(packet.ip.id), 1480, None);
                    same("the last part", &packet, &ran.packet, &bench.leaving(forth, &last));
                    continue;
                }
                let told = if ipv4 { (3, 4, 1500) } else { (2, 0, 1500) };
                assert_eq!(check_told(&frame, &ran.packet), told);
                let passed = bench.run(Program::XdpEthernet, forth, &frame);
                assert_eq!((passed.result, passed.packet == frame), (XDP_PASS, true));
            }
        }
    }
}
