use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::address::Protocol;
use crate::facts::Facts;
use crate::members::{Reach, meets};
use crate::ruleset::{Helper, Target};

fn rule(name: &str, listeners: Vec<Listener>, target: Target) -> Rule {
    Rule::new(RuleName::new(name).unwrap(), listeners, target)
}

fn tcp(scope: Scope, first: u16, last: u16) -> Listener {
    Listener { protocol: Protocol::Tcp, scope, ports: PortRange::new(first, last).unwrap() }
}

fn to(address: &str, ports: TargetPorts) -> Target {
    Target { address: address.parse().unwrap(), ports }
}

fn plan(rules: &[Rule]) -> Plan {
    let ids = Ids::allocate(&Ids::default(), rules.iter().map(|rule| &rule.name));
    Plan::new(&met(rules), &ids)
}

/// The rules with what they meet while nothing is known of the world.
fn met(rules: &[Rule]) -> Vec<(&Rule, Meets)> {
    rules.iter().map(|rule| (rule, meets(rule, &Facts::default(), Duration::ZERO, Reach::ANY))).collect()
}

const ANY: Scope = Scope::Any(Family::V4);

#[test]
fn known_names_keep_their_id_and_used_ids_rest() {
    let names: Vec<RuleName> = ["a", "b", "c", "d"].map(|name| RuleName::new(name).unwrap()).into();
    let first = Ids::allocate(&Ids::default(), names[..3].iter());
    let numbers = |ids: &Ids| ids.iter().map(|(name, id)| (name.to_string(), id.get())).collect::<Vec<_>>();
    assert_eq!(numbers(&first), [("a".into(), 1), ("b".into(), 2), ("c".into(), 3)]);
    let second = Ids::allocate(&first, [&names[3], &names[2], &names[0]].into_iter());
    assert_eq!(numbers(&second), [("a".into(), 1), ("c".into(), 3), ("d".into(), 4)]);
    let third = Ids::allocate(&second, names.iter());
    assert_eq!(third.get(&names[1]), RuleId::new(5));
    // Also when the highest has gone in between, and when none is left but those that rest.
    let fourth = Ids::allocate(&third, names[..1].iter());
    assert_eq!(Ids::allocate(&fourth, names.iter()).get(&names[1]), RuleId::new(6));
    let last = [(names[0].clone(), RuleId::new(RuleId::MAX).unwrap())].into_iter().collect();
    let again = Ids::allocate(&last, names[..3].iter());
    assert_eq!(numbers(&again), [("a".into(), RuleId::MAX), ("b".into(), 1), ("c".into(), 2)]);
}

#[test]
fn ids_are_read_back_from_a_plan() {
    let rules = [
        rule("web", vec![tcp(ANY, 80, 80)], to("10.0.0.1", TargetPorts::One(80))),
        rule("mail", vec![tcp(ANY, 25, 25)], to("10.0.0.1", TargetPorts::Same)),
    ];
    let names: Vec<&RuleName> = rules.iter().map(|rule| &rule.name).collect();
    assert_eq!(plan(&rules).ids(), Ids::allocate(&Ids::default(), names.into_iter()));
}

#[test]
fn sixty_thousand_ports_are_one_listen_element() {
    let range = PortRange::new(1000, 61_000).unwrap();
    for ports in [TargetPorts::Same, TargetPorts::Shifted(range)] {
        let plan = plan(&[rule("all", vec![tcp(ANY, 1000, 61_000)], to("10.0.0.1", ports))]);
        assert_eq!(plan.elements(Set::AnyRanges).count(), 1);
        assert_eq!(plan.elements(Set::Backend4SamePort).count(), 1);
        assert_eq!(plan.len(), 5);
    }
}

#[test]
fn a_shifted_range_has_one_element_per_port() {
    let ports = TargetPorts::Shifted(PortRange::new(9000, 9002).unwrap());
    let plan = plan(&[rule("shift", vec![tcp(ANY, 8000, 8002)], to("10.0.0.1", ports))]);
    let text = plan.to_string();
    for pair in ["8000 : 10.0.0.1 . 9000", "8001 : 10.0.0.1 . 9001", "8002 : 10.0.0.1 . 9002"] {
        assert!(text.contains(&format!("0x50000001 . {pair}")), "{pair} is missing in\n{text}");
    }
}

