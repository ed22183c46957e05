//! Plans: one per engine, plain data, printable and comparable. The same input gives the same bytes.

pub mod nftables;
pub mod proxy;

use crate::assign::Assignment;
use crate::ruleset::{EngineKind, Rule, Ruleset};

/// One plan per engine, made together from one ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plans {
    /// The nftables engine's numbers for the rules, and which are spent.
    pub ids: nftables::Ids,
    /// What nf_tables shall hold.
    pub nftables: nftables::Plan,
    /// What the proxy shall serve.
    pub proxy: proxy::Plan,
}

impl Plans {
    /// The plans of an assigned ruleset. `previous` are the ids that the kernel's table uses already: a rule
    /// that keeps its name keeps its id, so that its established flows stay its own.
    pub fn new(ruleset: &Ruleset, assignment: &Assignment, previous: &nftables::Ids) -> Self {
        let of = |kind: EngineKind| -> Vec<&Rule> {
            let assigned = ruleset.rules.iter().zip(&assignment.rules);
            assigned.filter(|(_, assigned)| assigned.engine == kind).map(|(rule, _)| rule).collect()
        };
        let nat = of(EngineKind::Nftables);
        let ids = nftables::Ids::allocate(previous, nat.iter().map(|rule| &rule.name));
        let nftables = nftables::Plan::new(&nat, &ids);
        Self { ids, nftables, proxy: proxy::Plan::new(&of(EngineKind::Proxy), &ruleset.proxy) }
    }
}
