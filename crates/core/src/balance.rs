//! The arithmetic of choosing a backend: slot tables and the hash that finds a slot.
//!
//! Every policy that looks only at the client or at its own turn becomes a table from slot to member, the same on
//! every engine: nf_tables holds it as map elements, the proxy as an array, so a rule that moves from one to the other
//! keeps its clients where they were. Deliberately absent: policies that look at live flows (least connections, two
//! choices), which only an engine that counts them can follow.

use std::net::{IpAddr, SocketAddr};

use portway_datapath::jhash::{last, mix, start};

use crate::members::Member;
use crate::ruleset::{Balance, HashKey};

/// The slots that a table of shares may have, and more where there are many members: [`SLOTS_EACH`] for each.
const SLOTS: usize = 4096;

/// With that many slots for each member, rounding to whole slots moves less than 1 % of the flows.
const SLOTS_EACH: usize = 100;

/// The sizes of Maglev tables: primes, each for pools that it gives [`MAGLEV_EACH`] slots a member. Few sizes, because a
/// client's slots in two tables of different size have nothing to do with each other: a pool that outgrows its table is
/// spread afresh.
const MAGLEV_SIZES: [usize; 4] = [4093, 16_381, 65_521, 131_071];

/// A hundred slots a member make shares even to 1 % (Eisenbud et al., "Maglev", NSDI 2016, section 5.3); more make a
/// member that goes move less than its clients and 2 % of all (the `maglev` example measures it) in 99 of 100 pools of
/// random addresses. In the others two walks run in step and more do.
const MAGLEV_EACH: usize = 255;

/// The seed of the hash of clients. Fixed, so that a client meets the same backend on every host and after every
/// restart.
pub const SEED: u32 = 0x506f_7274;

/// Which member (an index into `members`, which are at most [`crate::ruleset::Pool::MOST_MEMBERS`] and not empty) each
/// slot leads to. Policies that count live flows are spread by their weights, like round robin. `places` is
/// [`crate::ruleset::Pool::places`]: a Maglev table's size follows from the pool and not from who is live, so that a
/// member that goes moves its own clients only.
pub fn table(balance: Balance, places: usize, members: &[Member]) -> Vec<u16> {
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
            maglev(maglev_size(places, members.len()), &ids, &weights)
        }
    }
}

/// The slots of each member: the weights divided by what they have in common, and cut down where that makes more
/// than the table may have. Every member keeps a slot.
fn shares(weights: &[u32]) -> Vec<u32> {
    let common = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    let shares: Vec<u32> = weights.iter().map(|weight| weight / common).collect();
    let total: u64 = shares.iter().map(|share| u64::from(*share)).sum();
    let most = SLOTS.max(SLOTS_EACH * weights.len()) as u64;
    if total <= most {
        return shares;
    }
    // The largest remainders get the slots that rounding down leaves (Hamilton's method). A share of less than a slot
    // has got more than it should already.
    let whole_and_rest = |share: &u32| match u64::from(*share) * most {
        product if product < total => (1, 0),
        product => (u32::try_from(product / total).unwrap_or(u32::MAX), product % total),
    };
    let mut cut: Vec<(u32, u64)> = shares.iter().map(whole_and_rest).collect();
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

/// The slots of Maglev's table for a pool of `places` of which `members` are there. Names may have far more addresses
/// than their places; then shares may differ by more than 1 %, and only where that would be 5 % the next size is taken.
pub fn maglev_size(places: usize, members: usize) -> usize {
    let fits = |size: &usize| *size >= MAGLEV_EACH * places && *size >= 20 * members;
    let [.., largest] = MAGLEV_SIZES;
    MAGLEV_SIZES.into_iter().find(fits).unwrap_or(largest)
}

/// Maglev's table (section 3.4, pseudocode 1 of the paper) for members named by `ids`, all different, with weights: a
/// member takes a turn in as many rounds as its share of the largest weight, and in the first. Turns go by the order of
/// the ids, so that the order of the file says nothing.
fn maglev(size: usize, ids: &[String], weights: &[u32]) -> Vec<u16> {
    struct Turns {
        nth: u16,
        next: usize,
        skip: usize,
        weight: u64,
        owed: u64,
    }
    let largest = weights.iter().copied().max().map_or(1, u64::from);
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|nth| &ids[*nth]);
    let turns = order.into_iter().map(|nth| {
        let (id, weight) = (ids[nth].as_bytes(), u64::from(weights[nth]));
        Turns {
            nth: u16::try_from(nth).unwrap_or(u16::MAX),
            next: jhash(id, SEED) as usize % size,
            skip: jhash(id, !SEED) as usize % (size - 1) + 1,
            weight,
            owed: largest - weight,
        }
    });
    let mut turns: Vec<Turns> = turns.collect();
    let mut table: Vec<Option<u16>> = vec![None; size];
    let mut free = if turns.is_empty() { 0 } else { size };
    while free > 0 {
        for turn in &mut turns {
            turn.owed += turn.weight;
            if turn.owed < largest || free == 0 {
                continue;
            }
            turn.owed -= largest;
            // The size is prime, so every slot is reached.
            while table[turn.next].is_some() {
                turn.next = (turn.next + turn.skip) % size;
            }
            table[turn.next] = Some(turn.nth);
            free -= 1;
        }
    }
    table.into_iter().flatten().collect()
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

/// The kernel's `jhash()` ([`portway_datapath::jhash`]) of bytes.
pub fn jhash(bytes: &[u8], seed: u32) -> u32 {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut state = start(length, seed);
    let mut rest = bytes;
    while rest.len() > 12 {
        let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        state = mix([word(0), word(4), word(8)], state);
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return state[2];
    }
    // The tail is read byte by byte, lowest first, whatever the host's byte order.
    let byte = |at: usize| u32::from(rest.get(at).copied().unwrap_or(0));
    let word = |at: usize| byte(at) | byte(at + 1) << 8 | byte(at + 2) << 16 | byte(at + 3) << 24;
    last([word(0), word(4), word(8)], state)
}
