//! The rounds of Bob Jenkins' lookup3 (2006, public domain) in the form of the kernel's `jhash()` (`include/linux/jhash.h`),
//! which reads words in the host's byte order.
//!
//! Deliberately absent: where the words come from, bytes (`portway_core::balance`) or maps ([`crate::balance`]).

/// The state before the first of `length` bytes.
#[inline(always)]
#[must_use]
pub const fn start(length: u32, seed: u32) -> [u32; 3] {
    let word = 0xdead_beef_u32.wrapping_add(length).wrapping_add(seed);
    [word, word, word]
}

/// The state after twelve bytes, if there are more.
#[inline(always)]
#[must_use]
pub const fn mix(words: [u32; 3], [a, b, c]: [u32; 3]) -> [u32; 3] {
    let (mut a, mut b, mut c) =
        (a.wrapping_add(words[0]), b.wrapping_add(words[1]), c.wrapping_add(words[2]));
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    [a, b, c]
}

/// The hash: after the last twelve bytes, or fewer and zeros. Without any it is the last word of the state.
#[inline(always)]
#[must_use]
pub const fn last(words: [u32; 3], [a, b, c]: [u32; 3]) -> u32 {
    let (mut a, mut b, mut c) =
        (a.wrapping_add(words[0]), b.wrapping_add(words[1]), c.wrapping_add(words[2]));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}
