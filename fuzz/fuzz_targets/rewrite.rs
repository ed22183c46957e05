//! Any bytes as a packet, and any addresses and ports for it: the kernel programs' own code, compiled for this machine,
//! neither panics nor changes a byte that is not to change, leaves every checksum as right or wrong as it was, and does the
//! same to bytes in a driver's memory (XDP) and to a socket buffer (TC), whatever the kernel knows of its checksum and whether
//! it shows that or not; and to the other family.
#![no_main]
#![allow(dead_code)]

extern crate self as aya_ebpf;
#[path = "../../ebpf/src/answer.rs"]
mod answer;
#[path = "../../crates/datapath/tests/native/bindings.rs"]
mod bindings;
#[path = "../../ebpf/src/buffer.rs"]
mod buffer;
#[path = "../../crates/datapath/tests/native/careful.rs"]
mod careful;
#[path = "../../ebpf/src/family.rs"]
mod family;
#[path = "../../ebpf/src/header.rs"]
mod header;
#[path = "../../crates/datapath/tests/native/helpers.rs"]
mod helpers;
#[path = "../../crates/datapath/tests/native/packet.rs"]
mod packet;
#[path = "../../ebpf/src/parse.rs"]
mod parse;
#[path = "../../ebpf/src/replace.rs"]
mod replace;
#[path = "../../ebpf/src/rewrite.rs"]
mod rewrite;
#[path = "../../crates/datapath/tests/native/skb.rs"]
mod skb;
#[path = "../../ebpf/src/work.rs"]
mod work;
#[path = "../../crates/datapath/tests/native/xdp.rs"]
mod xdp;

use family::{DONE, IMPOSSIBLE, translate};
use header::{Header, Ipv4, Ipv6, is_whole};
use libfuzzer_sys::fuzz_target;
use packet::{LINK, Summed, fold, sum, with};
use parse::{Headers, Parsed, parse};
use portway_datapath::abi::{Address, Record, Tuple};
use portway_datapath::record::{Direction, Flow};
use skb::SKB;
use xdp::Xdp;

/// The link header, as the programs are told of it.
const AT: u32 = LINK as u32;

/// Bytes of the new addresses and ports.
const NEW: usize = 36;

/// One of the ways in which a packet is rewritten.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Xdp,
    /// As all packets can be at TC.
    Careful,
    /// As nearly all are there; whether the kernel shows what it knows of the checksum.
    Plain {
        shown: bool,
    },
}

fuzz_target!(|input: &[u8]| {
    let Some((new, frame)) = input.split_first_chunk::<NEW>() else { return };
    load(frame, Summed::Nothing, false);
    let mut headers = Headers::new();
    let plain = matches!(parse::<Xdp, AT>(Xdp, &mut headers), Parsed::Plain);
    assert_eq!(with(|buffer| buffer.bytes.clone()), frame, "reading changes nothing");
    // What has no life left is answered, not rewritten.
    if !plain || headers.ttl <= 1 {
        return;
    }
    let other = tuple(new, !headers.ipv4);
    let new = tuple(new, headers.ipv4);
    let transport = headers.transport as usize;
    let check = transport + if headers.tcp { 16 } else { 6 };
    let unchecked = !headers.tcp && frame[check..check + 2] == [0, 0];
    let run = |way: Way, known: Summed| {
        load(frame, known, way == Way::Plain { shown: true });
        assert!(if headers.ipv4 { by::<Ipv4>(way, &headers, &new) } else { by::<Ipv6>(way, &headers, &new) });
        with(|buffer| (buffer.bytes.clone(), buffer.summed))
    };
    let addresses = |ipv4: bool| if ipv4 { 26..34 } else { 22..54 };
    let covered = |bytes: &[u8], ipv4: bool, transport: usize| {
        fold(u64::from(sum(&bytes[addresses(ipv4)])) + u64::from(sum(&bytes[transport..]))) % 0xffff
    };
    let may_change = |at: usize| {
        let ip = if headers.ipv4 { [22..23, 24..26, 26..34] } else { [21..22, 22..38, 38..54] };
        ip.iter().any(|range| range.contains(&at))
            || (transport..transport + 4).contains(&at)
            || at / 2 == check / 2
    };
    let complete = Summed::Complete(u32::from(sum(&frame[LINK..])));
    let (at_xdp, _) = run(Way::Xdp, Summed::Nothing);
    for way in [Way::Xdp, Way::Careful, Way::Plain { shown: false }, Way::Plain { shown: true }] {
        for known in [Summed::Nothing, complete] {
            if way == Way::Xdp && known == complete {
                continue;
            }
            let (after, known) = run(way, known);
            assert_eq!(after.len(), frame.len());
            for (at, (before, after)) in frame.iter().zip(&after).enumerate() {
                assert!(before == after || may_change(at), "byte {at}");
                assert!(*after == at_xdp[at] || (check..check + 2).contains(&at), "byte {at}, not as at XDP");
            }
            if headers.ipv4 {
                let header = LINK..LINK + 20;
                assert_eq!(sum(&frame[header.clone()]) % 0xffff, sum(&after[header]) % 0xffff, "the header");
            }
            let same = covered(frame, headers.ipv4, transport) == covered(&after, headers.ipv4, transport);
            assert!(unchecked || same, "the transport");
            assert_sum(known, &after, unchecked);
        }
        if way != Way::Xdp && !unchecked {
            // What is unfinished has the pseudo header's sum, and nothing else.
            let (after, _) = run(way, Summed::Partial { start: transport, offset: check - transport });
            let beside = |bytes: &[u8]| {
                let addresses = sum(&bytes[addresses(headers.ipv4)]);
                fold(u64::from(sum(&bytes[check..check + 2])) + u64::from(!addresses)) % 0xffff
            };
            assert_eq!(beside(frame), beside(&after), "what a device is to finish");
        }
    }
    crosses(frame, headers, other, (complete, unchecked), covered);
});

