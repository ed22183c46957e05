//! What the programs make of a packet to answer it, or to open a flow: TCP segments of their own, and ICMP errors.

use portway_datapath::atomic::AtomicU64;
use proptest::prelude::*;

use crate::answer::{Segment, write};
use crate::bench::{AT, STATES, State, any_ends, can_be, check, finished, headers, load, tuple};
use crate::packet::{LINK, with};
use crate::parse::{IPV4, IPV6};
use crate::quote::make;
use crate::reference::vector::{Asked, syn};
use crate::reference::{Body, Ip, Packet, Random, any_tcp, any_udp, checksum, flags, pseudo};
use crate::skb::SKB;

/// The segment as the reference has it.
fn packet(segment: &Segment, (source, destination): (std::net::SocketAddr, std::net::SocketAddr)) -> Packet {
    let [high, low] = segment.mss.to_be_bytes();
    Packet {
        ip: Ip {
            source: source.ip(),
            destination: destination.ip(),
            ttl: 64,
            class: 0,
            id: 0,
            label: 0,
            dont_fragment: true,
            options: Vec::new(),
        },
        body: Body::Tcp {
            ports: (source.port(), destination.port()),
            sequence: segment.sequence,
            acknowledged: segment.acknowledges,
            flags: segment.flags,
            window: segment.window,
            options: if segment.mss == 0 { Vec::new() } else { vec![2, 4, high, low] },
            payload: Vec::new(),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    /// Of any segment, in its family or the other (a flow that is opened crosses).
    #[test]
    fn segments_of_our_own(seed: u64, ipv4: bool, crosses: bool, bare: bool, first: bool, sized: bool) {
        let mut random = Random(seed);
        let asked = Asked { ipv4, ipv4_there: ipv4 != crosses, tcp: true, told: false };
        let ends = asked.anywhere(&mut random);
        let mut arrives = if first { syn(&mut random, ipv4, 0) } else { any_tcp(&mut random, ipv4, flags::ACK) };
        if let (true, Body::Tcp { options, payload, .. }) = (bare, &mut arrives.body) {
            // As long as what is made of it, perhaps.
            options.truncate(if random.once_in(2) { 4 } else { 0 });
            payload.clear();
            arrives.ip.options.clear();
        }
        let arrives = arrives.between(ends.arriving(true));
        let segment = Segment {
            sequence: random.next() as u32,
            acknowledges: random.next() as u32,
            flags: flags::ACK,
            window: random.next() as u16,
            mss: if sized { random.next() as u16 | 1 } else { 0 },
        };
        let leaving = ends.leaving(true);
        let expected = packet(&segment, leaving);
        let ipv4 = ipv4 != crosses;
        for state in STATES {
            load(&arrives, state);
            if crosses {
                let kind = if ipv4 { IPV4 } else { IPV6 };
                assert!(SKB.change_family(kind));
                with(|buffer| buffer.bytes[12..LINK].copy_from_slice(&kind.to_ne_bytes()));
            }
            assert!(write::<_, AT>(SKB, ipv4, &tuple(leaving, 6), &segment), "{:?}: {:?}", state, arrives);
            check(&expected, state);
            assert_eq!(with(|buffer| buffer.bytes.len()), LINK + expected.bytes().len());
        }
    }

    /// An error that quotes the packet. (One with IPv4 options whose checksum is unfinished would need a sum over what is
    /// behind them; no socket here sends such.)
    #[test]
    fn errors_of_our_own(seed: u64, ipv4: bool, tcp: bool, word: u32) {
        let mut random = Random(seed);
        let ends = any_ends(&mut random, ipv4);
        let arrives = if tcp { any_tcp(&mut random, ipv4, flags::ACK) } else { any_udp(&mut random, ipv4) };
        let arrives = arrives.between(ends.arriving(true));
        let original = arrives.bytes();
        let states = STATES.into_iter().filter(|state| can_be(&arrives, *state));
        for state in states.filter(|state| *state != State::Partial || arrives.ip.options.is_empty()) {
            load(&arrives, state);
            let mut room = std::array::from_fn(|_| AtomicU64::new(random.next()));
            assert!(make::<AT>(SKB, &mut room, &headers(), 0x0304_0200, word));
            let got = finished();
            let (header, kind) = if ipv4 { (20, [3, 4]) } else { (40, [2, 0]) };
            let (ip, icmp) = got.split_at(header);
            let (source, destination) = (ends.listener.ip(), ends.client.ip());
            if ipv4 {
                assert_eq!(checksum(&[ip]), 0, "the header");
                assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), got.len());
                assert_eq!(checksum(&[icmp]), 0, "{:?}: the checksum of {:02x?}", state, icmp);
            } else {
                let pseudo = pseudo(source, destination, 58, icmp.len());
                assert_eq!(checksum(&[&pseudo, icmp]), 0, "{:?}: the checksum of {:02x?}", state, icmp);
                assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])), icmp.len());
            }
            let addresses = if ipv4 { &ip[12..20] } else { &ip[8..40] };
            assert_eq!(addresses, [crate::reference::octets(source), crate::reference::octets(destination)].concat());
            assert_eq!((&icmp[..2], &icmp[4..8]), (&kind[..], &word.to_be_bytes()[..]));
            let mut quoted = icmp[8..].to_vec();
            assert_eq!(quoted.len(), original.len().min(256));
            if state == State::Partial {
                // What a device has made of it.
                let at = header + if tcp { 16 } else { 6 };
                quoted[at..at + 2].copy_from_slice(&original[at..at + 2]);
            }
            assert_eq!(&quoted[..], &original[..quoted.len()]);
        }
    }
}
