//! Listing and ending flows: each worker answers for its own.
//!
//! Addresses are not kept with a connection; the kernel is asked for those of connections that match otherwise. A
//! worker answers in one turn, so what it looks at is kept cheap: nothing is allocated for a flow that is not listed.

use std::net::{Ipv4Addr, SocketAddr};

use portway_core::address::Protocol;
use portway_core::flow::{Flow, FlowFilter, Flows};
use portway_core::ruleset::EngineKind;
use rustix::net::getsockname;

use super::Worker;
use super::connect::peer;
use crate::tcp::{Connection, Stage};

/// What of a flow a filter is asked, for flow after flow in the same buffers.
pub(crate) struct Matching {
    cheap: FlowFilter,
    whole: FlowFilter,
    pub(crate) flow: Flow,
}

impl Matching {
    pub(crate) fn new(filter: &FlowFilter, protocol: Protocol) -> Self {
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let flow = Flow {
            engine: EngineKind::Proxy.to_string(),
            rule: String::new(),
            protocol: protocol.to_string(),
            client: nowhere,
            listener: nowhere,
            backend: None,
            state: String::new(),
            age_seconds: None,
            bytes_in: None,
            bytes_out: None,
        };
        let cheap = FlowFilter { client: None, client_port: None, ..filter.clone() };
        Self { cheap, whole: filter.clone(), flow }
    }

    pub(crate) fn set(&mut self, rule: &str, state: &str, age: u64, bytes_in: u64, bytes_out: u64) {
        for (field, value) in [(&mut self.flow.rule, rule), (&mut self.flow.state, state)] {
            if field != value {
                value.clone_into(field);
            }
        }
        self.flow.age_seconds = Some(age / 1000);
        self.flow.bytes_in = Some(bytes_in);
        self.flow.bytes_out = Some(bytes_out);
    }

    /// Whether the flow is meant, when all but its client's address is set; `client` finds that.
    pub(crate) fn matches(&mut self, client: impl FnOnce() -> Option<SocketAddr>) -> bool {
        if !self.cheap.matches(&self.flow) {
            return false;
        }
        if self.whole.client.is_none() && self.whole.client_port.is_none() {
            return true;
        }
        let Some(client) = client() else { return false };
        self.flow.client = client;
        self.whole.matches(&self.flow)
    }
}

impl Worker {
    /// The flows that `filter` means, at most `most` of them.
    pub(super) fn list(&self, filter: &FlowFilter, most: usize) -> Flows {
        let mut found = Flows::default();
        let mut matching = Matching::new(filter, Protocol::Tcp);
        for (_, connection) in &self.connections {
            if !self.is_meant(connection, &mut matching) {
                continue;
            }
            found.total += 1;
            if found.flows.len() < most {
                let mut flow = matching.flow.clone();
                flow.client = peer(connection).unwrap_or(flow.client);
                let listener = getsockname(&connection.client).ok().and_then(|a| a.try_into().ok());
                flow.listener = listener.unwrap_or(flow.listener);
                found.flows.push(flow);
            }
        }
        self.udp.list(filter, most, self.context.now, &mut found);
        found
    }

    /// Ends the flows that `filter` means and says how many there were.
    pub(super) fn end(&mut self, filter: &FlowFilter) -> u64 {
        let mut matching = Matching::new(filter, Protocol::Tcp);
        let meant = |(key, connection)| self.is_meant(connection, &mut matching).then_some(key as u32);
        let ending: Vec<u32> = self.connections.iter().filter_map(meant).collect();
        let ended = ending.len() as u64;
        for key in ending {
            self.close(key, true);
        }
        ended + self.udp.end(&self.context, filter)
    }

    fn is_meant(&self, connection: &Connection, matching: &mut Matching) -> bool {
        let state = match connection.stage {
            Stage::Hello | Stage::Waiting | Stage::Connecting => "connecting",
            Stage::Relaying if connection.up.ended || connection.down.ended => "closing",
            Stage::Relaying => "established",
        };
        let age = self.context.now.saturating_sub(connection.began);
        let rule = connection.route.rule.name.as_str();
        matching.set(rule, state, age, connection.bytes_in, connection.bytes_out);
        matching.flow.backend =
            connection.lease.as_ref().map(|lease| connection.route.target(lease.member()));
        matching.matches(|| peer(connection))
    }
}
