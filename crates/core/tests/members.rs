//! What new flows meet: from a pool and what the world says, fact by fact.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

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

// ---- what is written

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

// ---- health

#[test]
fn no_verdict_counts_as_up() {
    let rule = checked(vec![backend("10.0.0.1:80"), backend("10.0.0.2:80"), backend("10.0.0.3:80")]);
    let mut facts = Facts::default();
    set_health(&mut facts, &rule, 0, "10.0.0.1:80", verdict(true, Duration::from_secs(7), false));
    set_health(&mut facts, &rule, 1, "10.0.0.2:80", down());
    assert_eq!(met(&rule, &facts), ["10.0.0.1:80 1", "10.0.0.3:80 1"]);
    let rows = view(&rule, &facts, NOW, Reach::ANY);
    let told: Vec<_> = rows.iter().map(|row| (row.state, row.reason.as_str(), row.since)).collect();
    let since = Some(Duration::from_secs(7));
    assert_eq!(
        told,
        [
            (MemberState::Up, "connected", since),
            (MemberState::Down, "refused", Some(NOW)),
            (MemberState::Checking, "no check has ended yet", None),
        ]
    );
}

#[test]
fn which_port_is_checked() {
    let port = |change: &dyn Fn(&mut Rule), target: Target| {
        let mut rule = checked(vec![Backend::of(target)]);
        rule.listeners =
            vec![listener(Scope::Any(Family::V4), 8000, 8009), listener(Scope::Any(Family::V4), 53, 53)];
        change(&mut rule);
        probe(&rule, &rule.pool.backends[0], target).unwrap().address.to_string()
    };
    let shifted = TargetPorts::Shifted(PortRange::new(9000, 9009).unwrap());
    let at = |ports| Target { address: ip("10.0.0.1"), ports };
    assert_eq!(port(&|_| {}, at(TargetPorts::One(81))), "10.0.0.1:81");
    assert_eq!(port(&|_| {}, at(TargetPorts::Same)), "10.0.0.1:8000");
    assert_eq!(port(&|_| {}, at(shifted)), "10.0.0.1:9000");
    let check = |rule: &mut Rule, change: &dyn Fn(&mut Check)| {
        let mut check = (**rule.pool.check.as_ref().unwrap()).clone();
        change(&mut check);
        rule.pool.check = Some(Arc::new(check));
    };
    let elsewhere = |rule: &mut Rule| check(rule, &|check| check.address = Some(ip("fd00::9")));
    let other_port = |rule: &mut Rule| check(rule, &|check| check.port = Some(7));
    assert_eq!(port(&elsewhere, at(shifted)), "[fd00::9]:9000");
    assert_eq!(port(&other_port, at(shifted)), "10.0.0.1:7");
    assert_eq!(probe(&rule(vec![backend("10.0.0.1:80")]), &backend("10.0.0.1:80"), at(shifted)), None);
}

/// The check comes from where the flows come from, so that a firewall on the way judges both alike.
#[test]
fn which_address_is_checked_from() {
    let source = |own: Option<&str>, pool: &[&str], to: &str| {
        let mut rule = checked(vec![backend(to)]);
        rule.pool.check =
            Some(Arc::new(Check { source: own.map(ip), ..(**rule.pool.check.as_ref().unwrap()).clone() }));
        if !pool.is_empty() {
            rule.source = SourceMode::Snat(pool.iter().map(|address| ip(address)).collect());
        }
        probe(&rule, &rule.pool.backends[0], target(to)).unwrap().check.source
    };
    assert_eq!(source(None, &[], "10.0.0.1:80"), None);
    assert_eq!(source(None, &["192.0.2.7", "192.0.2.8"], "10.0.0.1:80"), Some(ip("192.0.2.7")));
    assert_eq!(source(Some("192.0.2.9"), &["192.0.2.7"], "10.0.0.1:80"), Some(ip("192.0.2.9")));
    assert_eq!(source(None, &["192.0.2.7"], "[fd00::1]:80"), None, "of another family");
    assert_eq!(source(Some("192.0.2.9"), &["192.0.2.7", "fd00::7"], "[fd00::1]:80"), Some(ip("fd00::7")));
}

