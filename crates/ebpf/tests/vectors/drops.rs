//! Each reason for which a packet is not carried, provoked by packets: just this reason of this rule is counted, once for each
//! packet.
//!
//! Deliberately absent: a full table, a rate and ports that run out, of which [`crate::refused`] says more.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portway_datapath::abi::{DROPS, Drop, REFUSALS, Refusal};
use portway_ebpf::trial::Program;

use crate::bench::{Bench, TC_NEXT, TC_REDIRECT, TC_SHOT, any, begin, carry, ends};
use crate::fragments::part;
use crate::reference::vector::between;
use crate::reference::{Body, Packet, Random, any_error, any_tcp, any_udp, flags};
use crate::support::{rule, wait_for};

/// The rule and the words that drops of a reason are counted under; nothing of a rule where it is not known.
type Counted = BTreeMap<(String, String), u64>;

/// What was counted, of every rule and of none.
fn counted(bench: &mut Bench) -> Counted {
    let snapshot = bench.snapshot();
    let mut counted = Counted::new();
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    for (rule, drops) in snapshot.drops {
        for (reason, count) in drops {
            *known.entry(reason.replace([' ', '-'], "_").to_lowercase()).or_default() += count;
            counted.insert((rule.clone(), reason), count);
        }
    }
    for (gauge, count) in snapshot.gauges {
        let Some(reason) = gauge.strip_prefix("dropped_") else { continue };
        let unknown = count - known.get(reason).copied().unwrap_or_default();
        if unknown != 0 {
            counted.insert((String::new(), reason.to_owned()), unknown);
        }
    }
    counted
}

/// What is to be counted: of which rule, under which words, and how many.
type Provocation = (&'static str, &'static str, u64);

/// A bench, and packets for it.
struct Provoked {
    bench: Bench,
    random: Random,
}

impl Provoked {
    /// Runs a packet of a flow at TC, which must end with this verdict.
    #[track_caller]
    fn ends(&mut self, forth: bool, packet: &[u8], verdict: u32) {
        let frame = self.bench.arriving(forth, packet);
        let ran = self.bench.run(Program::TcEthernet, forth, &frame);
        assert_eq!(ran.result, verdict, "{frame:02x?}");
        assert!(verdict == TC_REDIRECT || ran.packet == frame, "changed, though it is not carried");
    }

    /// A datagram without IP options and with a checksum.
    fn datagram(&mut self, ipv4: bool, ends: (SocketAddr, SocketAddr)) -> Packet {
        let mut packet = any_udp(&mut self.random, ipv4).between(ends);
        packet.ip.options.clear();
        let Body::Udp { checksum, .. } = &mut packet.body else { unreachable!() };
        *checksum = true;
        packet
    }

    /// The same over IPv4, with so many bytes.
    fn datagram_of(&mut self, bytes: usize, ends: (SocketAddr, SocketAddr)) -> Packet {
        let mut packet = self.datagram(true, ends);
        let Body::Udp { payload, .. } = &mut packet.body else { unreachable!() };
        *payload = self.random.bytes(bytes);
        packet
    }

    fn segment(&mut self, ipv4: bool, bits: u8, ends: (SocketAddr, SocketAddr)) -> Packet {
        let mut packet = any_tcp(&mut self.random, ipv4, bits).between(ends);
        packet.ip.options.clear();
        packet
    }

    /// A flow of a client's port to the udp4 rule that has begun.
    fn flow(&mut self, port: u16) -> crate::reference::Ends {
        let ends = ends(true, false, port);
        begin(&mut self.bench, &mut self.random, &ends, false);
        ends
    }

    /// A datagram flow from IPv4 to IPv6 that has begun.
    fn crossing(&mut self, port: u16) -> crate::reference::Ends {
        let ends = between(true, false, (54, 5353), port);
        let first = self.datagram(true, ends.arriving(true));
        carry(&mut self.bench, true, &first, &first.crossed(&ends, true));
        ends
    }

