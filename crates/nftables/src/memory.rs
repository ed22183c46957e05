//! The clients that the kernel remembers for members of pools: those of members that have gone are forgotten, so that
//! their next flow goes elsewhere. The kernel writes these elements by itself, they are no part of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use portway_core::plan::nftables::{Data, Key, Plan, RuleId, Set, mark_of};
use portway_netlink::socket::Socket;

use crate::decode;

/// The clients that are remembered for what `plan` does not lead to, of these rules or of all.
pub fn stale(
    socket: &mut Socket,
    plan: &Plan,
    rules: Option<&BTreeSet<RuleId>>,
) -> io::Result<Vec<(Set, Key)>> {
    let mut stale = Vec::new();
    let mut known: BTreeMap<RuleId, Option<(Set, BTreeSet<&Data>)>> = BTreeMap::new();
    for set in Set::PERSIST {
        for (key, data) in decode::clients(socket, set)? {
            let Some(id) = mark_of(&key).and_then(RuleId::of_mark) else { continue };
            if rules.is_some_and(|rules| !rules.contains(&id)) {
                continue;
            }
            let remembered = known.entry(id).or_insert_with(|| plan.remembered(id));
            if !remembered.as_ref().is_some_and(|(map, members)| *map == set && members.contains(&data)) {
                stale.push((set, key));
            }
        }
    }
    Ok(stale)
}
