//! The flows themselves, over ctnetlink (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`): how many are
//! alive, and the removal of those that are ours or that a new rule must be able to take over.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use portway_core::address::{Family, Protocol};
use portway_core::plan::nftables::{Change, Key, MARK, MARK_MASK, Set, Value};

use crate::socket::Socket;
use crate::wire::{Attributes, Writer};

const NEW: u16 = 1 << 8;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const TUPLE_ORIG: u16 = 1;
const PROTOINFO: u16 = 4;
const MARK_ATTRIBUTE: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const MARK_MASK_ATTRIBUTE: u16 = 21;
const FILTER: u16 = 25;
/// `CTA_FILTER_FLAG(CTA_PROTO_NUM)` (`net/netfilter/nf_internals.h`)
const BY_PROTOCOL: u32 = 1 << 3;
/// `TCP_CONNTRACK_TIME_WAIT`; this and the next state are ended connections.
const TIME_WAIT: u8 = 7;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

fn ours(w: &mut Writer) {
    w.nfgen(0, 0);
    w.be32(MARK_ATTRIBUTE, MARK);
    w.be32(MARK_MASK_ATTRIBUTE, MARK_MASK);
}

/// Live flows by conntrack mark; the kernel leaves out what is not ours. Ended TCP connections that conntrack
/// still remembers do not count.
pub fn live(socket: &mut Socket) -> io::Result<BTreeMap<u32, u64>> {
    let dump = socket.dump(GET, ours)?;
    let mut live = BTreeMap::new();
    for message in dump.messages().filter(|message| message.kind == NEW) {
        let state = message.nf().inside(PROTOINFO).inside(1).find(1).and_then(|state| state.first());
        let ended = state.is_some_and(|state| *state >= TIME_WAIT);
        if let Some(mark) = message.nf().find_be32(MARK_ATTRIBUTE).filter(|_| !ended) {
            *live.entry(mark).or_default() += 1;
        }
    }
    Ok(live)
}

/// Deletes every entry with our mark.
pub fn delete_ours(socket: &mut Socket) -> io::Result<()> {
    match socket.demand(DELETE, ours) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Deletes the entries of UDP flows towards listeners that `change` adds, unless they are ours already. A
/// client that keeps talking keeps its entry alive, and conntrack asks the rules about new flows only: without
/// this the client would never reach the new rule.
pub fn release_udp(socket: &mut Socket, change: &Change) -> io::Result<()> {
    let udp = Value::Protocol(Protocol::Udp);
    let listeners: Vec<(Set, &Key)> = change
        .add
        .iter()
        .filter(|(set, _)| set.is_listener())
        .flat_map(|(set, elements)| elements.keys().map(|key| (*set, key)))
        .filter(|(_, key)| key.contains(&udp))
        .collect();
    if listeners.is_empty() {
        return Ok(());
    }
    let claims = Claims::of(&listeners)?;
    for (family, number) in [(Family::V4, AF_INET), (Family::V6, AF_INET6)] {
        if !claims.families.contains(&family) {
            continue;
        }
        let dump = socket.dump(GET, |w| {
            w.nfgen(number, 0);
            w.nest(TUPLE_ORIG, |w| w.nest(2, |w| w.put(1, &[Protocol::Udp.number()])));
            w.nest(FILTER, |w| w.put(1, &BY_PROTOCOL.to_ne_bytes()));
        })?;
        for message in dump.messages().filter(|message| message.kind == NEW) {
            let entry = message.nf();
            let mark = entry.find_be32(MARK_ATTRIBUTE).unwrap_or(0);
            if mark & MARK_MASK == MARK || !claims.contain(&entry.inside(TUPLE_ORIG)) {
                continue;
            }
            let deleted = socket.demand(DELETE, |w| {
                w.nfgen(number, 0);
                w.put(TUPLE_ORIG | 0x8000, entry.find(TUPLE_ORIG).unwrap_or(&[]));
                for kind in [ZONE, ID] {
                    entry.find(kind).into_iter().for_each(|value| w.put(kind, value));
                }
            });
            match deleted {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The destinations of new UDP listeners.
struct Claims {
    families: BTreeSet<Family>,
    addresses: BTreeMap<IpAddr, Vec<(u16, u16)>>,
    /// Ports on every address of this host.
    any: BTreeMap<Family, Vec<(u16, u16)>>,
    local: BTreeSet<IpAddr>,
}

impl Claims {
    fn of(listeners: &[(Set, &Key)]) -> io::Result<Self> {
        let mut claims = Self {
            families: BTreeSet::new(),
            addresses: BTreeMap::new(),
            any: BTreeMap::new(),
            local: BTreeSet::new(),
        };
        for (_, key) in listeners {
            let Some(Value::Service(ports)) = key.last() else { continue };
            let ports = (ports.first(), ports.last());
            for value in *key {
                let (family, ranges) = match value {
                    Value::Ipv4(address) => {
                        (Family::V4, claims.addresses.entry((*address).into()).or_default())
                    }
                    Value::Ipv6(address) => {
                        (Family::V6, claims.addresses.entry((*address).into()).or_default())
                    }
                    Value::Family(family) => (*family, claims.any.entry(*family).or_default()),
                    _ => continue,
                };
                ranges.push(ports);
                claims.families.insert(family);
            }
        }
        if !claims.any.is_empty() {
            claims.local = local_addresses()?;
        }
        Ok(claims)
    }

    /// Whether a new listener claims the flow with this tuple.
    fn contain(&self, tuple: &Attributes<'_>) -> bool {
        let ip = tuple.inside(1);
        let v4 = ip.find(2).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(IpAddr::from);
        let v6 = ip.find(4).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(IpAddr::from);
        let port = tuple.inside(2).find(3).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok());
        let (Some(address), Some(port)) = (v4.or(v6), port.map(u16::from_be_bytes)) else { return false };
        let within = |ranges: Option<&Vec<(u16, u16)>>| {
            ranges.is_some_and(|ranges| ranges.iter().any(|(first, last)| (*first..=*last).contains(&port)))
        };
        let local = || address.is_loopback() || self.local.contains(&address);
        within(self.addresses.get(&address)) || (within(self.any.get(&Family::of(address))) && local())
    }
}

/// The addresses of this host (`RTM_GETADDR`, `include/uapi/linux/rtnetlink.h`).
fn local_addresses() -> io::Result<BTreeSet<IpAddr>> {
    const NEW_ADDRESS: u16 = 20;
    const GET_ADDRESS: u16 = 22;
    let mut socket = Socket::open(None)?;
    let dump = socket.dump(GET_ADDRESS, |w| w.raw(&[0; 8]))?;
    let mut addresses = BTreeSet::new();
    for message in dump.messages().filter(|message| message.kind == NEW_ADDRESS) {
        let attributes = message.attributes(8);
        // IFA_LOCAL where it differs from IFA_ADDRESS (point to point), else IFA_ADDRESS.
        let Some(bytes) = attributes.find(2).or_else(|| attributes.find(1)) else { continue };
        addresses.extend(<[u8; 4]>::try_from(bytes).map(IpAddr::from));
        addresses.extend(<[u8; 16]>::try_from(bytes).map(IpAddr::from));
    }
    Ok(addresses)
}