    /// Has packets dropped for a reason.
    fn provoke(&mut self, reason: Drop) -> Option<Provocation> {
        match reason {
            // In `refused`, beside what becomes of the flows that are there.
            Drop::TableFull | Drop::NoPort => None,
            Drop::Unreachable => {
                // A backend that this host has no route to.
                let ends = between(true, true, (57, 5353), 40_002);
                let packet = self.datagram(true, ends.arriving(true));
                self.ends(true, &packet.bytes(), TC_SHOT);
                Some(("lost", "no route", 1))
            }
            // When the way is asked anew: see below.
            Drop::NoRoute => None,
            Drop::TooBig => {
                let ends = self.flow(40_003);
                let mut packet = self.datagram_of(1490, ends.arriving(true));
                packet.ip.dont_fragment = true;
                // Its sender is told.
                self.ends(true, &packet.bytes(), TC_REDIRECT);
                Some(("udp4", "too big", 1))
            }
            Drop::Expired => {
                let ends = self.flow(40_004);
                let mut packet = self.datagram(true, ends.arriving(false));
                packet.ip.ttl = 1;
                self.ends(false, &packet.bytes(), TC_REDIRECT);
                Some(("udp4", "time to live over", 1))
            }
            Drop::Fragment => {
                // To the other family neither the first part nor those that follow it.
                let ends = self.crossing(40_005);
                let packet = self.datagram_of(2000, ends.arriving(true));
                for (from, to) in [(0, Some(800)), (800, Some(1600)), (1600, None)] {
                    self.ends(true, &part(&packet, 7, from, to), TC_SHOT);
                }
                Some(("udp46", "fragment", 3))
            }
            Drop::Mangled => {
                // A TCP header that says that it is shorter than it is, which is to be looked through for options.
                let ends = between(true, true, (82, 8080), 40_006);
                let syn = self.segment(true, flags::SYN, ends.arriving(true));
                let mut bytes = syn.bytes();
                bytes[20 + 12] = 4 << 4;
                self.ends(true, &bytes, TC_SHOT);
                Some(("toa4", "not changed by the kernel", 1))
            }
            Drop::IcmpError => {
                // A parameter problem of a kind that IPv6 has no word for (RFC 7915, section 4.2).
                let ends = self.crossing(40_007);
                let quoted = self.datagram(false, ends.leaving(true));
                let mut error = any_error(&mut self.random, quoted);
                let Body::Error { kind, code, rest, .. } = &mut error.body else { unreachable!() };
                (*kind, *code, *rest) = (4, 2, 40);
                (error.ip.source, error.ip.destination) =
                    (ends.arriving(false).0.ip(), ends.arriving(false).1.ip());
                self.ends(false, &error.bytes(), TC_SHOT);
                Some(("udp46", "ICMP error not translated", 1))
            }
            Drop::Family => {
                let ends = self.crossing(40_009);
                let mut packet = self.datagram(true, ends.arriving(true));
                let Body::Udp { checksum, .. } = &mut packet.body else { unreachable!() };
                *checksum = false;
                self.ends(true, &packet.bytes(), TC_SHOT);
                Some(("udp46", "not translated between families", 1))
            }
            // Two processors at the same moment, which no packet can be made to meet: `datapath/tests/threads.rs` has them.
            Drop::Race => None,
        }
    }

    /// The same of a rule that has chosen nobody.
    fn provoke_refusal(&mut self, reason: Refusal) -> Option<Provocation> {
        match reason {
            Refusal::Empty => {
                let ends = between(true, true, (56, 5353), 40_001);
                let packet = self.datagram(true, ends.arriving(true));
                self.ends(true, &packet.bytes(), TC_SHOT);
                Some(("empty", "no backend", 1))
            }
            // In `refused` too.
            Refusal::Rate => None,
            Refusal::BadCookie => {
                let ends = between(true, true, (83, 8080), 40_008);
                let syn = self.segment(true, flags::SYN, ends.arriving(true));
                // Answered by a cookie, so that one is waited for.
                self.ends(true, &syn.bytes(), TC_REDIRECT);
                let forged = self.segment(true, flags::ACK, ends.arriving(true));
                self.ends(true, &forged.bytes(), TC_NEXT);
                Some(("cookies", "bad SYN cookie", 1))
            }
        }
    }
}

/// All of them, as the layout counts them.
const DROPPED: [Drop; DROPS] = [
    Drop::TableFull,
    Drop::NoPort,
    Drop::Unreachable,
    Drop::NoRoute,
    Drop::TooBig,
    Drop::Expired,
    Drop::Fragment,
    Drop::Mangled,
    Drop::IcmpError,
    Drop::Family,
    Drop::Race,
];
const REFUSED: [Refusal; REFUSALS] = [Refusal::Empty, Refusal::Rate, Refusal::BadCookie];

fn provoked() -> Provoked {
    let settings = rule("empty", "udp/10.1.0.1:56", "nobody.invalid:5353")
        + &rule("lost", "udp/10.1.0.1:57", "10.77.0.1:5353")
        + &rule("cookies", "tcp/10.1.0.1:83", "10.2.0.2:8080")
        + "syn-cookies = 0\n";
    Provoked { bench: Bench::new(&settings), random: Random(31) }
}

