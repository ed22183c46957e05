//! Properties of the parsers and of conflict detection, on generated input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portway_core::address::{Family, InterfaceName, PortRange, Protocol};
use portway_core::build::conflict::{Claim, conflicts};
use portway_core::config::endpoint::{parse_forward, parse_listen};
use portway_core::config::value::{format_duration, parse_duration};
use portway_core::config::{self};
use portway_core::diagnostic::{Diagnostic, Source, render};
use portway_core::ruleset::{BackendHost, Listener, Scope, Target, TargetPorts};
use proptest::prelude::*;

fn ports() -> impl Strategy<Value = PortRange> {
    (1..=u16::MAX, 1..=u16::MAX)
        .prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).expect("1 or more, in order"))
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
    ]
    .prop_filter("an address that traffic can have", |address| match address {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => {
            !(v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some())
        }
    })
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn listener() -> impl Strategy<Value = Listener> {
    let interface = "[a-z][a-z0-9_-]{0,13}(\\.[0-9])?"
        .prop_filter_map("a name that is not `localhost`", |name| {
            InterfaceName::new(&name).filter(|name| name.as_str() != "localhost")
        });
    let scope = prop_oneof![
        address().prop_map(Scope::Address),
        family().prop_map(Scope::Any),
        (interface, family()).prop_map(|(name, family)| Scope::Interface(name, family)),
    ];
    (protocol(), scope, ports()).prop_map(|(protocol, scope, ports)| Listener { protocol, scope, ports })
}

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

/// Texts that look a little like what the parsers read.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\\[\\]0-9a-f:./%*,+ -]{0,40}",
        "(tcp|udp|tcp\\+udp|x)?/?(\\[?[0-9a-f:.]{0,20}\\]?|eth0)?:?[0-9-]{0,12}",
    ]
}

