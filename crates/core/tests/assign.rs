//! Which engine a rule gets, why, and what is said when none can serve it.

use portway_core::assign::{Assigned, assign};
use portway_core::caps::{Caps, Nftables};
use portway_core::config;
use portway_core::diagnostic::Diagnostic;
use portway_core::ruleset::{EngineKind, Helper};

/// A host where the user is not root.
fn unprivileged() -> Caps {
    Caps {
        nftables: Err("needs root (CAP_NET_ADMIN)".to_owned()),
        ebpf: Err("needs root (CAP_BPF, CAP_NET_ADMIN)".to_owned()),
        first_port: 1024,
        ..Caps::all()
    }
}

fn assigned(lines: &str, caps: &Caps) -> Result<Assigned, Vec<Diagnostic>> {
    let (ruleset, found) = config::load(&format!("[[rule]]\n{lines}\n")).whole();
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
        (
            "listen = ['0.0.0.0:80', '[::]:80']\nforward = 'app.example:80'",
            EngineKind::Proxy,
            "listeners of both families to a name",
        ),
        ("listen = '[::]:80'\nforward = 'app.example:80'", EngineKind::Nftables, "cheapest"),
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

/// What only the programs on the interfaces have takes a rule there, and nothing else does.
#[test]
fn auto_takes_ebpf_for_what_no_other_engine_has() {
    for (asks, reason) in [
        ("client-address = 'toa'", "client-address = \"toa\" writes into segments"),
        ("syn-cookies = 0", "syn-cookies are answered"),
        ("new-flow-rate = 10", "new-flow-rate is counted"),
    ] {
        let lines = format!("{PLAIN}\n{asks}");
        let found = assigned(&lines, &Caps::all()).expect("ebpf can");
        assert_eq!(found.engine, EngineKind::Ebpf, "{asks}");
        assert!(found.reason.contains(reason), "{}", found.reason);
        for engine in ["nftables", "proxy"] {
            let mistakes =
                assigned(&format!("{lines}\nengine = '{engine}'"), &Caps::all()).expect_err("cannot");
            assert!(mistakes[0].message.contains(reason), "{}", mistakes[0].message);
        }
        let found = assigned(&lines, &unprivileged()).expect_err("no privilege for it");
        assert!(found[0].message.contains("eBPF cannot be used here: needs root"), "{}", found[0].message);
    }
    assert_eq!(assigned(PLAIN, &Caps::all()).expect("nftables can").engine, EngineKind::Nftables);
}

/// Where the others cannot, `auto` does not slip to ebpf: it would lose clients on this host itself. It is offered.
#[test]
fn ebpf_is_offered_where_auto_finds_no_engine() {
    let lines = "listen = '2000-9000'\nforward = '[fd00::1]'\n";
    let lines = lines.replace("'2000-9000'", "'0.0.0.0:2000-9000'");
    let found =
        assigned(&lines, &Caps::all()).expect_err("NAT keeps to a family, and a relay has 1024 ports");
    let hint = found[0].hint.clone().expect("a hint");
    assert!(hint.contains("engine = \"ebpf\"") && hint.contains("clients on this host itself"), "{hint}");
    let pinned = format!("{lines}engine = 'ebpf'");
    assert_eq!(assigned(&pinned, &Caps::all()).expect("can be served").engine, EngineKind::Ebpf);
    // Nor is it offered where it cannot.
    let without = Caps { ebpf: Err("no".to_owned()), ..Caps::all() };
    assert_eq!(assigned(&lines, &without).expect_err("nobody").remove(0).hint, None);
}

/// Of rules that it can serve: families, ports and policies without a socket are no obstacle.
#[test]
fn rules_that_ebpf_serves() {
    for lines in [
        PLAIN,
        "listen = ['0.0.0.0:80', '[::]:80']\nforward = ['10.0.0.1:80', '[fd00::1]:81', 'app.example:82']",
        "listen = 'tcp+udp/0.0.0.0:1-65535'\nforward = '[fd00::1]'",
        "listen = '8000-8009'\nforward = ['10.0.0.1:9000-9009', '10.0.0.2:9000-9009', '10.0.0.3', '10.0.0.4:80']",
        "listen = 'eth0:80'\nforward = '10.0.0.1'\nsource = ['192.0.2.1', '192.0.2.2']",
        "listen = '80'\nforward = ['10.0.0.1', 'srv/_a._tcp.x']\npool = { balance = 'consistent-hash', persist = '1h' }",
        "listen = '80'\nforward = ['10.0.0.1', '10.0.0.2']\npool = { balance = 'first', check = 'tcp', slow-start = '9s' }",
        "listen = '80'\nforward = '10.0.0.1'\npool = { when-empty = '[fd00::9]:80', on-down = 'drain' }",
        "listen = '80'\nforward = ['10.0.0.1', '10.0.0.2']\npool = { balance = 'source-hash', hash = 'source-port' }",
    ] {
        let lines = format!("engine = 'ebpf'\n{lines}");
        let found = assigned(&lines, &Caps::all()).unwrap_or_else(|found| panic!("{lines}: {found:?}"));
        assert_eq!(found.engine, EngineKind::Ebpf);
    }
}

/// And what it cannot is refused by name, one by one.
#[test]
fn rules_that_ebpf_refuses() {
    let here = Caps { addresses: ["10.0.0.9".parse().expect("an address")].into(), ..Caps::all() };
    let two = "listen = '80'\nforward = ['10.0.0.1', '10.0.0.2']\n";
    for (lines, reason) in [
        (format!("{PLAIN}\nsource = 'preserve'"), "source = \"preserve\""),
        ("listen = '21'\nforward = '10.0.0.1'\nhelper = 'ftp'".to_owned(), "conntrack helper"),
        (format!("{PLAIN}\ntimeouts = {{ idle = '5m' }}"), "the rule sets timeouts"),
        (format!("{PLAIN}\nmax-connections = 3"), "the rule sets max-connections"),
        (
            "listen = '80'\npool.backends = [{ address = '10.0.0.1', name = 'b', max-connections = 3 }]"
                .to_owned(),
            "backend b sets max-connections",
        ),
        (format!("{two}pool.balance = 'least-connections'"), "least-connections"),
        (format!("{two}pool.balance = 'random'"), "random takes"),
        (format!("{two}pool = {{ balance = 'source-hash', hash = 'sni' }}"), "hash = \"sni\""),
        (format!("{two}pool = {{ balance = 'first', persist = '1m' }}"), "persist with balance"),
        (format!("{two}pool.passive = {{}}"), "passive checks"),
        (format!("{two}pool.retries = 1"), "retries"),
        ("listen = '127.0.0.9:80'\nforward = '10.0.0.1'".to_owned(), "the listener is 127.0.0.9"),
        ("listen = '[::1]:80'\nforward = '10.0.0.1'".to_owned(), "the listener is ::1"),
        ("listen = 'lo:80'\nforward = '10.0.0.1'".to_owned(), "the listener is lo"),
        ("listen = '0.0.0.0:80'\nforward = '127.0.0.1:81'".to_owned(), "the backend is 127.0.0.1"),
        ("listen = '[::]:80'\nforward = '[::1]:81'".to_owned(), "the backend is ::1"),
        ("listen = '80'\nforward = '10.0.0.9'".to_owned(), "the backend 10.0.0.9 is this host"),
        (
            "listen = '80'\nforward = '10.0.0.1'\npool.when-empty = '10.0.0.9:80'".to_owned(),
            "the backend 10.0.0.9 is this host",
        ),
    ] {
        let found = assigned(&format!("engine = 'ebpf'\n{lines}"), &here).expect_err(&lines);
        assert!(found[0].message.contains(reason), "{lines}: {}", found[0].message);
        assert!(!found[0].message.contains("; "), "and nothing else: {}", found[0].message);
    }
}

const TWO: &str = "listen = '0.0.0.0:80'\nforward = ['10.0.0.1:80', '10.0.0.2:80']\n";

/// What the kernel can do for a pool, so that `auto` stays there.
#[test]
fn pools_that_nftables_serves() {
    let pools = [
        "pool.balance = 'round-robin'",
        "pool = { balance = 'source-hash', hash = 'source-port', persist = '1h' }",
        "pool = { balance = 'consistent-hash', hash = 'source' }",
        "pool = { balance = 'first', check = 'http', slow-start = '30s', on-down = 'reset' }",
        "pool = { on-down = 'drain', drain-timeout = '5s', when-empty = 'drop' }",
        "pool.when-empty = '10.0.0.9:80'",
        "source = 'preserve'\npool.balance = 'source-hash'",
    ];
    let backends = [
        "[{ address = '10.0.0.1', weight = 3 }, { address = '10.0.0.2', backup = true }]",
        "['app.example:80', '10.0.0.1:81', 'srv/_http._tcp.example']",
        // One port is one port, whether written or the client's.
        "['10.0.0.1', '10.0.0.2:81']",
    ];
    let listen = "listen = '0.0.0.0:80'\npool.backends = ";
    let files = pools.iter().map(|pool| format!("{TWO}{pool}"));
    let files = files.chain(backends.iter().map(|backends| format!("{listen}{backends}"))).chain([
        "listen = '8000-8009'\nforward = ['10.0.0.1', '10.0.0.2']".to_owned(),
        "listen = '8000-8009'\nforward = ['10.0.0.1:80', 'app.example:81', 'srv/_http._tcp.example']".to_owned(),
        "listen = '8000-8009'\nforward = '10.0.0.1:9000-9009'\npool.check = 'tcp'".to_owned(),
        "listen = '8000-8009'\n[rule.pool]\nbackends = [{ address = 'a.example:9000-9009', resolve = 'first' }]".to_owned(),
        "listen = '80'\nforward = 'app.example:80'\nsource = ['192.0.2.1', 'fd00::1']".to_owned(),
    ]);
    for lines in files {
        let assigned = assigned(&lines, &Caps::all()).expect("can be served");
        assert_eq!(assigned.engine, EngineKind::Nftables, "{lines}: {}", assigned.reason);
    }
}

/// What takes a relay: `auto` goes there and says why, and nftables when pinned is refused with the same words.
#[test]
fn pools_that_take_a_relay() {
    let cases = [
        (
            format!("{TWO}pool.balance = 'least-connections'"),
            "least-connections needs to count live connections, which a relay does",
        ),
        (format!("{TWO}pool.balance = 'random'"), "random takes the less loaded of two"),
        (format!("{TWO}pool = {{ balance = 'source-hash', hash = 'sni' }}"), "hash = \"sni\" needs to read"),
        (format!("{TWO}pool = {{ balance = 'first', persist = '10m' }}"), "persist with balance = \"first\""),
        (format!("{TWO}pool.passive = {{}}"), "passive checks need to see how connections fail"),
        (format!("{TWO}pool.retries = 0"), "the rule sets retries"),
        (
            "listen = '80'\npool.backends = [{ address = '10.0.0.1', name = 'b', max-connections = 3 }]"
                .to_owned(),
            "backend b sets max-connections",
        ),
        (
            "listen = ['0.0.0.0:80', '[::]:80']\nforward = ['10.0.0.1', '[fd00::1]']".to_owned(),
            "backends of both families",
        ),
        (
            "listen = '[::]:80'\nforward = ['10.0.0.1', '10.0.0.2']".to_owned(),
            "IPv6 listener to an IPv4 backend",
        ),
        (format!("{TWO}pool.when-empty = '[fd00::9]:80'"), "IPv4 listener to an IPv6 backend"),
        ("listen = '[::]:80'\nforward = '[fd00::1]'\npool.when-empty = '[::1]:81'".to_owned(), "[::1]"),
        (
            "listen = '8000-8009'\nforward = ['10.0.0.1:9000-9009', '10.0.0.2:9000-9009']".to_owned(),
            "a range shifted to several backends",
        ),
        (
            "listen = '8000-8009'\nforward = '10.0.0.1:9000-9009'\npool.when-empty = '10.0.0.9:80'"
                .to_owned(),
            "a range shifted to several backends",
        ),
        (
            "listen = '8000-8009'\nforward = 'app.example:9000-9009'".to_owned(),
            "a range shifted to several backends",
        ),
        ("listen = '8000-8009'\nforward = ['10.0.0.1', '10.0.0.2:80']".to_owned(), "keep the client's port"),
        (
            "listen = ['8000', '8001']\nforward = ['10.0.0.1', '10.0.0.2:80']".to_owned(),
            "keep the client's port",
        ),
        (
            "listen = '8000-8009'\nforward = ['10.0.0.1', 'srv/_a._tcp.x']".to_owned(),
            "keep the client's port",
        ),
        (
            "listen = '8000-8009'\nforward = '10.0.0.1'\npool.when-empty = '10.0.0.9:80'".to_owned(),
            "keep the client's port",
        ),
        (
            "listen = '[::]:80'\nforward = 'app.example:80'\nsource = ['192.0.2.1']".to_owned(),
            "no address of `source` is IPv6",
        ),
    ];
    for (lines, reason) in cases {
        let found = assigned(&lines, &Caps::all()).expect("the proxy can");
        assert_eq!(found.engine, EngineKind::Proxy, "{lines}");
        assert!(found.reason.contains(reason), "{lines}: {}", found.reason);
        let text = lines.replacen("listen", "engine = 'nftables'\nlisten", 1);
        let mistakes = assigned(&text, &Caps::all()).expect_err("nftables cannot");
        assert!(mistakes[0].message.contains(reason), "{}", mistakes[0].message);
    }
}

/// A relay would call itself through any of its backends.
#[test]
fn every_backend_of_a_relay_may_be_its_own_listener() {
    for lines in [
        "listen = '8080'\nforward = ['10.0.0.1', '127.0.0.1']\nengine = 'proxy'",
        "listen = '8080'\nforward = '10.0.0.1'\nengine = 'proxy'\npool.when-empty = '127.0.0.1:8080'",
    ] {
        let found = assigned(lines, &Caps::all()).expect_err("a relay would call itself");
        assert!(found[0].message.contains("a relay would call itself"), "{}", found[0].message);
    }
}

/// Every rule that cannot be served is told, not only the first.
#[test]
fn every_rule_is_told() {
    let text = "[[rule]]\nlisten = '80'\nforward = '10.0.0.1'\n".to_owned()
        + "[[rule]]\nlisten = '8888'\nforward = '10.0.0.1'\n"
        + "[[rule]]\nlisten = '81'\nforward = '10.0.0.1'\n";
    let ruleset = config::load(&text).whole().0.expect("valid");
    let found = assign(&ruleset, &unprivileged()).expect_err("two cannot be served");
    let at: Vec<usize> = found.iter().map(|found| found.primary.span.start).collect();
    assert_eq!(at, [ruleset.rules[0].origin.rule.start, ruleset.rules[2].origin.rule.start]);
}

/// The engine's ports are kept free of the host's own connections, which need some too.
#[test]
fn source_ports_that_are_all_of_the_hosts_are_warned_of() {
    let told = |engine: &str, ports: &str, own: (u16, u16)| {
        let file = format!("[ebpf]\nsource-ports = '{ports}'\n[[rule]]\nengine = '{engine}'\n{PLAIN}\n");
        let (ruleset, found) = portway_core::config::load(&file).whole();
        let ruleset = ruleset.unwrap_or_else(|| panic!("{found:?}"));
        let own = portway_core::address::PortRange::new(own.0, own.1).expect("in order");
        let caps = Caps { ephemeral_ports: own, ..Caps::all() };
        let assignment = portway_core::assign::assign(&ruleset, &caps).expect("can be served");
        let found = portway_core::assign::warnings(&ruleset, &assignment, &caps);
        assert!(found.iter().all(|found| !found.is_error()));
        found.into_iter().map(|found| found.message).collect::<Vec<_>>()
    };
    let default = (32_768, 60_999);
    assert_eq!(told("ebpf", "40000-65535", default), [""; 0]);
    assert_eq!(told("ebpf", "32769-65535", default), [""; 0]);
    assert_eq!(told("ebpf", "32768-60998", default), [""; 0]);
    let found = told("ebpf", "32768-60999", default);
    assert!(found[0].contains("source-ports = \"32768-60999\"") && found[0].contains("32768-60999 (net."));
    assert_eq!(told("ebpf", "40000-65535", (50_000, 50_999)).len(), 1);
    assert_eq!(told("nftables", "1024-65535", default), [""; 0], "nothing is kept for it");
}