#[test]
fn each_reason_is_counted_by_its_name_and_no_other() {
    let mut provoked = provoked();
    let dropped = DROPPED.into_iter().map(Ok);
    for reason in dropped.chain(REFUSED.into_iter().map(Err)) {
        let mut before = counted(&mut provoked.bench);
        let provocation = match reason {
            Ok(reason) => provoked.provoke(reason),
            Err(reason) => provoked.provoke_refusal(reason),
        };
        let Some((rule, words, count)) = provocation else { continue };
        *before.entry((rule.to_owned(), words.to_owned())).or_default() += count;
        assert_eq!(counted(&mut provoked.bench), before, "{reason:?}");
    }
}

/// Parts that come before their first one are the kernel's, and counted for no rule: nobody knows yet whose they are.
#[test]
fn a_part_without_its_first_is_counted() {
    let mut provoked = provoked();
    let ends = provoked.flow(40_010);
    let packet = provoked.datagram_of(2000, ends.arriving(true));
    let before = counted(&mut provoked.bench);
    assert_eq!(before, Counted::new());
    provoked.ends(true, &part(&packet, 9, 800, Some(1600)), TC_NEXT);
    let expected = Counted::from([((String::new(), "fragment".to_owned()), 1)]);
    assert_eq!(counted(&mut provoked.bench), expected);
}

/// A part that would reach beyond the largest datagram that there can be, and is too large for the way out.
#[test]
fn a_part_beyond_the_largest_datagram_is_counted() {
    let mut provoked = provoked();
    let ends = provoked.flow(40_011);
    let mut packet = provoked.datagram_of(3000, ends.arriving(true));
    packet.ip.dont_fragment = false;
    provoked.ends(true, &part(&packet, 11, 0, Some(800)), TC_REDIRECT);
    let mut beyond = part(&packet, 11, 800, None);
    // Its place in the datagram, in units of eight bytes.
    beyond[6..8].copy_from_slice(&8100_u16.to_be_bytes());
    beyond[10..12].fill(0);
    let check = crate::reference::checksum(&[&beyond[..20]]);
    beyond[10..12].copy_from_slice(&check.to_be_bytes());
    let frame = provoked.bench.arriving(true, &beyond);
    assert_eq!(provoked.bench.run(Program::TcEthernet, true, &frame).result, TC_SHOT);
    let expected = Counted::from([(("udp4".to_owned(), "fragment".to_owned()), 1)]);
    assert_eq!(counted(&mut provoked.bench), expected);
}

/// A route that goes away while flows are there.
#[test]
fn a_flow_whose_route_is_gone_is_counted() {
    let mut provoked = provoked();
    let ends = provoked.flow(40_012);
    provoked.bench.lab.gateway.ip("route add blackhole 10.2.0.2/32");
    let packet = any(&mut provoked.random, true, false, 0).between(ends.arriving(true));
    let frame = provoked.bench.arriving(true, &packet.bytes());
    // The way is kept for a second.
    let mut dropped = 0;
    wait_for("the route to be asked again", || {
        dropped += u64::from(provoked.bench.run(Program::TcEthernet, true, &frame).result == TC_SHOT);
        dropped == 3
    });
    let expected = Counted::from([(("udp4".to_owned(), "no route".to_owned()), 3)]);
    assert_eq!(counted(&mut provoked.bench), expected);
}

/// A backend that is its own client, by the port that it serves, of a listener with the same port: with the client's own port the
/// flow's two directions would look alike, so it gets another one.
#[test]
fn a_flow_whose_directions_would_look_alike_gets_another_port() {
    let settings = rule("own", "udp/10.2.0.1:58", "10.2.0.2:58");
    let mut provoked = Provoked { bench: Bench::new(&settings), random: Random(32) };
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let packet = provoked.datagram(true, (end("10.2.0.2:58"), end("10.2.0.1:58")));
    let frame = provoked.bench.arriving(false, &packet.bytes());
    let ran = provoked.bench.run(Program::TcEthernet, false, &frame);
    assert_eq!((ran.result, counted(&mut provoked.bench)), (TC_REDIRECT, Counted::new()));
    let source = u16::from_be_bytes([ran.packet[34], ran.packet[35]]);
    assert_ne!(source, 58);
    let leaves = packet.between((SocketAddr::new(end("10.2.0.1:1").ip(), source), end("10.2.0.2:58")));
    assert_eq!(ran.packet[26..38], leaves.bytes()[12..24]);
}
