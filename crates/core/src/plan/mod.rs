//! Plans: one per engine, plain data, printable and comparable. The same input gives the same bytes.

pub mod by_rule;
pub mod ebpf;
pub mod nftables;
pub mod proxy;

use crate::assign::Assignment;
use crate::facts::{Facts, Moment};
use crate::members::{Meets, Reach, meets};
use crate::ruleset::{EngineKind, Rule, RuleName, Ruleset};

/// What plans are made from.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// What the user asked for.
    pub ruleset: &'a Ruleset,
    /// Who serves it.
    pub assignment: &'a Assignment,
    /// What the world says.
    pub facts: &'a Facts,
    /// When.
    pub now: Moment,
}

impl<'a> World<'a> {
    /// The rules of one engine, with what their new flows meet; of the rules with these indices only.
    fn of(&self, kind: EngineKind, rules: impl Iterator<Item = usize>) -> Vec<(&'a Rule, Meets)> {
        let assigned =
            rules.filter_map(|nth| Some((self.ruleset.rules.get(nth)?, self.assignment.rules.get(nth)?)));
        assigned
            .filter(|(_, assigned)| assigned.engine == kind)
            .map(|(rule, _)| (rule, meets(rule, self.facts, self.now, Reach::of(rule, kind))))
            .collect()
    }
}

/// One plan per engine, made together from one ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plans {
    /// The nftables engine's numbers for the rules, and which are spent.
    pub ids: nftables::Ids,
    /// What nf_tables shall hold.
    pub nftables: nftables::Plan,
    /// What the programs on the interfaces shall serve.
    pub ebpf: ebpf::Plan,
    /// What the proxy shall serve.
    pub proxy: proxy::Plan,
}

/// What a changed fact changes in the plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In nf_tables.
    pub nftables: nftables::Change,
    /// On the interfaces.
    pub ebpf: ebpf::Change,
    /// In the proxy.
    pub proxy: proxy::Change,
    /// The rules that were planned, and whether a backend of each is live.
    pub live: Vec<(RuleName, bool)>,
}

impl Plans {
    /// The plans of an assigned ruleset. `previous` are the ids that the kernel's table uses already: a rule
    /// that keeps its name keeps its id, so that its established flows stay its own.
    pub fn new(world: World<'_>, previous: &nftables::Ids) -> Self {
        let all = || 0..world.ruleset.rules.len();
        let nat = world.of(EngineKind::Nftables, all());
        let ids = nftables::Ids::allocate(previous, nat.iter().map(|(rule, _)| &rule.name));
        let nftables = nftables::Plan::new(&nat, &ids);
        let ebpf = ebpf::Plan::new(&world.of(EngineKind::Ebpf, all()), &world.ruleset.ebpf);
        let proxy = proxy::Plan::new(&world.of(EngineKind::Proxy, all()), &world.ruleset.proxy);
        Self { ids, nftables, ebpf, proxy }
    }

    /// What changed facts change, and the plans with it, by work that grows with the rules named only: the rules with
    /// these indices are planned afresh and compared with what is planned for them. Listeners, and so everything
    /// outside the rules' own elements, do not depend on facts.
    pub fn adjust(&mut self, world: World<'_>, rules: &[usize]) -> Changes {
        let nat = world.of(EngineKind::Nftables, rules.iter().copied());
        let redirected = world.of(EngineKind::Ebpf, rules.iter().copied());
        let relayed = world.of(EngineKind::Proxy, rules.iter().copied());
        let live = |(rule, meets): &(&Rule, Meets)| (rule.name.clone(), meets.is_live());
        Changes {
            nftables: self.nftables.adjust(&nat, &self.ids),
            ebpf: self.ebpf.adjust(&redirected),
            proxy: self.proxy.adjust(&relayed, &world.ruleset.proxy),
            live: nat.iter().chain(&redirected).chain(&relayed).map(live).collect(),
        }
    }
}
