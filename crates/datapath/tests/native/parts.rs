//! Packets that leave in parts.

use proptest::prelude::*;

use crate::bench::{AT, STATES, any_ends, can_be, finished, headers, load, tuple};
use crate::cut::{MORE, OFFSET, ROOM, Whole, finish_checksum, keep, part, read};
use crate::packet::with;
use crate::reference::{Body, Packet, Random, any_tcp, any_udp, checksum, flags};
use crate::skb::SKB;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// Sent by the steps of `parts.rs`, and put together again.
    #[test]
    fn parts_are_the_packet(seed: u64, tcp: bool, mtu in 128_u32..1500, size in 200_usize..4000) {
        let mut random = Random(seed);
        let ends = any_ends(&mut random, true);
        let mut packet = if tcp { any_tcp(&mut random, true, flags::ACK) } else { any_udp(&mut random, true) };
        (packet.ip.options, packet.ip.dont_fragment) = (Vec::new(), false);
        if let Body::Tcp { payload, .. } | Body::Udp { payload, .. } = &mut packet.body {
            *payload = random.bytes(size);
        }
        let packet = packet.between(ends.arriving(true));
        let packet = if random.once_in(3) { packet.tuned() } else { packet };
        let leaves: Packet = packet.carried(&ends, true);
        let expected = leaves.bytes();
        prop_assume!(expected.len() > mtu as usize);
        let unit = (mtu - 20) & !7;
        for state in STATES.into_iter().filter(|state| can_be(&packet, *state)) {
            load(&packet, state);
            assert!(SKB.rewrite::<AT>(&headers(), &tuple(ends.leaving(true), packet.protocol())));
            let mut whole = Box::new(Whole { bytes: [u64::MAX; 2 * ROOM / 8], header: [0; 10] });
            let (length, which) = read::<AT>(SKB, &mut whole).unwrap();
            assert_eq!((length as usize, which & (OFFSET | MORE)), (expected.len(), 0));
            let payload = length - 20;
            assert!(keep::<AT>(SKB, &mut whole, payload));
            assert!(finish_checksum::<AT>(SKB, &mut whole, payload));
            let mut together = Vec::new();
            for start in (0..payload).step_by(unit as usize) {
                let this = unit.min(payload - start);
                let last = start + this == payload;
                let which = if last { which } else { which | MORE };
                assert!(part(SKB, &mut whole, AT, (start, this), which));
                let kept = with(|buffer| (buffer.bytes.clone(), buffer.summed));
                let sent = finished();
                with(|buffer| (buffer.bytes, buffer.summed) = kept);
                let (ip, rest) = sent.split_at(20);
                assert!(sent.len() <= mtu as usize);
                assert_eq!(checksum(&[ip]), 0, "the header");
                assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), sent.len());
                let said = u16::from_be_bytes([ip[6], ip[7]]);
                assert_eq!((said & MORE == 0, u32::from(said & OFFSET) * 8), (last, start));
                assert_eq!((&ip[..2], &ip[4..6], &ip[8..10]), (&expected[..2], &expected[4..6], &expected[8..10]));
                assert_eq!(&ip[12..20], &expected[12..20]);
                together.extend(rest);
            }
            // A checksum that is finished here may be all ones where others write zeros, and the other way round.
            let at = if tcp { 16 } else { 6 };
            if together[at..at + 2] != expected[20 + at..22 + at] {
                let value = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]) % 0xffff;
                assert_eq!(value(&together[at..]), value(&expected[20 + at..]), "{:?}", state);
                together[at..at + 2].copy_from_slice(&expected[20 + at..22 + at]);
            }
            assert!(together == expected[20..], "{state:?}: {packet:?}");
        }
    }
}
