//! Live flows as conntrack tells them: listed, and ended.
//!
//! A flow of TCP is ended by deleting its entry: the next segment of either side meets no translation, and this host or
//! the client answers it with a reset. Deliberately absent: what the flows are counted for ([`crate::engine`]).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portway_core::address::{Family, Protocol};
use portway_core::flow::{Flow, FlowFilter, Flows};
use portway_core::plan::nftables::{Ids, MARK, MARK_MASK, RuleId};
use portway_core::ruleset::{EngineKind, RuleName};
use portway_netlink::socket::Socket;
use portway_netlink::wire::Writer;

use crate::conntrack::{self, Entry, State};
use crate::value::nfproto;

/// `CTA_FILTER_F_CTA_IP_SRC` and its neighbours (`net/netfilter/nf_internals.h`).
const BY_SOURCE: u32 = 1 << 0;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;

/// Which entries to look at, as far as the kernel can sort them out.
struct Wanted<'a> {
    filter: &'a FlowFilter,
    names: BTreeMap<RuleId, &'a RuleName>,
    mark: u32,
    mask: u32,
    protocol: Option<Protocol>,
    now: Duration,
}

/// The id of a rule by its name, also when it has gone; or by the number that flows of unknown rules are listed with.
fn id(rule: &str, ids: &Ids) -> Option<RuleId> {
    let named = RuleName::new(rule).and_then(|name| ids.known(&name));
    named.or_else(|| rule.strip_prefix('#')?.parse().ok().and_then(RuleId::new))
}

impl<'a> Wanted<'a> {
    /// `None` when nothing can match: there is no such rule or protocol here.
    fn new(filter: &'a FlowFilter, ids: &'a Ids) -> Option<Self> {
        let (mark, mask) = match &filter.rule {
            Some(rule) => (id(rule, ids)?.mark(), u32::MAX),
            None => (MARK, MARK_MASK),
        };
        let protocols = [Protocol::Tcp, Protocol::Udp];
        let protocol = match &filter.protocol {
            Some(word) => Some(protocols.into_iter().find(|protocol| protocol.to_string() == *word)?),
            None => None,
        };
        // A clock that stands before 1970 gives flows without an age.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let names = ids.names();
        Some(Self { filter, names, mark, mask, protocol, now })
    }

    /// The request for the entries; `narrow`: also by the backend, which kernels before 5.8 do not know.
    fn request(&self, w: &mut Writer, narrow: bool) {
        let backend = self.filter.backend.filter(|_| narrow);
        w.nfgen(backend.map_or(0, |address| nfproto(Family::of(address))), 0);
        w.be32(conntrack::MARK_ATTRIBUTE, self.mark);
        w.be32(conntrack::MARK_MASK_ATTRIBUTE, self.mask);
        let Some(backend) = backend else { return };
        let mut flags = BY_SOURCE;
        w.nest(conntrack::TUPLE_REPLY, |w| {
            w.nest(1, |w| match backend {
                IpAddr::V4(address) => w.put(1, &address.octets()),
                IpAddr::V6(address) => w.put(3, &address.octets()),
            });
            let Some(protocol) = self.protocol else { return };
            flags |= BY_PROTOCOL;
            w.nest(2, |w| {
                w.put(1, &[protocol.number()]);
                if let Some(port) = self.filter.backend_port {
                    flags |= BY_SOURCE_PORT;
                    w.put(2, &port.to_be_bytes());
                }
            });
        });
        w.nest(conntrack::FILTER, |w| w.put(2, &flags.to_ne_bytes()));
    }

    /// The flow of an entry, when it is meant.
    fn flow(&self, entry: &Entry<'_>) -> Option<Flow> {
        // Filters are the kernel's to ignore.
        let mark = entry.mark().filter(|mark| mark & self.mask == self.mark)?;
        let protocol = entry.protocol()?;
        let state = entry.state(protocol);
        if state == State::Ended {
            return None;
        }
        let id = RuleId::of_mark(mark)?;
        let age = entry.began().and_then(|began| self.now.checked_sub(began));
        let (client, listener) = entry.original()?;
        let flow = Flow {
            engine: EngineKind::Nftables.to_string(),
            rule: self.names.get(&id).map_or_else(|| format!("#{id}"), |name| name.to_string()),
            protocol: protocol.to_string(),
            client,
            listener,
            backend: entry.backend(),
            state: state.to_string(),
            age_seconds: age.map(|age| age.as_secs()),
            bytes_in: entry.bytes(conntrack::COUNTERS_ORIG),
            bytes_out: entry.bytes(conntrack::COUNTERS_REPLY),
        };
        self.filter.matches(&flow).then_some(flow)
    }

    /// Calls `each` with every flow that is meant.
    fn each(&self, socket: &mut Socket, mut each: impl FnMut(&Entry<'_>, Flow)) -> io::Result<()> {
        let mut see = |entry: Entry<'_>| {
            if let Some(flow) = self.flow(&entry) {
                each(&entry, flow);
            }
        };
        let narrow = self.filter.backend.is_some();
        match conntrack::each(socket, |w| self.request(w, narrow), &mut see) {
            Err(error) if narrow && is_unknown(&error) => {
                conntrack::each(socket, |w| self.request(w, false), &mut see)
            }
            other => other,
        }
    }
}

/// Whether the kernel does not know the filter. It says so before the first entry.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// Lists the flows that `filter` means, at most `most`, and how many there are in all.
pub fn list(socket: &mut Socket, ids: &Ids, filter: &FlowFilter, most: usize) -> io::Result<Flows> {
    let mut flows = Flows::default();
    let Some(wanted) = Wanted::new(filter, ids) else { return Ok(flows) };
    wanted.each(socket, |_, flow| {
        flows.total += 1;
        if flows.flows.len() < most {
            flows.flows.push(flow);
        }
    })?;
    Ok(flows)
}

/// Ends the flows that `filter` means and says how many there were.
pub fn end(socket: &mut Socket, ids: &Ids, filter: &FlowFilter) -> io::Result<u64> {
    let Some(wanted) = Wanted::new(filter, ids) else { return Ok(0) };
    let mut names = Vec::new();
    wanted.each(socket, |entry, _| names.push(entry.name()))?;
    let mut ended = 0;
    for name in names {
        ended += u64::from(conntrack::delete(socket, &name)?);
    }
    Ok(ended)
}
