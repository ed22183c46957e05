//! The programs in the kernel against the reference: each packet goes through BPF_PROG_TEST_RUN, at TC and at XDP, and must
//! come out byte for byte as the slow and obvious code writes it. What is not ours comes out as it went in, and no bytes,
//! whatever they are, change where they must not.
//!
//! Deliberately absent: socket buffers of many segments and half-done checksums, which a packet made up here never is
//! (the lab's scenarios have them).
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

#[path = "../../datapath/tests/reference/mod.rs"]
mod reference;
mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use portway_core::engine::Engine;
use portway_ebpf::EbpfEngine;
use portway_ebpf::trial::{Program, Ran, Trial};
use reference::{
    Body, Ends, Packet, Random, any_error, any_ip, any_tcp, any_udp, checksum, flags, pseudo, syn_options,
};
use support::{Lab, apply, index, plan, rule};

/// Verdicts (`include/uapi/linux/pkt_cls.h`, `bpf.h`).
const TC_NEXT: u32 = u32::MAX;
const TC_SHOT: u32 = 2;
const TC_REDIRECT: u32 = 7;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// A gateway with rules, programs on its maps, and all link addresses known.
struct Bench {
    lab: Lab,
    engine: EbpfEngine,
    trial: Trial,
    lan: Side,
    wan: Side,
}

/// An interface of the gateway.
struct Side {
    index: u32,
    /// Its link address.
    own: [u8; 6],
    /// That of the other end.
    peer: [u8; 6],
}

impl Bench {
    fn new(settings: &str) -> Self {
        let lab = Lab::new();
        lab.client.run("ethtool -K eth0 tx off gro on");
        lab.server.run("ethtool -K eth0 tx off gro on");
        let lan = side(&lab, "lan", &lab.client, 1);
        let wan = side(&lab, "wan", &lab.server, 2);
        let (mut engine, _) = lab.engine();
        let file = [
            rule("tcp4", "tcp/10.1.0.1:80", "10.2.0.2:8080"),
            rule("udp4", "udp/10.1.0.1:53", "10.2.0.2:5353"),
            rule("tcp6", "tcp/[fd01::1]:80", "[fd02::2]:8080"),
            rule("udp6", "udp/[fd01::1]:53", "[fd02::2]:5353"),
            rule("tcp46", "tcp/10.1.0.1:81", "[fd02::2]:8080"),
            rule("udp46", "udp/10.1.0.1:54", "[fd02::2]:5353"),
            rule("tcp64", "tcp/[fd01::1]:81", "10.2.0.2:8080"),
            rule("udp64", "udp/[fd01::1]:54", "10.2.0.2:5353"),
            rule("slow", "udp/10.1.0.1:55", "10.2.0.2:5353") + "new-flow-rate = 5\n",
            rule("toa4", "tcp/10.1.0.1:82", "10.2.0.2:8080") + "client-address = 'toa'\n",
            rule("toa6", "tcp/[fd01::1]:82", "[fd02::2]:8080") + "client-address = 'toa'\n",
            format!("[ebpf]\nattach = 'xdp'\n{settings}"),
        ];
        apply(&lab.gateway, &mut engine, &plan(&file.concat())).unwrap();
        let trial = lab.gateway.within(|| Trial::new().unwrap());
        Self { lab, engine, trial, lan, wan }
    }

    /// Runs a program on a packet that arrives by one of the interfaces.
    fn run(&mut self, program: Program, forth: bool, frame: &[u8]) -> Ran {
        let side = if forth { &self.lan } else { &self.wan };
        let mut context = [0; 44];
        match program {
            // `struct xdp_md`: the packet's end, and the interface.
            Program::XdpEthernet => {
                context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
                context[12..16].copy_from_slice(&side.index.to_ne_bytes());
            }
            // `struct __sk_buff`: the interface.
            _ => context[40..44].copy_from_slice(&side.index.to_ne_bytes()),
        }
        let context = if program == Program::XdpEthernet { &context[..20] } else { &context[..] };
        let (lab, trial) = (&self.lab, &mut self.trial);
        lab.gateway.within(|| trial.run(program, frame, context, 1)).unwrap()
    }

    /// A packet in a frame to the gateway.
    fn arriving(&self, forth: bool, packet: &[u8]) -> Vec<u8> {
        let side = if forth { &self.lan } else { &self.wan };
        frame(side.own, side.peer, packet)
    }

    /// A packet in the frame that the gateway sends.
    fn leaving(&self, forth: bool, packet: &[u8]) -> Vec<u8> {
        let side = if forth { &self.wan } else { &self.lan };
        frame(side.peer, side.own, packet)
    }

    /// Packets of a rule that were not carried, by reason.
    fn drops(&mut self, rule: &str) -> BTreeMap<String, u64> {
        let snapshot = self.lab.gateway.within(|| self.engine.observer().unwrap().observe().unwrap());
        snapshot.drops.get(rule).cloned().unwrap_or_default()
    }
}

