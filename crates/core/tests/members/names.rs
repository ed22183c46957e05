//! Names and services: which of their addresses are members.

use super::*;

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
    let (nat, programs, relay) = (EngineKind::Nftables, EngineKind::Ebpf, EngineKind::Proxy);
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
    assert_eq!(
        met(Scope::Any(Family::V4), app(), programs),
        "10.0.0.1:81 [fd00::1]:81",
        "no loopback at all"
    );
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
