//! Reading the engine: counters, which are atomics, and flows, which the workers list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use portway_core::engine::{EngineError, Observer};
use portway_core::flow::{FlowFilter, Flows};
use portway_core::ruleset::RuleName;
use portway_core::snapshot::EngineSnapshot;

use crate::command::Command;
use crate::served::Served;
use crate::shared::Shared;
use crate::threads::Workers;

/// A reader of what the engine held when it was made.
pub struct ProxyObserver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Workers,
    pub(crate) rules: BTreeMap<RuleName, Served>,
    pub(crate) listeners: usize,
    pub(crate) files: usize,
}

impl Observer for ProxyObserver {
    fn observe(&mut self) -> Result<EngineSnapshot, EngineError> {
        let shared = &self.shared;
        let gauges = [
            ("workers", self.workers.len() as u64),
            ("workers_failed", shared.workers_failed.load(Relaxed) as u64),
            ("listeners", self.listeners as u64),
            ("connections", shared.connections.get() as u64),
            ("connections_max", shared.connections.max() as u64),
            ("udp_flows", shared.flows.get() as u64),
            ("udp_flows_max", shared.flows.max() as u64),
            ("udp_dropped", shared.udp_dropped.load(Relaxed)),
            ("icmp_refusals_sent", shared.icmp_sent.load(Relaxed)),
            ("open_pipes", shared.pipes.get() as u64),
            ("open_pipes_max", shared.pipes.max() as u64),
            ("accept_paused", shared.paused.load(Relaxed) as u64),
            ("accept_paused_total", shared.paused_total.load(Relaxed)),
            ("retries", shared.retries.load(Relaxed)),
            ("open_files_max", self.files as u64),
        ];
        let members = self.rules.iter().map(|(name, served)| (name.to_string(), served.members(shared)));
        Ok(EngineSnapshot {
            rules: self
                .rules
                .iter()
                .map(|(name, served)| (name.to_string(), served.state.snapshot()))
                .collect(),
            members: members.filter(|(_, members)| !members.is_empty()).collect(),
            gauges: gauges.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            ..EngineSnapshot::default()
        })
    }

    fn flows(&mut self, filter: &FlowFilter, most: usize) -> Result<Flows, EngineError> {
        let mut all = Flows::default();
        for part in self.workers.ask(|_, answer| Command::List { filter: filter.clone(), most, answer }) {
            all.total += part.total;
            all.flows.extend(part.flows.into_iter().take(most.saturating_sub(all.flows.len())));
        }
        Ok(all)
    }
}
