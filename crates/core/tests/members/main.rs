//! What new flows meet: from a pool and what the world says, fact by fact.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod generated;
mod health;
mod names;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portway_core::address::{Family, PortRange, Protocol};
use portway_core::facts::{Admin, Facts, Health, Lookup, Moment, Order, Probe, Resolved};
use portway_core::members::{
    MOST_WEIGHT, Meets, MemberState, MemberView, Reach, STEPS, lookups, meets, next_change, probe, probes,
    view,
};
use portway_core::ruleset::{
    Backend, BackendHost, BackendName, Check, CheckKind, EngineKind, HostName, Init, Listener, Pool, Resolve,
    Rule, RuleName, Scope, SourceMode, Target, TargetPorts, Tls, WhenEmpty,
};
use proptest::prelude::*;

const NOW: Moment = Duration::from_secs(1000);

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// `10.0.0.1:80`, or `10.0.0.1` for the listener's ports.
fn target(text: &str) -> Target {
    match text.parse::<std::net::SocketAddr>() {
        Ok(socket) => Target { address: socket.ip(), ports: TargetPorts::One(socket.port()) },
        Err(_) => Target { address: ip(text), ports: TargetPorts::Same },
    }
}

/// `10.0.0.1:80`, `app.example:80`, `srv/_x._tcp.example`.
fn backend(text: &str) -> Backend {
    let name = BackendName::new(text).unwrap();
    let host = |name: &str| HostName::new(name).unwrap();
    let (host, ports) = if let Some(service) = text.strip_prefix("srv/") {
        (BackendHost::Service(host(service)), TargetPorts::Same)
    } else if text.starts_with(|first: char| first.is_ascii_digit() || first == '[') {
        return Backend { name, ..Backend::of(target(text)) };
    } else if let Some((name, port)) = text.split_once(':') {
        (BackendHost::Name(host(name)), TargetPorts::One(port.parse().unwrap()))
    } else {
        (BackendHost::Name(host(text)), TargetPorts::Same)
    };
    Backend { name, host, ports, ..Backend::of(target("10.0.0.1:80")) }
}

fn backup(text: &str) -> Backend {
    Backend { backup: true, ..backend(text) }
}

fn weighted(text: &str, weight: u16) -> Backend {
    Backend { weight, ..backend(text) }
}

fn listener(scope: Scope, first: u16, last: u16) -> Listener {
    Listener { protocol: Protocol::Tcp, scope, ports: PortRange::new(first, last).unwrap() }
}

/// A rule on 192.0.2.1:80.
fn rule(backends: Vec<Backend>) -> Rule {
    let listeners = vec![listener(Scope::Address(ip("192.0.2.1")), 80, 80)];
    let mut rule = Rule::new(RuleName::new("web").unwrap(), listeners, target("10.0.0.1:80"));
    rule.pool = Pool::new(backends);
    rule
}

fn checked(backends: Vec<Backend>) -> Rule {
    let mut rule = rule(backends);
    rule.pool.check = Some(Arc::new(Check::new(CheckKind::Tcp { send: None, expect: None })));
    rule
}

fn shown(meets: &Meets) -> Vec<String> {
    match meets {
        Meets::Refuse => vec!["refuse".to_owned()],
        Meets::Drop => vec!["drop".to_owned()],
        Meets::Members(members) => {
            members.iter().map(|member| format!("{} {}", member.target, member.weight)).collect()
        }
    }
}

fn met(rule: &Rule, facts: &Facts) -> Vec<String> {
    shown(&meets(rule, facts, NOW, Reach::ANY))
}

fn states(rule: &Rule, facts: &Facts) -> Vec<MemberState> {
    view(rule, facts, NOW, Reach::ANY).into_iter().map(|row| row.state).collect()
}

fn set_health(facts: &mut Facts, rule: &Rule, backend: usize, at: &str, health: Health) {
    let probe = probe(rule, &rule.pool.backends[backend], target(at)).expect("the rule has a check");
    facts.health.insert(probe, health);
}

