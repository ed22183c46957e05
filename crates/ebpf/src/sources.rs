//! Which of this host's addresses members see: what the routes say, again whenever they change.
//!
//! Deliberately absent: asking the routes ([`crate::host`]) and being told of changes ([`crate::follow`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portway_core::engine::EngineError;
use portway_core::ruleset::RuleName;
use portway_datapath::abi;

use crate::held::Held;
use crate::refusal::failure;
use crate::state;
use crate::value;
use crate::write;

impl Held {
    /// The addresses of members that see this host's address on the way to them.
    pub fn destinations(&self) -> BTreeSet<IpAddr> {
        let rules = self.plan.rules.iter().filter_map(|(name, plan)| Some((plan, self.rules.get(name)?)));
        rules.flat_map(|(plan, rule)| state::destinations(plan, rule)).collect()
    }

    /// The source addresses of members, where routes or addresses have changed: `sources` are what [`Self::destinations`]
    /// would see now.
    ///
    /// # Errors
    /// A map has no room, or the kernel's; what members see is then what it was.
    pub fn follow_routes(&mut self, sources: BTreeMap<IpAddr, Option<IpAddr>>) -> Result<(), EngineError> {
        self.host.learn_sources(sources);
        let (mut allocations, mut changed) = (None, false);
        let (mut ready, mut switch, mut states) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (name, plan) in &self.plan.rules {
            let Some(rule) = self.rules.get(name) else { continue };
            if state::sees_the_same(plan, rule, &mut self.host) {
                continue;
            }
            let allocations = allocations.get_or_insert_with(|| self.allocations.clone());
            let (state, steps) = state::place(name, plan, Some(rule), allocations, &mut self.host)?;
            ready.extend(steps.ready);
            switch.extend(steps.switch);
            states.insert(name.clone(), state);
            changed = true;
        }
        if changed {
            ready.append(&mut switch);
            let carried = write::carry_out(&self.maps, &ready);
            carried.map_err(|error| failure("change source addresses", &error))?;
            self.allocations = allocations.unwrap_or_else(|| self.allocations.clone());
            self.rules.extend(states);
            self.epoch += 1;
        }
        self.report_unreachable();
        Ok(())
    }

    /// Says once which members of the plan have no route, and once that they have one again.
    fn report_unreachable(&mut self) {
        let mut now: BTreeMap<abi::Address, &RuleName> = BTreeMap::new();
        for (name, rule) in &self.rules {
            let live = |member: &&state::MemberState| member.value.flags & abi::member_flags::LIVE != 0;
            for member in rule.members.values().filter(live).filter(|member| member.sources.is_empty()) {
                now.insert(member.value.address, name);
            }
        }
        let log = Arc::clone(&self.log);
        for (address, rule) in now.iter().filter(|(address, _)| !self.serving.unreachable.contains(*address))
        {
            log(&format!("ebpf: rule {rule}: this host has no route to {}", value::ip(*address)));
        }
        for address in self.serving.unreachable.iter().filter(|address| !now.contains_key(*address)) {
            log(&format!("ebpf: this host has a route to {} again", value::ip(*address)));
        }
        self.serving.unreachable = now.into_keys().collect();
    }
}