fn files() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("\"80\"".to_owned()),
        Just("[\"80\", \"udp/[::]:53\", 3]".to_owned()),
        Just("\"10.0.0.1:80\"".to_owned()),
        Just("{ idle = \"5m\", x = 1 }".to_owned()),
        Just("\"\\u0038\"".to_owned()),
        "[0-9a-z\"'\\[\\]{}=.: -]{0,20}",
        texts().prop_map(|text| format!("{text:?}")),
    ];
    let key = prop_oneof![
        Just("listen".to_owned()),
        Just("forward".to_owned()),
        Just("source".to_owned()),
        Just("engine".to_owned()),
        Just("timeouts".to_owned()),
        Just("max-connections".to_owned()),
        "[a-z.-]{1,8}",
    ];
    let line = prop_oneof![
        3 => Just("[[rule]]".to_owned()),
        1 => Just("[rule]".to_owned()),
        1 => Just("[host.conntrack]".to_owned()),
        1 => Just("[proxy.timeouts]".to_owned()),
        8 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => any::<String>(),
    ];
    (proptest::collection::vec(line, 0..12), prop_oneof![Just("\n"), Just("\r\n")])
        .prop_map(|(lines, end)| lines.join(end))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_listener_is_read_back_from_its_display(listener in listener()) {
        let listen = parse_listen(&listener.to_string());
        let family = Some(listener.scope.family());
        let listeners: Vec<Listener> = listen.expect("what is displayed is valid").listeners(family)
            .expect("the family is known").collect();
        prop_assert_eq!(listeners, vec![listener]);
    }

    #[test]
    fn both_protocols_are_two_listeners(listener in listener()) {
        let text = listener.to_string();
        let both = format!("tcp+{}", text.replacen("tcp/", "udp/", 1));
        let listen = parse_listen(&both).expect("valid");
        let found: Vec<Listener> = listen.listeners(Some(listener.scope.family())).expect("known").collect();
        let of = |protocol| Listener { protocol, ..listener.clone() };
        prop_assert_eq!(found, vec![of(Protocol::Tcp), of(Protocol::Udp)]);
    }

    #[test]
    fn a_backend_is_read_back_from_its_display(address in address(), range in proptest::option::of(ports())) {
        let ports = match range {
            None => TargetPorts::Same,
            Some(range) if range.is_single() => TargetPorts::One(range.first()),
            Some(range) => TargetPorts::Shifted(range),
        };
        let forward = parse_forward(&Target { address, ports }.to_string()).expect("what is displayed is valid");
        prop_assert_eq!((forward.host, forward.ports), (BackendHost::Address(address), range));
    }

    /// The built rule leads each port where the text says, and never past 65,535.
    #[test]
    fn shifted_ranges_lead_port_by_port(range in ports(), first in 1..=u16::MAX, at in any::<proptest::sample::Index>()) {
        let last = u32::from(first) + range.count() - 1;
        let text = format!("[[rule]]\nlisten = \"10.0.0.1:{range}\"\nforward = \"10.0.0.2:{first}-{last}\"\n");
        let (ruleset, found) = config::load(&text);
        let valid = last <= u32::from(u16::MAX);
        prop_assert_eq!(ruleset.is_some(), valid, "{:?}", found);
        if let Some(ruleset) = ruleset {
            let offset = u16::try_from(at.index(range.count() as usize)).expect("fewer than 65,536");
            let target = ruleset.rules[0].pool.single().expect("one address").socket(range, range.first() + offset);
            prop_assert_eq!(target.port(), first + offset);
        }
    }

    #[test]
    fn a_range_contains_what_it_iterates(range in ports(), port in any::<u16>()) {
        prop_assert_eq!(range.iter().count(), range.count() as usize);
        prop_assert_eq!(range.contains(port), range.iter().any(|one| one == port));
    }

    #[test]
    fn durations_are_read_back(millis in 1..=u64::MAX / 2) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    /// A fault lies within the text, on character boundaries.
    #[test]
    fn endpoints_never_panic(text in texts()) {
        for fault in [parse_listen(&text).err(), parse_forward(&text).err()].into_iter().flatten() {
            prop_assert!(text.get(fault.at.clone()).is_some(), "{fault:?}");
        }
        let _ = parse_duration(&text);
    }

    /// No text makes the reader panic, and what it says can always be shown. A ruleset comes exactly when
    /// there is no error.
    #[test]
    fn files_never_panic(text in files()) {
        let source = Source::new("f.toml", text);
        let (ruleset, found) = config::load(source.text());
        prop_assert_eq!(ruleset.is_some(), !found.iter().any(Diagnostic::is_error), "{:?}", found);
        let shown = render(&source, &found, false);
        prop_assert_eq!(shown.is_empty(), found.is_empty());
        for diagnostic in &found {
            prop_assert!(source.text().get(diagnostic.primary.span.clone()).is_some(), "{:?}", diagnostic);
            let place = diagnostic.located(&source).place;
            prop_assert!((place.line, place.column) <= (place.end_line, place.end_column));
        }
    }

    #[test]
    fn command_lines_never_panic(
        words in proptest::collection::vec(texts(), 0..6),
        engine in proptest::option::of(texts()),
        pool in proptest::option::of(texts()),
    ) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (source, ruleset, found) = config::from_command_line(&words, engine.as_deref(), pool.as_deref());
        prop_assert_eq!(ruleset.is_some(), !found.iter().any(Diagnostic::is_error));
        render(&source, &found, true);
    }

    /// A pair on the command line means the same in one word and in two.
    #[test]
    fn one_word_is_two_words(listen in listener(), address in address(), port in 1..=u16::MAX) {
        let (listen, forward) = (listen.to_string(), Target { address, ports: TargetPorts::One(port) }.to_string());
        let word = format!("{listen}:{forward}");
        let rules = |words: &[&str]| {
            let (_, ruleset, found) = config::from_command_line(words, None, None);
            let rules = ruleset.map(|ruleset| {
                ruleset.rules.into_iter().map(|rule| (rule.listeners, rule.pool)).collect::<Vec<_>>()
            });
            (rules, found.into_iter().map(|diagnostic| diagnostic.message).collect::<Vec<_>>())
        };
        prop_assert_eq!(rules(&[&word]), rules(&[&listen, &forward]));
    }

    #[test]
    fn rendering_never_panics(
        text in prop_oneof![
            any::<String>(),
            "[a\t\r\n é\u{1f980}\u{301}\u{200d}\u{0}]{0,60}",
            "([a é\u{1f980}]{1000,1500}\n?){1,3}",
        ],
        spans in proptest::collection::vec((0..100_u16, 0..100_u16), 1..5),
        scale in prop_oneof![Just(1), Just(60)],
        far in any::<usize>(),
        label in any::<String>(),
    ) {
        let source = Source::new("f.toml", text);
        let span = |(a, b): &(u16, u16)| usize::from(*a * scale)..usize::from(*b * scale);
        let mut diagnostic = Diagnostic::error(span(&spans[0]), label.clone()).label(label.clone()).hint(label.clone());
        for more in &spans[1..] {
            diagnostic = diagnostic.also(span(more), label.clone());
        }
        diagnostic = diagnostic.also(far..far, label.clone()).also(0..far, "");
        for color in [false, true] {
            prop_assert!(!render(&source, std::slice::from_ref(&diagnostic), color).is_empty());
        }
        let place = diagnostic.located(&source).place;
        prop_assert!(place.line >= 1 && place.column >= 1);
        prop_assert!(place.end_line <= source.text().matches('\n').count() + 1);
    }

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
