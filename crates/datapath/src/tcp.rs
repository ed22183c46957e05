//! TCP: how far a connection is by the flags that pass (RFC 9293 3.3.2), and its options.
//!
//! Sequence numbers are not looked at: a forged FIN or RST only shortens the time that the flow is kept while nothing
//! passes, and the next segment makes up for it.
//!
//! Deliberately absent: how long a state lasts ([`crate::record::timeout_of`]).

use crate::abi::state;
use crate::record::Direction;

/// Bits of the flags' byte.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// Acknowledgement.
    pub const ACK: u8 = 16;
}

/// The kind of the option of maximum segment size (RFC 9293 3.2).
pub const MSS: u8 = 2;

/// The kind of the option that the LVS toa module reads.
pub const TOA: u8 = 254;

/// The bytes that options may have.
pub const OPTIONS: usize = 40;

/// A segment that begins a connection.
#[inline(always)]
#[must_use]
pub const fn begins(flags: u8) -> bool {
    flags & (flags::SYN | flags::ACK | flags::RST | flags::FIN) == flags::SYN
}

/// The state after a segment with `flags` in this direction.
#[inline(always)]
#[must_use]
pub const fn follow(before: u32, flags: u8, direction: Direction) -> u32 {
    if flags & flags::RST != 0 {
        return before | state::RST;
    }
    // Whoever still sends has not been reset.
    let mut after = before & !state::RST;
    match direction {
        Direction::Forth => {
            if flags & flags::SYN != 0 {
                after |= state::SYN;
            } else if flags & flags::ACK != 0 && after & state::SYN_BACK != 0 {
                after |= state::ESTABLISHED;
            }
            if flags & flags::FIN != 0 {
                after |= state::FIN;
            }
        }
        Direction::Back => {
            if flags & flags::SYN != 0 {
                after |= state::SYN_BACK;
            }
            if flags & flags::FIN != 0 {
                if after & state::FIN == 0 {
                    after |= state::BACKEND_FIRST;
                }
                after |= state::FIN_BACK;
            }
        }
    }
    after
}

/// Whether a SYN of the client finds nothing of the former connection: both sides are done, or it was reset.
#[inline(always)]
#[must_use]
pub const fn is_over(bits: u32) -> bool {
    bits & state::RST != 0 || bits & (state::FIN | state::FIN_BACK) == state::FIN | state::FIN_BACK
}

/// Where the option of this `kind` begins in the first `length` bytes of `options`, if it is whole.
#[inline(always)]
#[must_use]
pub fn option(options: &[u8; OPTIONS], length: usize, kind: u8) -> Option<usize> {
    let mut at = 0;
    // Every option but two has two bytes at least, and those two have one.
    for _ in 0..OPTIONS {
        if at >= length {
            return None;
        }
        let found = *options.get(at)?;
        if found == 0 {
            return None;
        }
        if found == 1 {
            at += 1;
            continue;
        }
        let size = usize::from(*options.get(at + 1)?);
        if size < 2 || at + size > length {
            return None;
        }
        if found == kind {
            return Some(at);
        }
        at += size;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use flags::{ACK, FIN, RST, SYN};
    use proptest::prelude::*;

    fn run(segments: &[(u8, Direction)]) -> u32 {
        segments.iter().fold(0, |bits, (flags, direction)| follow(bits, *flags, *direction))
    }

    const OPENED: [(u8, Direction); 3] =
        [(SYN, Direction::Forth), (SYN | ACK, Direction::Back), (ACK, Direction::Forth)];

    #[test]
    fn the_handshake_takes_three() {
        assert_eq!(run(&OPENED[..1]), state::SYN);
        assert_eq!(run(&OPENED[..2]), state::SYN | state::SYN_BACK);
        assert_eq!(run(&OPENED), state::SYN | state::SYN_BACK | state::ESTABLISHED);
        assert_eq!(run(&[OPENED[0], OPENED[2]]), state::SYN, "not without the backend");
    }

    #[test]
    fn who_closes_first_is_kept() {
        let closed = |first, second| {
            let mut all = OPENED.to_vec();
            all.extend([(FIN | ACK, first), (FIN | ACK, second), (ACK, first)]);
            run(&all)
        };
        assert_eq!(closed(Direction::Forth, Direction::Back) & state::BACKEND_FIRST, 0);
        assert_ne!(closed(Direction::Back, Direction::Forth) & state::BACKEND_FIRST, 0);
        assert!(is_over(closed(Direction::Forth, Direction::Back)));
        assert!(!is_over(run(&OPENED)));
    }

    #[test]
    fn a_reset_that_was_not_believed_is_forgotten() {
        let mut all = OPENED.to_vec();
        all.push((RST, Direction::Back));
        assert!(is_over(run(&all)));
        all.push((ACK, Direction::Forth));
        assert_eq!(run(&all), run(&OPENED));
    }

    #[test]
    fn options_are_walked() {
        let mut options = [0; OPTIONS];
        options[..12].copy_from_slice(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        options[12..16].copy_from_slice(&[2, 4, 5, 0xb4]);
        assert_eq!(option(&options, 16, MSS), Some(12));
        assert_eq!(option(&options, 15, MSS), None, "cut off");
        assert_eq!(option(&options, 16, TOA), None);
    }

    proptest! {
        #[test]
        fn an_option_found_is_whole(options: [u8; OPTIONS], length in 0..=OPTIONS, kind in 2u8..) {
            if let Some(at) = option(&options, length, kind) {
                prop_assert_eq!(options[at], kind);
                prop_assert!(at + usize::from(options[at + 1]) <= length);
            }
        }
    }
}
