//! Counters of the table and entries of conntrack, brought together as what the engine saw. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use portway_core::plan::nftables::{Direction, Key, Value, mark_of};
use portway_core::snapshot::EngineSnapshot;

use crate::decode::Counter;

/// An element that counts, with its comment.
type Counted = (Key, Option<String>, Counter);

/// What the engine saw: the rules, their traffic, the members of their pools, and the live flows by mark and backend.
pub fn snapshot(
    flows: &[Counted],
    traffic: &[Counted],
    members: &[Counted],
    live: &BTreeMap<u32, BTreeMap<SocketAddr, u64>>,
) -> EngineSnapshot {
    let mut snapshot = EngineSnapshot::default();
    let mut names = BTreeMap::new();
    for (key, name, counter) in flows {
        if let (Some(mark), Some(name)) = (mark_of(key), name) {
            let rule = snapshot.rules.entry(name.clone()).or_default();
            rule.flows = counter.packets;
            rule.live = live.get(&mark).map_or(0, |backends| backends.values().sum());
            names.insert(mark, name);
        }
    }
    for (key, _, counter) in traffic {
        let rule = mark_of(key).and_then(|mark| snapshot.rules.get_mut(*names.get(&mark)?));
        match (rule, key.get(1)) {
            (Some(rule), Some(Value::Direction(Direction::Original))) => rule.bytes_in = counter.bytes,
            (Some(rule), Some(Value::Direction(Direction::Reply))) => rule.bytes_out = counter.bytes,
            _ => {}
        }
    }
    let mut targets: BTreeMap<(u32, IpAddr, Option<u16>), &str> = BTreeMap::new();
    for (key, target, counter) in members {
        let Some((place, name, target)) =
            place(key).and_then(|place| Some((place, *names.get(&place.0)?, target.as_deref()?)))
        else {
            continue;
        };
        targets.insert(place, target);
        let member = snapshot.members.entry(name.clone()).or_default().entry(target.to_owned()).or_default();
        member.flows = counter.packets;
    }
    for (mark, backends) in live {
        // A rule whose members are not counted has only one.
        let Some(members) = names.get(mark).and_then(|name| snapshot.members.get_mut(*name)) else {
            continue;
        };
        for (backend, count) in backends {
            let with_port = targets.get(&(*mark, backend.ip(), Some(backend.port())));
            let target = with_port.or_else(|| targets.get(&(*mark, backend.ip(), None)));
            // One that has left the pool, and has flows still.
            let target = target.map_or_else(|| backend.to_string(), |target| (*target).to_owned());
            members.entry(target).or_default().live += count;
        }
    }
    snapshot.gauges.insert("live_flows".to_owned(), live.values().flat_map(BTreeMap::values).sum());
    snapshot
}

/// The rule, the address and the port of a member that is counted.
fn place(key: &Key) -> Option<(u32, IpAddr, Option<u16>)> {
    let address = match key.get(1)? {
        Value::Ipv4(address) => IpAddr::from(*address),
        Value::Ipv6(address) => IpAddr::from(*address),
        _ => return None,
    };
    let port = match key.get(2) {
        Some(Value::Service(port)) => Some(port.first()),
        _ => None,
    };
    Some((mark_of(key)?, address, port))
}
