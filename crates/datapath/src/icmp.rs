//! What an ICMP error of one family says in the other (RFC 7915, sections 4.2 and 5.2): its type and code, and the second word
//! of its header, which is an MTU (bytes) or points to an octet of the quoted header.
//!
//! Deliberately absent: what an error quotes, and every ICMP message that is no error.

/// How much longer the header of IPv6 is than that of IPv4, in bytes.
const LONGER: u32 = 20;

/// The smallest MTU of an IPv6 path, in bytes (RFC 8200, section 5).
pub const SMALLEST: u32 = 1280;

/// The beginning of an error's header without its checksum, host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The type, and in the low byte the code.
    pub kind: u16,
    /// The second word.
    pub word: u32,
}

impl Error {
    const fn new(kind: u8, code: u8, word: u32) -> Self {
        Self { kind: (kind as u16) << 8 | code as u16, word }
    }
}

/// What an error of IPv4 says in IPv6; `None` is one that says nothing there. `length` is that of the packet that it
/// quotes, `mtu` what the way to that packet's sender takes.
#[inline(always)]
#[must_use]
pub fn to_ipv6(kind: u8, code: u8, word: u32, length: u32, mtu: u32) -> Option<Error> {
    Some(match (kind, code) {
        (3, 0 | 1 | 5..=8 | 11 | 12) => Error::new(1, 0, 0),
        // Nobody there speaks the protocol: the octet of the header that names it.
        (3, 2) => Error::new(4, 1, 6),
        (3, 3) => Error::new(1, 4, 0),
        (3, 4) => {
            let size = match word & 0xffff {
                0 => plateau(length),
                told => told + LONGER,
            };
            Error::new(2, 0, if size < mtu { size } else { mtu }.max(SMALLEST))
        }
        (3, 9 | 10 | 13 | 15) => Error::new(1, 1, 0),
        (11, code) => Error::new(3, code, 0),
        (12, 0 | 2) => Error::new(4, 0, pointer_to_ipv6(word >> 24)?),
        _ => return None,
    })
}

/// What an error of IPv6 says in IPv4; `None` is one that says nothing there. `mtu` is what the way to the sender of the
/// quoted packet takes.
#[inline(always)]
#[must_use]
pub fn to_ipv4(kind: u8, code: u8, word: u32, mtu: u32) -> Option<Error> {
    Some(match (kind, code) {
        (1, 0 | 2 | 3) => Error::new(3, 1, 0),
        (1, 1) => Error::new(3, 10, 0),
        (1, 4) => Error::new(3, 3, 0),
        // No path has less, and an error that says so is to be ignored (RFC 8201, section 4).
        (2, _) if word >= SMALLEST => {
            let size = word - LONGER;
            Error::new(3, 4, if size < mtu { size } else { mtu }.min(0xffff))
        }
        (3, code) => Error::new(11, code, 0),
        (4, 0) => Error::new(12, 0, pointer_to_ipv4(word)? << 24),
        (4, 1) => Error::new(3, 2, 0),
        _ => return None,
    })
}

/// The MTU that a router without one in its errors may have meant: the largest usual one that is less than the packet's
/// length (RFC 1191, section 7), of those that are an IPv6 path's.
#[inline(always)]
const fn plateau(length: u32) -> u32 {
    match length {
        32_001.. => 32_000,
        17_915.. => 17_914,
        8_167.. => 8_166,
        4_353.. => 4_352,
        2_003.. => 2_002,
        1_493.. => 1_492,
        _ => SMALLEST,
    }
}

/// The octet of an IPv6 header that has the field of an IPv4 header's `octet` (RFC 7915, figure 3).
#[inline(always)]
const fn pointer_to_ipv6(octet: u32) -> Option<u32> {
    Some(match octet {
        0 | 1 => octet,
        2 | 3 => 4,
        8 => 7,
        9 => 6,
        12..=15 => 8,
        16..=19 => 24,
        _ => return None,
    })
}