/// Whether BPF_PROG_TEST_RUN makes a packet of these bytes: it wants whole IP headers for TC.
fn takes(program: Program, frame: &[u8]) -> bool {
    let least = match (program, frame.get(12..14)) {
        (Program::XdpEthernet, _) => 14,
        (_, Some([8, 0])) => 34,
        (_, Some([0x86, 0xdd])) => 54,
        _ => 15,
    };
    frame.len() >= least
}

/// An interface and its neighbour, whose link address stays known.
fn side(lab: &Lab, near: &str, far: &support::Namespace, net: u8) -> Side {
    let link = |namespace: &support::Namespace, device: &str| {
        let text = namespace.run(&format!("cat /sys/class/net/{device}/address"));
        let bytes: Vec<u8> =
            text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        (text.trim().to_owned(), <[u8; 6]>::try_from(bytes).unwrap())
    };
    let (text, peer) = link(far, "eth0");
    for address in [format!("10.{net}.0.2"), format!("fd0{net}::2")] {
        lab.gateway.ip(&format!("neighbour replace {address} lladdr {text} dev {near} nud permanent"));
    }
    Side { index: index(&lab.gateway, near), own: link(&lab.gateway, near).1, peer }
}

fn frame(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let kind: u16 = match packet.first().map(|byte| byte >> 4) {
        Some(6) => 0x86dd,
        _ => 0x0800,
    };
    [&to[..], &from, &kind.to_be_bytes(), packet].concat()
}

/// The flow of a client's port.
fn ends(ipv4: bool, tcp: bool, port: u16) -> Ends {
    between(ipv4, ipv4, if tcp { (80, 8080) } else { (53, 5353) }, port)
}

/// The flow of a client's port to a listener's and a backend's.
fn between(ipv4: bool, ipv4_there: bool, (listener, backend): (u16, u16), port: u16) -> Ends {
    let of = |ipv4: bool, net: u8, host: u8, port: u16| {
        let text = if ipv4 { format!("10.{net}.0.{host}") } else { format!("fd0{net}::{host}") };
        SocketAddr::new(text.parse().unwrap(), port)
    };
    Ends {
        client: of(ipv4, 1, 2, port),
        listener: of(ipv4, 1, 1, listener),
        source: of(ipv4_there, 2, 1, port),
        backend: of(ipv4_there, 2, 2, backend),
    }
}

/// All kinds of flows.
const KINDS: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

/// Some packet of a flow.
fn any(random: &mut Random, ipv4: bool, tcp: bool, flags: u8) -> Packet {
    if tcp { any_tcp(random, ipv4, flags) } else { any_udp(random, ipv4) }
}

#[track_caller]
fn same(what: &str, packet: &Packet, got: &[u8], expected: &[u8]) {
    if got != expected {
        let at = got.iter().zip(expected).position(|(a, b)| a != b);
        panic!(
            "{what}: differs from byte {at:?} on\ngot      {got:02x?}\nexpected {expected:02x?}\nof {packet:?}"
        );
    }
}

/// Begins a flow at TC.
fn begin(bench: &mut Bench, random: &mut Random, ends: &Ends, tcp: bool) {
    let packet = any(random, ends.client.is_ipv4(), tcp, flags::SYN).between(ends.arriving(true));
    let frame = bench.arriving(true, &packet.bytes());
    let ran = bench.run(Program::TcEthernet, true, &frame);
    let expected = bench.leaving(true, &packet.carried(ends, true).bytes());
    assert_eq!(ran.result, TC_REDIRECT, "the first packet of {ends:?}");
    same("the first packet", &packet, &ran.packet, &expected);
    if tcp {
        let packet = any(random, ends.client.is_ipv4(), tcp, flags::SYN | flags::ACK);
        let packet = packet.between(ends.arriving(false));
        let frame = bench.arriving(false, &packet.bytes());
        let ran = bench.run(Program::TcEthernet, false, &frame);
        assert_eq!(ran.result, TC_REDIRECT, "the answer");
        same("the answer", &packet, &ran.packet, &bench.leaving(false, &packet.carried(ends, false).bytes()));
    }
}

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

/// Runs a packet at TC that must be carried as `expected`.
#[track_caller]
fn carry(bench: &mut Bench, forth: bool, packet: &Packet, expected: &Packet) {
    let frame = bench.arriving(forth, &packet.bytes());
    let ran = bench.run(Program::XdpEthernet, forth, &frame);
    assert_eq!((ran.result, ran.packet == frame), (XDP_PASS, true), "at XDP: {packet:?}");
    let ran = bench.run(Program::TcEthernet, forth, &frame);
    assert_eq!(ran.result, TC_REDIRECT, "{packet:?}");
    same("at TC", packet, &ran.packet, &bench.leaving(forth, &expected.bytes()));
}

/// A SYN, or what answers it.
fn syn(random: &mut Random, ipv4: bool, bits: u8) -> Packet {
    let mut packet = any_tcp(random, ipv4, bits | flags::SYN);
    let Body::Tcp { options, .. } = &mut packet.body else { unreachable!() };
    *options = syn_options(random);
    packet
}

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

