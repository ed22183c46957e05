//! The kernel programs' own reading and rewriting of headers, compiled for this machine, against the reference: over every
//! state that the kernel may have a checksum in, of which BPF_PROG_TEST_RUN knows one only.
//!
//! Deliberately absent: what the programs do besides (`crates/ebpf/tests/vectors`, in the kernel).
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

#[path = "../../../ebpf/src/header.rs"]
#[allow(dead_code, reason = "not all of it is rewriting")]
mod header;
#[path = "native/packet.rs"]
mod packet;
#[path = "../../../ebpf/src/parse.rs"]
#[allow(dead_code, reason = "not all of it is rewriting")]
mod parse;
mod reference;
#[path = "../../../ebpf/src/replace.rs"]
mod replace;
#[path = "../../../ebpf/src/rewrite.rs"]
#[allow(unsafe_code, dead_code, reason = "the programs'")]
mod rewrite;
#[path = "native/skb.rs"]
mod skb;
#[path = "native/xdp.rs"]
mod xdp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use header::{Header, Ipv4, Ipv6, is_whole};
use packet::{Summed, fold, sum, with};
use parse::{Headers, Parsed, parse};
use portway_datapath::abi::{Address, Record, Tuple, state};
use portway_datapath::record::{Direction, Flow};
use proptest::prelude::*;
use reference::{Body, Ends, Packet, Random, any_tcp, any_udp, pseudo};
use skb::Skb;
use xdp::Xdp;

const LINK: usize = 14;

fn address(address: IpAddr) -> Address {
    let bytes = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|nth| bytes[at + nth]));
    Address { high: word(0), low: word(8) }
}

fn tuple((source, destination): (SocketAddr, SocketAddr), protocol: u8) -> Tuple {
    Tuple {
        source: address(source.ip()),
        destination: address(destination.ip()),
        source_port: source.port().to_be(),
        destination_port: destination.port().to_be(),
        protocol: u32::from(protocol),
    }
}

/// Any four ends of one family.
fn any_ends(random: &mut Random, ipv4: bool) -> Ends {
    let mut end = || {
        let bits = u128::from(random.next()) << 64 | u128::from(random.next());
        let ip = if ipv4 { Ipv4Addr::from(bits as u32).into() } else { Ipv6Addr::from(bits).into() };
        SocketAddr::new(ip, random.next() as u16)
    };
    Ends { client: end(), listener: end(), source: end(), backend: end() }
}

/// Puts a packet into a frame of this thread; of what the kernel knows of its checksum.
fn load(packet: &Packet, summed: Option<bool>) {
    let kind: u16 = if packet.ip.source.is_ipv4() { 0x0800 } else { 0x86dd };
    let mut bytes = [&[2; 12][..], &kind.to_be_bytes(), &packet.bytes()].concat();
    let summed = match summed {
        None => Summed::Nothing,
        Some(true) => Summed::Complete(u32::from(sum(&bytes[LINK..]))),
        Some(false) => {
            let (at, partial) = partial(packet);
            bytes[at..at + 2].copy_from_slice(&partial.to_ne_bytes());
            Summed::Partial
        }
    };
    with(|buffer| (buffer.bytes, buffer.summed) = (bytes, summed));
}

/// Where the transport's checksum is, and what stands there while a device is to finish it.
fn partial(packet: &Packet) -> (usize, u16) {
    let transport = packet.transport();
    let header = if packet.ip.source.is_ipv4() { 20 + packet.ip.options.len() } else { 40 };
    let at = LINK + header + if packet.protocol() == 6 { 16 } else { 6 };
    let pseudo = pseudo(packet.ip.source, packet.ip.destination, packet.protocol(), transport.len());
    (at, sum(&pseudo))
}

/// The record of a flow.
fn record(ends: &Ends, tcp: bool) -> Record {
    let record = Record::default();
    let flow = Flow {
        client: address(ends.client.ip()),
        listener: address(ends.listener.ip()),
        source: address(ends.source.ip()),
        backend: address(ends.backend.ip()),
        client_port: ends.client.port().to_be(),
        listener_port: ends.listener.port().to_be(),
        source_port: ends.source.port().to_be(),
        backend_port: ends.backend.port().to_be(),
        member: 0,
        rule: 0,
    };
    record.fill(&flow, if tcp { 0 } else { state::UDP }, 0);
    record
}

/// At XDP or in a socket buffer, as nearly all packets are carried; without IPv4 options.
fn carry<H: Header, P: PacketAt>(on: P, packet: &Packet, ends: &Ends, forth: bool) {
    let tcp = packet.protocol() == 6;
    let (record, direction) = (record(ends, tcp), if forth { Direction::Forth } else { Direction::Back });
    let header = H::of(on, LINK as u32);
    if !packet.ip.options.is_empty() {
        assert!(header.is_none(), "with options");
        return on.otherwise(packet, ends, forth);
    }
    let header = header.unwrap();
    assert!(is_whole::<P, H>(on, LINK as u32, header.protocol(), header.length()));
    assert_eq!(header.tuple(), tuple(ends.arriving(forth), packet.protocol()));
    assert_eq!(header.length() as usize, packet.bytes().len());
    assert!(header.is_of(&record, direction));
    let (other, otherwise) = (self::record(ends, !tcp), direction.other());
    assert!(!header.is_of(&other, direction), "the other protocol");
    assert_eq!(header.is_of(&record, otherwise), ends.arriving(forth) == ends.arriving(!forth));
    assert!(on.replace::<H>(header, &record, direction));
}