/// One address is checked once, whatever names lead there, unless the check says the name.
#[test]
fn the_name_belongs_to_a_probe_only_where_the_check_says_it() {
    let host = |kind: CheckKind, backend_text: &str| {
        let mut rule = checked(vec![backend(backend_text)]);
        rule.pool.check = Some(Arc::new(Check::new(kind)));
        let probe = probe(&rule, &rule.pool.backends[0], target("10.0.0.1:80")).unwrap();
        probe.host.map(|host| host.to_string())
    };
    let http = |host: Option<&str>, tls: Option<Tls>| CheckKind::Http {
        tls,
        method: "GET".to_owned(),
        path: "/".to_owned(),
        host: host.map(str::to_owned),
        status: vec![(200, 399)],
        body: None,
    };
    let named = Tls { server_name: HostName::new("x.example"), ca: None };
    let app = Some("app.example".to_owned());
    assert_eq!(host(http(None, None), "app.example:80"), app);
    assert_eq!(host(http(Some("x"), Some(Tls::default())), "app.example:80"), app);
    assert_eq!(host(http(Some("x"), None), "app.example:80"), None);
    assert_eq!(host(http(Some("x"), Some(named.clone())), "app.example:80"), None);
    assert_eq!(host(CheckKind::Tls(Tls::default()), "app.example:80"), app);
    assert_eq!(host(CheckKind::Tls(named), "app.example:80"), None);
    assert_eq!(host(CheckKind::Redis { password: None }, "app.example:80"), None);
    assert_eq!(host(http(None, None), "10.0.0.1:80"), None);
    assert_eq!(host(http(None, None), "srv/_web._tcp.example"), None, "a service is no host");
}

// ---- slow start

#[test]
fn after_a_recovery_the_weight_grows_in_steps() {
    let mut rule = checked(vec![weighted("10.0.0.1:80", 3), weighted("10.0.0.2:80", 3)]);
    rule.pool.slow_start = Some(Duration::from_secs(32));
    let mut facts = Facts::default();
    set_health(&mut facts, &rule, 0, "10.0.0.1:80", verdict(true, NOW, true));
    set_health(&mut facts, &rule, 1, "10.0.0.2:80", verdict(true, Duration::ZERO, false));
    let at = |seconds: u64| shown(&meets(&rule, &facts, NOW + Duration::from_secs(seconds), Reach::ANY));
    assert_eq!(at(0), ["10.0.0.1:80 3", "10.0.0.2:80 48"], "a sixteenth");
    assert_eq!(at(3), ["10.0.0.1:80 3", "10.0.0.2:80 48"]);
    assert_eq!(at(4), ["10.0.0.1:80 3", "10.0.0.2:80 24"], "two of sixteen");
    assert_eq!(at(16), ["10.0.0.1:80 3", "10.0.0.2:80 6"], "half");
    assert_eq!(at(31), ["10.0.0.1:80 45", "10.0.0.2:80 48"]);
    assert_eq!(at(32), ["10.0.0.1:80 3", "10.0.0.2:80 3"]);
    let rows = view(&rule, &facts, NOW + Duration::from_secs(8), Reach::ANY);
    assert_eq!((rows[0].weight, rows[0].effective, rows[1].effective), (3, 0.75, 3.0));
}

#[test]
fn only_a_recovery_starts_slowly_and_only_where_the_file_says_so() {
    for (slow_start, health) in [
        (None, verdict(true, NOW, true)),
        (Some(Duration::from_secs(32)), verdict(true, NOW, false)),
        (Some(Duration::ZERO), verdict(true, NOW, true)),
    ] {
        let mut rule = checked(vec![backend("10.0.0.1:80"), backend("10.0.0.2:80")]);
        rule.pool.slow_start = slow_start;
        let mut facts = Facts::default();
        set_health(&mut facts, &rule, 0, "10.0.0.1:80", health);
        assert_eq!(met(&rule, &facts), ["10.0.0.1:80 1", "10.0.0.2:80 1"]);
        assert_eq!(next_change(&rule, &facts, NOW, Reach::ANY), None);
    }
}

