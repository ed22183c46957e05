//! All of it together, on generated facts and for many rules.

use super::*;

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
