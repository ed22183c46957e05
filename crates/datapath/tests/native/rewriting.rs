//! Reading and rewriting of headers within a family, at TC and at XDP.

use portway_datapath::abi::{Record, state};
use portway_datapath::record::Direction;
use proptest::prelude::*;

use crate::bench::{AT, STATES, State, anywhere, can_be, check, load, shared, tuple};
use crate::header::{Header, Ipv4, Ipv6, is_whole};
use crate::packet::{self, LINK, Summed, with};
use crate::parse::{Headers, Parsed, parse};
use crate::reference::vector::{Vector, carried};
use crate::reference::{Body, Ends, Packet};
use crate::replace;
use crate::segments;
use crate::skb::{SKB, Skb};
use crate::xdp::Xdp;

/// The record of a flow.
fn record(ends: &Ends, tcp: bool) -> Record {
    segments::record(ends, if tcp { 0 } else { state::UDP })
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
        replace::replace::<Self, H, AT>(self, header, record, direction)
    }

    /// What is not plain is left to TC.
    fn otherwise(self, packet: &Packet, ends: &Ends, forth: bool) {
        run(packet, ends, forth);
    }
}

impl PacketAt for Skb {
    fn replace<H: Header>(self, header: H, record: &Record, direction: Direction) -> bool {
        replace::replace_in::<H, AT>(self, header, record, direction)
    }

    fn otherwise(self, packet: &Packet, ends: &Ends, forth: bool) {
        run(packet, ends, forth);
    }
}

/// As all packets can be carried at TC.
fn run(packet: &Packet, ends: &Ends, forth: bool) {
    let mut headers = Headers::new();
    assert!(matches!(parse::<Skb, AT>(SKB, &mut headers), Parsed::Plain));
    assert_eq!(headers.tuple, tuple(ends.arriving(forth), packet.protocol()));
    assert_eq!(headers.length as usize, packet.bytes().len());
    assert!(SKB.rewrite::<AT>(&headers, &tuple(ends.leaving(forth), packet.protocol())));
}

/// One of the ways in which a packet is carried: 1 and 2 differ in whether the kernel shows what it knows of the checksum.
fn by(way: usize, packet: &Packet, ends: &Ends, forth: bool) {
    with(|buffer| buffer.shown = way == 1);
    match (way, packet.ip.source.is_ipv4()) {
        (0, _) => run(packet, ends, forth),
        (1 | 2, true) => carry::<Ipv4, Skb>(SKB, packet, ends, forth),
        (1 | 2, false) => carry::<Ipv6, Skb>(SKB, packet, ends, forth),
        (_, true) => carry::<Ipv4, Xdp>(Xdp, packet, ends, forth),
        (_, false) => carry::<Ipv6, Xdp>(Xdp, packet, ends, forth),
    }
}

fn run_all(vector: &Vector) {
    let Vector { ends, forth, arrives, .. } = vector;
    let leaves = vector.leaves.as_ref().unwrap();
    // At XDP there are bytes and nothing else.
    load(arrives, State::Nothing { behind: 0 });
    by(3, arrives, ends, *forth);
    check(leaves, State::Nothing { behind: 0 });

    let unchecked = matches!(arrives.body, Body::Udp { checksum: false, .. });
    for way in 0..3 {
        for state in STATES.into_iter().filter(|state| can_be(arrives, *state)) {
            load(arrives, state);
            by(way, arrives, ends, *forth);
            if unchecked {
                // Nobody asks for the sum of a datagram without a checksum.
                with(|buffer| buffer.summed = Summed::Nothing);
            }
            check(leaves, state);
        }
        if unchecked {
            // What is unfinished is a checksum of a packet inside.
            load(arrives, State::Nothing { behind: 0 });
            let inside = Summed::Partial { start: 60, offset: 6 };
            with(|buffer| buffer.summed = inside);
            by(way, arrives, ends, *forth);
            assert_eq!(with(|buffer| buffer.summed), inside);
            with(|buffer| buffer.summed = Summed::Nothing);
            check(leaves, State::Nothing { behind: 0 });
        }
    }
}

#[test]
fn packets_of_the_kernels_vectors_are_rewritten() {
    shared(carried).for_each(|vector| run_all(&vector));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn rewriting_is_what_the_reference_writes(seed: u64) {
        run_all(&anywhere(carried, seed));
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
        if matches!(parse::<Xdp, AT>(Xdp, &mut headers), Parsed::Plain) {
            let header = if headers.tcp { 20 } else { 8 };
            assert!(headers.transport as usize + header <= length);
        }
        assert_eq!(with(|buffer| buffer.bytes.clone()), bytes);
    }
}