#[test]
fn next_change_is_when_the_members_change() {
    // A time that sixteen does not divide.
    let whole = Duration::from_nanos(1_000_000_007);
    let mut rule = checked(vec![backend("10.0.0.1:80"), backend("10.0.0.2:80"), backend("10.0.0.3:80")]);
    rule.pool.slow_start = Some(whole);
    let mut facts = Facts::default();
    set_health(&mut facts, &rule, 0, "10.0.0.1:80", verdict(true, NOW, true));
    set_health(&mut facts, &rule, 1, "10.0.0.2:80", verdict(true, NOW + whole / 3, true));
    let mut now = NOW + whole / 3;
    let mut changes = 0;
    while let Some(next) = next_change(&rule, &facts, now, Reach::ANY) {
        assert!(next > now);
        let at = |moment| meets(&rule, &facts, moment, Reach::ANY);
        assert_eq!(at(now), at(next - Duration::from_nanos(1)), "nothing before");
        assert_ne!(at(now), at(next), "and then something");
        changes += 1;
        now = next;
    }
    assert_eq!(now, NOW + whole / 3 + whole, "the end of the later one");
    assert!((STEPS..2 * STEPS).contains(&changes), "{changes}");
    assert_eq!(shown(&meets(&rule, &facts, now, Reach::ANY)).len(), 3);
}

// ---- the operator's hand

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

// ---- names

#[test]
fn all_addresses_of_a_name_or_the_first() {
    let mut rule = rule(vec![weighted("app.example:80", 4), weighted("10.0.0.9:80", 2)]);
    let mut facts = Facts::default();
    let answer = vec![resolved("10.0.0.1"), resolved("10.0.0.2"), resolved("fd00::1")];
    facts.names.insert(addresses("app.example"), answer);
    assert_eq!(met(&rule, &facts), ["10.0.0.1:80 4", "10.0.0.2:80 4", "[fd00::1]:80 4", "10.0.0.9:80 2"]);
    rule.pool.backends[0].resolve = Resolve::First;
    assert_eq!(met(&rule, &facts), ["10.0.0.1:80 4", "10.0.0.9:80 2"]);
    let six = Reach { family: Some(Family::V6), ..Reach::ANY };
    assert_eq!(shown(&meets(&rule, &facts, NOW, six)), ["[fd00::1]:80 4"], "the first that can be reached");
}

#[test]
fn until_the_first_answer_clients_wait_unless_the_file_says_otherwise() {
    let mut rule = rule(vec![backend("app.example:80"), backend("two.example:80")]);
    let mut facts = Facts::default();
    for (init, expected) in [(Init::Wait, "drop"), (Init::LastKnown, "drop"), (Init::None, "refuse")] {
        rule.pool.init = init;
        assert_eq!(met(&rule, &facts), [expected]);
    }
    rule.pool.init = Init::Wait;
    rule.pool.when_empty = WhenEmpty::Sorry(target("10.0.0.9:80"));
    assert_eq!(met(&rule, &facts), ["drop"]);
    facts.names.insert(addresses("app.example"), vec![]);
    assert_eq!(met(&rule, &facts), ["drop"], "one is still unknown");
    let rows = view(&rule, &facts, NOW, Reach::ANY);
    let told: Vec<_> = rows.iter().map(|row| (row.state, row.reason.as_str(), row.target.clone())).collect();
    let unresolved = MemberState::Unresolved;
    assert_eq!(
        told,
        [
            (unresolved, "the name has no addresses", None),
            (unresolved, "the name was not resolved yet", None)
        ]
    );
    facts.names.insert(addresses("two.example"), vec![resolved("10.0.0.2")]);
    assert_eq!(met(&rule, &facts), ["10.0.0.2:80 1"]);
    facts.names.insert(addresses("two.example"), vec![]);
    assert_eq!(met(&rule, &facts), ["10.0.0.9:80 1"], "all are known, and there is nothing");
}

#[test]
fn what_is_live_serves_while_a_name_is_unknown() {
    let rule = rule(vec![backend("app.example:80"), backup("10.0.0.9:80")]);
    assert_eq!(met(&rule, &Facts::default()), ["10.0.0.9:80 1"]);
}

