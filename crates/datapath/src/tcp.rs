//! TCP: how far a connection is by the flags that pass (RFC 9293 3.3.2), and its options.
//!
//! Sequence numbers are not looked at: a forged RST shortens the time that the flow is kept while nothing passes, and the next
//! segment of either side makes up for it. If none comes, the loader's sweep has the backend say whether it believed it.
//!
//! Deliberately absent: how long a state lasts ([`crate::record::timeout_of`]).

use crate::abi::state;
use crate::record::Direction;
use crate::toa::{HEADER, HEADER_MOST, ROOM};

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

/// The kind and the length of the option of maximum segment size (RFC 9293 3.2).
const MSS: (u8, u8) = (2, 4);

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

/// A search for the option of maximum segment size. Every byte is passed over, rather than jumped from option to option, so
/// that each step is the same for the verifier ([`crate::toa`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Mss {
    end: u32,
    /// How many bytes of another option are still to come.
    within: u32,
    /// Where its value lies in the header; 0 if it has not been found.
    pub at: u32,
}

impl Mss {
    /// How many steps there are at most.
    pub const STEPS: u32 = (HEADER_MOST - HEADER) as u32;

    /// In a header of which the first `end` bytes are there.
    #[inline(always)]
    #[must_use]
    pub const fn new(end: usize) -> Self {
        Self { end: end as u32, within: 0, at: 0 }
    }

    /// Passes over one byte of the options; whether the search goes on.
    #[inline(always)]
    pub fn step(&mut self, header: &[u8; ROOM], nth: u32) -> bool {
        let at = HEADER + nth as usize;
        if at + 3 >= self.end as usize {
            return false;
        }
        if self.within > 0 {
            self.within -= 1;
            return true;
        }
        let (kind, length) = (header[at & (ROOM - 1)], header[(at + 1) & (ROOM - 1)]);
        if (kind, length) == MSS {
            self.at = at as u32 + 2;
            return false;
        }
        match kind {
            0 => return false,
            1 => {}
            _ if length < 2 => return false,
            _ => self.within = u32::from(length) - 1,
        }
        true
    }
}

/// Where in a TCP header, of which the first `end` bytes are there, the value of the option of maximum segment size lies; 0
/// if it has none.
#[must_use]
pub fn mss(header: &[u8; ROOM], end: usize) -> usize {
    let mut search = Mss::new(end);
    _ = (0..Mss::STEPS).find(|nth| !search.step(header, *nth));
    search.at as usize
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
        let mut header = [0; ROOM];
        header[20..32].copy_from_slice(&[1, 1, 8, 10, 2, 4, 3, 4, 5, 6, 7, 8]);
        header[32..36].copy_from_slice(&[2, 4, 5, 0xb4]);
        assert_eq!(mss(&header, 36), 34);
        assert_eq!(mss(&header, 35), 0, "cut off");
        header[20] = 0;
        assert_eq!(mss(&header, 36), 0, "behind the end");
    }

    proptest! {
        #[test]
        fn an_option_found_is_whole(header: [u8; 60], end in 20..=60usize) {
            let mut room = [0; ROOM];
            room[..60].copy_from_slice(&header);
            let at = mss(&room, end);
            if at != 0 {
                prop_assert_eq!((room[at - 2], room[at - 1]), MSS);
                prop_assert!(at + 2 <= end);
            }
        }
    }
}
