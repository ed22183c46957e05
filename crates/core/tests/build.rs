//! What valid files mean: the ruleset, part by part.

use std::net::IpAddr;
use std::time::Duration;

use portway_core::address::Family;
use portway_core::config;
use portway_core::ruleset::{
    Attach, ClientAddress, EngineKind, FlowTimeouts, HostSettings, Rule, Ruleset, Scope, SourceMode,
    TargetPorts, Timeouts,
};

fn ruleset(text: &str) -> Ruleset {
    let (ruleset, found) = config::load(text).whole();
    assert_eq!(found, [], "{text}");
    ruleset.expect("no mistakes")
}

fn rule(listen: &str, forward: &str) -> Rule {
    ruleset(&format!("[[rule]]\nlisten = {listen}\nforward = {forward}\n")).rules.remove(0)
}

fn listeners(rule: &Rule) -> Vec<String> {
    rule.listeners.iter().map(ToString::to_string).collect()
}

#[test]
fn listeners_without_a_family_take_the_backends() {
    for (listen, v4, v6) in [
        ("'8888'", "tcp/0.0.0.0:8888", "tcp/[::]:8888"),
        ("':8888'", "tcp/0.0.0.0:8888", "tcp/[::]:8888"),
        ("'udp/53'", "udp/0.0.0.0:53", "udp/[::]:53"),
        ("'udp/:53-54'", "udp/0.0.0.0:53-54", "udp/[::]:53-54"),
        ("'0.0.0.0:80'", "tcp/0.0.0.0:80", "tcp/0.0.0.0:80"),
        ("'[::]:80'", "tcp/[::]:80", "tcp/[::]:80"),
        ("'[::0]:80'", "tcp/[::]:80", "tcp/[::]:80"),
    ] {
        assert_eq!(listeners(&rule(listen, "'10.0.0.1:1'")), [v4], "{listen}");
        assert_eq!(listeners(&rule(listen, "'[fd00::1]:1'")), [v6], "{listen}");
    }
    for (forward, family) in [("'10.0.0.1'", Family::V4), ("'[fd00::1]'", Family::V6)] {
        let rule = rule("'eth0.100:443'", forward);
        assert!(
            matches!(&rule.listeners[0].scope, Scope::Interface(name, of) if name.as_str() == "eth0.100" && *of == family)
        );
    }
}

#[test]
fn what_the_file_asks_of_the_ebpf_engine() {
    let found = ruleset(
        "[ebpf]
attach = 'clsact'
interfaces = ['eth0', 'wg0']
max-flows = 1_048_576
source-ports = '1024-2047'
timeouts = { established = '30m', udp = '10s' }

[[rule]]
listen = '443'
forward = '10.0.0.1'
client-address = 'toa'
new-flow-rate = 1000
syn-cookies = 0

[[rule]]
listen = '444'
forward = '10.0.0.1'
",
    );
    let names: Vec<&str> = found.ebpf.interfaces.iter().map(|name| name.as_str()).collect();
    assert_eq!((found.ebpf.attach, names), (Attach::Clsact, vec!["eth0", "wg0"]));
    assert_eq!(
        (found.ebpf.max_flows, found.ebpf.source_ports.to_string()),
        (1 << 20, "1024-2047".to_owned())
    );
    let timeouts = found.ebpf.timeouts;
    assert_eq!((timeouts.established, timeouts.udp), (Duration::from_secs(1800), Duration::from_secs(10)));
    assert_eq!(timeouts.udp_stream, FlowTimeouts::default().udp_stream, "what is left out is the default");
    let asks = |rule: &Rule| (rule.client_address, rule.new_flow_rate.map(u32::from), rule.syn_cookies);
    assert_eq!(asks(&found.rules[0]), (Some(ClientAddress::Toa), Some(1000), Some(0)));
    assert_eq!(asks(&found.rules[1]), (None, None, None));
    let one = ruleset("ebpf.interfaces = 'eth0'\n").ebpf.interfaces;
    assert_eq!(one.len(), 1, "a text alone is a list of one");
}

