//! Any bytes as a TCP header: the walks over its options find what stepping from one to the next finds (RFC 9293, section
//! 3.1), take out no other option than 254, and leave room for the one that is put behind; and the header that a SYN cookie is
//! made of says what it was given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_datapath::abi::{Address, Tuple};
use portway_datapath::cookie;
use portway_datapath::tcp::mss;
use portway_datapath::toa::{
    Client, HEADER, HEADER_MOST, KIND, LENGTH_V4, LENGTH_V6, ROOM, Said, prepare, read,
};

/// Bytes of the client to be told: address and port.
const TOLD: usize = 18;

fuzz_target!(|input: &[u8]| {
    let Some((told, rest)) = input.split_first_chunk::<TOLD>() else { return };
    let Some((present, bytes)) = rest.split_first() else { return };
    let mut header = [0; ROOM];
    let length = bytes.len().min(ROOM);
    header[..length].copy_from_slice(&bytes[..length]);
    // What is behind the part that is there must make no difference, and so it may be anything.
    let present = usize::from(*present).min(HEADER_MOST);
    let said = usize::from(header[12] >> 4) * 4;
    let end = if (HEADER..=present).contains(&said) { said } else { 0 };

    let options = walk(&header, end);
    let ours: Vec<_> = options.iter().filter(|option| is_ours(&header, option)).collect();
    let claim = read(&header, present);
    match ours.as_slice() {
        [] => assert_eq!(claim.said, Said::Nothing),
        [_] => assert_ne!(claim.said, Said::Nothing),
        _ => assert_eq!(claim.said, Said::Nonsense),
    }
    if claim.said == Said::Client {
        assert!(claim.client.is_possible());
        let (option, size) = option(&claim.client);
        let (at, length) = *ours[0];
        // An IPv4 address may have been written as a mapped one.
        assert!(header[at..at + length] == option[..size] || claim.client.is_v4() && length == LENGTH_V6);
    }
    let size = options.iter().find(|(at, length)| (header[*at], *length) == (2, 4));
    if end != 0 {
        assert_eq!(mss(&header, end), size.map_or(0, |(at, _)| at + 2));
    }
    prepared(&header, present, end, &client(told));
    of_cookie(told, bytes);
});

/// The options by stepping from one to the next, each with its place and length.
fn walk(header: &[u8; ROOM], end: usize) -> Vec<(usize, usize)> {
    let (mut found, mut at) = (Vec::new(), HEADER);
    while at < end && header[at] != 0 {
        if header[at] == 1 {
            at += 1;
            continue;
        }
        match header[..end].get(at + 1) {
            Some(&length) if length >= 2 && at + usize::from(length) <= end => {
                found.push((at, usize::from(length)));
                at += usize::from(length);
            }
            _ => break,
        }
    }
    found
}

fn is_ours(header: &[u8; ROOM], (at, length): &(usize, usize)) -> bool {
    header[*at] == KIND && (*length == LENGTH_V4 || *length == LENGTH_V6)
}

/// What is made ready says nothing any more, has its other options, and takes one behind them.
fn prepared(before: &[u8; ROOM], present: usize, end: usize, client: &Client) {
    let mut header = *before;
    let done = prepare(&mut header, present);
    assert_eq!(header[..HEADER], before[..HEADER]);
    assert_eq!(header[end.max(HEADER)..], before[end.max(HEADER)..]);
    assert!(done.changed || header == *before);
    assert_eq!(read(&header, present).said, Said::Nothing);
    let kept = |header: &[u8; ROOM]| -> Vec<Vec<u8>> {
        let options = walk(header, end).into_iter().filter(|option| !is_ours(header, option));
        options.map(|(at, length)| header[at..at + length].to_vec()).collect()
    };
    assert_eq!(kept(&header), kept(before));
    let mut again = header;
    let second = prepare(&mut again, present);
    assert_eq!((again, second.open), (header, done.open));
    let (option, size) = option(client);
    if !done.open || end + size > HEADER_MOST || (end + size) % 4 != 0 {
        return;
    }
    header[end..end + size].copy_from_slice(&option[..size]);
    header[12] = header[12] & 0x0f | (((end + size) / 4) as u8) << 4;
    let claim = read(&header, end + size);
    if client.is_possible() {
        assert_eq!((claim.said, claim.client), (Said::Client, *client));
    } else {
        assert_eq!(claim.said, Said::Nonsense);
    }
}

/// The option's bytes, and how many count.
fn option(client: &Client) -> ([u8; LENGTH_V6], usize) {
    let (words, length) = client.option();
    let mut bytes = [0; LENGTH_V6];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    (bytes, length)
}

fn client(bytes: &[u8; TOLD]) -> Client {
    let half = |at: usize| u64::from_ne_bytes(std::array::from_fn(|n| bytes[at + n]));
    let port = u16::from_ne_bytes([bytes[16], bytes[17]]);
    Client { address: Address { high: half(0), low: half(8) }, port, reserved: [0; 3] }
}

/// The header that a cookie is made of, and the numbers that are moved by it.
fn of_cookie(told: &[u8; TOLD], bytes: &[u8]) {
    let Some(&[a, b, c, d, e, f, g, h, i, j, ..]) = bytes.first_chunk::<10>() else { return };
    let (first, second) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
    let size = u16::from_ne_bytes([i, j]);
    let Client { address, port, .. } = client(told);
    let tuple = Tuple { source: address, destination: address, source_port: port, ..Tuple::default() };
    let mut header = [0; ROOM];
    let words = cookie::syn(&tuple, first, size);
    for (to, word) in header.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let at = mss(&header, size_of_val(&words));
    assert_eq!(header[at..at + 2], size.to_be_bytes());
    assert_eq!(header[4..8], first.to_be_bytes());
    assert_eq!(read(&header, size_of_val(&words)).said, Said::Nothing);
    let by = cookie::shift_of(first, second);
    assert_eq!(cookie::moved(second.to_be(), by), first.to_be());
    assert_eq!(cookie::moved(first.to_be(), by.wrapping_neg()), second.to_be());
}