/// The octet of an IPv4 header that has the field of an IPv6 header's `octet` (RFC 7915, figure 6).
#[inline(always)]
const fn pointer_to_ipv4(octet: u32) -> Option<u32> {
    Some(match octet {
        0 | 1 => octet,
        4 | 5 => 2,
        6 => 9,
        7 => 8,
        8..=23 => 12,
        24..=39 => 16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Larger than what is told.
    const WIDE: u32 = 9000;

    fn to_6(kind: u8, code: u8, word: u32) -> Option<(u8, u8, u32)> {
        to_ipv6(kind, code, word, 1500, WIDE).map(parts)
    }

    fn to_4(kind: u8, code: u8, word: u32) -> Option<(u8, u8, u32)> {
        to_ipv4(kind, code, word, WIDE).map(parts)
    }

    fn parts(error: Error) -> (u8, u8, u32) {
        ((error.kind >> 8) as u8, error.kind as u8, error.word)
    }

    #[test]
    fn unreachable_is_told_as_the_standard_lists_it() {
        // Every code of IPv4, in order.
        let listed = [
            Some((1, 0, 0)),
            Some((1, 0, 0)),
            Some((4, 1, 6)),
            Some((1, 4, 0)),
            Some((2, 0, 1420)),
            Some((1, 0, 0)),
            Some((1, 0, 0)),
            Some((1, 0, 0)),
            Some((1, 0, 0)),
            Some((1, 1, 0)),
            Some((1, 1, 0)),
            Some((1, 0, 0)),
            Some((1, 0, 0)),
            Some((1, 1, 0)),
            None,
            Some((1, 1, 0)),
            None,
        ];
        for (code, expected) in (0..).zip(listed) {
            assert_eq!(to_6(3, code, 1400), expected, "code {code}");
        }
        let listed =
            [Some((3, 1, 0)), Some((3, 10, 0)), Some((3, 1, 0)), Some((3, 1, 0)), Some((3, 3, 0)), None];
        for (code, expected) in (0..).zip(listed) {
            assert_eq!(to_4(1, code, 0), expected, "code {code}");
        }
    }

    #[test]
    fn an_mtu_is_that_of_the_other_header_and_never_more_than_the_way_takes() {
        assert_eq!(to_6(3, 4, 1400), Some((2, 0, 1420)));
        // The upper half is not the MTU's.
        assert_eq!(to_6(3, 4, 0xabcd_0000 | 1400), Some((2, 0, 1420)));
        assert_eq!(to_ipv6(3, 4, 1480, 1500, 1400).map(parts), Some((2, 0, 1400)));
        // An IPv6 sender is told nothing that it would not believe.
        assert_eq!(to_6(3, 4, 576), Some((2, 0, 1280)));
        assert_eq!(to_ipv6(3, 4, 1480, 1500, 600).map(parts), Some((2, 0, 1280)));
        assert_eq!(to_4(2, 0, 1420), Some((3, 4, 1400)));
        assert_eq!(to_4(2, 0, 1280), Some((3, 4, 1260)));
        assert_eq!(to_4(2, 0, 1279), None);
        assert_eq!(to_ipv4(2, 0, 1500, 1400).map(parts), Some((3, 4, 1400)));
        assert_eq!(to_ipv4(2, 0, u32::MAX, u32::MAX).map(parts), Some((3, 4, 0xffff)));
    }

    #[test]
    fn a_router_that_tells_no_mtu_has_meant_the_next_usual_one() {
        for (length, told) in [
            (1500, 1492),
            (1492, 1280),
            (1280, 1280),
            (600, 1280),
            (2003, 2002),
            (9000, 8166),
            (65_535, 9000),
        ] {
            assert_eq!(to_ipv6(3, 4, 0, length, WIDE).map(parts), Some((2, 0, told)), "of {length}");
        }
    }

    #[test]
    fn what_is_pointed_at_is_the_same_field() {
        let far = |octet: u32| to_6(12, 0, octet << 24);
        for (octet, there) in
            [(0, 0), (1, 1), (2, 4), (3, 4), (8, 7), (9, 6), (12, 8), (15, 8), (16, 24), (19, 24)]
        {
            assert_eq!(far(octet), Some((4, 0, there)), "octet {octet}");
        }
        for octet in [4, 5, 6, 7, 10, 11, 20, 255] {
            assert_eq!(far(octet), None, "octet {octet}");
        }
        for (octet, there) in
            [(0, 0), (1, 1), (4, 2), (5, 2), (6, 9), (7, 8), (8, 12), (23, 12), (24, 16), (39, 16)]
        {
            assert_eq!(to_4(4, 0, octet), Some((12, 0, there << 24)), "octet {octet}");
        }
        for octet in [2, 3, 40, u32::MAX] {
            assert_eq!(to_4(4, 0, octet), None, "octet {octet}");
        }
        assert_eq!(to_6(12, 1, 0), None);
        assert_eq!(to_6(12, 2, 2 << 24), Some((4, 0, 4)));
        assert_eq!((to_4(4, 1, 6), to_4(4, 2, 40)), (Some((3, 2, 0)), None));
    }

    #[test]
    fn time_that_is_over_keeps_its_code_and_what_is_no_error_says_nothing() {
        assert_eq!((to_6(11, 1, 7), to_4(3, 1, 7)), (Some((3, 1, 0)), Some((11, 1, 0))));
        for kind in [0, 4, 5, 8, 13, 42] {
            assert_eq!(to_6(kind, 0, 0), None, "type {kind}");
        }
        for kind in [0, 100, 128, 129, 133, 135, 137] {
            assert_eq!(to_4(kind, 0, 0), None, "type {kind}");
        }
    }
}