#[test]
fn a_list_and_both_protocols_keep_their_order_and_their_places() {
    let text = "[[rule]]\nlisten = ['tcp+udp/53', '10.0.0.9:54']\nforward = '10.0.0.1'\nengine = 'proxy'\n";
    let rule = ruleset(text).rules.remove(0);
    assert_eq!(listeners(&rule), ["tcp/0.0.0.0:53", "udp/0.0.0.0:53", "tcp/10.0.0.9:54"]);
    let places: Vec<&str> = rule.origin.listeners.iter().map(|span| &text[span.clone()]).collect();
    assert_eq!(places, ["tcp+udp/53", "tcp+udp/53", "10.0.0.9:54"]);
    assert_eq!(&text[rule.origin.rule.clone()], "[[rule]]");
    assert_eq!(rule.origin.engine.map(|span| &text[span]), Some("'proxy'"));
    assert_eq!((rule.name.as_str(), rule.engine), ("tcp+udp/53", Some(EngineKind::Proxy)));
}

#[test]
fn which_port_leads_where() {
    let ports = |listen, forward| rule(listen, forward).pool.single().expect("one address").ports;
    assert_eq!(ports("'80'", "'10.0.0.1'"), TargetPorts::Same);
    assert_eq!(ports("'80'", "'10.0.0.1:80'"), TargetPorts::One(80));
    assert_eq!(ports("'8000-8099'", "'10.0.0.1:80'"), TargetPorts::One(80));
    assert_eq!(ports("'8000-8099'", "'10.0.0.1:8000-8099'"), TargetPorts::Same);
    assert_eq!(ports("['8000-8099', 'udp/8000-8099']", "'10.0.0.1:8000-8099'"), TargetPorts::Same);
    let shifted = rule("['8000-8099', '[::]:7000-7099']", "'10.0.0.1:9000-9099'");
    assert!(matches!(shifted.pool.backends[0].ports, TargetPorts::Shifted(range) if range.first() == 9000));
    let second = shifted.listeners[1].ports;
    assert_eq!(shifted.pool.backends[0].ports.of(second, 7042), 9042);
}

/// What looks like a conflict and is none: the more specific listener wins, and families are apart.
#[test]
fn no_conflict_between_different_scopes() {
    let text = "
        [[rule]]\nlisten = '0.0.0.0:80'\nforward = '10.0.0.1'
        [[rule]]\nlisten = '[::]:80'\nforward = '10.0.0.1'
        [[rule]]\nlisten = 'udp/0.0.0.0:80'\nforward = '10.0.0.1'
        [[rule]]\nlisten = '10.0.0.9:80'\nforward = '10.0.0.1'
        [[rule]]\nlisten = '10.0.0.8:80'\nforward = '10.0.0.1'
        [[rule]]\nlisten = 'eth0:80'\nforward = '10.0.0.1'
        [[rule]]\nlisten = 'eth1:80'\nforward = '10.0.0.1'
        [[rule]]\nname = 'six'\nlisten = 'eth1:80'\nforward = '[fd00::1]'
        [[rule]]\nlisten = ['0.0.0.0:79', '0.0.0.0:81-90']\nforward = '10.0.0.1'";
    assert_eq!(ruleset(text).rules.len(), 9);
}

/// A backend on this host is fine where it is not the rule's own listener.
#[test]
fn a_local_backend_is_no_loop() {
    for (listen, forward) in [
        ("'0.0.0.0:80'", "'127.0.0.1:81'"),
        ("'192.0.2.1:80'", "'127.0.0.1'"),
        ("'eth0:80'", "'127.0.0.1'"),
        ("'[::]:80'", "'127.0.0.1'"),
        ("'8000-8009'", "'127.0.0.1:8001-8010'"),
        ("'127.0.0.1:80'", "'127.0.0.2:80'"),
        ("'0.0.0.0:80'", "'127.0.0.1:80'"),
    ] {
        rule(listen, forward);
    }
    for (listen, forward) in
        [("'192.0.2.1:1-100'", "'192.0.2.1:50'"), ("'192.0.2.1:1-100'", "'192.0.2.1:1-100'")]
    {
        let (ruleset, found) =
            config::load(&format!("[[rule]]\nlisten = {listen}\nforward = {forward}\n")).whole();
        assert!(ruleset.is_none());
        assert!(found[0].message.contains("forwards to itself"), "{listen} {forward}: {found:?}");
    }
}

