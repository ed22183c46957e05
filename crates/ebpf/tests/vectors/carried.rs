//! Packets of flows: rewritten as the reference writes them, in whatever order and with whatever link header they come.

use portway_ebpf::trial::Program;

use crate::bench::{
    Bench, KINDS, TC_NEXT, TC_REDIRECT, XDP_PASS, XDP_REDIRECT, any, begin, ends, same, side,
};
use crate::reference::{self, Body, Packet, Random, flags};
use crate::support;

/// What the verifier says stands in the panic if it refuses one.
#[test]
fn the_verifier_takes_every_program() {
    let mut bench = Bench::new("");
    let frame = bench.arriving(true, &[0x45; 64]);
    for program in [Program::TcEthernet, Program::TcIp, Program::XdpEthernet] {
        bench.run(program, true, &frame);
    }
}

#[test]
fn packets_of_flows_leave_as_the_reference_writes_them() {
    let mut bench = Bench::new("");
    let mut random = Random(1);
    let (mut at_xdp, mut without_options) = (0, 0);
    for round in 0..400 {
        let (ipv4, tcp) = KINDS[round % 4];
        let ends = ends(ipv4, tcp, 41_000 + round as u16);
        begin(&mut bench, &mut random, &ends, tcp);
        for number in 0..12 {
            let forth = random.once_in(2);
            let bits = flags::ACK | if random.once_in(2) { flags::PSH } else { 0 };
            let packet = any(&mut random, ipv4, tcp, bits).between(ends.arriving(forth));
            // Where a checksum can be written in two ways, on arrival or as it leaves.
            let packet = match number % 4 {
                0 => packet.tuned(),
                1 => {
                    let leaves = packet.carried(&ends, forth).tuned();
                    Packet { body: leaves.between(ends.arriving(forth)).body, ..packet }
                }
                _ => packet,
            };
            let frame = bench.arriving(forth, &packet.bytes());
            let expected = bench.leaving(forth, &packet.carried(&ends, forth).bytes());
            let ran = bench.run(Program::TcEthernet, forth, &frame);
            assert_eq!(ran.result, TC_REDIRECT, "TC, round {round}.{number}: {packet:?}");
            same("TC", &packet, &ran.packet, &expected);
            without_options += u32::from(packet.ip.options.is_empty());
            let ran = bench.run(Program::XdpEthernet, forth, &frame);
            match ran.result {
                XDP_REDIRECT => {
                    same("XDP", &packet, &ran.packet, &expected);
                    at_xdp += 1;
                }
                // Options are for TC.
                XDP_PASS if !packet.ip.options.is_empty() => {
                    same("XDP, passed", &packet, &ran.packet, &frame)
                }
                other => panic!("XDP says {other}, round {round}.{number}: {packet:?}"),
            }
        }
    }
    assert_eq!(at_xdp, without_options, "at XDP");
}

/// At XDP nobody has compared the link address yet. Whether the flow's answers are known to leave by the port that the packet
/// came in by or not: the program finds the port in another way then.
#[test]
fn frames_to_other_link_addresses_are_not_carried_at_xdp() {
    let mut bench = Bench::new("");
    let mut random = Random(12);
    for round in 0..40_u16 {
        let (ipv4, tcp) = KINDS[usize::from(round) % 4];
        let ends = ends(ipv4, tcp, 52_000 + round);
        begin(&mut bench, &mut random, &ends, tcp);
        for answered in [tcp, true] {
            let packet = any(&mut random, ipv4, tcp, flags::ACK).between(ends.arriving(true));
            let packet = Packet { ip: reference::Ip { options: Vec::new(), ..packet.ip }, ..packet };
            let mut frame = bench.arriving(true, &packet.bytes());
            let ran = bench.run(Program::XdpEthernet, true, &frame);
            assert_eq!(ran.result, XDP_REDIRECT, "answered: {answered}, {packet:?}");
            for bit in 0..48 {
                frame[bit / 8] ^= 1 << (bit % 8);
                let ran = bench.run(Program::XdpEthernet, true, &frame);
                assert_eq!((ran.result, ran.packet == frame), (XDP_PASS, true), "bit {bit} of {packet:?}");
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            let packet = any(&mut random, ipv4, tcp, flags::ACK).between(ends.arriving(false));
            let frame = bench.arriving(false, &packet.bytes());
            assert_eq!(bench.run(Program::TcEthernet, false, &frame).result, TC_REDIRECT);
        }
    }
}

/// Packets that begin with the IP header get a link header in front. BPF_PROG_TEST_RUN always takes the first 14 bytes for one:
/// they are for this host if the interface has the first six as its address, which those of IPv6 can be (of IPv4 they are a group's).
#[test]
fn packets_without_a_link_header_get_one() {
    const LENGTH: u16 = 108;
    let mut bench = Bench::new("");
    let own = [0x60, 0, 0, 0, 0, LENGTH as u8];
    let text = own.map(|byte| format!("{byte:02x}")).join(":");
    bench.lab.gateway.ip(&format!("link set lan address {text}"));
    bench.lan = side(&bench.lab, "lan", &bench.lab.client, 1);
    let index = bench.lan.index;
    support::wait_for("the link address", || {
        bench.lab.gateway.within(|| portway_ebpf::trial::port(index)).unwrap().unwrap().link == own
    });
    let mut random = Random(22);
    for round in 0..100 {
        let tcp = round % 2 == 0;
        let ends = ends(false, tcp, 53_000 + round);
        begin(&mut bench, &mut random, &ends, tcp);
        let mut packet = any(&mut random, false, tcp, flags::ACK).between(ends.arriving(true));
        (packet.ip.class, packet.ip.label) = (0, 0);
        let header = if let Body::Tcp { options, .. } = &packet.body { 20 + options.len() } else { 8 };
        let (Body::Tcp { payload, .. } | Body::Udp { payload, .. }) = &mut packet.body else {
            unreachable!()
        };
        *payload = random.bytes(usize::from(LENGTH) - header);
        let ran = bench.run(Program::TcIp, true, &packet.bytes());
        assert_eq!(ran.result, TC_REDIRECT, "{packet:?}");
        same("a packet", &packet, &ran.packet, &bench.leaving(true, &packet.carried(&ends, true).bytes()));
        // Somebody else's.
        let foreign = Packet {
            ip: reference::Ip { destination: "fd01::7".parse().unwrap(), ..packet.ip.clone() },
            ..packet
        };
        let ran = bench.run(Program::TcIp, true, &foreign.bytes());
        assert_eq!((ran.result, ran.packet == foreign.bytes()), (TC_NEXT, true), "{foreign:?}");
    }
}
