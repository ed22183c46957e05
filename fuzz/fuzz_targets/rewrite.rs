//! Any bytes as a packet, and any addresses and ports for it: the kernel programs' own code, compiled for this machine,
//! neither panics nor changes a byte that is not to change, leaves every checksum as right or wrong as it was, and does the
//! same to bytes in a driver's memory (XDP) and to a socket buffer (TC).
#![no_main]
#![allow(dead_code)]

#[path = "../../ebpf/src/header.rs"]
mod header;
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
#[path = "../../crates/datapath/tests/native/xdp.rs"]
mod xdp;

use header::{Header, Ipv4, Ipv6, is_whole};
use libfuzzer_sys::fuzz_target;
use packet::{Summed, fold, sum, with};
use parse::{Headers, Parsed, parse};
use portway_datapath::abi::{Address, Record, Tuple};
use portway_datapath::record::{Direction, Flow};
use skb::Skb;
use xdp::Xdp;

/// Bytes of the link header.
const LINK: usize = 14;

/// Bytes of the new addresses and ports.
const NEW: usize = 36;

fuzz_target!(|input: &[u8]| {
    let Some((new, frame)) = input.split_first_chunk::<NEW>() else { return };
    with(|buffer| (buffer.bytes, buffer.summed) = (frame.to_vec(), Summed::Nothing));
    let mut headers = Headers::new();
    let plain = matches!(parse::<Xdp, { LINK as u32 }>(Xdp, &mut headers), Parsed::Plain);
    assert_eq!(with(|buffer| buffer.bytes.clone()), frame, "reading changes nothing");
    // What has no life left is answered, not rewritten.
    if !plain || headers.ttl <= 1 {
        return;
    }
    let new = tuple(new, headers.ipv4);
    let run = |at_tc: bool| {
        let known = Summed::Complete(u32::from(sum(&frame[LINK..])));
        with(|buffer| {
            (buffer.bytes, buffer.summed) = (frame.to_vec(), if at_tc { known } else { Summed::Nothing })
        });
        let done = match (at_tc, headers.ipv4) {
            (true, _) => Skb.rewrite::<{ LINK as u32 }>(&headers, &new),
            (false, true) => at_xdp::<Ipv4>(&headers, &new),
            (false, false) => at_xdp::<Ipv6>(&headers, &new),
        };
        assert!(done);
        with(|buffer| (buffer.bytes.clone(), buffer.summed))
    };
    let (at_xdp, _) = run(false);
    let (at_tc, known) = run(true);

    let transport = headers.transport as usize;
    let check = transport + if headers.tcp { 16 } else { 6 };
    let may_change = |at: usize| {
        let ip = if headers.ipv4 { [22..23, 24..26, 26..34] } else { [21..22, 22..38, 38..54] };
        ip.iter().any(|range| range.contains(&at))
            || (transport..transport + 4).contains(&at)
            || at / 2 == check / 2
    };
    let unchecked = !headers.tcp && frame[check..check + 2] == [0, 0];
    for (at, (before, after)) in frame.iter().zip(&at_xdp).enumerate() {
        assert!(before == after || may_change(at), "byte {at}");
        assert!(*after == at_tc[at] || (check..check + 2).contains(&at), "byte {at} at TC");
    }
    for after in [&at_xdp, &at_tc] {
        assert_eq!(after.len(), frame.len());
        if headers.ipv4 {
            let header = LINK..LINK + 20;
            assert_eq!(sum(&frame[header.clone()]) % 0xffff, sum(&after[header]) % 0xffff, "the header");
        }
        let addresses = if headers.ipv4 { 26..34 } else { 22..54 };
        let covered = |bytes: &[u8]| {
            fold(u64::from(sum(&bytes[addresses.clone()])) + u64::from(sum(&bytes[transport..]))) % 0xffff
        };
        assert!(unchecked || covered(frame) == covered(after), "the transport");
    }
    if let Summed::Complete(known) = known {
        assert!(
            unchecked || fold(known.into()) % 0xffff == sum(&at_tc[LINK..]) % 0xffff,
            "the sum over the packet"
        );
    }
});

/// As at XDP, where that takes the packet; else as at TC.
fn at_xdp<H: Header>(headers: &Headers, new: &Tuple) -> bool {
    const LINK: u32 = self::LINK as u32;
    let Some(header) = H::of(Xdp, LINK) else { return Skb.rewrite::<LINK>(headers, new) };
    if !is_whole::<Xdp, H>(Xdp, LINK, header.protocol(), header.length()) {
        return Skb.rewrite::<LINK>(headers, new);
    }
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
    replace::replace::<Xdp, H, LINK>(Xdp, header, &record, Direction::Forth)
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
