//! The kernel programs' own reading and rewriting of headers, compiled for this machine, against the reference: over every
//! state that the kernel may have a checksum in, of which BPF_PROG_TEST_RUN knows one only.
//!
//! Deliberately absent: what the programs do besides (`crates/ebpf/tests/vectors.rs`, in the kernel).
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

#[path = "native/packet.rs"]
mod packet;
#[path = "../../../ebpf/src/parse.rs"]
#[allow(dead_code, reason = "not all of it is rewriting")]
mod parse;
mod reference;
#[path = "../../../ebpf/src/rewrite.rs"]
#[allow(unsafe_code, dead_code, reason = "the programs'")]
mod rewrite;
#[path = "native/skb.rs"]
mod skb;
#[path = "native/xdp.rs"]
mod xdp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use packet::{Summed, fold, sum, with};
use parse::{Headers, Parsed, parse};
use portway_datapath::abi::{Address, Tuple};
use proptest::prelude::*;
use reference::{Body, Ends, Packet, Random, any_tcp, any_udp, pseudo};
use rewrite::Rewrite;
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

fn run<P: Rewrite>(on: P, packet: &Packet, ends: &Ends, forth: bool) {
    let mut headers = Headers::new();
    assert!(matches!(parse::<P, { LINK as u32 }, false>(on, &mut headers), Parsed::Plain));
    assert_eq!(headers.tuple, tuple(ends.arriving(forth), packet.protocol()));
    assert_eq!(headers.length as usize, packet.bytes().len());
    assert!(on.rewrite::<{ LINK as u32 }>(&headers, &tuple(ends.leaving(forth), packet.protocol())));
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
        run(Xdp, &packet, &ends, forth);
        prop_assert_eq!(&with(|buffer| buffer.bytes[LINK..].to_vec()), &expected, "at XDP");

        load(&packet, None);
        run(Skb, &packet, &ends, forth);
        prop_assert_eq!(&with(|buffer| buffer.bytes[LINK..].to_vec()), &expected, "at TC");

        let unchecked = matches!(packet.body, Body::Udp { checksum: false, .. });
        load(&packet, Some(true));
        run(Skb, &packet, &ends, forth);
        prop_assert_eq!(&with(|buffer| buffer.bytes[LINK..].to_vec()), &expected, "with a sum over the packet");
        let Summed::Complete(known) = with(|buffer| buffer.summed) else { unreachable!() };
        // Nobody asks for the sum of a datagram without a checksum.
        let same = fold(u64::from(known)) % 0xffff == sum(&expected) % 0xffff;
        prop_assert!(same || unchecked, "the sum over the packet: {:x} for {:x}", known, sum(&expected));

        if !unchecked {
            load(&packet, Some(false));
            run(Skb, &packet, &ends, forth);
            let (at, pseudo) = partial(&after);
            let found = with(|buffer| u16::from_ne_bytes([buffer.bytes[at], buffer.bytes[at + 1]]));
            prop_assert_eq!(found % 0xffff, pseudo % 0xffff, "with a checksum for the device to finish");
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
        if matches!(parse::<Xdp, { LINK as u32 }, true>(Xdp, &mut headers), Parsed::Plain) {
            let header = if headers.tcp { 20 } else { 8 };
            prop_assert!(headers.transport as usize + header <= length);
        }
        prop_assert_eq!(with(|buffer| buffer.bytes.clone()), bytes);
    }
}