/// To the other family.
fn crosses(
    frame: &[u8],
    headers: Headers,
    new: Tuple,
    (complete, unchecked): (Summed, bool),
    covered: impl Fn(&[u8], bool, usize) -> u16,
) {
    let (ipv4, before) = (headers.ipv4, covered(frame, headers.ipv4, headers.transport as usize));
    load(frame, complete, false);
    let Some(work) = careful::work() else { return };
    (work.headers, work.new) = (headers, new);
    match translate::<AT>(SKB, work) {
        DONE => {
            let (after, known) = with(|buffer| (buffer.bytes.clone(), buffer.summed));
            assert_eq!(work.headers.ipv4, !ipv4);
            let after_it = covered(&after, !ipv4, work.headers.transport as usize);
            assert!(unchecked || before == after_it, "the transport");
            assert_sum(known, &after, unchecked);
        }
        answer => {
            assert!(answer == IMPOSSIBLE || work.headers.tcp, "a segment whose options are not all there")
        }
    }
}

/// Nobody asks for the sum of a datagram without a checksum.
fn assert_sum(known: Summed, bytes: &[u8], unchecked: bool) {
    if let (Summed::Complete(known), false) = (known, unchecked) {
        assert_eq!(fold(known.into()) % 0xffff, sum(&bytes[LINK..]) % 0xffff, "the sum over the packet");
    }
}

fn load(frame: &[u8], known: Summed, shown: bool) {
    let ipv4 = frame.get(12..LINK) == Some(&[8, 0]);
    with(|buffer| {
        (buffer.bytes, buffer.summed, buffer.shown, buffer.ipv4) = (frame.to_vec(), known, shown, ipv4);
    });
}

/// In a way, where that takes the packet; else as all can be.
fn by<H: Header>(way: Way, headers: &Headers, new: &Tuple) -> bool {
    let header =
        H::of(Xdp, AT).filter(|header| is_whole::<Xdp, H>(Xdp, AT, header.protocol(), header.length()));
    let (Some(header), false) = (header, way == Way::Careful) else { return SKB.rewrite::<AT>(headers, new) };
    let record = Record::default();
    let Tuple { source, destination, source_port, destination_port, .. } = headers.tuple;
    let flow = Flow {
        client: source,
        listener: destination,
        client_port: source_port,
        listener_port: destination_port,
        source: new.source,
        backend: new.destination,
        source_port: new.source_port,
        backend_port: new.destination_port,
        ..Flow::default()
    };
    record.fill(&flow, 0, 0);
    if way == Way::Xdp {
        replace::replace::<Xdp, H, AT>(Xdp, header, &record, Direction::Forth)
    } else {
        replace::replace_in::<H, AT>(SKB, header, &record, Direction::Forth)
    }
}

/// Addresses and ports of any bytes.
fn tuple(bytes: &[u8; NEW], ipv4: bool) -> Tuple {
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|nth| bytes[at + nth]));
    let address = |at: usize| {
        if ipv4 { Address::ipv4(word(at) as u32) } else { Address { high: word(at), low: word(at + 8) } }
    };
    Tuple {
        source: address(0),
        destination: address(16),
        source_port: u16::from_ne_bytes([bytes[32], bytes[33]]),
        destination_port: u16::from_ne_bytes([bytes[34], bytes[35]]),
        protocol: 0,
    }
}
