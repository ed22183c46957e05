//! Which engine a rule gets, why, and what is said when none can serve it.

use portway_core::assign::{Assigned, assign};
use portway_core::caps::{Caps, Nftables};
use portway_core::config;
use portway_core::diagnostic::Diagnostic;
use portway_core::ruleset::{EngineKind, Helper};

/// A host where the user is not root.
fn unprivileged() -> Caps {
    Caps { nftables: Err("needs root (CAP_NET_ADMIN)".to_owned()), first_port: 1024 }
}

fn assigned(lines: &str, caps: &Caps) -> Result<Assigned, Vec<Diagnostic>> {
    let (ruleset, found) = config::load(&format!("[[rule]]\n{lines}\n"));
    assert_eq!(found, [], "{lines}");
    let mut assignment = assign(&ruleset.expect("no mistakes"), caps)?;
    assert_eq!(assignment.rules.len(), 1);
    Ok(assignment.rules.remove(0))
}

const PLAIN: &str = "listen = '0.0.0.0:8888'\nforward = '10.0.0.1:80'";

#[test]
fn auto_takes_the_cheapest_that_can() {
    let cases: &[(&str, EngineKind, &str)] = &[
        (PLAIN, EngineKind::Nftables, "cheapest engine here"),
        ("listen = '127.0.0.1:80'\nforward = '127.0.0.1:81'", EngineKind::Nftables, "cheapest"),
        (
            "listen = '[::]:80'\nforward = '[fd00::1]:80'\nsource = 'preserve'",
            EngineKind::Nftables,
            "cheapest",
        ),
        ("listen = '0.0.0.0:21'\nforward = '10.0.0.1'\nhelper = 'ftp'", EngineKind::Nftables, "cheapest"),
        ("listen = '1-65535'\nforward = '10.0.0.1'", EngineKind::Nftables, "cheapest"),
        ("listen = '80'\nforward = '10.0.0.1'\nsource = ['192.0.2.1']", EngineKind::Nftables, "cheapest"),
        (
            "listen = '[::]:80'\nforward = '10.0.0.1'",
            EngineKind::Proxy,
            "NAT cannot translate between families",
        ),
        (
            "listen = ['80', '[::]:80']\nforward = '10.0.0.1'",
            EngineKind::Proxy,
            "IPv6 listener to an IPv4 backend",
        ),
        (
            "listen = '0.0.0.0:80'\nforward = '[fd00::1]'",
            EngineKind::Proxy,
            "IPv4 listener to an IPv6 backend",
        ),
        ("listen = '[fd00::2]:80'\nforward = '[::1]:80'", EngineKind::Proxy, "backend is [::1]"),
        ("listen = '[::1]:80'\nforward = '[fd00::1]'", EngineKind::Proxy, "listener is [::1]"),
        ("listen = '80'\nforward = '10.0.0.1'\ntimeouts = { idle = '5m' }", EngineKind::Proxy, "timeouts"),
        ("listen = '80'\nforward = '10.0.0.1'\nmax-connections = 7", EngineKind::Proxy, "max-connections"),
    ];
    for (lines, engine, reason) in cases {
        let assigned = assigned(lines, &Caps::all()).expect("a host where everything works");
        assert_eq!(assigned.engine, *engine, "{lines}");
        assert!(assigned.reason.contains(reason), "{lines}: {}", assigned.reason);
    }
}

#[test]
fn the_reason_reads_as_a_sentence() {
    let shown = |lines: &str, caps: &Caps| assigned(lines, caps).expect("can be served").to_string();
    assert_eq!(
        shown(PLAIN, &Caps::all()),
        "nftables: cheapest engine here, and the rule asks for nothing that needs a socket"
    );
    assert_eq!(
        shown(PLAIN, &unprivileged()),
        "proxy: nf_tables cannot be used here: needs root (CAP_NET_ADMIN)"
    );
    assert_eq!(
        shown("listen = '[::]:8888'\nforward = '10.0.0.1:80'", &Caps::all()),
        "proxy: IPv6 listener to an IPv4 backend, and NAT cannot translate between families"
    );
    let pinned = format!("{PLAIN}\nengine = 'proxy'");
    assert_eq!(shown(&pinned, &Caps::all()), "proxy: the rule asks for it");
}