#[test]
fn a_helper_is_declared_for_the_protocols_that_use_it() {
    let udp = Listener { protocol: Protocol::Udp, ..tcp(ANY, 5060, 5060) };
    let mut sip = rule("sip", vec![tcp(ANY, 5060, 5060), udp], to("10.0.0.1", TargetPorts::Same));
    sip.helper = Some(Helper::Sip);
    let plan = plan(&[sip]);
    assert_eq!(plan.helpers.iter().map(|object| object.name()).collect::<Vec<_>>(), ["sip_tcp", "sip_udp"]);
    assert_eq!(plan.elements(Set::Helpers).count(), 2);
}

#[test]
fn host_settings_follow_from_the_rules() {
    let address = |text: &str| Scope::Address(text.parse().unwrap());
    let needs = |scope: Scope, backend: &str| {
        let plan = plan(&[rule("r", vec![tcp(scope, 80, 80)], to(backend, TargetPorts::Same))]);
        let forwarding = [Family::V4, Family::V6].map(|family| plan.needs_forwarding(family));
        (plan.needs_route_localnet(), forwarding)
    };
    assert_eq!(needs(address("192.0.2.1"), "10.0.0.1"), (false, [true, false]));
    assert_eq!(needs(ANY, "10.0.0.1"), (true, [true, false]));
    assert_eq!(needs(address("127.0.0.2"), "10.0.0.1"), (true, [true, false]));
    assert_eq!(needs(address("192.0.2.1"), "127.0.0.1"), (true, [false, false]));
    assert_eq!(needs(Scope::Any(Family::V6), "fd00::1"), (false, [false, true]));
}

#[test]
fn a_changed_backend_changes_one_element() {
    let old = plan(&[rule("web", vec![tcp(ANY, 80, 80)], to("10.0.0.1", TargetPorts::One(80)))]);
    let new = plan(&[rule("web", vec![tcp(ANY, 80, 80)], to("10.0.0.2", TargetPorts::One(80)))]);
    let change = Plan::diff(&old, &new);
    assert_eq!((change.added(), change.removed()), (1, 1));
    assert!(change.add.contains_key(&Set::Backend4));
}

prop_compose! {
    fn any_rule()(
        name in 0_u8..12,
        scope in 0_u8..3,
        first in 1_u16..50,
        count in 0_u16..4,
        target in 0_u8..3,
        address in 1_u8..4,
        source in 0_u8..3,
        helper in any::<bool>(),
    ) -> Rule {
        let scope = match scope {
            0 => Scope::Any(Family::V4),
            1 => Scope::Address([192, 0, 2, address].into()),
            _ => Scope::Interface(crate::address::InterfaceName::new("eth0").unwrap(), Family::V4),
        };
        let ports = match target {
            0 => TargetPorts::Same,
            1 => TargetPorts::One(80),
            _ => TargetPorts::Shifted(PortRange::new(first + 100, first + 100 + count).unwrap()),
        };
        let target = Target { address: [10, 0, 0, address].into(), ports };
        let mut rule = rule(&format!("rule{name}"), vec![tcp(scope, first, first + count)], target);
        rule.source = match source {
            0 => SourceMode::Masquerade,
            1 => SourceMode::Preserve,
            _ => SourceMode::Snat(vec![[192, 0, 2, 9].into(), [192, 0, 2, 10 + address].into()]),
        };
        rule.helper = helper.then_some(Helper::Ftp);
        rule
    }
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(any_rule(), 0..10).prop_map(|rules| {
        let unique: BTreeMap<RuleName, Rule> =
            rules.into_iter().map(|rule| (rule.name.clone(), rule)).collect();
        unique.into_values().collect()
    })
}

proptest! {
    #[test]
    fn old_and_change_make_new(old in any_rules(), new in any_rules()) {
        let old_ids = Ids::allocate(&Ids::default(), old.iter().map(|rule| &rule.name));
        let new_ids = Ids::allocate(&old_ids, new.iter().map(|rule| &rule.name));
        let old = Plan::new(&met(&old), &old_ids);
        let new = Plan::new(&met(&new), &new_ids);
        let change = Plan::diff(&old, &new);
        // Nothing that stays as it is may be sent again: its counters would start over.
        for (set, added) in &change.add {
            for (key, entry) in added {
                let before = old.elements.get(set).and_then(|elements| elements.get(key));
                prop_assert_ne!(before, Some(entry));
            }
        }
        prop_assert_eq!(old.clone().apply(&change), new.clone());
        prop_assert!(Plan::diff(&new, &new).is_empty());
    }
}
