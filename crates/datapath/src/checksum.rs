//! The Internet checksum (RFC 1071) of what changes in a packet, rather than of the packet (RFC 1624).
//!
//! A one's complement sum does not care about byte order as long as all of it is in the same one, so words are taken as
//! they lie in memory and never swapped.
//!
//! Deliberately absent: what a kernel's socket buffer knows of its checksum (the kernel programs).

use crate::abi::Address;

/// The sum of what has been added to a packet and taken from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference(u64);

impl Difference {
    /// Nothing has changed.
    pub const NONE: Self = Self(0);

    /// `word`, as it lies in memory, has been added at an even offset.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, word: u32) -> Self {
        Self(self.0.wrapping_add(word as u64))
    }

    /// `word` has been taken away at an even offset.
    #[inline(always)]
    #[must_use]
    pub const fn minus(self, word: u32) -> Self {
        Self(self.0.wrapping_add(!word as u64))
    }

    /// Both halves of `words` have been added.
    #[inline(always)]
    #[must_use]
    pub const fn plus_two(self, words: u64) -> Self {
        self.plus(words as u32).plus((words >> 32) as u32)
    }

    /// Both halves of `words` have been taken away.
    #[inline(always)]
    #[must_use]
    pub const fn minus_two(self, words: u64) -> Self {
        self.minus(words as u32).minus((words >> 32) as u32)
    }

    /// `address` has been added. The prefix of mapped IPv4 addresses counts, so that it cancels out where one replaces
    /// another, and must not be used where one replaces an IPv6 address ([`Self::plus_ipv4`]).
    #[inline(always)]
    #[must_use]
    pub const fn plus_address(self, address: Address) -> Self {
        self.plus(address.high as u32)
            .plus((address.high >> 32) as u32)
            .plus(address.low as u32)
            .plus((address.low >> 32) as u32)
    }

    /// `address` has been taken away.
    #[inline(always)]
    #[must_use]
    pub const fn minus_address(self, address: Address) -> Self {
        self.minus(address.high as u32)
            .minus((address.high >> 32) as u32)
            .minus(address.low as u32)
            .minus((address.low >> 32) as u32)
    }

    /// The four bytes of a mapped IPv4 address have been added.
    #[inline(always)]
    #[must_use]
    pub const fn plus_ipv4(self, address: Address) -> Self {
        self.plus((address.low >> 32) as u32)
    }

    /// The four bytes of a mapped IPv4 address have been taken away.
    #[inline(always)]
    #[must_use]
    pub const fn minus_ipv4(self, address: Address) -> Self {
        self.minus((address.low >> 32) as u32)
    }

    /// Another difference has been made too.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// What takes it back.
    #[inline(always)]
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(!self.folded() as u64)
    }

    /// The sum in 32 bits, as the kernel's `__wsum`.
    #[inline(always)]
    #[must_use]
    pub const fn folded(self) -> u32 {
        let once = (self.0 & 0xffff_ffff).wrapping_add(self.0 >> 32);
        ((once & 0xffff_ffff).wrapping_add(once >> 32)) as u32
    }

    /// The sum in 16 bits.
    #[inline(always)]
    #[must_use]
    pub const fn short(self) -> u16 {
        // At most 2^33, 2^18, 0x10002 and 0xffff.
        let sum = (self.0 & 0xffff_ffff).wrapping_add(self.0 >> 32);
        let sum = (sum & 0xffff).wrapping_add(sum >> 16);
        let sum = (sum & 0xffff).wrapping_add(sum >> 16);
        ((sum & 0xffff).wrapping_add(sum >> 16)) as u16
    }

    /// What the checksum `check` has become (RFC 1624, equation 3).
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, check: u16) -> u16 {
        !Self(self.0.wrapping_add(!check as u64)).short()
    }

    /// The same of a UDP checksum: 0 says that there is none, and a sum of 0 is sent as all ones (RFC 768).
    #[inline(always)]
    #[must_use]
    pub const fn apply_udp(self, check: u16) -> u16 {
        if check == 0 {
            return 0;
        }
        match self.apply(check) {
            0 => 0xffff,
            check => check,
        }
    }

    /// The checksum of what has been added, all of it.
    #[inline(always)]
    #[must_use]
    pub const fn check(self) -> u16 {
        !self.short()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, section 4.1, word by word in network order.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
        bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
    }

    fn same(a: u16, b: u16) -> bool {
        // There are two zeros.
        a == b || (a.min(b) == 0 && a.max(b) == 0xffff)
    }

    proptest! {
        #[test]
        fn what_has_changed_is_enough(old in proptest::collection::vec(any::<u8>(), 40), new in proptest::collection::vec(any::<u8>(), 36)) {
            let before = slow(&old).to_be();
            let mut packet = old.clone();
            packet[4..].copy_from_slice(&new);
            let difference = words(&old[4..]).fold(Difference::NONE, Difference::minus);
            let difference = words(&new).fold(difference, Difference::plus);
            prop_assert!(same(difference.apply(before), slow(&packet).to_be()));
        }

        #[test]
        fn the_whole_is_the_difference_from_nothing(bytes in proptest::collection::vec(any::<u8>(), 64)) {
            let sum = words(&bytes).fold(Difference::NONE, Difference::plus);
            prop_assert_eq!(sum.check(), slow(&bytes).to_be());
        }

        #[test]
        fn udp_never_becomes_unchecked(check: u16, word: u32) {
            let after = Difference::NONE.plus(word).apply_udp(check);
            prop_assert_eq!(after == 0, check == 0);
        }
    }

    #[test]
    fn the_prefix_of_mapped_addresses_cancels_out() {
        let mapped =
            |last: u8| Address { high: 0, low: u64::from_ne_bytes([0, 0, 0xff, 0xff, 192, 0, 2, last]) };
        let long = Difference::NONE.minus_address(mapped(1)).plus_address(mapped(9));
        let short = Difference::NONE.minus_ipv4(mapped(1)).plus_ipv4(mapped(9));
        assert!(same(long.apply(0x1234), short.apply(0x1234)));
    }
}
