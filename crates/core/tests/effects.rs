//! Which flows end when a member goes down, and which do not.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portway_core::address::{Family, PortRange, Protocol};
use portway_core::effects::{Effects, MemberFlows, downs, effects};
use portway_core::facts::{Admin, Facts, Health, Lookup, Order, Resolved};
use portway_core::members::{Reach, probe, probes};
use portway_core::ruleset::{
    Backend, BackendHost, BackendName, Check, CheckKind, HostName, Listener, OnDown, Pool, Rule, RuleName,
    Scope, Target, TargetPorts,
};
use proptest::prelude::*;

const TCP: Protocol = Protocol::Tcp;
const UDP: Protocol = Protocol::Udp;

fn target(text: &str) -> Target {
    match text.parse::<SocketAddr>() {
        Ok(socket) => Target { address: socket.ip(), ports: TargetPorts::One(socket.port()) },
        Err(_) => Target { address: text.parse().unwrap(), ports: TargetPorts::Same },
    }
}

fn listener(protocol: Protocol, first: u16, last: u16) -> Listener {
    Listener { protocol, scope: Scope::Any(Family::V4), ports: PortRange::new(first, last).unwrap() }
}

fn rule(on_down: OnDown, protocols: &[Protocol], backends: Vec<Backend>) -> Rule {
    let listeners = protocols.iter().map(|protocol| listener(*protocol, 80, 80)).collect();
    let mut rule = Rule::new(RuleName::new("web").unwrap(), listeners, target("10.0.0.1:80"));
    rule.pool = Pool { on_down, ..Pool::new(backends) };
    rule.pool.check = Some(Arc::new(Check::new(CheckKind::Tcp { send: None, expect: None })));
    rule
}

fn two() -> Vec<Backend> {
    ["10.0.0.1:80", "10.0.0.2:80"].map(|text| Backend::of(target(text))).into()
}

fn verdict(up: bool) -> Health {
    Health { up, since: Duration::ZERO, recovered: false, reason: String::new() }
}

fn with(facts: &Facts, rule: &Rule, at: &str, up: bool) -> Facts {
    let mut facts = facts.clone();
    facts.health.insert(probe(rule, &rule.pool.backends[0], target(at)).unwrap(), verdict(up));
    facts
}

fn ordered(facts: &Facts, backend: &str, admin: Option<Admin>) -> Facts {
    let mut facts = facts.clone();
    let key = (RuleName::new("web").unwrap(), BackendName::new(backend).unwrap());
    facts.orders.insert(key, Order { admin, ..Order::default() });
    facts
}

/// `10.0.0.1:80 tcp after 30s`, and `spared …`.
fn told(effects: &Effects) -> Vec<String> {
    let flows = |flows: &MemberFlows| {
        let port = flows.port.map_or("*".to_owned(), |port| port.to_string());
        let protocol = flows.protocol.map_or("all".to_owned(), |protocol| protocol.to_string());
        format!("{}:{port} {protocol}", flows.address)
    };
    let ended = effects.ended.iter().map(|ended| match ended.after {
        Duration::ZERO => format!("{} now", flows(&ended.flows)),
        after => format!("{} after {after:?}", flows(&ended.flows)),
    });
    ended.chain(effects.spared.iter().map(|spared| format!("spared {}", flows(spared)))).collect()
}

fn between(rule: &Rule, old: &Facts, new: &Facts) -> Effects {
    effects(rule, &downs(rule, old, Reach::ANY), &downs(rule, new, Reach::ANY))
}

fn of(rule: &Rule, old: &Facts, new: &Facts) -> Vec<String> {
    told(&between(rule, old, new))
}

