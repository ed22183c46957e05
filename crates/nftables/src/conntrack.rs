//! The flows themselves, over ctnetlink (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`): reading entries, how
//! many are alive, and the removal of those that are ours or that a new rule must be able to take over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portway_core::address::{Family, Protocol};
use portway_core::plan::nftables::{Change, Key, MARK, MARK_MASK, Set, Value};
use portway_netlink::socket::Socket;
use portway_netlink::wire::{Attributes, Writer};

const NEW: u16 = 1 << 8;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const TUPLE_ORIG: u16 = 1;
pub const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
pub const MARK_ATTRIBUTE: u16 = 8;
pub const COUNTERS_ORIG: u16 = 9;
pub const COUNTERS_REPLY: u16 = 10;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TIMESTAMP: u16 = 20;
pub const MARK_MASK_ATTRIBUTE: u16 = 21;
pub const FILTER: u16 = 25;
/// `CTA_FILTER_FLAG(CTA_PROTO_NUM)` (`net/netfilter/nf_internals.h`)
const BY_PROTOCOL: u32 = 1 << 3;
/// `IPS_SEEN_REPLY`
const SEEN_REPLY: u32 = 1 << 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What a flow is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Connecting,
    Established,
    Closing,
    /// A TCP connection that conntrack still remembers.
    Ended,
    Unanswered,
    Answered,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Ended => "ended",
            Self::Unanswered => "unanswered",
            Self::Answered => "answered",
        })
    }
}

/// One entry of conntrack.
pub struct Entry<'a>(Attributes<'a>);

/// What an entry is deleted by: its family, original tuple, zone and id.
pub struct Name {
    family: u8,
    tuple: Vec<u8>,
    rest: Vec<(u16, Vec<u8>)>,
}

impl Entry<'_> {
    /// The conntrack mark; entries without one have none.
    pub fn mark(&self) -> Option<u32> {
        self.0.find_be32(MARK_ATTRIBUTE)
    }

    /// TCP or UDP; `None` for anything else.
    pub fn protocol(&self) -> Option<Protocol> {
        let number = self.0.inside(TUPLE_ORIG).inside(2).find(1)?;
        [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| *number == [protocol.number()])
    }

    /// Client and listener: source and destination of the flow as it came.
    pub fn original(&self) -> Option<(SocketAddr, SocketAddr)> {
        let tuple = self.0.inside(TUPLE_ORIG);
        Some((end(&tuple, Side::Source)?, end(&tuple, Side::Destination)?))
    }

    /// The backend: where replies come from.
    pub fn backend(&self) -> Option<SocketAddr> {
        end(&self.0.inside(TUPLE_REPLY), Side::Source)
    }

    /// What the flow is doing (`enum tcp_conntrack` of `nf_conntrack_tcp.h`).
    pub fn state(&self, protocol: Protocol) -> State {
        let state = self.0.inside(PROTOINFO).inside(1).find(1).and_then(|state| state.first());
        match (protocol, state) {
            // ESTABLISHED; FIN_WAIT, CLOSE_WAIT, LAST_ACK; TIME_WAIT, CLOSE; the others open the connection.
            (Protocol::Tcp, Some(3)) => State::Established,
            (Protocol::Tcp, Some(4..=6)) => State::Closing,
            (Protocol::Tcp, Some(7 | 8)) => State::Ended,
            (Protocol::Tcp, _) => State::Connecting,
            (Protocol::Udp, _) => match self.0.find_be32(STATUS) {
                Some(status) if status & SEEN_REPLY != 0 => State::Answered,
                _ => State::Unanswered,
            },
        }
    }

    /// When the flow began, since 1970, where the kernel takes note of it (sysctl `nf_conntrack_timestamp`).
    pub fn began(&self) -> Option<Duration> {
        self.0.inside(TIMESTAMP).find_be64(1).map(Duration::from_nanos)
    }

    /// Bytes of one direction, where the kernel counts them (sysctl `nf_conntrack_acct`).
    pub fn bytes(&self, direction: u16) -> Option<u64> {
        self.0.inside(direction).find_be64(2)
    }

    /// What the entry is deleted by.
    pub fn name(&self) -> Name {
        let part = |kind| self.0.find(kind).map(<[u8]>::to_vec);
        let v4 = self.0.inside(TUPLE_ORIG).inside(1).find(1).is_some();
        Name {
            family: if v4 { AF_INET } else { AF_INET6 },
            tuple: part(TUPLE_ORIG).unwrap_or_default(),
            rest: [ZONE, ID].into_iter().filter_map(|kind| Some((kind, part(kind)?))).collect(),
        }
    }
}

