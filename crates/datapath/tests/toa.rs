//! Option 254: its bytes as other implementations have them, and the walk of options against a slow one that is plainly
//! RFC 9293 3.1.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails where it stands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portway_datapath::abi::Address;
use portway_datapath::toa::{
    Claim, Client, HEADER, HEADER_MOST, KIND, LENGTH_V4, LENGTH_V6, Prepared, ROOM, Said, prepare, read,
};
use proptest::prelude::*;

fn client(address: IpAddr, port: u16) -> Client {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let half = |at: usize| u64::from_ne_bytes(octets[at..at + 8].try_into().unwrap());
    let address = Address { high: half(0), low: half(8) };
    Client { address, port: port.to_be(), reserved: [0; 3] }
}

fn told(client: Client) -> Claim {
    Claim { said: Said::Client, client }
}

fn nonsense() -> Claim {
    Claim { said: Said::Nonsense, client: Client::default() }
}

fn option(client: &Client) -> Vec<u8> {
    let (words, length) = client.option();
    let bytes = words.map(u32::to_ne_bytes).concat();
    assert!(bytes[length..].iter().all(|byte| *byte == 0), "what is unused is zero");
    bytes[..length].to_vec()
}

/// A TCP header with these options, filled up with ends of options to whole words, and its length.
fn header(options: &[u8]) -> ([u8; ROOM], usize) {
    let length = HEADER + options.len().div_ceil(4) * 4;
    assert!(length <= HEADER_MOST, "too many options for a header");
    // Ports, numbers and window of 254s: nothing in front of the options may be taken for one.
    let mut header = [KIND; ROOM];
    header[HEADER..].fill(0);
    header[HEADER..HEADER + options.len()].copy_from_slice(options);
    header[12] = u8::try_from(length / 4).unwrap() << 4;
    (header, length)
}

/// What the options are, by stepping from one to the next.
fn slow(header: &[u8; ROOM], present: usize) -> Vec<(usize, Vec<u8>)> {
    let end = usize::from(header[12] >> 4) * 4;
    let mut found = Vec::new();
    if end > present {
        return found;
    }
    let mut at = HEADER;
    while at < end {
        match header[at] {
            0 => break,
            1 => at += 1,
            _ => {
                let size = if at + 1 < end { usize::from(header[at + 1]) } else { break };
                if size < 2 || at + size > end {
                    break;
                }
                found.push((at, header[at..at + size].to_vec()));
                at += size;
            }
        }
    }
    found
}

/// Where the options stop, and whether that is their end rather than one that is broken.
fn stop(header: &[u8; ROOM], length: usize) -> (usize, bool) {
    let mut at = HEADER;
    while at < length && header[at] != 0 {
        let size = if header[at] == 1 { 1 } else { usize::from(header[at + 1]) };
        if header[at] != 1 && (size < 2 || at + size > length) {
            return (at, false);
        }
        at += size;
    }
    (at, true)
}

fn slow_ours(header: &[u8; ROOM], present: usize) -> Vec<(usize, Vec<u8>)> {
    let ours = |bytes: &[u8]| bytes[0] == KIND && [LENGTH_V4, LENGTH_V6].contains(&bytes.len());
    slow(header, present).into_iter().filter(|(_, bytes)| ours(bytes)).collect()
}

fn slow_read(header: &[u8; ROOM], present: usize) -> Claim {
    let ours = slow_ours(header, present);
    let [(_, bytes)] = &ours[..] else {
        return if ours.is_empty() { Claim::default() } else { nonsense() };
    };
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    let address = match bytes.len() {
        LENGTH_V4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[4..]).unwrap())),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[4..]).unwrap())),
    };
    if port == 0 || !is_possible(address.to_canonical()) { nonsense() } else { told(client(address, port)) }
}

fn is_possible(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            !v4.is_loopback() && !v4.is_multicast() && first != 0 && first < 240
        }
        IpAddr::V6(v6) => !v6.is_multicast() && v6.segments()[..6] != [0; 6],
    }
}

/// Options that a Linux client sends in its SYN: MSS, SACK permitted, timestamps, window scale.
const SYN: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

