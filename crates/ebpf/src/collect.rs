//! Ids that nobody has any more: those of rules and members that are gone, once no flow has them either.
//!
//! Deliberately absent: how a rule goes ([`crate::apply`]).

use std::collections::BTreeSet;

use portway_core::engine::EngineError;
use portway_core::ruleset::RuleName;

use crate::flow;
use crate::held::Held;
use crate::refusal::failure;
use crate::state::{MemberState, RuleState};
use crate::value::Place;
use crate::write::{self, Write};

impl Held {
    /// Forgets rules that are gone and members that nobody plans, as far as no flow has them; how many ids that frees.
    pub(crate) fn collect(&mut self) -> Result<usize, EngineError> {
        self.epoch += 1;
        self.known = None;
        Ok(self.collect_rules()? + self.collect_members()?)
    }

    /// Of rules. Their members' ids go with them.
    pub(crate) fn collect_rules(&mut self) -> Result<usize, EngineError> {
        if self.rules.values().all(|rule| rule.value.is_some()) {
            return Ok(0);
        }
        let (used, _) = flow::ids_in_use(&self.maps.flows);
        let idle = |rule: &RuleState| rule.value.is_none() && !used.contains(&rule.id);
        let names: Vec<RuleName> =
            self.rules.iter().filter(|(_, rule)| idle(rule)).map(|(name, _)| name.clone()).collect();
        for name in &names {
            let Some(rule) = self.rules.get(name) else { continue };
            let mut writes: Vec<Write> =
                rule.members.values().map(|member| Write::Member(member.id, None)).collect();
            // The name goes last: a member without the name of its rule would be nobody's.
            writes.push(Write::Name(rule.id, None));
            write::carry_out(&self.maps, &writes).map_err(|error| failure("forget a rule", &error))?;
            for member in rule.members.values() {
                self.allocations.members.give(member.id);
                self.allocations.sources.give(&member.sources);
            }
            self.allocations.rules.give(rule.id);
            self.rules.remove(name);
        }
        Ok(names.len())
    }

    /// Of members, whose counters go with them; so only when there is no other room.
    fn collect_members(&mut self) -> Result<usize, EngineError> {
        let (_, used) = flow::ids_in_use(&self.maps.flows);
        let mut count = 0;
        for (name, rule) in &mut self.rules {
            let Some(plan) = self.plan.rules.get(name) else { continue };
            let planned: BTreeSet<Place> = plan.targets.iter().map(Place::of).collect();
            let idle =
                |place: &Place, member: &MemberState| !planned.contains(place) && !used.contains(&member.id);
            let places: Vec<Place> = rule
                .members
                .iter()
                .filter(|(place, member)| idle(place, member))
                .map(|(place, _)| *place)
                .collect();
            for place in places {
                let Some(member) = rule.members.remove(&place) else { continue };
                self.maps.members.remove(&member.id).map_err(|error| failure("forget a member", &error))?;
                self.allocations.members.give(member.id);
                self.allocations.sources.give(&member.sources);
                count += 1;
            }
        }
        Ok(count)
    }
}
