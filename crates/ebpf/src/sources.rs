//! Which of this host's addresses members see: what the routes say, again whenever they change.
//!
//! Deliberately absent: asking the routes ([`crate::host`]) and being told of changes ([`crate::follow`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

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
        self.report_unreached(None);
        Ok(())
    }

    /// Says once which members of the plan nothing can be sent to, and once that they are reached again. Looks at the members
    /// of these rules only, or of all.
    pub fn report_unreached(&mut self, only: Option<&[&RuleName]>) {
        let before = self.serving.unreached.clone();
        let now = &mut self.serving.unreached;
        match only {
            Some(names) => now.values_mut().for_each(|one| one.rules.retain(|name| !names.contains(&name))),
            None => now.clear(),
        }
        let names: Vec<&RuleName> = only.map_or_else(|| self.rules.keys().collect(), <[_]>::to_vec);
        for (name, rule) in names.into_iter().filter_map(|name| self.rules.get_key_value(name)) {
            let live = |member: &&state::MemberState| member.value.flags & abi::member_flags::LIVE != 0;
            for member in rule.members.values().filter(live) {
                let address = member.value.address;
                let is_here = self.host.addresses.contains_key(&value::ip(address));
                if is_here || member.sources.is_empty() {
                    let one = now.entry(address).or_default();
                    one.is_here = is_here;
                    one.rules.insert(name.clone());
                }
            }
        }
        now.retain(|_, one| !one.rules.is_empty());
        for (address, one) in now.iter() {
            if before.get(address).is_none_or(|before| before.is_here != one.is_here) {
                (self.log)(&format!("ebpf: {}", one.told(*address)));
            }
        }
        for (address, one) in before.iter().filter(|(address, _)| !now.contains_key(*address)) {
            let address = value::ip(*address);
            (self.log)(&if one.is_here {
                format!("ebpf: {address} is no longer this host, or nobody's backend")
            } else {
                format!("ebpf: this host has a route to {address} again")
            });
        }
    }

    /// Those members, a sentence for each of the first.
    pub fn unreached(&self) -> Vec<String> {
        /// A thousand backends behind one router are not a thousand lines.
        const NAMED: usize = 5;
        let all = &self.serving.unreached;
        let mut told: Vec<String> = all.iter().take(NAMED).map(|(address, one)| one.told(*address)).collect();
        if all.len() > NAMED {
            told.push(format!("and so it is with {} more backends", all.len() - NAMED));
        }
        told
    }
}

/// Why nothing can be sent to an address, and whose member it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreached {
    /// It is one of this host's: a name has become it, or the host has got it. Else there is no route.
    is_here: bool,
    rules: BTreeSet<RuleName>,
}

impl Unreached {
    fn told(&self, address: abi::Address) -> String {
        let address = value::ip(address);
        let rule = self.rules.first().map(ToString::to_string).unwrap_or_default();
        let others = match self.rules.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let why = if self.is_here {
            format!("the backend {address} is this host, and the ebpf engine sends out of interfaces only")
        } else {
            format!("this host has no route to {address}")
        };
        format!("rule {rule}{others}: {why}; what is for it is dropped and counted as `no route`")
    }
}
