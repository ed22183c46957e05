//! How many slots a pool's chain draws from.
//!
//! Where possible a number that stays while one member or another goes and comes, so that the chain stays as well and
//! only elements change. A new rule in a chain has the kernel check every way through all chains, which takes tens of
//! milliseconds when there are ten thousand; and it starts the turns over.

use crate::balance::{gcd, maglev_size};
use crate::ruleset::{Balance, Rule};

/// The most slots that are taken to stay steady. Sixteen backends of one weight have 240.
const MOST: u32 = 256;
/// The slots of members that come from names: right for up to four of one weight.
const NAMED: u32 = 12;

/// The slots of a rule whose table (see [`crate::balance::table`]) has this length now, for so many members. At least
/// 2, and a multiple of the table's length.
pub fn slots(rule: &Rule, members: usize, table: usize) -> usize {
    let steady = match rule.pool.balance {
        Balance::ConsistentHash => Some(maglev_size(rule.pool.places(), members)),
        _ if rule.pool.has_names() => usize::try_from(NAMED).ok(),
        _ => steady(rule).and_then(|slots| usize::try_from(slots).ok()),
    };
    let fits = |slots: &usize| table == 0 || slots.is_multiple_of(table);
    steady.filter(fits).unwrap_or(table.max(2))
}

/// What the turns of all primaries fit into, and those of all but any one; `None` when that is too many.
fn steady(rule: &Rule) -> Option<u32> {
    let primaries = rule.pool.backends.iter().filter(|backend| !backend.backup && backend.weight > 0);
    let weights: Vec<u32> = primaries.map(|backend| backend.weight.into()).collect();
    let without = |nth: usize| turns(&[&weights[..nth], &weights[nth + 1..]].concat());
    let all = (0..weights.len()).map(without).chain([turns(&weights)]);
    all.filter(|turns| *turns > 0).try_fold(2, |slots: u32, turns| {
        let common = slots / gcd(slots, turns) * turns;
        (common <= MOST).then_some(common)
    })
}

/// How many turns a round has for these weights, which are at most 256 of at most 256.
fn turns(weights: &[u32]) -> u32 {
    let common = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    weights.iter().map(|weight| weight / common).sum()
}
