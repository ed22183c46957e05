use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::address::Protocol;
use crate::facts::Facts;
use crate::members::{Reach, meets};
use crate::ruleset::{BackendName, RuleName, Scope, TargetPorts};

fn rule(name: &str, first: u16, last: u16) -> Rule {
    let listener = Listener {
        protocol: Protocol::Tcp,
        scope: Scope::Any(Family::V4),
        ports: PortRange::new(first, last).unwrap(),
    };
    let target = Target { address: "192.0.2.1".parse().unwrap(), ports: TargetPorts::One(80) };
    Rule::new(RuleName::new(name).unwrap(), vec![listener], target)
}

fn met(rule: &Rule) -> Meets {
    meets(rule, &Facts::default(), Duration::ZERO, Reach::ANY)
}

fn member(backend: &str, last: u8, weight: u32) -> Member {
    Member {
        backend: BackendName::new(backend).unwrap(),
        target: Target { address: [192, 0, 2, last].into(), ports: TargetPorts::One(80) },
        weight,
        max_connections: None,
    }
}

#[test]
fn a_plan_prints_all_that_makes_a_difference() {
    let mut web = rule("web", 80, 80);
    web.client_address = Some(ClientAddress::Toa);
    web.new_flow_rate = NonZeroU32::new(1000);
    web.syn_cookies = Some(0);
    web.source = SourceMode::Snat(vec!["192.0.2.7".parse().unwrap()]);
    let plan = Plan::new(&[(&web, met(&web))], &EbpfSettings::default());
    assert_eq!(
        plan.to_string(),
        "attach auto, interfaces all, max-flows 262144, source-ports 40000-65535, timeouts opening 30s \
         established 2h closing 1m time-wait 1m udp 30s udp-stream 2m\n\
         rule web\n  source snat 192.0.2.7\n  \
         choose the first of 1 slots, client-address toa, new-flow-rate 1000, syn-cookies 0\n  \
         -> 192.0.2.1:80 slots 1\n  when empty refuse\n  forwarding IPv4\n  tcp/0.0.0.0:80\n"
    );
}

#[test]
fn slots_are_those_of_every_engine() {
    let mut web = rule("web", 80, 80);
    let members = vec![member("a", 1, 3), member("b", 2, 1)];
    for (balance, hash, choose) in [
        (Balance::RoundRobin, HashKey::Source, Choose::InTurn),
        (Balance::SourceHash, HashKey::Source, Choose::Source),
        (Balance::ConsistentHash, HashKey::SourcePort, Choose::SourcePort),
        (Balance::First, HashKey::Source, Choose::First),
    ] {
        web.pool.balance = balance;
        web.pool.hash = hash;
        let plan = RulePlan::new(&web, &Meets::Members(members.clone()));
        assert_eq!(plan.choose, choose, "{balance}");
        assert_eq!(plan.slots, balance::table(balance, web.pool.places(), &members), "{balance}");
        // Who is alone is not drawn for.
        let plan = RulePlan::new(&web, &Meets::Members(members[..1].to_vec()));
        assert_eq!((plan.choose, plan.slots), (Choose::First, vec![0]), "{balance}");
    }
}

/// What the file writes keeps its counters while it is down, and who says sorry is not remembered.
#[test]
fn an_empty_pool_keeps_its_targets() {
    let mut web = rule("web", 80, 80);
    web.pool.persist = Some(Duration::from_millis(1500));
    let written: BTreeSet<Target> = web.pool.targets().collect();
    for (meets, empty) in [(Meets::Refuse, Empty::Refuse), (Meets::Drop, Empty::Drop)] {
        let plan = RulePlan::new(&web, &meets);
        assert_eq!((&plan.targets, plan.empty), (&written, empty));
        assert!(plan.slots.is_empty() && plan.members.is_empty());
    }
    let live = RulePlan::new(&web, &met(&web));
    assert_eq!(live.persist, Some(Duration::from_secs(2)), "whole seconds, rounded up");
    let sorry = RulePlan::new(&web, &Meets::Members(vec![member("sorry", 9, 1)]));
    assert_eq!(sorry.persist, None);
    assert_eq!(sorry.targets.len(), 2);
}

#[test]
fn what_the_host_must_do_follows_from_the_rule_and_not_from_who_is_up() {
    let mut web = rule("web", 80, 80);
    let plan = |rule: &Rule| Plan::new(&[(rule, Meets::Refuse)], &EbpfSettings::default());
    let forwards = |rule: &Rule| [Family::V4, Family::V6].map(|family| plan(rule).needs_forwarding(family));
    assert_eq!(forwards(&web), [true, false]);
    web.pool.when_empty =
        WhenEmpty::Sorry(Target { address: "fd00::9".parse().unwrap(), ports: TargetPorts::Same });
    assert_eq!(forwards(&web), [true, true]);
    assert_eq!(plan(&web).reserved_ports(), PortRange::new(40_000, 65_535));
    let none = Plan::default();
    assert!(none.reserved_ports().is_none() && !none.needs_forwarding(Family::V4) && none.is_empty());
}

