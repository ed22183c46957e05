//! Listing and ending UDP flows.

use std::net::SocketAddr;

use portway_core::address::Protocol;
use portway_core::flow::{self, FlowFilter, Flows};

use super::{Flow, Udp};
use crate::context::Context;
use crate::worker::flows::Matching;

impl Udp {
    /// Adds the flows that `filter` means, while there are fewer than `most`.
    pub(crate) fn list(&self, filter: &FlowFilter, most: usize, now: u64, found: &mut Flows) {
        let mut matching = Matching::new(filter, Protocol::Udp);
        for (_, flow) in &self.flows {
            if !flow.is_meant(now, &mut matching) {
                continue;
            }
            found.total += 1;
            if found.flows.len() < most {
                let port = self.listeners.get(flow.key.listener as usize).map_or(0, |listener| listener.port);
                let listener = SocketAddr::new(flow.key.local, port);
                found.flows.push(flow::Flow { client: flow.key.client, listener, ..matching.flow.clone() });
            }
        }
    }

    /// Forgets the flows that `filter` means and says how many there were.
    pub(crate) fn end(&mut self, context: &Context, filter: &FlowFilter) -> u64 {
        let mut matching = Matching::new(filter, Protocol::Udp);
        let meant =
            |(index, flow): (usize, &Flow)| flow.is_meant(context.now, &mut matching).then_some(index as u32);
        let ending: Vec<u32> = self.flows.iter().filter_map(meant).collect();
        let ended = ending.len() as u64;
        for index in ending {
            self.forget(context, index);
        }
        ended
    }
}

impl Flow {
    fn is_meant(&self, now: u64, matching: &mut Matching) -> bool {
        let state = if self.replies == 0 { "unanswered" } else { "answered" };
        let age = now.saturating_sub(self.began);
        matching.set(self.route.rule.name.as_str(), state, age, self.bytes_in, self.bytes_out);
        matching.flow.backend = Some(self.route.target(self.lease.member()));
        matching.matches(|| Some(self.key.client))
    }
}