fn verdict(up: bool, since: Moment, recovered: bool) -> Health {
    Health { up, since, recovered, reason: if up { "connected" } else { "refused" }.to_owned() }
}

fn down() -> Health {
    verdict(false, NOW, false)
}

fn addresses(name: &str) -> Lookup {
    Lookup::Addresses(name.to_owned())
}

fn resolved(address: &str) -> Resolved {
    Resolved { address: ip(address), port: None, weight: 0, priority: 0 }
}

fn record(address: &str, port: u16, priority: u16, weight: u16) -> Resolved {
    Resolved { address: ip(address), port: Some(port), weight, priority }
}

fn order(facts: &mut Facts, backend: &str, admin: Option<Admin>, weight: Option<u16>) {
    let key = (RuleName::new("web").unwrap(), BackendName::new(backend).unwrap());
    let order = Order { admin, weight, by: "root".to_owned(), at: 1, keep: false };
    facts.orders.insert(key, order);
}

#[test]
fn addresses_with_their_weights_in_the_order_of_the_file() {
    let rule =
        rule(vec![weighted("10.0.0.2:80", 50), weighted("10.0.0.1:80", 100), weighted("10.0.0.3:80", 0)]);
    assert_eq!(met(&rule, &Facts::default()), ["10.0.0.2:80 50", "10.0.0.1:80 100"]);
    let rows = view(&rule, &Facts::default(), NOW, Reach::ANY);
    let weights: Vec<(u16, f64)> = rows.iter().map(|row| (row.weight, row.effective)).collect();
    assert_eq!(weights, [(50, 50.0), (100, 100.0), (0, 0.0)]);
    assert!(rows.iter().all(|row| row.state == MemberState::Up && row.since.is_none()));
}

#[test]
fn backups_wait_for_all_primaries() {
    let rule = checked(vec![backup("10.0.0.9:80"), backend("10.0.0.1:80"), backend("10.0.0.2:80")]);
    let mut facts = Facts::default();
    assert_eq!(met(&rule, &facts), ["10.0.0.1:80 1", "10.0.0.2:80 1"]);
    assert_eq!(states(&rule, &facts)[0], MemberState::Standby);
    set_health(&mut facts, &rule, 1, "10.0.0.1:80", down());
    assert_eq!(met(&rule, &facts), ["10.0.0.2:80 1"]);
    order(&mut facts, "10.0.0.2:80", Some(Admin::Drain), None);
    assert_eq!(met(&rule, &facts), ["10.0.0.9:80 1"]);
    assert_eq!(states(&rule, &facts), [MemberState::Checking, MemberState::Down, MemberState::Draining]);
    set_health(&mut facts, &rule, 0, "10.0.0.9:80", down());
    assert_eq!(met(&rule, &facts), ["refuse"]);
}

#[test]
fn an_empty_pool_does_what_the_file_says() {
    let mut rule = checked(vec![backend("10.0.0.1:80")]);
    let mut facts = Facts::default();
    set_health(&mut facts, &rule, 0, "10.0.0.1:80", down());
    for (when_empty, expected) in [
        (WhenEmpty::Refuse, "refuse"),
        (WhenEmpty::Drop, "drop"),
        (WhenEmpty::Sorry(target("10.0.0.9:8080")), "10.0.0.9:8080 1"),
    ] {
        rule.pool.when_empty = when_empty;
        assert_eq!(met(&rule, &facts), [expected]);
    }
}

