//! Connections that a SYN cookie opens (RFC 4987 3.6): the headers that the kernel makes and checks cookies of, and the
//! numbers of the two connections that become one.
//!
//! The client has the cookie for the server's first sequence number, the backend knows only its own: from then on
//! [`shift_of`] both is taken from what the backend sends and added to what the client acknowledges. Selective
//! acknowledgements would have to follow; they are not negotiated, for of options the answer has only the segment size.
//!
//! Deliberately absent: the cookie itself. Its secret is the kernel's, and stays there.

use crate::abi::Tuple;
use crate::tcp::flags;

/// The segment sizes that a cookie over IPv4 tells apart (`net/ipv4/syncookies.c`), largest first.
pub const SIZES_V4: [u16; 4] = [1460, 1440, 1300, 536];

/// Those over IPv6 (`net/ipv6/syncookies.c`).
pub const SIZES_V6: [u16; 4] = [8940, 1440, 1420, 1220];

/// How long after a rule's last cookie an acknowledgement may still bring one back, in seconds: the kernel takes cookies
/// of this and the last two of its periods of 64 s (`MAX_SYNCOOKIE_AGE`).
pub const LIFE: u32 = 192;

/// A TCP header with one option, the segment size, in words as they lie in memory.
pub type Header = [u32; 6];

/// The header of the client's SYN, or what there is of it in a cookie.
#[inline(always)]
#[must_use]
pub const fn syn(tuple: &Tuple, sequence: u32, size: u16) -> Header {
    let control = (6 << 28 | (flags::SYN as u32) << 16 | 0xffff).to_be();
    let option = (2 << 24 | 4 << 16 | size as u32).to_be();
    [tuple.ports(), sequence.to_be(), 0, control, 0, option]
}

/// The header of what may bring the cookie back.
#[inline(always)]
#[must_use]
pub const fn acknowledgement(tuple: &Tuple, sequence: u32, acknowledges: u32) -> Header {
    let control = (5 << 28 | (flags::ACK as u32) << 16 | 0xffff).to_be();
    [tuple.ports(), sequence.to_be(), acknowledges.to_be(), control, 0, 0]
}

/// As much of an IPv4 header as a cookie is made of: the addresses.
#[inline(always)]
#[must_use]
pub const fn ipv4(tuple: &Tuple) -> [u32; 5] {
    [5 << 4 | 4, 0, 0, tuple.source.last_word(), tuple.destination.last_word()]
}

/// The same of IPv6.
#[inline(always)]
#[must_use]
pub const fn ipv6(tuple: &Tuple) -> [u32; 10] {
    let (from, to) = (tuple.source, tuple.destination);
    [
        0x60,
        0,
        from.high as u32,
        (from.high >> 32) as u32,
        from.low as u32,
        (from.low >> 32) as u32,
        to.high as u32,
        (to.high >> 32) as u32,
        to.low as u32,
        (to.low >> 32) as u32,
    ]
}

/// What the backend's sequence numbers are ahead of the client's, wrapping.
#[inline(always)]
#[must_use]
pub const fn shift_of(backends_first: u32, cookie: u32) -> u32 {
    backends_first.wrapping_sub(cookie)
}

/// A sequence or acknowledgement number, as it lies in memory, moved on by as much.
#[inline(always)]
#[must_use]
pub const fn moved(number: u32, by: u32) -> u32 {
    u32::from_be(number).wrapping_add(by).to_be()
}

/// Whether a segment can be one that brings a cookie back: data and FIN may come along when what came first is lost.
#[inline(always)]
#[must_use]
pub const fn may_return(bits: u8) -> bool {
    bits & (flags::SYN | flags::RST | flags::ACK) == flags::ACK
}

/// Whether a second is within [`LIFE`] of the one that is noted in `word`: as a rule's rate has it, 0 for never.
#[inline(always)]
#[must_use]
pub const fn is_recent(word: u64, second: u32) -> bool {
    // Another processor's clock may be ahead.
    word >> 32 != 0 && second.wrapping_sub(word as u32).wrapping_add(1) <= LIFE + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Address;
    use proptest::prelude::*;

    fn bytes<const N: usize>(words: [u32; N]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    const TUPLE: Tuple = Tuple {
        source: Address { high: 0, low: u64::from_ne_bytes([0, 0, 0xff, 0xff, 192, 0, 2, 1]) },
        destination: Address { high: 0, low: u64::from_ne_bytes([0, 0, 0xff, 0xff, 198, 51, 100, 7]) },
        source_port: 0x1234_u16.to_be(),
        destination_port: 80_u16.to_be(),
        protocol: 6,
    };

    #[test]
    fn headers_are_those_of_the_segments() {
        let header = bytes(syn(&TUPLE, 0x0102_0304, 1460));
        assert_eq!(header[..8], [0x12, 0x34, 0, 80, 1, 2, 3, 4]);
        assert_eq!(header[12..14], [6 << 4, flags::SYN]);
        assert_eq!(header[20..22], [2, 4]);
        assert_eq!(header[22..], 1460_u16.to_be_bytes());
        let header = bytes(acknowledgement(&TUPLE, 0x0102_0305, 0x0a0b_0c0e));
        assert_eq!(header[4..14], [1, 2, 3, 5, 10, 11, 12, 14, 5 << 4, flags::ACK]);
        assert_eq!(bytes(ipv4(&TUPLE))[12..], [192, 0, 2, 1, 198, 51, 100, 7]);
    }

    #[test]
    fn what_cannot_bring_one_back() {
        assert!(may_return(flags::ACK) && may_return(flags::ACK | flags::FIN));
        for bits in [0, flags::SYN, flags::SYN | flags::ACK, flags::RST, flags::RST | flags::ACK, flags::FIN]
        {
            assert!(!may_return(bits), "{bits}");
        }
    }

    #[test]
    fn a_rule_that_has_sent_none_takes_none() {
        assert!(!is_recent(0, 0) && !is_recent(0, 5));
        let noted = |second: u32| 1 << 32 | u64::from(second);
        assert!(is_recent(noted(1000), 1000) && is_recent(noted(1000), 1000 + LIFE));
        assert!(is_recent(noted(1000), 999), "a clock that is behind");
        assert!(!is_recent(noted(1000), 1001 + LIFE) && !is_recent(noted(1000), 900));
        assert!(is_recent(noted(u32::MAX), 3), "over the end of the word");
    }

    proptest! {
        /// Each side gets its own numbers back, wherever in the space of numbers both begin.
        #[test]
        fn both_sides_count_on(cookie: u32, backends_first: u32, sent: u32) {
            let by = shift_of(backends_first, cookie);
            let of_backend = backends_first.wrapping_add(sent);
            let to_client = moved(of_backend.to_be(), by.wrapping_neg());
            prop_assert_eq!(u32::from_be(to_client), cookie.wrapping_add(sent));
            prop_assert_eq!(u32::from_be(moved(to_client, by)), of_backend);
        }

        #[test]
        fn addresses_of_ipv6_lie_where_they_do(source: [u8; 16], destination: [u8; 16]) {
            let address = |bytes: [u8; 16]| Address {
                high: u64::from_ne_bytes(bytes[..8].try_into().unwrap()),
                low: u64::from_ne_bytes(bytes[8..].try_into().unwrap()),
            };
            let tuple = Tuple { source: address(source), destination: address(destination), ..TUPLE };
            let header = bytes(ipv6(&tuple));
            prop_assert_eq!(&header[8..24], &source);
            prop_assert_eq!(&header[24..], &destination);
        }
    }
}
