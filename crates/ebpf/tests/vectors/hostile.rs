//! Bytes of flows with some of them turned or cut off: nothing changes but what may.

use std::collections::BTreeMap;

use portway_ebpf::trial::Program;

use crate::bench::{
    Bench, KINDS, TC_NEXT, TC_REDIRECT, TC_SHOT, XDP_PASS, XDP_REDIRECT, any, begin, ends, takes,
};
use crate::reference::{Random, any_error, checksum, flags};
use crate::told::check_told;

/// Where the transport's header and its checksum are, if the frame is one that may have been carried.
fn transport(frame: &[u8]) -> Option<(usize, usize)> {
    let (header, protocol) = match frame.get(14)? >> 4 {
        4 => (usize::from(frame[14] & 15) * 4, *frame.get(23)?),
        6 => (40, *frame.get(20)?),
        _ => return None,
    };
    match protocol {
        6 => Some((14 + header, 14 + header + 16)),
        17 => Some((14 + header, 14 + header + 6)),
        _ => None,
    }
}

/// The sum of what a checksum covers: it must not change, right or wrong as it was, for who receives it to tell.
fn residue(frame: &[u8], header: bool) -> u16 {
    let ipv4 = frame[14] >> 4 == 4;
    let (at, _) = transport(frame).unwrap();
    let addresses = if ipv4 { &frame[26..34] } else { &frame[22..54] };
    let sum = if header { checksum(&[&frame[14..at]]) } else { checksum(&[addresses, &frame[at..]]) };
    // Two ways to write nothing.
    if sum == 0xffff { 0 } else { sum }
}

/// A frame that came out other than it went in: only what may change has.
fn check_carried(before: &[u8], after: &[u8]) {
    assert_eq!(before.len(), after.len());
    let (at, check) = transport(before).unwrap_or_else(|| panic!("carried though it is neither TCP nor UDP"));
    let ipv4 = before[14] >> 4 == 4;
    let mut may: Vec<usize> = (0..12).collect();
    if ipv4 {
        may.extend([22, 24, 25].into_iter().chain(26..34));
    } else {
        may.extend([21].into_iter().chain(22..54));
    }
    may.extend((at..at + 4).chain([check, check + 1]));
    for (offset, (a, b)) in before.iter().zip(after).enumerate() {
        assert!(a == b || may.contains(&offset), "byte {offset} has changed");
    }
    if ipv4 {
        assert_eq!(residue(before, true), residue(after, true), "the header's checksum");
    }
    if before[check..check + 2] != [0, 0] || before[23] == 6 {
        assert_eq!(residue(before, false), residue(after, false), "the transport's checksum");
    }
}

#[test]
fn hostile_bytes_change_nothing_but_what_they_may() {
    let mut bench = Bench::new("");
    let mut random = Random(5);
    let mut seen = BTreeMap::new();
    for round in 0..6000 {
        let (ipv4, tcp) = KINDS[round % 4];
        let ends = ends(ipv4, tcp, 45_000 + (round / 4 % 8) as u16);
        if round < 32 {
            begin(&mut bench, &mut random, &ends, tcp);
        }
        let forth = random.once_in(2);
        let bits = if random.once_in(3) { random.next() as u8 } else { flags::ACK };
        let packet = any(&mut random, ipv4, tcp, bits & !flags::RST).between(ends.arriving(forth));
        let mut frame = if random.once_in(4) {
            let mut error = any_error(&mut random, packet.between(ends.leaving(!forth)));
            (error.ip.source, error.ip.destination) =
                (ends.arriving(forth).0.ip(), ends.arriving(forth).1.ip());
            bench.arriving(forth, &error.bytes())
        } else {
            bench.arriving(forth, &packet.bytes())
        };
        // Cut off, or with some bytes of the headers turned.
        match random.below(3) {
            0 => frame.truncate(14 + random.below(frame.len() - 13)),
            1 => {
                for _ in 0..=random.below(3) {
                    let at = 12 + random.below((frame.len() - 12).min(90));
                    frame[at] = random.next() as u8;
                }
            }
            _ => {
                let at = 14 + random.below((frame.len() - 14).min(60));
                frame[at] ^= 1 << random.below(8);
            }
        }
        for program in [Program::XdpEthernet, Program::TcEthernet] {
            if !takes(program, &frame) {
                continue;
            }
            let xdp = program == Program::XdpEthernet;
            let ran = bench.run(program, forth, &frame);
            *seen.entry((format!("{program:?}"), ran.result)).or_insert(0) += 1;
            let result = std::panic::catch_unwind(|| match (xdp, ran.result) {
                (true, XDP_PASS) | (false, TC_NEXT) => assert!(ran.packet == frame, "passed, but changed"),
                (false, TC_SHOT) => {}
                (true, XDP_REDIRECT) | (false, TC_REDIRECT) => {
                    // Errors that are carried are compared elsewhere; what is turned in them makes other errors.
                    if transport(&frame).is_none() {
                        assert_eq!(frame.len(), ran.packet.len());
                    } else if transport(&ran.packet).is_none() {
                        let told = check_told(&frame, &ran.packet);
                        assert!([(3, 4), (11, 0), (2, 0), (3, 0)].contains(&(told.0, told.1)), "{told:?}");
                    } else {
                        check_carried(&frame, &ran.packet);
                    }
                }
                (_, other) => panic!("verdict {other}"),
            });
            assert!(
                result.is_ok(),
                "{program:?}, round {round}:\nbefore {frame:02x?}\nafter  {:02x?}",
                ran.packet
            );
        }
    }
    println!("verdicts: {seen:?}");
}