#[test]
fn orders_by_name_and_by_address() {
    let rule = checked(vec![
        Backend { name: BackendName::new("a").unwrap(), ..backend("app.example:80") },
        backend("10.0.0.9:80"),
    ]);
    let mut facts = Facts::default();
    facts.names.insert(addresses("app.example"), vec![resolved("10.0.0.1"), resolved("10.0.0.2")]);
    assert_eq!(met(&rule, &facts), ["10.0.0.1:80 1", "10.0.0.2:80 1", "10.0.0.9:80 1"]);

    order(&mut facts, "10.0.0.2:80", Some(Admin::Drain), None);
    order(&mut facts, "10.0.0.9:80", None, Some(7));
    assert_eq!(met(&rule, &facts), ["10.0.0.1:80 1", "10.0.0.9:80 7"]);
    order(&mut facts, "a", None, Some(5));
    assert_eq!(met(&rule, &facts), ["10.0.0.1:80 5", "10.0.0.9:80 7"]);
    order(&mut facts, "10.0.0.1:80", None, Some(2));
    assert_eq!(met(&rule, &facts), ["10.0.0.1:80 2", "10.0.0.9:80 7"], "the address before its name");
    order(&mut facts, "a", Some(Admin::Disable), None);
    assert_eq!(met(&rule, &facts), ["10.0.0.9:80 7"]);
    let rows = view(&rule, &facts, NOW, Reach::ANY);
    let states: Vec<_> = rows.iter().map(|row| (row.state, row.reason.as_str(), row.weight)).collect();
    let disabled = MemberState::Disabled;
    assert_eq!(
        states,
        [
            (disabled, "by root", 2),
            (disabled, "by root", 1),
            (MemberState::Checking, "no check has ended yet", 7)
        ],
        "the stricter of two orders"
    );
    assert_eq!(rows[0].order.as_ref().map(|order| (order.by.as_str(), order.at)), Some(("root", 1)));
    order(&mut facts, "10.0.0.9:80", None, Some(0));
    assert_eq!(met(&rule, &facts), ["refuse"]);
}

#[test]
fn orders_are_a_rules_own() {
    let one = rule(vec![backend("10.0.0.1:80")]);
    let mut facts = Facts::default();
    for name in ["we", "web1", "wea", "wec", "a", "z"] {
        let key = (RuleName::new(name).unwrap(), BackendName::new("10.0.0.1:80").unwrap());
        facts.orders.insert(key, Order { admin: Some(Admin::Disable), ..Order::default() });
    }
    assert_eq!(met(&one, &facts), ["10.0.0.1:80 1"]);
    order(&mut facts, "10.0.0.1:80", Some(Admin::Disable), None);
    assert_eq!(met(&one, &facts), ["refuse"]);
}

#[test]
fn probes_and_lookups_and_the_rules_that_they_concern() {
    let plain = rule(vec![backend("app.example:80")]);
    let one = checked(vec![backend("app.example:80"), backend("10.0.0.1:80"), backup("10.0.0.2:80")]);
    let two = checked(vec![backend("10.0.0.2:80"), backend("srv/_x._tcp.example")]);
    let rules = [plain, one, two];
    let lookups = lookups(&rules);
    let service = Lookup::Service("_x._tcp.example".to_owned());
    assert_eq!(lookups, [(addresses("app.example"), vec![0, 1]), (service, vec![2])].into());

    let watched = |facts: &Facts, reach| -> Vec<(String, Vec<usize>)> {
        let found = probes(rules.iter().map(|rule| (rule, reach)), facts);
        found.into_iter().map(|(probe, rules)| (probe.address.to_string(), rules)).collect()
    };
    let mut facts = Facts::default();
    let written = [("10.0.0.1:80".to_owned(), vec![1]), ("10.0.0.2:80".to_owned(), vec![1, 2])];
    assert_eq!(watched(&facts, Reach::ANY), written, "a name has probes when it has addresses");
    facts.names.insert(addresses("app.example"), vec![resolved("10.0.0.1"), resolved("fd00::1")]);
    order(&mut facts, "10.0.0.2:80", Some(Admin::Disable), None);
    let mut all = written.to_vec();
    all.push(("[fd00::1]:80".to_owned(), vec![1]));
    assert_eq!(watched(&facts, Reach::ANY), all, "also what the operator has disabled");
    let four = Reach { family: Some(Family::V4), ..Reach::ANY };
    assert_eq!(watched(&facts, four), written, "not what cannot be reached");
}