#[test]
fn what_on_down_says() {
    let drain = OnDown::Drain(Duration::from_secs(30));
    for (on_down, protocols, expected) in [
        (OnDown::Keep, &[TCP][..], &[][..]),
        (OnDown::Keep, &[TCP, UDP], &["10.0.0.1:80 udp now"]),
        (drain, &[TCP], &["10.0.0.1:80 tcp after 30s"]),
        (drain, &[UDP], &["10.0.0.1:80 udp now"]),
        (drain, &[TCP, UDP], &["10.0.0.1:80 udp now", "10.0.0.1:80 tcp after 30s"]),
        (OnDown::Reset, &[TCP, UDP], &["10.0.0.1:80 all now"]),
    ] {
        let rule = rule(on_down, protocols, two());
        let unknown = Facts::default();
        let (up, down) =
            (with(&unknown, &rule, "10.0.0.1:80", true), with(&unknown, &rule, "10.0.0.1:80", false));
        assert_eq!(of(&rule, &up, &down), expected, "{on_down:?}");
        assert_eq!(of(&rule, &unknown, &down), expected, "the first verdict as well");
        assert_eq!(of(&rule, &up, &ordered(&up, "10.0.0.1:80", Some(Admin::Disable))), expected, "by order");
        assert!(of(&rule, &unknown, &up).is_empty() && of(&rule, &down, &down).is_empty());
    }
}

#[test]
fn a_drained_member_keeps_its_flows() {
    let rule = rule(OnDown::Reset, &[TCP, UDP], two());
    let plain = Facts::default();
    let drained = ordered(&plain, "10.0.0.1:80", Some(Admin::Drain));
    assert!(of(&rule, &plain, &drained).is_empty() && of(&rule, &drained, &plain).is_empty());
    let down = with(&drained, &rule, "10.0.0.1:80", false);
    assert_eq!(of(&rule, &drained, &down), ["10.0.0.1:80 all now"], "but not when it goes down");
}

#[test]
fn down_is_down_for_one_reason_or_two() {
    let rule = rule(OnDown::Reset, &[TCP], two());
    let down = with(&Facts::default(), &rule, "10.0.0.1:80", false);
    let both = ordered(&down, "10.0.0.1:80", Some(Admin::Disable));
    assert!(of(&rule, &down, &both).is_empty() && of(&rule, &both, &down).is_empty());
}

#[test]
fn a_member_that_is_back_is_spared_what_was_to_come() {
    let rule = rule(OnDown::Drain(Duration::from_secs(30)), &[TCP, UDP], two());
    let up = Facts::default();
    let down = with(&up, &rule, "10.0.0.1:80", false);
    let ended = between(&rule, &up, &down);
    let spared = between(&rule, &down, &up);
    assert_eq!(told(&spared), ["spared 10.0.0.1:80 tcp"]);
    let later: Vec<_> = ended.ended.iter().filter(|ended| ended.after > Duration::ZERO).collect();
    assert_eq!(
        later.iter().map(|ended| &ended.flows).collect::<Vec<_>>(),
        spared.spared.iter().collect::<Vec<_>>()
    );
    let filter = spared.spared[0].filter();
    assert_eq!((filter.rule.as_deref(), filter.protocol.as_deref()), (Some("web"), Some("tcp")));
    assert_eq!((filter.backend, filter.backend_port), (Some([10, 0, 0, 1].into()), Some(80)));
}

#[test]
fn what_goes_from_a_name_keeps_its_flows() {
    let host = BackendHost::Name(HostName::new("app.example").unwrap());
    let app = Backend { host, name: BackendName::new("app").unwrap(), ..Backend::of(target("10.0.0.1:80")) };
    let rule = rule(OnDown::Reset, &[TCP, UDP], vec![app]);
    let resolved =
        |last: u8| Resolved { address: [10, 0, 0, last].into(), port: None, weight: 0, priority: 0 };
    let named = |last: &[u8]| {
        let answer = last.iter().map(|last| resolved(*last)).collect();
        let lookup = Lookup::Addresses("app.example".to_owned());
        Facts { names: [(lookup, answer)].into(), ..Facts::default() }
    };
    let (both, one) = (named(&[1, 2]), named(&[1]));
    assert_eq!(of(&rule, &both, &one), [""; 0]);
    assert_eq!(of(&rule, &one, &both), ["spared 10.0.0.2:80 tcp"], "it may have gone while it was down");
    // One that is down already when it comes has no flows, and one that goes while it is down keeps what it has.
    let with_down = with(&both, &rule, "10.0.0.2:80", false);
    assert_eq!(of(&rule, &one, &with_down), [""; 0]);
    assert_eq!(of(&rule, &with_down, &one), [""; 0]);
    assert_eq!(
        of(&rule, &both, &with_down),
        ["10.0.0.2:80 all now"],
        "of two addresses the one that is down"
    );
    let all = ordered(&both, "app", Some(Admin::Disable));
    assert_eq!(of(&rule, &both, &all), ["10.0.0.1:80 all now", "10.0.0.2:80 all now"]);
}