/// One side of a tuple.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// Address and port of one side of a tuple.
fn end(tuple: &Attributes<'_>, side: Side) -> Option<SocketAddr> {
    let (v4, v6, port) = match side {
        Side::Source => (1, 3, 2),
        Side::Destination => (2, 4, 3),
    };
    let ip = tuple.inside(1);
    let v4 = ip.find(v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(IpAddr::from);
    let v6 = ip.find(v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(IpAddr::from);
    let port = tuple.inside(2).find(port).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok())?;
    Some(SocketAddr::new(v4.or(v6)?, u16::from_be_bytes(port)))
}

fn ours(w: &mut Writer) {
    w.nfgen(0, 0);
    w.be32(MARK_ATTRIBUTE, MARK);
    w.be32(MARK_MASK_ATTRIBUTE, MARK_MASK);
}

/// Calls `see` with every entry that the kernel has for a request.
pub fn each(
    socket: &mut Socket,
    request: impl Fn(&mut Writer),
    see: &mut dyn FnMut(Entry<'_>),
) -> io::Result<()> {
    socket.each(GET, request, &mut |message| {
        if message.kind == NEW {
            see(Entry(message.nf()));
        }
    })
}

/// Live flows by conntrack mark and backend; the kernel leaves out what is not ours.
pub fn live(socket: &mut Socket) -> io::Result<BTreeMap<u32, BTreeMap<SocketAddr, u64>>> {
    let mut live: BTreeMap<u32, BTreeMap<SocketAddr, u64>> = BTreeMap::new();
    each(socket, ours, &mut |entry| {
        let (mark, backend) = (entry.mark(), entry.backend());
        let alive = entry.protocol().is_some_and(|protocol| entry.state(protocol) != State::Ended);
        if let (Some(mark), Some(backend), true) = (mark, backend, alive) {
            *live.entry(mark).or_default().entry(backend).or_default() += 1;
        }
    })?;
    Ok(live)
}

/// Deletes one entry and says whether it was still there.
pub fn delete(socket: &mut Socket, name: &Name) -> io::Result<bool> {
    let deleted = socket.demand(DELETE, |w| {
        w.nfgen(name.family, 0);
        w.put(TUPLE_ORIG | 0x8000, &name.tuple);
        name.rest.iter().for_each(|(kind, value)| w.put(*kind, value));
    });
    match deleted {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
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
        let request = |w: &mut Writer| {
            w.nfgen(number, 0);
            w.nest(TUPLE_ORIG, |w| w.nest(2, |w| w.put(1, &[Protocol::Udp.number()])));
            w.nest(FILTER, |w| w.put(1, &BY_PROTOCOL.to_ne_bytes()));
        };
        let mut claimed = Vec::new();
        each(socket, request, &mut |entry| {
            let ours = entry.mark().unwrap_or(0) & MARK_MASK == MARK;
            let udp = entry.protocol() == Some(Protocol::Udp);
            if !ours && udp && entry.original().is_some_and(|(_, to)| claims.contain(to)) {
                claimed.push(entry.name());
            }
        })?;
        for name in claimed {
            delete(socket, &name)?;
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

    /// Whether a new listener claims flows to this destination.
    fn contain(&self, to: SocketAddr) -> bool {
        let (address, port) = (to.ip(), to.port());
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
