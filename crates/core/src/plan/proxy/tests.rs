use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::address::Family;
use crate::facts::Facts;
use crate::members::{Reach, meets};
use crate::ruleset::{BackendName, RuleName};

fn rule(name: &str, first: u16, last: u16, ports: TargetPorts) -> Rule {
    let listener = Listener {
        protocol: Protocol::Tcp,
        scope: Scope::Any(Family::V4),
        ports: PortRange::new(first, last).unwrap(),
    };
    let target = Target { address: "192.0.2.1".parse().unwrap(), ports };
    Rule::new(RuleName::new(name).unwrap(), vec![listener], target)
}

fn plan(rules: &[&Rule], settings: &ProxySettings) -> Plan {
    let met = |rule: &&'_ Rule| meets(rule, &Facts::default(), Duration::ZERO, Reach::ANY);
    let rules: Vec<(&Rule, Meets)> = rules.iter().map(|rule| (*rule, met(rule))).collect();
    Plan::new(&rules, settings)
}

#[test]
fn ranges_become_one_socket_per_port() {
    let shifted = TargetPorts::Shifted(PortRange::new(9000, 9002).unwrap());
    let mut web = rule("web", 8000, 8002, shifted);
    web.source = SourceMode::Snat(vec!["192.0.2.7".parse().unwrap()]);
    web.max_connections = NonZeroU32::new(5);
    let plan = plan(&[&web], &ProxySettings::default());
    assert_eq!(
        plan.to_string(),
        "workers by host, max-connections by host, max-flows by host\n\
         rule web\n  source snat 192.0.2.7\n  \
         timeouts connect 5s, idle 3600s, half-closed 60s, udp-idle 60s\n  max-connections 5\n  \
         balance round-robin, retries 2\n  -> 192.0.2.1:9000-9002 weight 1\n  \
         tcp/0.0.0.0:8000\n  tcp/0.0.0.0:8001\n  tcp/0.0.0.0:8002\n"
    );
}

#[test]
fn a_rule_without_clocks_takes_the_files() {
    let timeouts = Timeouts { idle: Duration::from_secs(7), ..Timeouts::default() };
    let settings = ProxySettings { timeouts, ..ProxySettings::default() };
    let plan = plan(&[&rule("a", 1, 1, TargetPorts::Same)], &settings);
    assert_eq!(plan.rules.values().next().unwrap().timeouts, timeouts);
}

#[test]
fn a_change_prints_names() {
    let settings = ProxySettings::default();
    let (a, b, b2) = (
        rule("a", 1, 1, TargetPorts::Same),
        rule("b", 2, 2, TargetPorts::Same),
        rule("b", 3, 3, TargetPorts::Same),
    );
    let c = rule("c", 4, 4, TargetPorts::Same);
    let old = plan(&[&a, &b], &settings);
    let new = plan(&[&b2, &c], &settings);
    assert_eq!(Plan::diff(&old, &new).to_string(), "- rule a\n+ rule c\n~ rule b\n");
    assert!(Plan::diff(&old, &old).is_empty());
}

#[test]
fn a_pool_prints_all_that_makes_a_difference() {
    let member = |last: u8, max| Member {
        backend: BackendName::new("b").unwrap(),
        target: Target { address: [192, 0, 2, last].into(), ports: TargetPorts::One(80) },
        weight: last.into(),
        max_connections: NonZeroU32::new(max),
    };
    let mut pool = PoolPlan::new(&Pool::new(Vec::new()), Meets::Members(vec![member(1, 0), member(2, 9)]));
    pool.balance = Balance::ConsistentHash;
    pool.hash = HashKey::Sni;
    pool.places = 2;
    pool.persist = Some(Duration::from_secs(600));
    pool.passive = Some(Passive::DEFAULT);
    assert_eq!(
        pool.to_string(),
        "  balance consistent-hash by sni, made for 2, persist 600s, retries 2, passive 3 in 10s, at most 50 % ejected\n  \
         -> 192.0.2.1:80 weight 1\n  -> 192.0.2.2:80 weight 2, max-connections 9\n"
    );
    let pool = |meets| PoolPlan::new(&Pool::new(Vec::new()), meets).to_string();
    assert_eq!(pool(Meets::Refuse), "  balance round-robin, retries 2\n  -> refuse\n");
    assert_eq!(pool(Meets::Drop), "  balance round-robin, retries 2\n  -> drop\n");
}

fn members() -> impl Strategy<Value = Meets> {
    let member = (1u8..4, 1u32..3, 0u32..2).prop_map(|(last, weight, max)| Member {
        backend: BackendName::new("b").unwrap(),
        target: Target { address: [192, 0, 2, last].into(), ports: TargetPorts::Same },
        weight,
        max_connections: NonZeroU32::new(max),
    });
    prop_oneof![
        4 => vec(member, 1..4).prop_map(Meets::Members),
        1 => Just(Meets::Refuse),
        1 => Just(Meets::Drop),
    ]
}

fn pools() -> impl Strategy<Value = Pool> {
    let balance = select(Balance::WORDS.map(|(_, balance)| balance).to_vec());
    let hash = select(HashKey::WORDS.map(|(_, hash)| hash).to_vec());
    (balance, hash, option::of(1u64..3), option::of(0u8..3), any::<bool>()).prop_map(
        |(balance, hash, persist, retries, passive)| Pool {
            balance,
            hash,
            persist: persist.map(Duration::from_secs),
            retries,
            passive: passive.then_some(Passive::DEFAULT),
            ..Pool::new(Vec::new())
        },
    )
}

/// Rules with one listener, and what each meets.
fn rules() -> impl Strategy<Value = BTreeMap<RuleName, (Rule, Meets)>> {
    let rule = (1u16..40, 0u16..4, any::<bool>(), option::of(1u32..3), pools(), members()).prop_map(
        |(first, more, snat, max, pool, meets)| {
            let mut rule = rule("x", first, first + more, TargetPorts::Same);
            rule.pool = pool;
            rule.max_connections = max.and_then(NonZeroU32::new);
            if snat {
                rule.source = SourceMode::Snat(vec!["192.0.2.9".parse().unwrap()]);
            }
            (rule, meets)
        },
    );
    let name = "[a-e]".prop_map(|n| RuleName::new(&n).unwrap());
    btree_map(name, rule, 0..5).prop_map(|mut rules| {
        for (name, (rule, _)) in &mut rules {
            rule.name = name.clone();
        }
        rules
    })
}

fn settings() -> impl Strategy<Value = ProxySettings> {
    option::of(1u32..3).prop_map(|workers| ProxySettings {
        workers: workers.and_then(NonZeroU32::new),
        ..ProxySettings::default()
    })
}

fn plan_of(rules: &BTreeMap<RuleName, (Rule, Meets)>, settings: &ProxySettings) -> Plan {
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
        let change = adjusted.adjust(&concerned, &settings);
        prop_assert_eq!(&change, &Plan::diff(&old, &new));
        prop_assert_eq!(&adjusted, &new);
        prop_assert_eq!(old.apply(&change), adjusted);
    }

    #[test]
    fn plans_that_differ_print_differently(one in plans(), other in plans()) {
        prop_assert_eq!(one == other, one.to_string() == other.to_string());
    }
}