/// Errors, and what they say in the other family (RFC 7915, sections 4.2 and 5.2): type, code and second word. Those that
/// say nothing there are dropped.
type Said = ((u8, u8, u32), Option<(u8, u8, u32)>);
const OF_IPV4: [Said; 9] = [
    ((3, 1, 0), Some((1, 0, 0))),
    ((3, 2, 0), Some((4, 1, 6))),
    ((3, 3, 0), Some((1, 4, 0))),
    ((3, 4, 1400), Some((2, 0, 1420))),
    ((3, 4, 576), Some((2, 0, 1280))),
    ((3, 13, 0), Some((1, 1, 0))),
    ((11, 0, 0), Some((3, 0, 0))),
    ((12, 0, 8 << 24), Some((4, 0, 7))),
    ((12, 1, 0), None),
];
const OF_IPV6: [Said; 8] = [
    ((1, 0, 0), Some((3, 1, 0))),
    ((1, 1, 0), Some((3, 10, 0))),
    ((1, 4, 0), Some((3, 3, 0))),
    ((2, 0, 1400), Some((3, 4, 1380))),
    ((2, 0, 1279), None),
    ((3, 1, 0), Some((11, 1, 0))),
    ((4, 0, 7), Some((12, 0, 8 << 24))),
    ((4, 2, 40), None),
];

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

/// Sets the fragment fields of an IPv4 packet, or adds an IPv6 fragment header: part of a datagram from byte `from` to
/// `to` of what IP carries.
fn part(packet: &Packet, id: u32, from: usize, to: Option<usize>) -> Vec<u8> {
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
fn fragments_are_carried_in_order_and_never_mangled() {
    let mut bench = Bench::new("");
    let mut random = Random(3);
    for round in 0..100_u16 {
        let ipv4 = round % 2 == 0;
        let ends = ends(ipv4, false, 43_000 + round);
        begin(&mut bench, &mut random, &ends, false);
        for number in 0..2 {
            let forth = random.once_in(2);
            let id = u32::from(round) * 2 + number + 1;
            let mut packet = any(&mut random, ipv4, false, 0).between(ends.arriving(forth));
            let Body::Udp { payload, .. } = &mut packet.body else { unreachable!() };
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

/// The link addresses of an answer: exchanged, or left to the kernel, where the sender's is not known.
fn check_links(before: &[u8], after: &[u8]) {
    let exchanged = (&before[..6], &before[6..12]) == (&after[6..12], &after[..6]);
    assert!(exchanged || before[..12] == after[..12], "link addresses");
}

/// A frame that was answered by an ICMP error: whole, right in every checksum, back to where the frame came from, and quoting
/// no more than came. Its type, code and second word.
fn check_told(before: &[u8], after: &[u8]) -> (u8, u8, u32) {
    let ipv4 = before[14] >> 4 == 4;
    check_links(before, after);
    assert_eq!(before[12..14], after[12..14]);
    assert_eq!(before[14] >> 4, after[14] >> 4);
    let (ends, header) = if ipv4 { ([26, 30, 34], 20) } else { ([22, 38, 54], 40) };
    assert_eq!(before[ends[0]..ends[1]], after[ends[1]..ends[2]], "to whom");
    assert_eq!(before[ends[1]..ends[2]], after[ends[0]..ends[1]], "from whom");
    let icmp = &after[14 + header..];
    if ipv4 {
        assert_eq!((after[14], after[23]), (0x45, 1));
        assert_eq!(usize::from(u16::from_be_bytes([after[16], after[17]])), after.len() - 14);
        assert_eq!(checksum(&[&after[14..34]]), 0, "the header's checksum");
        assert_eq!(checksum(&[icmp]), 0, "the checksum");
    } else {
        assert_eq!(after[20], 58);
        assert_eq!(usize::from(u16::from_be_bytes([after[18], after[19]])), icmp.len());
        let mut pseudo = after[22..54].to_vec();
        pseudo.extend((icmp.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, 58]);
        assert_eq!(checksum(&[&pseudo, icmp]), 0, "the checksum");
    }
    assert!(
        icmp.len() >= 8 + header + 8 && icmp.len() <= before.len() - 14 + 8,
        "{} bytes quoted",
        icmp.len()
    );
    assert_eq!(icmp[8..], before[14..][..icmp.len() - 8], "what is quoted");
    (icmp[0], icmp[1], u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]))
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
    assert_eq!(bench.drops("tcp4"), BTreeMap::from([("flow table full".to_owned(), 1000)]));
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

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.lab.gateway.within(|| self.engine.clear());
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
    assert_eq!(bench.drops("tcp4"), BTreeMap::from([("no source port".to_owned(), refused)]));
    for ends in taken.values() {
        let packet = any(&mut random, true, true, flags::SYN | flags::ACK).between(ends.arriving(false));
        let frame = bench.arriving(false, &packet.bytes());
        let ran = bench.run(Program::TcEthernet, false, &frame);
        assert_eq!(ran.result, TC_REDIRECT, "{ends:?}");
        same("an answer", &packet, &ran.packet, &bench.leaving(false, &packet.carried(ends, false).bytes()));
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
