//! What is not ours, or no packet at all, comes out as it went in.

use std::net::{IpAddr, SocketAddr};

use portway_ebpf::trial::Program;

use crate::bench::{Bench, KINDS, TC_NEXT, TC_REDIRECT, XDP_PASS, any, begin, ends, frame, takes};
use crate::reference::{
    self, Body, Ends, Packet, Random, any_error, any_ip, any_tcp, any_udp, checksum, flags, pseudo,
};

/// What the kernel drops on arrival (`ip_rcv_core`, `ip6_rcv_core`) is not carried past it, though its tuple is a flow's.
#[test]
fn what_the_kernel_would_not_take_is_left_to_it() {
    let mut bench = Bench::new("");
    let mut random = Random(13);
    for round in 0..40_u16 {
        let (ipv4, tcp) = KINDS[usize::from(round) % 4];
        let ends = ends(ipv4, tcp, 53_000 + round);
        begin(&mut bench, &mut random, &ends, tcp);
        let mut packet = any(&mut random, ipv4, tcp, flags::ACK).between(ends.arriving(true));
        packet.ip.options.clear();
        let whole = bench.arriving(true, &packet.bytes());
        assert_eq!(bench.run(Program::TcEthernet, true, &whole).result, TC_REDIRECT);
        let mut wrong = Vec::new();
        let mut change = |at: usize, bytes: &[u8]| {
            let mut frame = whole.clone();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            wrong.push(frame);
        };
        if ipv4 {
            change(16, &[0, 19]);
            change(16, &[0, 0]);
            change(14, &[0x65]);
            // The same tuple in the other family's header.
            let transport = packet.transport();
            let mapped = |address: IpAddr| [&[0; 10][..], &[0xff; 2], &reference::octets(address)].concat();
            let length = (transport.len() as u16).to_be_bytes();
            let header = [&[0x60, 0, 0, 0][..], &length, &[packet.protocol(), 64]].concat();
            let addresses = [mapped(packet.ip.source), mapped(packet.ip.destination)].concat();
            wrong.push(bench.arriving(true, &[header, addresses, transport].concat()));
        } else {
            change(14, &[0x40 | whole[14] & 15]);
            change(14, &[0x70 | whole[14] & 15]);
        }
        for frame in wrong {
            for (program, pass) in [(Program::XdpEthernet, XDP_PASS), (Program::TcEthernet, TC_NEXT)] {
                let ran = bench.run(program, true, &frame);
                assert_eq!((ran.result, ran.packet == frame), (pass, true), "{program:?}: {frame:02x?}");
            }
        }
    }
}

/// Packets that are none of our business.
fn foreign(random: &mut Random, bench: &Bench, ends: &Ends) -> Vec<u8> {
    let ipv4 = ends.client.is_ipv4();
    let here = ends.arriving(true);
    let elsewhere = |port: u16| (here.0, SocketAddr::new(here.1.ip(), port));
    let host = if ipv4 { "10.2.0.77" } else { "fd02::77" }.parse::<IpAddr>().unwrap();
    let other = |protocol: u8, bytes: Vec<u8>, random: &mut Random| {
        Packet { ip: any_ip(random, ipv4), body: Body::Other { protocol, bytes } }.between(here).bytes()
    };
    let packet = match random.below(9) {
        // Another port, another host behind us.
        0 => any_tcp(random, ipv4, flags::SYN).between(elsewhere(444)).bytes(),
        1 => any_udp(random, ipv4).between(elsewhere(123)).bytes(),
        2 => any_tcp(random, ipv4, flags::SYN).between((here.0, SocketAddr::new(host, 80))).bytes(),
        // No flow, and no beginning of one: the kernel answers.
        3 => {
            let bits = [flags::ACK, flags::SYN | flags::ACK, flags::FIN | flags::ACK, flags::RST, 0]
                [random.below(5)];
            any_tcp(random, ipv4, bits).between((SocketAddr::new(here.0.ip(), 999), here.1)).bytes()
        }
        // Echo, and other protocols.
        4 => {
            let kind = if ipv4 { 8 } else { 128 };
            let mut echo = [&[kind, 0, 0, 0], random.bytes(60).as_slice()].concat();
            let pseudo = if ipv4 { Vec::new() } else { pseudo(here.0.ip(), here.1.ip(), 58, echo.len()) };
            let check = checksum(&[&pseudo, &echo]);
            echo[2..4].copy_from_slice(&check.to_be_bytes());
            other(if ipv4 { 1 } else { 58 }, echo, random)
        }
        5 => {
            let protocol = [2, 33, 47, 50, 51, 89, 132, 136][random.below(8)];
            let length = random.below(200);
            let bytes = random.bytes(length);
            other(protocol, bytes, random)
        }
        // Errors about what we do not know.
        6 => {
            let quoted = any_udp(random, ipv4).between(elsewhere(4000));
            let mut packet = any_error(random, quoted);
            packet.ip.source = here.0.ip();
            packet.ip.destination = here.1.ip();
            packet.bytes()
        }
        // To another host on the wire, or not IP at all.
        7 => {
            let packet = any_tcp(random, ipv4, flags::SYN).between(here).bytes();
            return frame([2, 9, 9, 9, 9, 9], bench.lan.peer, &packet);
        }
        _ => {
            let kind: u16 = [0x0806, 0x8100, 0x88a8, 0x8847, 0x88cc, 0x0004][random.below(6)];
            let length = 46 + random.below(100);
            return [&bench.lan.own[..], &bench.lan.peer, &kind.to_be_bytes(), &random.bytes(length)]
                .concat();
        }
    };
    bench.arriving(true, &packet)
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let mut bench = Bench::new("");
    let mut random = Random(4);
    for round in 0..2000 {
        let (ipv4, tcp) = KINDS[round % 4];
        let frame = foreign(&mut random, &bench, &ends(ipv4, tcp, 44_000));
        for (program, pass) in [(Program::XdpEthernet, XDP_PASS), (Program::TcEthernet, TC_NEXT)] {
            let ran = bench.run(program, true, &frame);
            assert_eq!(ran.result, pass, "{program:?}, round {round}: {frame:02x?}");
            assert!(ran.packet == frame, "{program:?}, round {round}: {frame:02x?}\n{:02x?}", ran.packet);
        }
    }
}

#[test]
fn random_bytes_pass() {
    let mut bench = Bench::new("");
    let mut random = Random(6);
    for round in 0..3000 {
        let length = random.below(200);
        let mut bytes = random.bytes(length);
        if let Some(first) = bytes.first_mut() {
            *first = if round % 2 == 0 { 0x45 } else { 0x60 };
        }
        let frame = bench.arriving(true, &bytes);
        for (program, pass) in [(Program::XdpEthernet, XDP_PASS), (Program::TcEthernet, TC_NEXT)] {
            if !takes(program, &frame) {
                continue;
            }
            let ran = bench.run(program, true, &frame);
            assert_eq!(ran.result, pass, "{program:?}: {frame:02x?}");
            assert!(ran.packet == frame, "{program:?}: {frame:02x?}");
        }
    }
}
