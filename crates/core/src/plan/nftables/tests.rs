use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::address::Protocol;
use crate::facts::Facts;
use crate::members::{Member, Reach, meets};
use crate::ruleset::{Backend, BackendHost, Balance, HashKey, Helper, HostName, Pool, Target, WhenEmpty};

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
    // Flows of the one that has gone are still told by its name; nobody else gets its id, and it gets it back.
    assert_eq!((second.get(&names[1]), second.known(&names[1])), (None, RuleId::new(2)));
    assert_eq!(second.names().get(&RuleId::new(2).unwrap()), Some(&&names[1]));
    let other = RuleName::new("e").unwrap();
    let third = Ids::allocate(&second, names.iter().chain([&other]));
    assert_eq!((third.get(&names[1]), third.get(&other)), (RuleId::new(2), RuleId::new(5)));
    // Also when the highest has gone in between, and when none is left but those that rest.
    let fourth = Ids::allocate(&third, names[..1].iter());
    let more = RuleName::new("f").unwrap();
    let fifth = Ids::allocate(&fourth, names.iter().chain([&more]));
    assert_eq!((fifth.get(&names[1]), fifth.get(&more)), (RuleId::new(2), RuleId::new(6)));
    assert_eq!(fifth.known(&other), RuleId::new(5));
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

/// A name may have addresses of both families, and so may the pool of sources; flows keep the listener's.
#[test]
fn every_source_slot_has_an_address_of_the_listeners_family() {
    let sources: Vec<IpAddr> =
        ["192.0.2.9", "fd00::9", "192.0.2.10"].map(|text| text.parse().unwrap()).into();
    for (family, set, other) in
        [(Family::V4, Set::Source4, Set::Source6), (Family::V6, Set::Source6, Set::Source4)]
    {
        let listener = tcp(Scope::Any(family), 80, 80);
        let mut rule = rule("named", vec![listener], to("10.0.0.1", TargetPorts::One(80)));
        rule.pool.backends[0].host = BackendHost::Name(HostName::new("app.example").unwrap());
        rule.source = SourceMode::Snat(sources.clone());
        let plan = plan(&[rule]);
        assert_eq!(plan.elements(set).count(), usize::try_from(statement::SLOTS).unwrap());
        assert_eq!(plan.elements(other).count(), 0);
    }
}

#[test]
fn a_changed_backend_changes_one_element() {
    let old = plan(&[rule("web", vec![tcp(ANY, 80, 80)], to("10.0.0.1", TargetPorts::One(80)))]);
    let new = plan(&[rule("web", vec![tcp(ANY, 80, 80)], to("10.0.0.2", TargetPorts::One(80)))]);
    let change = Plan::diff(&old, &new);
    assert_eq!((change.added(), change.removed()), (1, 1));
    assert!(change.add.contains_key(&Set::Backend4));
}

/// A rule with several backends of these weights, `10.0.0.1:80` and on.
fn pool(balance: Balance, weights: &[u16]) -> Rule {
    let mut rule = rule("web", vec![tcp(ANY, 80, 80)], to("10.0.0.1", TargetPorts::One(80)));
    let backend = |(last, weight): (u8, &u16)| {
        let target = Target { address: [10, 0, 0, last].into(), ports: TargetPorts::One(80) };
        Backend { weight: *weight, ..Backend::of(target) }
    };
    rule.pool.backends = (1..).zip(weights).map(backend).collect();
    rule.pool.balance = balance;
    rule
}

/// What a rule meets while these backends are up.
fn up(rule: &Rule, live: impl Fn(usize) -> bool) -> Meets {
    let members: Vec<Member> = (0..)
        .zip(&rule.pool.backends)
        .filter(|(nth, backend)| live(*nth) && backend.weight > 0)
        .map(|(_, backend)| Member {
            backend: backend.name.clone(),
            target: backend.target().unwrap(),
            weight: backend.weight.into(),
            max_connections: None,
        })
        .collect();
    if members.is_empty() { Meets::Refuse } else { Meets::Members(members) }
}

fn plan_met(rules: &[(&Rule, Meets)]) -> (Plan, Ids) {
    let ids = Ids::allocate(&Ids::default(), rules.iter().map(|(rule, _)| &rule.name));
    (Plan::new(rules, &ids), ids)
}

fn slots(plan: &Plan) -> Vec<String> {
    let data = |(_, entry): (&Key, &Entry)| match &entry.data {
        Data::Fields(fields) => fields[0].to_string(),
        _ => String::new(),
    };
    plan.elements(Set::Slots4(1)).map(data).collect()
}

