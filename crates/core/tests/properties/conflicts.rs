//! The sweep for conflicts finds what the definition of a conflict finds.

use std::net::{IpAddr, Ipv4Addr};

use portway_core::address::{Family, InterfaceName, PortRange};
use portway_core::build::conflict::{Claim, conflicts};
use portway_core::ruleset::{Listener, Scope};
use proptest::prelude::*;

use super::protocol;

/// Listeners that meet often: few scopes, few ports.
fn crowded() -> impl Strategy<Value = Listener> {
    let scope = prop_oneof![
        Just(Scope::Any(Family::V4)),
        Just(Scope::Any(Family::V6)),
        Just(Scope::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))),
        Just(Scope::Interface(InterfaceName::new("eth0").expect("valid"), Family::V4)),
    ];
    (protocol(), scope, 1..60_u16, 0..6_u16).prop_map(|(protocol, scope, first, more)| Listener {
        protocol,
        scope,
        ports: PortRange::new(first, first + more).expect("in order"),
    })
}

fn claims(listeners: Vec<Listener>) -> Vec<Claim> {
    let claim = |(rule, listener)| Claim { rule, span: rule..rule, listener };
    listeners.into_iter().enumerate().map(claim).collect()
}

/// The definition of a conflict, pair by pair.
fn conflict(a: &Listener, b: &Listener) -> bool {
    a.protocol == b.protocol && a.scope == b.scope && a.ports.overlaps(b.ports)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The sweep finds what the definition finds.
    #[test]
    fn conflicts_agree_with_the_definition(listeners in proptest::collection::vec(crowded(), 0..40)) {
        let claims = claims(listeners);
        let found = conflicts(&claims);
        for (earlier, later) in &found {
            prop_assert!(earlier < later);
            prop_assert!(conflict(&claims[*earlier].listener, &claims[*later].listener));
        }
        // Each claim that meets one that comes before it in port order is told of once.
        let before = |a: usize, b: usize| (claims[a].listener.ports.first(), a) < (claims[b].listener.ports.first(), b);
        let expected = (0..claims.len())
            .filter(|b| (0..claims.len()).any(|a| before(a, *b) && conflict(&claims[a].listener, &claims[*b].listener)))
            .count();
        prop_assert_eq!(found.len(), expected);
        let any = (0..claims.len())
            .any(|a| (0..a).any(|b| conflict(&claims[a].listener, &claims[b].listener)));
        prop_assert_eq!(any, !found.is_empty());
    }
}
