//! The arithmetic of choosing a backend: slot tables and the hash that finds a slot.
//!
//! Every policy that looks only at the client or at its own turn becomes a table from slot to member, the same on
//! every engine: nf_tables holds it as map elements, the proxy as an array, so a rule that moves from one to the other
//! keeps its clients where they were. Deliberately absent: policies that look at live flows (least connections, two
//! choices), which only an engine that counts them can follow.

use std::net::{IpAddr, SocketAddr};

use crate::members::Member;
use crate::ruleset::{Balance, HashKey};

/// The most slots of a table whose slots are shares; with more, shares are rounded to this.
pub const MOST_SLOTS: usize = 4096;

/// The sizes of Maglev tables: primes, each used for up to a hundredth as many members, so that shares differ by at
/// most 1 % (Eisenbud et al., "Maglev", NSDI 2016, section 5.3).
const MAGLEV_SIZES: [usize; 4] = [1021, 4093, 16_381, 65_521];

/// The seed of the hash of clients. Fixed, so that a client meets the same backend on every host and after every
/// restart.
pub const SEED: u32 = 0x506f_7274;

/// Which member (an index into `members`, which are at most [`crate::ruleset::Pool::MOST_MEMBERS`] and not empty) each
/// slot leads to. Policies that count live flows are spread by their weights, like round robin.
pub fn table(balance: Balance, members: &[Member]) -> Vec<u16> {
    let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
    match balance {
        Balance::First => vec![0],
        Balance::RoundRobin | Balance::LeastConnections | Balance::Random => in_turn(&shares(&weights)),
        Balance::SourceHash => {
            let shares = shares(&weights);
            let runs = (0..).zip(&shares).map(|(nth, share)| std::iter::repeat_n(nth, *share as usize));
            runs.flatten().collect()
        }
        Balance::ConsistentHash => {
            let ids: Vec<String> = members.iter().map(|member| member.target.to_string()).collect();
            maglev(&ids.iter().map(String::as_bytes).zip(weights).collect::<Vec<_>>())
        }
    }
}

/// The slots of each member: the weights divided by what they have in common, and cut down where that makes more
/// than [`MOST_SLOTS`] in all. Every member keeps a slot.
fn shares(weights: &[u32]) -> Vec<u32> {
    let common = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    let shares: Vec<u32> = weights.iter().map(|weight| weight / common).collect();
    let total: u64 = shares.iter().map(|share| u64::from(*share)).sum();
    let most = MOST_SLOTS as u64;
    if total <= most {
        return shares;
    }
    // The largest remainders get the slots that rounding down leaves (Hamilton's method).
    let mut cut: Vec<(u32, u64)> = shares
        .iter()
        .map(|share| (u64::from(*share) * most / total, u64::from(*share) * most % total))
        .map(|(slots, rest)| (u32::try_from(slots).unwrap_or(u32::MAX).max(1), rest))
        .collect();
    let used: u64 = cut.iter().map(|(slots, _)| u64::from(*slots)).sum();
    let mut order: Vec<usize> = (0..cut.len()).collect();
    order.sort_by_key(|nth| std::cmp::Reverse(cut[*nth].1));
    let left = usize::try_from(most.saturating_sub(used)).unwrap_or(0);
    for nth in order.into_iter().take(left) {
        cut[nth].0 += 1;
    }
    cut.into_iter().map(|(slots, _)| slots).collect()
}

/// The greatest common divisor; 0 divides like nothing.
pub(crate) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Every member as often as it has slots, as evenly spread as its share allows (the smooth weighted round robin of
/// nginx, commit 52327e0627f4): each turn goes to the one that has waited most for its share.
fn in_turn(shares: &[u32]) -> Vec<u16> {
    let total: i64 = shares.iter().map(|share| i64::from(*share)).sum();
    let mut waited: Vec<i64> = vec![0; shares.len()];
    let mut turns = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
    for _ in 0..total {
        let mut next = 0;
        for (nth, share) in shares.iter().enumerate() {
            waited[nth] += i64::from(*share);
            if waited[nth] > waited[next] {
                next = nth;
            }
        }
        waited[next] -= total;
        turns.push(u16::try_from(next).unwrap_or(u16::MAX));
    }
    turns
}

/// How many slots Maglev's table has for so many members.
pub fn maglev_slots(members: usize) -> usize {
    MAGLEV_SIZES.into_iter().find(|size| *size >= 100 * members).unwrap_or(65_521)
}

/// Maglev's table (section 3.4, pseudocode 1 of the paper) for members named by bytes, with weights: a member takes a
/// turn in as many rounds as its share of the largest weight.
fn maglev(members: &[(&[u8], u32)]) -> Vec<u16> {
    let size = maglev_slots(members.len());
    let largest = members.iter().map(|(_, weight)| u64::from(*weight)).max().unwrap_or(1);
    struct Turns {
        next: usize,
        skip: usize,
        weight: u64,
        owed: u64,
    }
    let mut turns: Vec<Turns> = members
        .iter()
        .map(|(id, weight)| Turns {
            next: jhash(id, SEED) as usize % size,
            skip: jhash(id, !SEED) as usize % (size - 1) + 1,
            weight: u64::from(*weight),
            owed: 0,
        })
        .collect();
    const FREE: u16 = u16::MAX;
    let mut table = vec![FREE; size];
    let mut filled = 0;
    loop {
        for (nth, turn) in turns.iter_mut().enumerate() {
            turn.owed += turn.weight;
            if turn.owed < largest {
                continue;
            }
            turn.owed -= largest;
            while table[turn.next] != FREE {
                turn.next = (turn.next + turn.skip) % size;
            }
            table[turn.next] = u16::try_from(nth).unwrap_or(u16::MAX - 1);
            filled += 1;
            if filled == size {
                return table;
            }
        }
    }
}

/// The slot of a hash in a table of `slots`: the high bits of their product, as the kernel's `reciprocal_scale` has it.
pub fn slot(hash: u32, slots: usize) -> usize {
    usize::try_from((u64::from(hash) * slots as u64) >> 32).unwrap_or(0)
}

/// The hash of a client as nf_tables computes it over its registers: the address, and behind it the port in a word of
/// its own. [`HashKey::Sni`] hashes the name; without one it is the address.
pub fn client_hash(key: HashKey, client: SocketAddr) -> u32 {
    let mut bytes = Vec::with_capacity(20);
    match client.ip().to_canonical() {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
    if key == HashKey::SourcePort {
        bytes.extend(client.port().to_be_bytes());
        bytes.extend([0; 2]);
    }
    jhash(&bytes, SEED)
}

/// Bob Jenkins' lookup3 (2006, public domain) in the form of the kernel's `jhash()` (`include/linux/jhash.h`), which
/// reads words in the host's byte order.
pub fn jhash(bytes: &[u8], seed: u32) -> u32 {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let start = 0xdead_beef_u32.wrapping_add(length).wrapping_add(seed);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = bytes;
    while rest.len() > 12 {
        let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        (a, b, c) = (a.wrapping_add(word(0)), b.wrapping_add(word(4)), c.wrapping_add(word(8)));
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
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return c;
    }
    // The tail is read byte by byte, lowest first, whatever the host's byte order.
    let byte = |at: usize| u32::from(rest.get(at).copied().unwrap_or(0));
    let word = |at: usize| byte(at) | byte(at + 1) << 8 | byte(at + 2) << 16 | byte(at + 3) << 24;
    (a, b, c) = (a.wrapping_add(word(0)), b.wrapping_add(word(4)), c.wrapping_add(word(8)));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}
