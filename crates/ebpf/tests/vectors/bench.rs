//! A gateway with rules whose programs are run on packets that are made up.

use std::collections::BTreeMap;

use portway_core::engine::Engine;
use portway_core::snapshot::{EngineSnapshot, MemberCounters};
use portway_ebpf::EbpfEngine;
use portway_ebpf::trial::{Program, Ran, Trial};

use crate::reference::vector::between;
use crate::reference::{Ends, Packet, Random, any_tcp, any_udp, flags};
use crate::support::{self, Lab, apply, index, plan, rule};

/// Verdicts (`include/uapi/linux/pkt_cls.h`, `bpf.h`).
pub const TC_NEXT: u32 = u32::MAX;
pub const TC_SHOT: u32 = 2;
pub const TC_REDIRECT: u32 = 7;
pub const XDP_PASS: u32 = 2;
pub const XDP_REDIRECT: u32 = 4;

/// A gateway with rules, programs on its maps, and all link addresses known.
pub struct Bench {
    pub lab: Lab,
    pub engine: EbpfEngine,
    pub trial: Trial,
    pub lan: Side,
    pub wan: Side,
}

/// An interface of the gateway.
pub struct Side {
    pub index: u32,
    /// Its link address.
    pub own: [u8; 6],
    /// That of the other end.
    pub peer: [u8; 6],
}

impl Bench {
    pub fn new(settings: &str) -> Self {
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
    pub fn run(&mut self, program: Program, forth: bool, frame: &[u8]) -> Ran {
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
    pub fn arriving(&self, forth: bool, packet: &[u8]) -> Vec<u8> {
        let side = if forth { &self.lan } else { &self.wan };
        frame(side.own, side.peer, packet)
    }

    /// A packet in the frame that the gateway sends.
    pub fn leaving(&self, forth: bool, packet: &[u8]) -> Vec<u8> {
        let side = if forth { &self.wan } else { &self.lan };
        frame(side.peer, side.own, packet)
    }

    /// What the engine saw.
    pub fn snapshot(&mut self) -> EngineSnapshot {
        self.lab.gateway.within(|| self.engine.observer().unwrap().observe().unwrap())
    }

    /// Packets of a rule that were not carried, by reason.
    pub fn drops(&mut self, rule: &str) -> BTreeMap<String, u64> {
        self.snapshot().drops.get(rule).cloned().unwrap_or_default()
    }

    /// The counters of a rule's only member.
    pub fn member(&mut self, rule: &str) -> MemberCounters {
        let members = self.snapshot().members.remove(rule).unwrap();
        assert_eq!(members.len(), 1, "{members:?}");
        members.into_values().next().unwrap()
    }
}

/// Whether BPF_PROG_TEST_RUN makes a packet of these bytes: it wants whole IP headers for TC.
pub fn takes(program: Program, frame: &[u8]) -> bool {
    let least = match (program, frame.get(12..14)) {
        (Program::XdpEthernet, _) => 14,
        (_, Some([8, 0])) => 34,
        (_, Some([0x86, 0xdd])) => 54,
        _ => 15,
    };
    frame.len() >= least
}

/// An interface and its neighbour, whose link address stays known.
pub fn side(lab: &Lab, near: &str, far: &support::Namespace, net: u8) -> Side {
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

pub fn frame(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let kind: u16 = match packet.first().map(|byte| byte >> 4) {
        Some(6) => 0x86dd,
        _ => 0x0800,
    };
    [&to[..], &from, &kind.to_be_bytes(), packet].concat()
}

/// The flow of a client's port.
pub fn ends(ipv4: bool, tcp: bool, port: u16) -> Ends {
    between(ipv4, ipv4, if tcp { (80, 8080) } else { (53, 5353) }, port)
}

/// All kinds of flows.
pub const KINDS: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

/// Some packet of a flow.
pub fn any(random: &mut Random, ipv4: bool, tcp: bool, flags: u8) -> Packet {
    if tcp { any_tcp(random, ipv4, flags) } else { any_udp(random, ipv4) }
}

#[track_caller]
pub fn same(what: &str, packet: &Packet, got: &[u8], expected: &[u8]) {
    if got != expected {
        let at = got.iter().zip(expected).position(|(a, b)| a != b);
        panic!(
            "{what}: differs from byte {at:?} on\ngot      {got:02x?}\nexpected {expected:02x?}\nof {packet:?}"
        );
    }
}

/// Begins a flow at TC.
pub fn begin(bench: &mut Bench, random: &mut Random, ends: &Ends, tcp: bool) {
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
/// Runs a packet at TC that must be carried as `expected`.
#[track_caller]
pub fn carry(bench: &mut Bench, forth: bool, packet: &Packet, expected: &Packet) {
    let frame = bench.arriving(forth, &packet.bytes());
    let ran = bench.run(Program::XdpEthernet, forth, &frame);
    assert_eq!((ran.result, ran.packet == frame), (XDP_PASS, true), "at XDP: {packet:?}");
    let ran = bench.run(Program::TcEthernet, forth, &frame);
    assert_eq!(ran.result, TC_REDIRECT, "{packet:?}");
    same("at TC", packet, &ran.packet, &bench.leaving(forth, &expected.bytes()));
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.lab.gateway.within(|| self.engine.clear());
    }
}
