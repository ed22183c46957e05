//! Files and command lines: no text makes the reader panic, and what is read means what was written.

use std::num::NonZeroU32;

use portway_core::address::PortRange;
use portway_core::assign::assign;
use portway_core::caps::Caps;
use portway_core::config;
use portway_core::config::keys::FILE;
use portway_core::diagnostic::{Diagnostic, Source, render};
use portway_core::ruleset::{Backend, BackendName};
use proptest::prelude::*;

use super::{backend, host, listener, ports, texts};

/// Every key of a rule's pool and of what stands below it, from the rule; and those of the ebpf engine.
fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    for section in FILE.walk() {
        if section.header.starts_with("[ebpf") {
            keys.extend(section.keys.iter().map(|key| key.name.to_owned()));
            continue;
        }
        let Some(path) = section.header.strip_prefix("[rule.").and_then(|path| path.strip_suffix(']')) else {
            continue;
        };
        for key in section.keys {
            keys.extend([key.name.to_owned(), format!("{path}.{}", key.name)]);
        }
    }
    keys
}

fn files() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("\"80\"".to_owned()),
        Just("[\"80\", \"udp/[::]:53\", 3]".to_owned()),
        Just("\"10.0.0.1:80\"".to_owned()),
        Just("{ idle = \"5m\", x = 1 }".to_owned()),
        Just("[\"10.0.0.1:80\", { address = \"app.example\", weight = 2, backup = true }]".to_owned()),
        Just(
            "{ type = \"http\", path = \"/up\", interval = \"1s\", timeout = \"2s\", send = \"x\" }"
                .to_owned()
        ),
        Just("{ max-fails = 3 }".to_owned()),
        Just("\"consistent-hash\"".to_owned()),
        Just("\"udp\"".to_owned()),
        Just("\"toa\"".to_owned()),
        Just("[\"eth0\", \"lo\"]".to_owned()),
        Just("\"40000-65535\"".to_owned()),
        Just("2000".to_owned()),
        Just("\"drain\"".to_owned()),
        Just("\"30s\"".to_owned()),
        Just("\"\\u0038\"".to_owned()),
        "[0-9a-z\"'\\[\\]{}=.: -]{0,20}",
        texts().prop_map(|text| format!("{text:?}")),
    ];
    let key = prop_oneof![
        Just("listen".to_owned()),
        Just("forward".to_owned()),
        Just("source".to_owned()),
        Just("engine".to_owned()),
        Just("client-address".to_owned()),
        Just("syn-cookies".to_owned()),
        Just("timeouts".to_owned()),
        Just("max-connections".to_owned()),
        proptest::sample::select(keys()),
        "[a-z.-]{1,8}",
    ];
    let line = prop_oneof![
        3 => Just("[[rule]]".to_owned()),
        1 => Just("[rule]".to_owned()),
        1 => Just("[host.conntrack]".to_owned()),
        1 => Just("[proxy.timeouts]".to_owned()),
        1 => Just("[dns]".to_owned()),
        1 => Just("[ebpf]".to_owned()),
        1 => Just("[ebpf.timeouts]".to_owned()),
        2 => Just("[rule.pool]".to_owned()),
        1 => Just("[rule.pool.check]".to_owned()),
        1 => Just("[[rule.pool.backends]]".to_owned()),
        8 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => any::<String>(),
    ];
    (proptest::collection::vec(line, 0..12), prop_oneof![Just("\n"), Just("\r\n")])
        .prop_map(|(lines, end)| lines.join(end))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A pool that is written from what was read is the same pool.
    #[test]
    fn pools_are_read_back(
        hosts in proptest::collection::vec((host(), proptest::option::of(1..=u16::MAX)), 1..6),
        settings in proptest::collection::vec((0..=256_u16, any::<bool>(), proptest::option::of(1..=10_000_000_u32)), 6),
    ) {
        let write = |backends: &[Backend]| {
            let entries: Vec<String> = backends
                .iter()
                .map(|backend| {
                    let most = backend.max_connections.map(|most| format!(", max-connections = {most}"));
                    format!(
                        "{{ address = '{backend}', name = '{}', weight = {}, backup = {}{} }}",
                        backend.name, backend.weight, backend.backup, most.unwrap_or_default()
                    )
                })
                .collect();
            format!(
                "[[rule]]\nlisten = ['0.0.0.0:1', '[::]:1']\npool.backends = [{}]\n",
                entries.join(", ")
            )
        };
        let mut backends: Vec<Backend> = Vec::new();
        for (nth, (host, port)) in hosts.into_iter().enumerate() {
            let (weight, backup, most) = settings[nth];
            // Port 1 is what the client asks for, and the same target.
            let range = port.filter(|port| *port != 1).and_then(PortRange::single);
            let name = BackendName::new(&format!("b{nth}")).expect("a name");
            let built = Backend { name, weight, backup, max_connections: most.and_then(NonZeroU32::new), ..backend(host, range) };
            if backends.iter().all(|other| (&other.host, other.ports) != (&built.host, built.ports)) {
                backends.push(built);
            }
        }
        let (ruleset, found) = config::load(&write(&backends)).whole();
        prop_assert!(found.iter().all(|found| !found.is_error()), "{:?}", found);
        let read = ruleset.expect("no error").rules.remove(0).pool.backends;
        prop_assert_eq!(write(&read), write(&backends));
        prop_assert_eq!(read, backends);
    }

    /// The built rule leads each port where the text says, and never past 65,535.
    #[test]
    fn shifted_ranges_lead_port_by_port(range in ports(), first in 1..=u16::MAX, at in any::<proptest::sample::Index>()) {
        let last = u32::from(first) + range.count() - 1;
        let text = format!("[[rule]]\nlisten = \"10.0.0.1:{range}\"\nforward = \"10.0.0.2:{first}-{last}\"\n");
        let (ruleset, found) = config::load(&text).whole();
        let valid = last <= u32::from(u16::MAX);
        prop_assert_eq!(ruleset.is_some(), valid, "{:?}", found);
        if let Some(ruleset) = ruleset {
            let offset = u16::try_from(at.index(range.count() as usize)).expect("fewer than 65,536");
            let target = ruleset.rules[0].pool.single().expect("one address").socket(range, range.first() + offset);
            prop_assert_eq!(target.port(), first + offset);
        }
    }

    /// No text makes the reader panic, and what it says can always be shown. A ruleset comes exactly when
    /// there is no error; what is there of another is assigned all the same.
    #[test]
    fn files_never_panic(text in files()) {
        let source = Source::new("f.toml", text);
        let built = config::load(source.text());
        if let Err(found) = assign(&built.ruleset, &Caps::all()) {
            prop_assert!(!render(&source, &found, false).is_empty());
        }
        let (ruleset, found) = built.whole();
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
        let (source, built) = config::from_command_line(&words, engine.as_deref(), pool.as_deref());
        let (ruleset, found) = built.whole();
        prop_assert_eq!(ruleset.is_some(), !found.iter().any(Diagnostic::is_error));
        render(&source, &found, true);
    }

    /// A pair on the command line means the same in one word and in two.
    #[test]
    fn one_word_is_two_words(listen in listener(), host in host(), port in 1..=u16::MAX) {
        let (listen, forward) = (listen.to_string(), backend(host, PortRange::single(port)).to_string());
        let word = format!("{listen}:{forward}");
        let rules = |words: &[&str]| {
            let (_, built) = config::from_command_line(words, None, None);
            let (ruleset, found) = built.whole();
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
}
