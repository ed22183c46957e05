//! Verdicts: which checks they come from, what they do at once, and slowly.

use super::*;

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