#[test]
fn the_bytes_are_those_of_the_lvs_module() {
    let v4 = client("192.0.2.7".parse().unwrap(), 40_001);
    assert_eq!(option(&v4), [254, 8, 0x9c, 0x41, 192, 0, 2, 7]);
    assert_eq!(v4, Client::v4([192, 0, 2, 7], 40_001_u16.to_be()));
    let v6 = client("2001:db8::7".parse().unwrap(), 80);
    assert_eq!(option(&v6), [254, 20, 0, 80, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
}

#[test]
fn both_forms_fit_behind_what_a_linux_client_sends() {
    for address in ["192.0.2.7", "2001:db8::7"] {
        let client = client(address.parse().unwrap(), 40_001);
        let (header, length) = header(&[&SYN[..], &option(&client)].concat());
        assert_eq!(read(&header, length), told(client));
    }
}

#[test]
fn a_second_option_makes_both_unbelievable() {
    let one = option(&client("192.0.2.7".parse().unwrap(), 40_001));
    let two = option(&client("192.0.2.8".parse().unwrap(), 40_001));
    let (bytes, length) = header(&[&one[..], &two].concat());
    assert_eq!(read(&bytes, length), nonsense());
    let (bytes, length) = header(&[&one[..], &one].concat());
    assert_eq!(
        read(&bytes, length),
        nonsense(),
        "whoever wrote the first one chose what the second would say"
    );
}

#[test]
fn other_experiments_with_the_kind_are_left_alone() {
    // SMC-R (RFC 7609): kind 254, length 6.
    let smc = [254, 6, 0xe2, 0xd4, 0xc3, 0xd9];
    let client = client("192.0.2.7".parse().unwrap(), 40_001);
    let (mut bytes, length) = header(&[&smc[..], &option(&client)].concat());
    assert_eq!(read(&bytes, length), told(client));
    assert_eq!(prepare(&mut bytes, length), Prepared { changed: true, open: true });
    assert_eq!(bytes[HEADER..HEADER + 6], smc);
    assert_eq!(bytes[HEADER + 6..HEADER + 14], [1; 8]);
}

#[test]
fn behind_the_options_of_a_macos_client() {
    // Its SYN ends with sackOK and two ends of options; what is put behind an end is read by nobody.
    let syn = [2, 4, 5, 180, 1, 3, 3, 6, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 4, 2, 0, 0];
    let (mut bytes, length) = header(&syn);
    assert_eq!(prepare(&mut bytes, length), Prepared { changed: true, open: true });
    assert_eq!(bytes[HEADER..length], [&syn[..22], &[1, 1]].concat());
}

#[test]
fn impossible_clients() {
    for (address, port) in [
        ("192.0.2.7", 0),
        ("0.0.0.0", 1),
        ("127.0.0.1", 1),
        ("224.0.0.1", 1),
        ("255.255.255.255", 1),
        ("::", 1),
        ("::1", 1),
        ("ff02::1", 1),
        ("::ffff:127.0.0.1", 1),
    ] {
        let (bytes, length) = header(&option(&client(address.parse().unwrap(), port)));
        assert_eq!(read(&bytes, length), nonsense(), "{address} {port}");
    }
    for address in ["1.0.0.1", "223.255.255.255", "10.0.0.1", "fe80::1", "fd00::1", "64:ff9b::1"] {
        let client = client(address.parse().unwrap(), 1);
        let (bytes, length) = header(&option(&client));
        assert_eq!(read(&bytes, length), told(client), "{address}");
    }
}

#[test]
fn a_header_cut_short_says_nothing() {
    let client = client("192.0.2.7".parse().unwrap(), 40_001);
    let (bytes, length) = header(&option(&client));
    for present in 0..length {
        assert_eq!(read(&bytes, present), Claim::default(), "{present} bytes");
    }
    let mut short = bytes;
    short[12] = 6 << 4;
    assert_eq!(read(&short, length), Claim::default(), "the header ends within the option");
}

#[test]
fn syn_and_ack_agree_or_are_not_believed() {
    let one = told(client("192.0.2.7".parse().unwrap(), 40_001));
    let two = told(client("192.0.2.7".parse().unwrap(), 40_002));
    let nothing = Claim::default();
    assert_eq!(one.agree(nothing), one);
    assert_eq!(nothing.agree(one), one);
    assert_eq!(one.agree(one), one);
    assert_eq!(nothing.agree(nothing), nothing);
    assert_eq!(one.agree(two), nonsense());
    assert_eq!(one.agree(nonsense()), nonsense());
    assert_eq!(nonsense().agree(nothing), nonsense());
}

/// Options as they come, ours among them: mostly whole ones, so that walks get far.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let whole = (2_u8..=255, 2_u8..=20).prop_flat_map(|(kind, size)| {
        prop::collection::vec(any::<u8>(), usize::from(size) - 2)
            .prop_map(move |rest| [vec![kind, size], rest].concat())
    });
    let ours = (any::<[u8; 16]>(), any::<u16>(), any::<bool>()).prop_map(|(octets, port, v4)| {
        let [.., a, b, c, d] = octets;
        let address = if v4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(octets) };
        option(&client(address, port))
    });
    let broken = (2_u8..=255, any::<u8>()).prop_map(|(kind, size)| vec![kind, size]);
    let one = prop_oneof![4 => Just(vec![1]), 1 => Just(vec![0]), 4 => whole, 6 => ours, 1 => broken];
    prop::collection::vec(one, 0..6).prop_map(|options| {
        let mut all = options.concat();
        all.truncate(HEADER_MOST - HEADER);
        all
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_as_by_the_slow_walk(bytes in any::<[u8; 32]>(), more in any::<[u8; 32]>(), present in 0_usize..=60) {
        let mut header = [0; ROOM];
        header[..32].copy_from_slice(&bytes);
        header[32..].copy_from_slice(&more);
        prop_assert_eq!(read(&header, present), slow_read(&header, present));
    }

    #[test]
    fn options_are_read_as_by_the_slow_walk(options in options()) {
        let (header, length) = header(&options);
        prop_assert_eq!(read(&header, length), slow_read(&header, length));
    }

    #[test]
    fn what_is_written_is_read(octets in any::<[u8; 16]>(), v4: bool, port in 1_u16.., before in 0_usize..=20) {
        let [.., a, b, c, d] = octets;
        let address = if v4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(octets) };
        prop_assume!(is_possible(address.to_canonical()));
        let client = client(address, port);
        let (header, length) = header(&[&vec![1; before][..], &option(&client)].concat());
        prop_assert_eq!(read(&header, length), told(client));
        prop_assert_eq!(client.is_v4(), address.to_canonical().is_ipv4());
    }

    #[test]
    fn what_was_prepared_has_nothing_of_ours_and_all_else(options in options()) {
        let (before, length) = header(&options);
        let mut after = before;
        let prepared = prepare(&mut after, length);
        prop_assert_eq!(read(&after, length), Claim::default());
        let mut expected = before;
        for (at, bytes) in slow_ours(&before, length) {
            expected[at..at + bytes.len()].fill(1);
        }
        let (stop, whole) = stop(&before, length);
        if whole {
            expected[stop..length].fill(1);
        }
        prop_assert_eq!(prepared, Prepared { changed: expected != before, open: whole });
        prop_assert_eq!(after, expected);
        prop_assert!(!prepare(&mut after, length).changed);
    }

    #[test]
    fn what_is_put_behind_is_read(options in options(), octets in any::<[u8; 16]>(), port in 1_u16..) {
        prop_assume!(is_possible(IpAddr::from(octets).to_canonical()));
        let client = client(IpAddr::from(octets), port);
        let (mut bytes, length) = header(&options);
        let prepared = prepare(&mut bytes, length);
        let option = option(&client);
        let size = option.len();
        prop_assume!(prepared.open && length + size <= HEADER_MOST);
        bytes[length..length + size].copy_from_slice(&option);
        bytes[12] = u8::try_from((length + size) / 4).unwrap() << 4;
        prop_assert_eq!(read(&bytes, length + size), told(client));
        prop_assert_eq!(slow_read(&bytes, length + size), told(client));
    }
}