#[test]
fn members_on_one_address_are_told_apart_by_port() {
    let flows = |listeners: Vec<Listener>, backends: &[Target]| {
        let mut rule = rule(OnDown::Reset, &[], backends.iter().map(|target| Backend::of(*target)).collect());
        rule.listeners = listeners;
        let old = Facts::default();
        let name = rule.pool.backends[0].name.to_string();
        of(&rule, &old, &ordered(&old, &name, Some(Admin::Disable)))
    };
    let shifted = |first, last| Target {
        ports: TargetPorts::Shifted(PortRange::new(first, last).unwrap()),
        ..target("10.0.0.1")
    };
    let range = || vec![listener(TCP, 8000, 8002)];
    assert_eq!(flows(range(), &[target("10.0.0.1")]), ["10.0.0.1:* all now"]);
    assert_eq!(flows(range(), &[shifted(9000, 9002), target("10.0.0.2")]), ["10.0.0.1:* all now"]);
    let three = ["10.0.0.1:9000 all now", "10.0.0.1:9001 all now", "10.0.0.1:9002 all now"];
    assert_eq!(flows(range(), &[shifted(9000, 9002), target("10.0.0.1:81")]), three);
    let singles = || vec![listener(TCP, 80, 80), listener(UDP, 80, 80), listener(TCP, 443, 443)];
    assert_eq!(flows(singles(), &[target("10.0.0.1")]), ["10.0.0.1:80 all now", "10.0.0.1:443 all now"]);
    assert_eq!(flows(range(), &[target("10.0.0.1:81"), target("10.0.0.1")]), ["10.0.0.1:81 all now"]);
}

/// Facts about the pool of `two()`: each verdict unknown, up or down; each order none, drain or disable.
fn facts() -> impl Strategy<Value = Facts> {
    proptest::collection::vec((0..3_u8, 0..3_u8), 2).prop_map(|members| {
        let rule = rule(OnDown::Reset, &[TCP], two());
        let mut facts = Facts::default();
        let probes = probes([(&rule, Reach::ANY)], &facts);
        for ((probe, (health, order)), backend) in probes.into_keys().zip(members).zip(&rule.pool.backends) {
            if health > 0 {
                facts.health.insert(probe, verdict(health == 1));
            }
            let admin = [None, Some(Admin::Drain), Some(Admin::Disable)][usize::from(order)];
            facts
                .orders
                .insert((rule.name.clone(), backend.name.clone()), Order { admin, ..Order::default() });
        }
        facts
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Along any history of facts, what is still to end afterwards is what is down.
    #[test]
    fn what_is_to_end_is_what_is_down(history in proptest::collection::vec(facts(), 1..10)) {
        let rule = rule(OnDown::Drain(Duration::from_secs(1)), &[TCP], two());
        let mut pending: Vec<MemberFlows> = Vec::new();
        let mut old = Facts::default();
        for new in history {
            let effects = between(&rule, &old, &new);
            pending.retain(|flows| !effects.spared.contains(flows));
            for ended in effects.ended {
                prop_assert!(!pending.contains(&ended.flows), "ended once");
                pending.push(ended.flows);
            }
            let mut down: Vec<SocketAddr> = Vec::new();
            for backend in &rule.pool.backends {
                let target = backend.target().unwrap();
                let probe = probe(&rule, backend, target).unwrap();
                let fails = new.health.get(&probe).is_some_and(|health| !health.up);
                let order = &new.orders[&(rule.name.clone(), backend.name.clone())];
                if fails || order.admin == Some(Admin::Disable) {
                    down.push(SocketAddr::new(target.address, 80));
                }
            }
            let mut waiting: Vec<SocketAddr> =
                pending.iter().map(|flows| SocketAddr::new(flows.address, flows.port.unwrap())).collect();
            waiting.sort();
            prop_assert_eq!(waiting, down);
            old = new;
        }
    }
}
