//! Packets in every state that the kernel may have a checksum in, and what must be found afterwards.

use std::net::IpAddr;

use portway_datapath::abi::{Address, Tuple};

use crate::packet::{LINK, Summed, fold, sum, with};
use crate::parse::{Headers, Parsed, parse};
use crate::reference::vector::{ALL, Asked, Generator, SEEDS, Vector, at_gateway};
use crate::reference::{Body, Ends, Packet, Random, pseudo};
use crate::skb::{SKB, Skb};

/// The link header, as the programs are told of it.
pub const AT: u32 = LINK as u32;

/// What the kernel knows of a packet that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing, or that it is right. So many bytes are behind the packet, as where a frame has a smallest size.
    Nothing { behind: usize },
    /// The sum over it, and over what is behind.
    Complete { behind: usize },
    /// A device is to finish the transport's checksum: it comes from a socket of this host, or of a guest.
    Partial,
}

/// All of them.
pub const STATES: [State; 6] = [
    State::Nothing { behind: 0 },
    State::Nothing { behind: 6 },
    State::Complete { behind: 0 },
    State::Complete { behind: 6 },
    State::Complete { behind: 21 },
    State::Partial,
];

pub fn address(address: IpAddr) -> Address {
    let bytes = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|nth| bytes[at + nth]));
    Address { high: word(0), low: word(8) }
}

pub fn tuple((source, destination): (std::net::SocketAddr, std::net::SocketAddr), protocol: u8) -> Tuple {
    Tuple {
        source: address(source.ip()),
        destination: address(destination.ip()),
        source_port: source.port().to_be(),
        destination_port: destination.port().to_be(),
        protocol: u32::from(protocol),
    }
}

/// Where the transport begins, and where in it the checksum is.
fn transport(packet: &Packet) -> (usize, usize) {
    let header = if packet.ip.source.is_ipv4() { 20 + packet.ip.options.len() } else { 40 };
    let check = match packet.protocol() {
        6 => 16,
        17 => 6,
        _ => 2,
    };
    (LINK + header, check)
}

/// Whether a packet can be in the state: ICMP is summed by who makes it, and so is UDP that is not summed at all.
pub fn can_be(packet: &Packet, state: State) -> bool {
    let summed =
        !matches!(packet.body, Body::Error { .. } | Body::Other { .. } | Body::Udp { checksum: false, .. });
    state != State::Partial || summed
}

/// Puts a packet into this thread's buffer.
pub fn load(packet: &Packet, state: State) {
    let ipv4 = packet.ip.source.is_ipv4();
    let kind: u16 = if ipv4 { 0x0800 } else { 0x86dd };
    let mut bytes = [&[2; 12][..], &kind.to_be_bytes(), &packet.bytes()].concat();
    if let State::Nothing { behind } | State::Complete { behind } = state {
        bytes.extend((0..behind).map(|nth| 0xa1 ^ nth as u8));
    }
    let summed = match state {
        State::Nothing { .. } => Summed::Nothing,
        State::Complete { .. } => Summed::Complete(u32::from(sum(&bytes[LINK..]))),
        State::Partial => {
            let (start, offset) = transport(packet);
            let length = bytes.len() - start;
            let pseudo = sum(&pseudo(packet.ip.source, packet.ip.destination, packet.protocol(), length));
            bytes[start + offset..start + offset + 2].copy_from_slice(&pseudo.to_ne_bytes());
            Summed::Partial { start, offset }
        }
    };
    with(|buffer| (buffer.bytes, buffer.summed, buffer.ipv4) = (bytes, summed, ipv4));
}

/// The headers of what is in the buffer.
pub fn headers() -> Headers {
    let mut headers = Headers::new();
    assert!(matches!(parse::<Skb, AT>(SKB, &mut headers), Parsed::Plain));
    headers
}

/// What the buffer holds from the IP header on when a device has done its part, as `skb_checksum_help` does it. The sum over the
/// packet, if the kernel still has one, must be right: it says so (`hw csum failure`) and has no use for the device's work
/// otherwise.
pub fn finished() -> Vec<u8> {
    with(|buffer| {
        match buffer.summed {
            Summed::Nothing => {}
            Summed::Complete(known) => {
                let of_bytes = sum(&buffer.bytes[LINK..]);
                let known = fold(known.into());
                assert_eq!(
                    known % 0xffff,
                    of_bytes % 0xffff,
                    "the sum over the packet: {known:x}, not {of_bytes:x}"
                );
            }
            Summed::Partial { start, offset } => {
                let check = match !sum(&buffer.bytes[start..]) {
                    0 => 0xffff,
                    check => check,
                };
                buffer.bytes[start + offset..start + offset + 2].copy_from_slice(&check.to_ne_bytes());
                buffer.summed = Summed::Nothing;
            }
        }
        buffer.bytes[LINK..].to_vec()
    })
}

/// Compares what is in the buffer with a packet, which may have something behind it.
pub fn check(expected: &Packet, state: State) {
    let mut got = finished();
    let bytes = expected.bytes();
    assert!(got.len() >= bytes.len(), "{} bytes for {}", got.len(), bytes.len());
    got.truncate(bytes.len());
    if state == State::Partial {
        // A device writes all ones where others write zeros.
        let (start, offset) = transport(expected);
        let at = start - LINK + offset;
        if bytes[at..at + 2] == [0; 2] && got[at..at + 2] == [0xff; 2] {
            got[at..at + 2].fill(0);
        }
    }
    assert!(got == bytes, "{state:?}\ngot      {got:02x?}\nexpected {bytes:02x?}\nof {expected:?}");
    let kind: u16 = if expected.ip.source.is_ipv4() { 0x0800 } else { 0x86dd };
    assert_eq!(
        with(|buffer| buffer.bytes[12..LINK].to_vec()),
        kind.to_be_bytes(),
        "the type of the link header"
    );
}

/// Runs a generator's packet for a seed, with any ends.
pub fn anywhere(of: Generator, seed: u64) -> Vector {
    of(seed, &mut |asked: &Asked, random: &mut Random| asked.anywhere(random))
}

/// The packets of a generator that are run in the kernel as well.
pub fn shared(of: Generator) -> impl Iterator<Item = Vector> {
    let number = ALL.iter().position(|(_, one)| *one as usize == of as usize).unwrap();
    SEEDS.map(move |seed| at_gateway(number, seed))
}

/// Ends of a flow within a family.
pub fn any_ends(random: &mut Random, ipv4: bool) -> Ends {
    Asked { ipv4, ipv4_there: ipv4, tcp: true, told: false }.anywhere(random)
}