/// Two names with one address, and one that is written as well: it is one member, with the first one's weight.
#[test]
fn equal_targets_are_one_member() {
    let mut rule =
        rule(vec![weighted("one.example:80", 3), weighted("two.example:80", 5), backend("10.0.0.2:80")]);
    let mut facts = Facts::default();
    facts.names.insert(addresses("one.example"), vec![resolved("10.0.0.1"), resolved("10.0.0.2")]);
    facts.names.insert(addresses("two.example"), vec![resolved("10.0.0.1"), resolved("10.0.0.3")]);
    assert_eq!(met(&rule, &facts), ["10.0.0.1:80 3", "10.0.0.2:80 3", "10.0.0.3:80 5"]);
    let rows = view(&rule, &facts, NOW, Reach::ANY);
    let aside: Vec<_> = rows
        .iter()
        .filter(|row| row.state == MemberState::Unusable)
        .map(|row| (row.backend.as_str(), row.reason.as_str()))
        .collect();
    assert_eq!(
        aside,
        [
            ("two.example:80", "the same address as one.example:80"),
            ("10.0.0.2:80", "the same address as one.example:80")
        ]
    );
    rule.pool.backends[0].backup = true;
    assert_eq!(
        met(&rule, &facts),
        ["10.0.0.1:80 5", "10.0.0.3:80 5", "10.0.0.2:80 1"],
        "a primary has it before a backup"
    );
}

#[test]
fn addresses_that_cannot_be_used_are_left_out() {
    let mut rule = rule(vec![backend("app.example:80")]);
    let mut facts = Facts::default();
    let unusable = [
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::",
        "ff02::1",
        "fe80::1",
        "::ffff:10.0.0.1",
        // The rule's own listener.
        "192.0.2.1",
    ];
    let mut answer: Vec<Resolved> = unusable.iter().chain(&["10.0.0.1"]).map(|text| resolved(text)).collect();
    answer.sort();
    facts.names.insert(addresses("app.example"), answer.clone());
    assert_eq!(met(&rule, &facts), ["10.0.0.1:80 1"]);
    let rows = view(&rule, &facts, NOW, Reach::ANY);
    assert_eq!(rows.iter().filter(|row| row.state == MemberState::Unusable).count(), unusable.len());
    assert!(rows.iter().any(|row| row.reason == "leads back to this rule"));
    rule.pool.backends[0].ports = TargetPorts::One(81);
    assert_eq!(met(&rule, &facts), ["10.0.0.1:81 1", "192.0.2.1:81 1"], "another port is another service");
}