#[test]
fn a_change_prints_names() {
    let plan = |rules: &[&Rule]| {
        let rules: Vec<(&Rule, Meets)> = rules.iter().map(|rule| (*rule, met(rule))).collect();
        Plan::new(&rules, &EbpfSettings::default())
    };
    let (a, b, b2, c) = (rule("a", 1, 1), rule("b", 2, 2), rule("b", 3, 3), rule("c", 4, 4));
    let (old, new) = (plan(&[&a, &b]), plan(&[&b2, &c]));
    assert_eq!(Plan::diff(&old, &new).to_string(), "- rule a\n+ rule c\n~ rule b\n");
    assert!(Plan::diff(&old, &old).is_empty());
}

fn members() -> impl Strategy<Value = Meets> {
    let one = (1u8..4, 1u32..3).prop_map(|(last, weight)| member("b", last, weight));
    let some = vec(one, 1..4).prop_map(|mut members| {
        members.sort_by_key(|member| member.target);
        members.dedup_by_key(|member| member.target);
        Meets::Members(members)
    });
    prop_oneof![4 => some, 1 => Just(Meets::Refuse), 1 => Just(Meets::Drop)]
}

/// Rules with one listener, and what each meets.
fn rules() -> impl Strategy<Value = BTreeMap<RuleName, (Rule, Meets)>> {
    let balance = select(vec![Balance::RoundRobin, Balance::SourceHash, Balance::First]);
    let hash = select(vec![HashKey::Source, HashKey::SourcePort]);
    let pool = (balance, hash, option::of(1u64..3), any::<bool>());
    let asks = (any::<bool>(), any::<bool>(), option::of(1u32..3), option::of(0u32..2));
    let rule = (1u16..40, 0u16..4, pool, asks, members()).prop_map(|(first, more, pool, asks, meets)| {
        let mut rule = rule("x", first, first + more);
        (rule.pool.balance, rule.pool.hash) = (pool.0, pool.1);
        rule.pool.persist = pool.2.map(Duration::from_secs);
        rule.pool.when_empty = if pool.3 { WhenEmpty::Drop } else { WhenEmpty::Refuse };
        rule.client_address = asks.0.then_some(ClientAddress::Toa);
        if asks.1 {
            rule.source = SourceMode::Snat(vec!["192.0.2.9".parse().unwrap()]);
        }
        rule.new_flow_rate = asks.2.and_then(NonZeroU32::new);
        rule.syn_cookies = asks.3;
        (rule, meets)
    });
    let name = "[a-e]".prop_map(|name| RuleName::new(&name).unwrap());
    btree_map(name, rule, 0..5).prop_map(|mut rules| {
        for (name, (rule, _)) in &mut rules {
            rule.name = name.clone();
        }
        rules
    })
}

fn settings() -> impl Strategy<Value = EbpfSettings> {
    (1024u32..1027, 1u64..3).prop_map(|(max_flows, udp)| EbpfSettings {
        max_flows,
        timeouts: crate::ruleset::FlowTimeouts { udp: Duration::from_secs(udp), ..Default::default() },
        ..EbpfSettings::default()
    })
}

fn plan_of(rules: &BTreeMap<RuleName, (Rule, Meets)>, settings: &EbpfSettings) -> Plan {
    let rules: Vec<(&Rule, Meets)> = rules.values().map(|(rule, meets)| (rule, meets.clone())).collect();
    Plan::new(&rules, settings)
}

fn plans() -> impl Strategy<Value = Plan> {
    (rules(), settings()).prop_map(|(rules, settings)| plan_of(&rules, &settings))
}

proptest! {
    #[test]
    fn old_plus_diff_is_new(old in plans(), new in plans()) {
        let change = Plan::diff(&old, &new);
        prop_assert_eq!(change.is_empty(), old == new);
        prop_assert_eq!(old.apply(&change), new);
    }

    /// What is adjusted is what would have been planned, and only what differs is in the change.
    #[test]
    fn adjusting_is_planning_afresh(rules in rules(), settings in settings(), now in vec(members(), 5), named in vec(any::<bool>(), 5)) {
        let old = plan_of(&rules, &settings);
        let mut facts = rules.clone();
        for (((_, meets), now), _) in facts.values_mut().zip(now).zip(&named).filter(|(_, named)| **named) {
            *meets = now;
        }
        let new = plan_of(&facts, &settings);
        let concerned: Vec<(&Rule, Meets)> = facts.values().zip(&named).filter(|(_, named)| **named)
            .map(|((rule, meets), _)| (rule, meets.clone())).collect();
        let mut adjusted = old.clone();
        let change = adjusted.adjust(&concerned);
        prop_assert_eq!(&change, &Plan::diff(&old, &new));
        prop_assert_eq!(&adjusted, &new);
        prop_assert_eq!(old.apply(&change), adjusted);
    }

    #[test]
    fn plans_that_differ_print_differently(one in plans(), other in plans()) {
        prop_assert_eq!(one == other, one.to_string() == other.to_string());
    }

    /// Every slot leads to a member, and every member has a slot unless only the first counts.
    #[test]
    fn slots_and_members_fit(plan in plans()) {
        for rule in plan.rules.values() {
            let used: BTreeSet<u16> = rule.slots.iter().copied().collect();
            prop_assert!(used.iter().all(|nth| usize::from(*nth) < rule.members.len()));
            prop_assert_eq!(rule.slots.is_empty(), rule.members.is_empty());
            let all = rule.choose == Choose::First || used.len() == rule.members.len();
            prop_assert!(all, "{:?}", rule);
        }
    }
}
