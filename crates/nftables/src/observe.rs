//! Reading the table's counters and conntrack's entries, and bringing them together as what the engine saw.
//!
//! A reader has a socket of its own, so that it may be on another thread than the engine.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portway_core::engine::{EngineError, Observer};
use portway_core::flow::{FlowFilter, Flows};
use portway_core::plan::nftables::{Direction, Ids, Key, Set, Value, mark_of};
use portway_core::snapshot::EngineSnapshot;
use portway_netlink::socket::Socket;
use rustix::net::netlink::NETFILTER;

use crate::decode::{self, Counter};
use crate::refusal::failure;
use crate::{conntrack, flow};

/// A reader of the table and of the flows.
pub struct NftablesObserver {
    socket: Socket,
    /// The rules whose flows are listed.
    ids: Arc<Ids>,
}

impl NftablesObserver {
    /// A reader in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel offers no netfilter sockets.
    pub fn open(ids: Arc<Ids>) -> Result<Self, EngineError> {
        let socket = Socket::open(Some(NETFILTER));
        Ok(Self { socket: socket.map_err(|error| failure("open a netfilter socket", &error))?, ids })
    }
}

impl Observer for NftablesObserver {
    fn observe(&mut self) -> Result<EngineSnapshot, EngineError> {
        let read = |error: io::Error| failure("read the counters", &error);
        let flows = match decode::counters(&mut self.socket, Set::Flows) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(EngineSnapshot::default()),
            other => other.map_err(read)?,
        };
        let traffic = decode::counters(&mut self.socket, Set::Traffic).map_err(read)?;
        let live =
            conntrack::live(&mut self.socket).map_err(|error| failure("count the live flows", &error))?;
        let mut members = Vec::new();
        for set in Set::MEMBERS {
            members.extend(decode::counters(&mut self.socket, set).map_err(read)?);
        }
        Ok(snapshot(&flows, &traffic, &members, &live))
    }

    fn flows(&mut self, filter: &FlowFilter, most: usize) -> Result<Flows, EngineError> {
        let listed = flow::list(&mut self.socket, &self.ids, filter, most);
        listed.map_err(|error| failure("list the flows", &error))
    }
}

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
            (Some(rule), Some(Value::Direction(Direction::Original))) => {
                (rule.packets_in, rule.bytes_in) = (Some(counter.packets), counter.bytes);
            }
            (Some(rule), Some(Value::Direction(Direction::Reply))) => {
                (rule.packets_out, rule.bytes_out) = (Some(counter.packets), counter.bytes);
            }
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