#[test]
fn a_backend_that_goes_or_comes_changes_elements_only() {
    for (balance, weights) in [
        (Balance::RoundRobin, &[1, 1][..]),
        (Balance::RoundRobin, &[1, 1, 1]),
        (Balance::RoundRobin, &[3, 2, 1]),
        (Balance::SourceHash, &[2, 2, 4]),
        (Balance::ConsistentHash, &[1, 1, 1, 1, 1]),
        (Balance::RoundRobin, &[1; 16]),
    ] {
        let rule = pool(balance, weights);
        let (mut plan, ids) = plan_met(&[(&rule, up(&rule, |_| true))]);
        for down in 0..weights.len() {
            for meets in [up(&rule, |nth| nth != down), Meets::Drop, up(&rule, |_| true), Meets::Refuse] {
                let change = plan.adjust(&[(&rule, meets)], &ids);
                assert!(
                    change.add_chains.is_empty() && change.remove_chains.is_empty(),
                    "{balance} {weights:?}"
                );
                let touched: Vec<_> = change.add.keys().chain(change.remove.keys()).collect();
                let ours = |set: &&Set| matches!(set, Set::Slots4(1) | Set::Refused);
                assert!(touched.iter().all(ours), "{touched:?}");
            }
        }
    }
}

#[test]
fn slots_lead_as_the_table_says() {
    let turns = pool(Balance::RoundRobin, &[2, 1, 1]);
    let (plan, _) = plan_met(&[(&turns, up(&turns, |nth| nth < 2))]);
    // Two and one, for as long as four and any three of them need.
    assert_eq!(slots(&plan), ["10.0.0.1", "10.0.0.2", "10.0.0.1"].repeat(4));
    let hash = pool(Balance::SourceHash, &[2, 1, 1]);
    let (plan, _) = plan_met(&[(&hash, up(&hash, |nth| nth < 2))]);
    let wider = [["10.0.0.1"; 4], ["10.0.0.1"; 4], ["10.0.0.2"; 4]].concat();
    assert_eq!(slots(&plan), wider);
    assert!(plan.to_string().contains("jhash ip saddr mod 12 seed 0x506f7274 map @slots4_1"), "{plan}");
}

#[test]
fn a_rule_with_one_address_has_no_more_elements_than_before() {
    let rule = rule("web", vec![tcp(ANY, 80, 80)], to("10.0.0.1", TargetPorts::One(80)));
    let (mut plan, ids) = plan_met(&[(&rule, up(&rule, |_| true))]);
    assert_eq!(
        plan.elements.keys().collect::<Vec<_>>(),
        [&Set::Any, &Set::Flows, &Set::Traffic, &Set::Backend4]
    );
    assert!(plan.chains.is_empty());
    plan.adjust(&[(&rule, Meets::Refuse)], &ids);
    assert_eq!(
        plan.elements.keys().collect::<Vec<_>>(),
        [&Set::Any, &Set::Flows, &Set::Traffic, &Set::Refused]
    );
    plan.adjust(&[(&rule, Meets::Drop)], &ids);
    assert_eq!(plan.elements.keys().collect::<Vec<_>>(), [&Set::Any, &Set::Flows, &Set::Traffic]);
}

/// What the host must do never depends on who is up, and names count before they are resolved.
#[test]
fn host_settings_do_not_follow_from_facts() {
    let mut rule = rule(
        "web",
        vec![tcp(Scope::Address([192, 0, 2, 1].into()), 80, 80)],
        to("127.0.0.1", TargetPorts::One(80)),
    );
    let settings = |rule: &Rule, meets| {
        let (plan, _) = plan_met(&[(rule, meets)]);
        (plan.needs_route_localnet(), [Family::V4, Family::V6].map(|family| plan.needs_forwarding(family)))
    };
    assert_eq!(settings(&rule, Meets::Refuse), (true, [false, false]));
    let Meets::Members(members) = up(&rule, |_| true) else { unreachable!() };
    let target = Target { address: [10, 0, 0, 9].into(), ports: TargetPorts::One(80) };
    rule.pool.when_empty = WhenEmpty::Sorry(target);
    assert_eq!(settings(&rule, Meets::Members(members)), (true, [true, false]));
    rule.pool.when_empty = WhenEmpty::Refuse;
    rule.pool.backends[0].host = BackendHost::Name(HostName::new("app.example").unwrap());
    assert_eq!(settings(&rule, Meets::Drop), (false, [true, false]));
}