#[test]
fn loopback_answers_where_the_engine_reaches_them() {
    let met = |scope: Scope, backends: Vec<Backend>, engine: EngineKind| {
        let mut rule = rule(backends);
        rule.listeners = vec![listener(scope, 80, 80)];
        let mut facts = Facts::default();
        let answer = ["10.0.0.1", "127.0.0.1", "::1", "fd00::1"].map(resolved);
        facts.names.insert(addresses("app.example"), answer.into());
        let met = shown(&meets(&rule, &facts, NOW, Reach::of(&rule, engine)));
        met.iter().map(|member| member.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let (nat, relay) = (EngineKind::Nftables, EngineKind::Proxy);
    let app = || vec![backend("app.example:81")];
    let address = || Scope::Address(ip("192.0.2.1"));
    assert_eq!(met(address(), app(), nat), "10.0.0.1:81");
    assert_eq!(met(Scope::Any(Family::V4), app(), nat), "10.0.0.1:81 127.0.0.1:81");
    assert_eq!(met(Scope::Address(ip("127.0.0.9")), app(), nat), "10.0.0.1:81 127.0.0.1:81");
    assert_eq!(met(Scope::Any(Family::V6), app(), nat), "[fd00::1]:81", "never ::1");
    let mut both = rule(app());
    both.listeners = [Family::V6, Family::V4].map(|family| listener(Scope::Any(family), 80, 80)).into();
    assert!(!Reach::of(&both, nat).loopback, "nor for one that listens on IPv4 as well");
    let with_loopback = vec![backend("app.example:81"), backend("127.0.0.5:80")];
    assert_eq!(met(address(), with_loopback, nat), "10.0.0.1:81 127.0.0.1:81 127.0.0.5:80");
    assert_eq!(met(address(), app(), relay), "10.0.0.1:81 127.0.0.1:81 [::1]:81 [fd00::1]:81");
    let same_port = || vec![backend("app.example:80")];
    assert_eq!(
        met(Scope::Any(Family::V4), same_port(), relay),
        "10.0.0.1:80 [::1]:80 [fd00::1]:80",
        "a relay would call itself"
    );
    assert_eq!(met(Scope::Any(Family::V4), same_port(), nat), "10.0.0.1:80 127.0.0.1:80", "NAT does not");
}

#[test]
fn a_pool_has_only_so_many_members() {
    let rule = rule(vec![backup("back.example:80"), backend("app.example:80")]);
    let mut facts = Facts::default();
    let answer = |net: u8| -> Vec<Resolved> {
        (0..1024_u16)
            .map(|nth| Resolved {
                address: [10, net, (nth >> 8) as u8, nth as u8].into(),
                ..resolved("10.0.0.0")
            })
            .collect()
    };
    facts.names.insert(addresses("back.example"), answer(1));
    facts.names.insert(addresses("app.example"), answer(2)[..1000].to_vec());
    let rows = view(&rule, &facts, NOW, Reach::ANY);
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    assert_eq!(
        (count(MemberState::Up), count(MemberState::Standby), count(MemberState::Unusable)),
        (1000, 24, 1000)
    );
    assert_eq!(Pool::MOST_MEMBERS, 1024);
}

// ---- services

fn service(records: Vec<Resolved>) -> (Rule, Facts) {
    let rule = checked(vec![weighted("srv/_pg._tcp.example", 10), weighted("10.0.0.9:80", 10)]);
    let mut facts = Facts::default();
    facts.names.insert(Lookup::Service("_pg._tcp.example".to_owned()), records);
    (rule, facts)
}

#[test]
fn a_services_records_bring_ports_and_weights() {
    let (rule, facts) = service(vec![record("10.0.0.1", 5432, 1, 200), record("10.0.0.2", 5433, 1, 50)]);
    assert_eq!(met(&rule, &facts), ["10.0.0.1:5432 20", "10.0.0.2:5433 5", "10.0.0.9:80 20"]);
    let rows = view(&rule, &facts, NOW, Reach::ANY);
    let weights: Vec<(u16, f64)> = rows.iter().map(|row| (row.weight, row.effective)).collect();
    assert_eq!(weights, [(10, 10.0), (10, 2.5), (10, 10.0)]);
    // The same host on two ports is two members; one without a port is none.
    let none = Resolved { port: None, ..record("10.0.0.3", 1, 1, 1) };
    let zero = record("10.0.0.4", 0, 1, 1);
    let records = vec![record("10.0.0.1", 1, 1, 1), record("10.0.0.1", 2, 1, 1), none, zero];
    let (rule, facts) = service(records);
    assert_eq!(met(&rule, &facts), ["10.0.0.1:1 10", "10.0.0.1:2 10", "10.0.0.9:80 10"]);
}

#[test]
fn weights_of_zero_are_equal_among_themselves_and_tiny_beside_others() {
    let (rule, facts) = service(vec![record("10.0.0.1", 1, 1, 0), record("10.0.0.2", 2, 1, 0)]);
    assert_eq!(met(&rule, &facts), ["10.0.0.1:1 10", "10.0.0.2:2 10", "10.0.0.9:80 10"]);
    let (rule, facts) = service(vec![record("10.0.0.1", 1, 1, 0), record("10.0.0.2", 2, 1, 65_535)]);
    assert_eq!(met(&rule, &facts), ["10.0.0.1:1 5", "10.0.0.2:2 20480", "10.0.0.9:80 20480"]);
}

#[test]
fn higher_priorities_are_backups_of_the_pool() {
    let records = vec![
        record("10.0.0.1", 1, 10, 0),
        record("10.0.0.2", 2, 20, 1),
        record("10.0.0.3", 3, 20, 3),
        record("10.0.0.4", 4, 99, 0),
    ];
    let (rule, mut facts) = service(records);
    assert_eq!(met(&rule, &facts), ["10.0.0.1:1 10", "10.0.0.9:80 10"]);
    set_health(&mut facts, &rule, 0, "10.0.0.1:1", down());
    assert_eq!(met(&rule, &facts), ["10.0.0.9:80 10"]);
    set_health(&mut facts, &rule, 1, "10.0.0.9:80", down());
    // A third of 10, in the parts that there are.
    assert_eq!(met(&rule, &facts), ["10.0.0.2:2 6825", "10.0.0.3:3 20480"]);
    set_health(&mut facts, &rule, 0, "10.0.0.2:2", down());
    assert_eq!(met(&rule, &facts), ["10.0.0.3:3 10"]);
    set_health(&mut facts, &rule, 0, "10.0.0.3:3", down());
    assert_eq!(met(&rule, &facts), ["10.0.0.4:4 10"]);
    let rows = view(&rule, &facts, NOW, Reach::ANY);
    assert_eq!(rows.iter().map(|row| row.backup).collect::<Vec<_>>(), [false, true, true, true, false]);
}

#[test]
fn a_priority_that_cannot_be_reached_is_no_level() {
    let records = vec![record("fd00::1", 1, 10, 9), record("10.0.0.1", 1, 20, 3)];
    let (rule, facts) = service(records);
    let four = Reach { family: Some(Family::V4), ..Reach::ANY };
    assert_eq!(shown(&meets(&rule, &facts, NOW, four)), ["10.0.0.1:1 10", "10.0.0.9:80 10"]);
}

#[test]
fn one_address_of_a_service_is_of_its_best_priority() {
    let (mut rule, facts) = service(vec![record("10.0.0.1", 1, 20, 9), record("10.0.0.7", 1, 10, 1)]);
    rule.pool.backends[0].resolve = Resolve::First;
    assert_eq!(met(&rule, &facts), ["10.0.0.7:1 10", "10.0.0.9:80 10"]);
}

// ---- what must be watched

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

// ---- all of it

fn facts_for(rule: &Rule) -> impl Strategy<Value = Facts> + use<> {
    let health = (0..3_u8, any::<bool>(), 0..2000_u64);
    let admin = prop_oneof![4 => Just(None), 1 => Just(Some(Admin::Drain)), 1 => Just(Some(Admin::Disable))];
    let order = (admin, proptest::option::weighted(0.2, 0..=256_u16));
    let records = proptest::collection::vec((1..8_u8, 1..3_u16, 0..3_u16, 0..4_u16), 0..6);
    let names = proptest::collection::vec(proptest::option::of(records), 3);
    let rule = rule.clone();
    (proptest::collection::vec(health, 64), proptest::collection::vec(order, 8), names).prop_map(
        move |(health, orders, names)| {
            let mut facts = Facts::default();
            let lookups = [
                addresses("a.example"),
                addresses("b.example"),
                Lookup::Service("_s._tcp.example".to_owned()),
            ];
            for (lookup, records) in lookups.into_iter().zip(names) {
                let Some(records) = records else { continue };
                let service = matches!(lookup, Lookup::Service(_));
                let mut answer: Vec<Resolved> = records
                    .into_iter()
                    .map(|(last, port, priority, weight)| Resolved {
                        address: [10, 0, 0, last].into(),
                        port: service.then_some(port),
                        weight: if service { weight } else { 0 },
                        priority: if service { priority } else { 0 },
                    })
                    .collect();
                answer.sort();
                answer.dedup();
                facts.names.insert(lookup, answer);
            }
            let probes: Vec<Probe> = probes([(&rule, Reach::ANY)], &facts).into_keys().collect();
            for (probe, (kind, recovered, since)) in probes.into_iter().zip(health) {
                if kind > 0 {
                    facts.health.insert(probe, verdict(kind == 1, Duration::from_secs(since), recovered));
                }
            }
            for (last, (admin, weight)) in orders.into_iter().enumerate() {
                order_of(&mut facts, &rule, &format!("10.0.0.{last}:80"), admin, weight);
            }
            facts
        },
    )
}

fn order_of(facts: &mut Facts, rule: &Rule, backend: &str, admin: Option<Admin>, weight: Option<u16>) {
    if admin.is_some() || weight.is_some() {
        let order = Order { admin, weight, ..Order::default() };
        facts.orders.insert((rule.name.clone(), BackendName::new(backend).unwrap()), order);
    }
}

fn mixed() -> Rule {
    let mut rule = checked(vec![
        weighted("10.0.0.1:80", 3),
        weighted("a.example:80", 256),
        backup("b.example:80"),
        weighted("srv/_s._tcp.example", 7),
        backup("10.0.0.7:80"),
    ]);
    rule.pool.slow_start = Some(Duration::from_secs(500));
    rule
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Members are those that the view shows with a weight, and everything that a member may not be, none is.
    #[test]
    fn members_are_what_the_view_says(facts in facts_for(&mixed()), now in 0..3000_u64) {
        let (rule, now) = (mixed(), Duration::from_secs(now));
        let rows: Vec<MemberView> = view(&rule, &facts, now, Reach::ANY);
        let met = meets(&rule, &facts, now, Reach::ANY);
        let weighed: Vec<&MemberView> = rows.iter().filter(|row| row.effective > 0.0).collect();
        match &met {
            Meets::Members(members) => {
                prop_assert_eq!(
                    members.iter().map(|member| Some(member.target.to_string())).collect::<Vec<_>>(),
                    weighed.iter().map(|row| row.target.clone()).collect::<Vec<_>>()
                );
                // Proportions are what the view says.
                for (member, row) in members.iter().zip(&weighed) {
                    let (first, first_row) = (&members[0], weighed[0]);
                    let left = f64::from(member.weight) * first_row.effective;
                    let right = f64::from(first.weight) * row.effective;
                    prop_assert!((left - right).abs() <= 1e-9 * left, "{met:?} {rows:?}");
                    prop_assert!((1..=MOST_WEIGHT).contains(&member.weight));
                }
                let mut targets: Vec<Target> = members.iter().map(|member| member.target).collect();
                targets.sort();
                targets.dedup();
                prop_assert_eq!(targets.len(), members.len(), "no target twice");
            }
            Meets::Refuse | Meets::Drop => prop_assert!(weighed.is_empty()),
        }
        for row in &weighed {
            prop_assert!(matches!(row.state, MemberState::Up | MemberState::Checking), "{row:?}");
            prop_assert!(row.effective <= f64::from(row.weight));
        }
        for row in &rows {
            let backup_works = row.backup && row.effective > 0.0;
            let primary_waits = !row.backup && row.weight > 0
                && matches!(row.state, MemberState::Up | MemberState::Checking);
            if backup_works {
                prop_assert!(!rows.iter().any(|other| !other.backup && other.effective > 0.0));
            }
            if primary_waits {
                prop_assert!(row.effective > 0.0, "{row:?}");
            }
            prop_assert_eq!(row.state == MemberState::Unresolved, row.target.is_none());
        }
        // What time alone changes, it changes at the moment that is told, and not before.
        let told = next_change(&rule, &facts, now, Reach::ANY);
        if let Some(next) = told {
            prop_assert!(next > now);
            prop_assert_eq!(&met, &meets(&rule, &facts, next - Duration::from_nanos(1), Reach::ANY));
        } else {
            prop_assert_eq!(&met, &meets(&rule, &facts, now + Duration::from_secs(9999), Reach::ANY));
        }
    }
}

/// Pools, checks, names and orders of 10,000 rules, all known, in time that suits a reload.
#[test]
fn ten_thousand_rules_with_pools() {
    const RULES: u32 = 10_000;
    const BACKENDS: u32 = 10;
    let mut rules = Vec::new();
    let mut facts = Facts::default();
    for nth in 0..RULES {
        let mut backends: Vec<Backend> = (0..BACKENDS)
            .map(|of| {
                let address = IpAddr::V4((0x0a00_0000 + nth * 16 + of).into());
                Backend::of(Target { address, ports: TargetPorts::One(80) })
            })
            .collect();
        backends.push(backend(&format!("n{nth}.example:80")));
        let answer =
            vec![Resolved { address: IpAddr::V4((0x0b00_0000 + nth).into()), ..resolved("10.0.0.0") }];
        facts.names.insert(addresses(&format!("n{nth}.example")), answer);
        let mut rule = checked(backends);
        rule.name = RuleName::new(&format!("r{nth}")).unwrap();
        rule.pool.slow_start = Some(Duration::from_secs(30));
        order_of(&mut facts, &rule, &rule.pool.backends[0].name.to_string(), Some(Admin::Drain), None);
        rules.push(rule);
    }
    for probe in probes(rules.iter().map(|rule| (rule, Reach::ANY)), &facts).into_keys() {
        facts.health.insert(probe, verdict(true, NOW, true));
    }
    assert_eq!(facts.health.len(), (RULES * (BACKENDS + 1)) as usize);
    let start = Instant::now();
    let members: usize = rules.iter().map(|rule| shown(&meets(rule, &facts, NOW, Reach::ANY)).len()).sum();
    let planned = start.elapsed();
    assert_eq!(members, (RULES * BACKENDS) as usize, "one of each is drained");
    assert!(rules.iter().all(|rule| next_change(rule, &facts, NOW, Reach::ANY).is_some()));
    println!(
        "{RULES} rules with {} members each: {planned:?}, with next_change {:?}",
        BACKENDS + 1,
        start.elapsed()
    );
    // A debug build on a busy machine; quadratic work would take minutes.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