/// What differs between the hooks.
trait PacketAt: packet::Packet {
    fn replace<H: Header>(self, header: H, record: &Record, direction: Direction) -> bool;
    fn otherwise(self, packet: &Packet, ends: &Ends, forth: bool);
}

impl PacketAt for Xdp {
    fn replace<H: Header>(self, header: H, record: &Record, direction: Direction) -> bool {
        replace::replace::<Self, H, { LINK as u32 }>(self, header, record, direction)
    }

    /// What is not plain is left to TC.
    fn otherwise(self, packet: &Packet, ends: &Ends, forth: bool) {
        run(packet, ends, forth);
    }
}

impl PacketAt for Skb {
    fn replace<H: Header>(self, header: H, record: &Record, direction: Direction) -> bool {
        replace::replace_in::<H, { LINK as u32 }>(self, header, record, direction)
    }

    fn otherwise(self, packet: &Packet, ends: &Ends, forth: bool) {
        run(packet, ends, forth);
    }
}

/// As all packets can be carried at TC.
fn run(packet: &Packet, ends: &Ends, forth: bool) {
    let mut headers = Headers::new();
    assert!(matches!(parse::<Skb, { LINK as u32 }>(Skb, &mut headers), Parsed::Plain));
    assert_eq!(headers.tuple, tuple(ends.arriving(forth), packet.protocol()));
    assert_eq!(headers.length as usize, packet.bytes().len());
    assert!(Skb.rewrite::<{ LINK as u32 }>(&headers, &tuple(ends.leaving(forth), packet.protocol())));
}

/// One of the ways in which a packet is carried: 1 and 2 differ in whether the kernel shows what it knows of the checksum.
fn by(way: usize, packet: &Packet, ends: &Ends, forth: bool) {
    with(|buffer| buffer.shown = way == 1);
    match (way, packet.ip.source.is_ipv4()) {
        (0, _) => run(packet, ends, forth),
        (1 | 2, true) => carry::<Ipv4, Skb>(Skb, packet, ends, forth),
        (1 | 2, false) => carry::<Ipv6, Skb>(Skb, packet, ends, forth),
        (_, true) => carry::<Ipv4, Xdp>(Xdp, packet, ends, forth),
        (_, false) => carry::<Ipv6, Xdp>(Xdp, packet, ends, forth),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn rewriting_is_what_the_reference_writes(seed: u64, ipv4: bool, tcp: bool, forth: bool, tune in 0..3) {
        let mut random = Random(seed);
        let ends = any_ends(&mut random, ipv4);
        let packet = if tcp { any_tcp(&mut random, ipv4, 16) } else { any_udp(&mut random, ipv4) };
        let packet = packet.between(ends.arriving(forth));
        let packet = match tune {
            0 => packet.tuned(),
            1 => Packet { body: packet.carried(&ends, forth).tuned().between(ends.arriving(forth)).body, ..packet },
            _ => packet,
        };
        let after = packet.carried(&ends, forth);
        let expected = after.bytes();

        load(&packet, None);
        by(3, &packet, &ends, forth);
        prop_assert_eq!(&with(|buffer| buffer.bytes[LINK..].to_vec()), &expected, "at XDP");

        for way in 0..3 {
            load(&packet, None);
            by(way, &packet, &ends, forth);
            prop_assert_eq!(&with(|buffer| buffer.bytes[LINK..].to_vec()), &expected, "at TC");

            let unchecked = matches!(packet.body, Body::Udp { checksum: false, .. });
            load(&packet, Some(true));
            by(way, &packet, &ends, forth);
            prop_assert_eq!(&with(|buffer| buffer.bytes[LINK..].to_vec()), &expected, "with a sum over the packet");
            let Summed::Complete(known) = with(|buffer| buffer.summed) else { unreachable!() };
            // Nobody asks for the sum of a datagram without a checksum.
            let same = fold(u64::from(known)) % 0xffff == sum(&expected) % 0xffff;
            prop_assert!(same || unchecked, "the sum over the packet: {:x} for {:x}", known, sum(&expected));

            if unchecked {
                // What is unfinished is a checksum of a packet inside.
                load(&packet, None);
                with(|buffer| buffer.summed = Summed::Partial);
                by(way, &packet, &ends, forth);
                prop_assert_eq!(&with(|buffer| buffer.bytes[LINK..].to_vec()), &expected, "unfinished inside");
            } else {
                load(&packet, Some(false));
                by(way, &packet, &ends, forth);
                let (at, pseudo) = partial(&after);
                let found = with(|buffer| u16::from_ne_bytes([buffer.bytes[at], buffer.bytes[at + 1]]));
                prop_assert_eq!(found % 0xffff, pseudo % 0xffff, "with a checksum for the device to finish");
            }
        }
    }

    /// Any bytes: nothing panics, and what is read lies within them.
    #[test]
    fn any_bytes_can_be_parsed(mut bytes in prop::collection::vec(any::<u8>(), 0..120), ipv4: bool) {
        if bytes.len() > LINK {
            bytes[12..LINK].copy_from_slice(if ipv4 { &[8, 0] } else { &[0x86, 0xdd] });
            bytes[LINK] = if ipv4 { 0x40 | bytes[LINK] & 15 } else { 0x60 };
        }
        let length = bytes.len();
        with(|buffer| buffer.bytes = bytes.clone());
        let mut headers = Headers::new();
        if matches!(parse::<Xdp, { LINK as u32 }>(Xdp, &mut headers), Parsed::Plain) {
            let header = if headers.tcp { 20 } else { 8 };
            prop_assert!(headers.transport as usize + header <= length);
        }
        prop_assert_eq!(with(|buffer| buffer.bytes.clone()), bytes);
    }
}
