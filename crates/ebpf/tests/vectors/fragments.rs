//! Parts of datagrams and of segments.

use portway_ebpf::trial::Program;

use crate::bench::{Bench, KINDS, TC_NEXT, TC_REDIRECT, XDP_PASS, any, begin, ends, same};
use crate::reference::{Body, Packet, Random, checksum, flags};

/// Sets the fragment fields of an IPv4 packet, or adds an IPv6 fragment header: part of a datagram from byte `from` to
/// `to` of what IP carries.
pub fn part(packet: &Packet, id: u32, from: usize, to: Option<usize>) -> Vec<u8> {
    let whole = packet.bytes();
    let header = if packet.ip.source.is_ipv4() { 20 + packet.ip.options.len() } else { 40 };
    let end = to.map_or(whole.len(), |to| header + to);
    let more = u16::from(to.is_some());
    let mut bytes = whole[..header].to_vec();
    if packet.ip.source.is_ipv4() {
        bytes[4..6].copy_from_slice(&(id as u16).to_be_bytes());
        bytes[6..8].copy_from_slice(&(more << 13 | (from / 8) as u16).to_be_bytes());
    } else {
        bytes[6] = 44;
        bytes.extend([packet.protocol(), 0]);
        bytes.extend(((from as u16) | more).to_be_bytes());
        bytes.extend(id.to_be_bytes());
    }
    bytes.extend(&whole[header + from..end]);
    let length = bytes.len();
    if packet.ip.source.is_ipv4() {
        bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        bytes[10..12].copy_from_slice(&[0; 2]);
        let check = checksum(&[&bytes[..header]]);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
    } else {
        bytes[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
    }
    bytes
}

#[test]
pub fn fragments_are_carried_in_order_and_never_mangled() {
    let mut bench = Bench::new("");
    let mut random = Random(3);
    for round in 0..100_u16 {
        let (ipv4, tcp) = KINDS[usize::from(round) % 4];
        let ends = ends(ipv4, tcp, 43_000 + round);
        begin(&mut bench, &mut random, &ends, tcp);
        for number in 0..2 {
            let forth = random.once_in(2);
            let id = u32::from(round) * 2 + number + 1;
            let mut packet = any(&mut random, ipv4, tcp, flags::ACK).between(ends.arriving(forth));
            let (Body::Tcp { payload, .. } | Body::Udp { payload, .. }) = &mut packet.body else {
                unreachable!()
            };
            *payload = random.bytes(2000 + random.clone().below(500));
            let carried = packet.carried(&ends, forth);
            let parts = [(0, Some(800)), (800, Some(1600)), (1600, None)];
            // The second first: nobody knows whose it is.
            let second = bench.arriving(forth, &part(&packet, id, 800, Some(1600)));
            let ran = bench.run(Program::TcEthernet, forth, &second);
            assert_eq!(ran.result, TC_NEXT, "a part before the first");
            same("a part before the first", &packet, &ran.packet, &second);
            for (from, to) in parts {
                let frame = bench.arriving(forth, &part(&packet, id, from, to));
                let ran = bench.run(Program::XdpEthernet, forth, &frame);
                assert_eq!(ran.result, XDP_PASS);
                same("a part at XDP", &packet, &ran.packet, &frame);
                let ran = bench.run(Program::TcEthernet, forth, &frame);
                assert_eq!(ran.result, TC_REDIRECT, "the part from {from} of {packet:?}");
                same("a part", &packet, &ran.packet, &bench.leaving(forth, &part(&carried, id, from, to)));
            }
        }
    }
}