#[test]
fn source_modes() {
    let source = |line: &str| {
        let text = format!("[[rule]]\nlisten = '80'\nforward = '10.0.0.1'\n{line}\n");
        ruleset(&text).rules.remove(0).source
    };
    assert_eq!(source(""), SourceMode::Masquerade);
    assert_eq!(source("source = 'masquerade'"), SourceMode::Masquerade);
    assert_eq!(source("source = 'preserve'"), SourceMode::Preserve);
    let pool: Vec<IpAddr> = vec![[192, 0, 2, 11].into(), [192, 0, 2, 10].into()];
    assert_eq!(
        source("source = ['192.0.2.11', '192.0.2.10']"),
        SourceMode::Snat(pool),
        "in the order of the file"
    );
}

#[test]
fn a_rules_timeouts_stand_on_the_files_which_stand_on_the_defaults() {
    let text = "
        [proxy.timeouts]\nidle = '30m'\nconnect = '500ms'
        [[rule]]\nname = 'a'\nlisten = '80'\nforward = '10.0.0.1'\ntimeouts = { idle = '1d' }
        [[rule]]\nname = 'b'\nlisten = '81'\nforward = '10.0.0.1'";
    let ruleset = ruleset(text);
    let file = Timeouts {
        idle: Duration::from_secs(1800),
        connect: Duration::from_millis(500),
        ..Timeouts::default()
    };
    assert_eq!(ruleset.proxy.timeouts, file);
    assert_eq!(ruleset.rules[0].timeouts, Some(Timeouts { idle: Duration::from_secs(86_400), ..file }));
    assert_eq!(ruleset.rules[1].timeouts, None, "a rule that sets none does not ask for the proxy");
}

#[test]
fn settings() {
    let text = "
        [host]\nsettings = 'check'
        [host.conntrack]\nmax = 0x40000\ntcp-established = '2h'\nudp = '30s'\nudp-stream = '2m'
        [control]\ngroup = 'adm'
        [proxy]\nworkers = 2\nmax-connections = 9_000\nmax-flows = 4000";
    let ruleset = ruleset(text);
    assert_eq!(ruleset.host.settings, HostSettings::Check);
    let conntrack = ruleset.host.conntrack;
    assert_eq!(conntrack.max.map(u32::from), Some(262_144));
    assert_eq!(conntrack.tcp_established, Some(Duration::from_secs(7200)));
    assert_eq!(conntrack.udp, Some(Duration::from_secs(30)));
    assert_eq!(conntrack.udp_stream, Some(Duration::from_secs(120)));
    assert_eq!(ruleset.control.group.as_deref(), Some("adm"));
    let proxy = ruleset.proxy;
    assert_eq!(proxy.workers.map(u32::from), Some(2));
    assert_eq!(proxy.max_connections.map(u32::from), Some(9000));
    assert_eq!(proxy.max_flows.map(u32::from), Some(4000));
}

/// A mistake in one rule does not hide those of others, and no ruleset comes of it.
#[test]
fn parse_and_build_report_together() {
    let text = "
        [host]\nx = 1
        [[rule]]\nlisten = '80'
        [[rule]]\nlisten = '81'\nforward = '10.0.0.1:0'
        [[rule]]\nlisten = '82'\nforward = '10.0.0.1'\n[[rule]]\nlisten = '82'\nforward = '10.0.0.2'";
    let (ruleset, found) = config::load(text).whole();
    assert!(ruleset.is_none());
    let messages: Vec<&str> = found.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "unknown key `x` in [host]",
            "`forward` is missing in this [[rule]]",
            "port 0 does not exist",
            "rules `82` and `82` both listen on tcp/0.0.0.0:82",
        ]
    );
}