#[test]
fn the_proxy_stops_at_its_longest_range() {
    let lines = |last: u32| format!("listen = '2000-{last}'\nforward = '10.0.0.1'\nengine = 'proxy'");
    assert!(assigned(&lines(2000 + 1023), &Caps::all()).is_ok(), "1024 ports");
    assert!(assigned(&lines(2000 + 1024), &Caps::all()).is_err(), "1025 ports");
}

#[test]
fn privileged_ports_begin_where_the_host_says() {
    let lines = |port: u16| format!("listen = '{port}'\nforward = '10.0.0.1:80'");
    assert!(assigned(&lines(1024), &unprivileged()).is_ok());
    let found = assigned(&lines(1023), &unprivileged()).expect_err("neither engine");
    assert!(found[0].message.contains("nftables: nf_tables cannot be used here"), "{}", found[0].message);
    assert!(found[0].message.contains("port 1023 needs privileges"), "{}", found[0].message);
    let open = Caps { first_port: 0, ..unprivileged() };
    assert!(assigned(&lines(1), &open).is_ok());
}

/// A socket may be bound to an interface without privilege since Linux 5.7.
#[test]
fn an_interface_listener_needs_no_privilege() {
    let lines = "listen = 'eth0:8888'\nforward = '10.0.0.1:80'";
    assert_eq!(assigned(lines, &unprivileged()).expect("can be served").engine, EngineKind::Proxy);
}

/// A local service opened to the outside: NAT tells its port from the listener's, a relay does not.
#[test]
fn loopback_behind_an_any_listener_is_for_nftables() {
    for lines in
        ["listen = '0.0.0.0:8080'\nforward = '127.0.0.1'", "listen = '8080'\nforward = '127.9.9.9:8080'"]
    {
        assert_eq!(assigned(lines, &Caps::all()).expect("can be served").engine, EngineKind::Nftables);
        let found = assigned(lines, &unprivileged()).expect_err("neither engine");
        assert!(found[0].message.contains("a relay would call itself"), "{}", found[0].message);
    }
}

#[test]
fn a_helper_must_be_in_the_kernel() {
    let lines = "listen = 'udp/6969'\nforward = '10.0.0.1'\nhelper = 'tftp'";
    let with = |helpers: &[Helper]| Caps {
        nftables: Ok(Nftables { helpers: helpers.iter().copied().collect() }),
        ..Caps::all()
    };
    assert!(assigned(lines, &with(&[Helper::Tftp])).is_ok());
    let found = assigned(lines, &with(&[Helper::Ftp, Helper::Sip])).expect_err("no tftp");
    assert!(found[0].hint.as_deref().is_some_and(|hint| hint.contains("modprobe nf_nat_tftp")), "{found:?}");
}

/// A pinned engine that cannot serve the rule is an error at the word that pins it, and names all of it.
#[test]
fn a_pinned_engine_that_cannot_is_told_everything() {
    let lines = "listen = '[::1]:80'\nforward = '10.0.0.1'\nmax-connections = 3\nengine = 'nftables'";
    let found = assigned(lines, &unprivileged()).expect_err("cannot");
    assert_eq!(found.len(), 1);
    for part in ["between families", "[::1]", "max-connections", "nf_tables cannot be used here"] {
        assert!(found[0].message.contains(part), "{part}: {}", found[0].message);
    }
    let text = format!("[[rule]]\n{lines}\n");
    assert_eq!(&text[found[0].primary.span.clone()], "'nftables'");
}

/// Every rule that cannot be served is told, not only the first.
#[test]
fn every_rule_is_told() {
    let text = "[[rule]]\nlisten = '80'\nforward = '10.0.0.1'\n".to_owned()
        + "[[rule]]\nlisten = '8888'\nforward = '10.0.0.1'\n"
        + "[[rule]]\nlisten = '81'\nforward = '10.0.0.1'\n";
    let ruleset = config::load(&text).0.expect("valid");
    let found = assign(&ruleset, &unprivileged()).expect_err("two cannot be served");
    let at: Vec<usize> = found.iter().map(|found| found.primary.span.start).collect();
    assert_eq!(at, [ruleset.rules[0].origin.rule.start, ruleset.rules[2].origin.rule.start]);
}