#[test]
fn what_remembers_is_told_what_to_forget() {
    let mut rule = pool(Balance::RoundRobin, &[1, 1, 1]);
    let (mut plan, ids) = plan_met(&[(&rule, up(&rule, |_| true))]);
    assert!(plan.adjust(&[(&rule, up(&rule, |nth| nth > 0))], &ids).forget.is_empty());
    rule.pool.persist = Some(Duration::from_secs(60));
    let (mut plan, ids) = plan_met(&[(&rule, up(&rule, |_| true))]);
    let id = RuleId::new(1).unwrap();
    assert_eq!(plan.remembered(id).unwrap().1.len(), 3);
    assert_eq!(plan.adjust(&[(&rule, up(&rule, |nth| nth > 0))], &ids).forget, [id].into());
    let (set, members) = plan.remembered(id).unwrap();
    assert_eq!((set, members.len()), (Set::Persist4, 2));
    rule.pool.persist = None;
    assert_eq!(plan.adjust(&[(&rule, up(&rule, |nth| nth > 0))], &ids).forget, [id].into());
    assert_eq!(plan.remembered(id), None);
}

prop_compose! {
    fn any_pool()(
        weights in prop::collection::vec(0_u16..5, 1..6),
        balance in prop::sample::select(Balance::WORDS.map(|(_, balance)| balance).to_vec()),
        hash in any::<bool>(),
        persist in any::<bool>(),
        same in any::<bool>(),
    ) -> Pool {
        let mut pool = pool(balance, &weights).pool;
        pool.hash = if hash { HashKey::SourcePort } else { HashKey::Source };
        pool.persist = persist.then_some(Duration::from_millis(1500));
        if same {
            pool.backends.iter_mut().for_each(|backend| backend.ports = TargetPorts::Same);
        }
        pool
    }
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
    /// Adjusting is planning afresh, and says just what differs.
    #[test]
    fn adjusted_plans_are_those_made_afresh(
        mut rules in any_rules(),
        pools in prop::collection::vec(any_pool(), 10),
        steps in prop::collection::vec(prop::collection::vec((0_usize..10, any::<u8>()), 1..4), 1..6),
    ) {
        rules.iter_mut().zip(pools).for_each(|(rule, pool)| rule.pool = pool);
        let meets = |rule: &Rule, state: u8| match state {
            0..20 => Meets::Drop,
            state => up(rule, |nth| state >> (nth % 8) & 1 == 0),
        };
        let mut met: Vec<(&Rule, Meets)> = rules.iter().map(|rule| (rule, up(rule, |_| true))).collect();
        let (mut plan, ids) = plan_met(&met);
        for step in steps {
            let before = plan.clone();
            let mut changed: BTreeMap<usize, (&Rule, Meets)> = BTreeMap::new();
            for (nth, state) in step {
                if let Some((rule, now)) = met.get_mut(nth) {
                    *now = meets(rule, state);
                    changed.insert(nth, (rule, now.clone()));
                }
            }
            let change = plan.adjust(&changed.into_values().collect::<Vec<_>>(), &ids);
            let afresh = Plan::new(&met, &ids);
            prop_assert_eq!(&change, &Plan::diff(&before, &afresh));
            prop_assert_eq!(&plan, &afresh);
            prop_assert_eq!(before.apply(&change), afresh);
        }
    }

    /// Whoever is up, each member has its share of the slots: to the last turn, or within Maglev's hundredth.
    #[test]
    fn shares_are_exact(weights in prop::collection::vec(1_u16..=256, 2..7), live in 1_u8..64, which in 0..3_usize) {
        let balance = [Balance::RoundRobin, Balance::SourceHash, Balance::ConsistentHash][which];
        let rule = pool(balance, &weights);
        let live = |nth: usize| live >> nth & 1 == 1;
        let (plan, _) = plan_met(&[(&rule, up(&rule, live))]);
        let slots = slots(&plan);
        let total: u64 = (0..).zip(&weights).filter(|(nth, _)| live(*nth)).map(|(_, weight)| u64::from(*weight)).sum();
        for (nth, weight) in (0..).zip(&weights).filter(|(nth, _)| live(*nth)) {
            let address = format!("10.0.0.{}", nth + 1);
            let has = slots.iter().filter(|slot| **slot == address).count() as f64 / slots.len() as f64;
            let share = f64::from(*weight) / total as f64;
            let most = if balance == Balance::ConsistentHash { 0.01 } else { 1e-9 };
            prop_assert!((has - share).abs() <= most, "{address} has {has}, its share is {share}");
        }
    }

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
