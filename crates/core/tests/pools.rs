//! What valid pools mean: backends, policy, names, part by part. Checks are in `checks.rs`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use portway_core::config;
use portway_core::diagnostic::Severity;
use portway_core::ruleset::{
    BackendHost, Balance, Dns, HashKey, Init, OnDown, Passive, Pool, Resolve, Rule, Ruleset, SourceMode,
    TargetPorts, WhenEmpty,
};

fn ruleset(text: &str) -> Ruleset {
    let (ruleset, found) = config::load(text).whole();
    assert_eq!(found, [], "{text}");
    ruleset.expect("no mistakes")
}

fn rule(lines: &str) -> Rule {
    ruleset(&format!("[[rule]]\n{lines}\n")).rules.remove(0)
}

fn pool(settings: &str) -> Pool {
    rule(&format!("listen = '0.0.0.0:80'\nforward = ['10.0.0.1:80', '10.0.0.2:80']\n[rule.pool]\n{settings}"))
        .pool
}

fn mistakes(lines: &str) -> Vec<String> {
    let (ruleset, found) = config::load(&format!("[[rule]]\n{lines}\n")).whole();
    assert!(ruleset.is_none(), "{lines}");
    found.into_iter().map(|found| found.message).collect()
}

#[test]
fn a_pool_without_settings_has_the_defaults() {
    let short = rule("listen = '80'\nforward = ['10.0.0.1:80', '10.0.0.2:80']").pool;
    let defaults = Pool::new(short.backends.clone());
    assert_eq!(short, defaults);
    let names: Vec<&str> = short.backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["10.0.0.1:80", "10.0.0.2:80"]);
    // The other ways to write the same.
    for other in [
        "listen = '80'\n[rule.pool]\nbackends = ['10.0.0.1:80', '10.0.0.2:80']",
        "listen = '80'\nforward = ['10.0.0.1:80', '10.0.0.2:80']\npool = {}",
        "listen = '80'\npool.backends = [{ address = '10.0.0.1:80' }, '10.0.0.2:80']",
        "listen = '80'\n[[rule.pool.backends]]\naddress = '10.0.0.1:80'\n[[rule.pool.backends]]\naddress = '10.0.0.2:80'",
    ] {
        assert_eq!(rule(other).pool, defaults, "{other}");
    }
    let one = rule("listen = '80'\n[rule.pool]\nbackends = '10.0.0.1:80'").pool;
    assert_eq!(one, rule("listen = '80'\nforward = '10.0.0.1:80'").pool);
}

#[test]
fn every_setting_of_a_backend() {
    let text = "[[rule]]\nlisten = '0.0.0.0:80'\n[rule.pool]\nbackends = ['10.0.0.1:80', \
                { address = 'App.Example.:81', name = 'b', weight = 50, backup = true, max-connections = 100, \
                resolve = 'first' }, { address = 'srv/_pg._tcp.example', weight = 0 }, '[fd00::1]']\n";
    let rule = ruleset(text).rules.remove(0);
    let [plain, name, service, v6] = rule.pool.backends.as_slice() else { panic!("{:?}", rule.pool) };
    assert_eq!((plain.weight, plain.backup, plain.max_connections), (1, false, None));
    assert_eq!((name.name.as_str(), name.weight, name.backup), ("b", 50, true));
    assert_eq!((name.max_connections, name.resolve), (NonZeroU32::new(100), Resolve::First));
    assert_eq!(name.ports, TargetPorts::One(81));
    assert!(
        matches!(&name.host, BackendHost::Name(host) if host.as_str() == "app.example"),
        "{:?}",
        name.host
    );
    assert_eq!((service.name.as_str(), service.weight), ("srv/_pg._tcp.example", 0));
    assert!(matches!(&service.host, BackendHost::Service(host) if host.as_str() == "_pg._tcp.example"));
    assert_eq!(service.ports, TargetPorts::Same);
    assert_eq!(v6.target().map(|target| target.to_string()).as_deref(), Some("[fd00::1]"));
    let places: Vec<&str> = rule.origin.backends.iter().map(|span| &text[span.clone()]).collect();
    assert_eq!(places, ["10.0.0.1:80", "App.Example.:81", "srv/_pg._tcp.example", "[fd00::1]"]);
}

#[test]
fn every_setting_of_a_pool() {
    for (word, balance) in Balance::WORDS {
        assert_eq!(pool(&format!("balance = '{word}'")).balance, balance);
    }
    for (word, key) in HashKey::WORDS {
        assert_eq!(pool(&format!("balance = 'source-hash'\nhash = '{word}'")).hash, key);
        assert_eq!(pool(&format!("hash = '{word}'\nbalance = 'consistent-hash'")).hash, key);
    }
    assert_eq!(pool("persist = '10m'").persist, Some(Duration::from_secs(600)));
    assert_eq!(pool("slow-start = '30s'\ncheck = 'tcp'").slow_start, Some(Duration::from_secs(30)));
    assert_eq!(pool("on-down = 'keep'").on_down, OnDown::Keep);
    assert_eq!(pool("on-down = 'reset'").on_down, OnDown::Reset);
    assert_eq!(pool("on-down = 'drain'").on_down, OnDown::Drain(Duration::from_secs(30)));
    let drain = pool("on-down = 'drain'\ndrain-timeout = '5m'").on_down;
    assert_eq!(drain, OnDown::Drain(Duration::from_secs(300)));
    assert_eq!(pool("when-empty = 'refuse'").when_empty, WhenEmpty::Refuse);
    assert_eq!(pool("when-empty = 'drop'").when_empty, WhenEmpty::Drop);
    let sorry = pool("when-empty = '10.0.0.9:81'");
    assert!(matches!(sorry.when_empty, WhenEmpty::Sorry(target) if target.to_string() == "10.0.0.9:81"));
    assert_eq!(sorry.backends.len(), 2, "it is no part of the pool");
    for retries in [0, 3, 10] {
        assert_eq!(pool(&format!("retries = {retries}")).retries, Some(retries));
    }
    assert_eq!(pool("passive = {}").passive, Some(Passive::DEFAULT));
    let passive = pool("passive = { max-fails = 5, fail-timeout = '1m', max-ejected = 0 }").passive;
    assert_eq!(
        passive,
        Some(Passive { max_fails: 5, fail_timeout: Duration::from_secs(60), max_ejected: 0 })
    );
    for (word, init) in [("wait", Init::Wait), ("none", Init::None), ("last-known", Init::LastKnown)] {
        let named = rule(&format!("listen = '80'\nforward = 'app.example:80'\npool.init = '{word}'"));
        assert_eq!(named.pool.init, init);
    }
}

#[test]
fn weights_and_retries_have_bounds() {
    let weight = |weight: &str| {
        format!(
            "listen = '80'\n[rule.pool]\nbackends = ['10.0.0.1', {{ address = '10.0.0.2', weight = {weight} }}]"
        )
    };
    assert_eq!(rule(&weight("256")).pool.backends[1].weight, 256);
    assert_eq!(rule(&weight("0")).pool.backends[1].weight, 0);
    for beyond in ["257", "-1", "4294967296", "99999999999999999999999"] {
        assert_eq!(mistakes(&weight(beyond)), ["`weight` is from 0 to 256"], "{beyond}");
    }
    let retries = |number: &str| format!("listen = '80'\nforward = '10.0.0.1'\npool.retries = {number}");
    assert_eq!(mistakes(&retries("11")), ["`retries` is from 0 to 10"]);
}

#[test]
fn a_pool_has_at_most_256_backends() {
    let of = |count: usize| {
        let all: Vec<String> =
            (0..count).map(|nth| format!("'10.0.{}.{}:80'", nth / 250, nth % 250 + 1)).collect();
        format!("listen = '80'\nforward = [{}]", all.join(", "))
    };
    assert_eq!(rule(&of(Pool::MOST)).pool.backends.len(), 256);
    assert_eq!(mistakes(&of(Pool::MOST + 1)), ["a pool has at most 256 backends, and this one has 257"]);
}

/// Without an address among the backends nobody knows their family before a resolver has spoken.
#[test]
fn listeners_of_names_are_ipv4() {
    let listeners = |listen: &str, forward: &str| {
        let rule = rule(&format!("listen = {listen}\nforward = {forward}"));
        rule.listeners.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(listeners("'8888'", "'app.example:80'"), "tcp/0.0.0.0:8888");
    assert_eq!(
        listeners("['8888', 'eth0:1']", "['app.example:80', 'srv/_x._tcp.a']"),
        "tcp/0.0.0.0:8888 tcp/eth0:1"
    );
    assert_eq!(listeners("'8888'", "['app.example:80', '[fd00::1]:80']"), "tcp/[::]:8888");
    assert_eq!(listeners("'[::]:8888'", "'app.example:80'"), "tcp/[::]:8888");
    assert_eq!(
        listeners("['0.0.0.0:80', '[::]:80']", "['10.0.0.1', '[fd00::1]']"),
        "tcp/0.0.0.0:80 tcp/[::]:80"
    );
    assert_eq!(
        mistakes("listen = ['80', 'udp/eth0:80']\nforward = ['10.0.0.1', '[fd00::1]']"),
        ["this listener has its backends' family, and they have both"; 2]
    );
}

#[test]
fn ports_follow_from_the_listener_for_every_backend() {
    let ports = |listen: &str, forward: &str| {
        let pool = rule(&format!("listen = '{listen}'\nforward = {forward}")).pool;
        pool.backends.iter().map(|backend| backend.ports).collect::<Vec<_>>()
    };
    let shifted =
        ports("8000-8009", "['10.0.0.1:9000-9009', '10.0.0.2:8000-8009', 'app.example', '10.0.0.3:80']");
    assert!(matches!(shifted[0], TargetPorts::Shifted(range) if range.first() == 9000));
    assert_eq!(shifted[1..], [TargetPorts::Same, TargetPorts::Same, TargetPorts::One(80)]);
    // The second of two wrong backends is told as well.
    assert_eq!(
        mistakes("listen = '8000-8009'\nforward = ['10.0.0.1:9000-9001', '10.0.0.2:80', '10.0.0.3:1-3']"),
        ["the listener's range and the backend's differ in length"; 2]
    );
    assert_eq!(
        mistakes("listen = '8000-8009'\nforward = '10.0.0.1'\npool.when-empty = '10.0.0.2:9000-9001'"),
        ["the listener's range and the backend's differ in length"]
    );
    // One port that leads to two places is one mistake, however many backends there are.
    assert_eq!(
        mistakes(
            "listen = ['8000-8009', 'udp/8005-8014']\nforward = ['10.0.0.1:9000-9009', '10.0.0.2:9000-9009']"
        ),
        ["port 8005 would lead to two ports of the backend"]
    );
}

#[test]
fn no_backend_may_be_the_rule_itself() {
    assert_eq!(
        mistakes("listen = '127.0.0.1:80'\nforward = ['10.0.0.1:80', '127.0.0.1:80', '127.0.0.1']"),
        ["this rule forwards to itself", "this rule forwards to itself", "`127.0.0.1` is in the pool twice"]
    );
    assert_eq!(
        mistakes("listen = '127.0.0.1:80'\nforward = '10.0.0.1:80'\npool.when-empty = '127.0.0.1:80'"),
        ["this rule forwards to itself"]
    );
}

#[test]
fn a_target_is_in_a_pool_once() {
    let twice = |forward: &str| mistakes(&format!("listen = '80'\nforward = {forward}"));
    assert_eq!(twice("['10.0.0.1:81', '10.0.0.1:81']"), ["`10.0.0.1:81` is in the pool twice"]);
    assert_eq!(twice("['[fd00::1]:81', '[fd00:0::1]:81']"), ["`[fd00:0::1]:81` is in the pool twice"]);
    assert_eq!(twice("['app.example:81', 'APP.example.:81']"), ["`APP.example.:81` is in the pool twice"]);
    // The only port of the listener is the one the client asks for.
    assert_eq!(twice("['10.0.0.1', '10.0.0.1:80']"), ["`10.0.0.1:80` is in the pool twice"]);
    assert_eq!(twice("['srv/_a._tcp.x', 'srv/_a._tcp.x']"), ["`srv/_a._tcp.x` is in the pool twice"]);
    rule("listen = ['80', '81']\nforward = ['10.0.0.1', '10.0.0.1:80']");
    rule("listen = '80'\nforward = ['10.0.0.1:81', '10.0.0.1:82', 'app.example', 'srv/app.example']");
}

/// A list of source addresses serves backends of both families, each from its own.
#[test]
fn source_pools_of_two_families() {
    let both = "listen = ['0.0.0.0:80', '[::]:80']\nforward = ['10.0.0.1', '[fd00::1]']\n";
    let source = rule(&format!("{both}source = ['192.0.2.1', 'fd00::9']")).source;
    assert!(matches!(source, SourceMode::Snat(pool) if pool.len() == 2));
    assert_eq!(mistakes(&format!("{both}source = ['192.0.2.1']")), ["no address of this pool is IPv6"]);
    rule("listen = '80'\nforward = 'app.example:80'\nsource = ['192.0.2.1', 'fd00::9']");
    assert_eq!(
        mistakes("listen = '80'\nforward = ['10.0.0.1', '10.0.0.2']\nsource = ['fd00::9']"),
        ["fd00::9 is IPv6, and the backend is IPv4"]
    );
}

/// What probably is not meant, but can be done.
#[test]
fn warnings() {
    let warned = |lines: &str| {
        let (ruleset, found) = config::load(&format!("[[rule]]\n{lines}\n")).whole();
        assert!(
            ruleset.is_some() && found.iter().all(|found| found.severity == Severity::Warning),
            "{found:?}"
        );
        found.into_iter().map(|found| found.message).collect::<Vec<_>>()
    };
    assert_eq!(
        warned("listen = '80'\npool.backends = [{ address = '10.0.0.1', weight = 0 }]"),
        ["every backend of this pool has the weight 0, so none gets traffic"]
    );
    assert_eq!(
        warned("listen = '80'\npool.backends = [{ address = '10.0.0.1', backup = true }]"),
        ["every backend of this pool is a backup"]
    );
    assert_eq!(
        warned("listen = 'udp/80'\nforward = '10.0.0.1'\npool = { on-down = 'reset', retries = 1 }"),
        [
            "`on-down` is about TCP connections, and this rule is for udp only",
            "`retries` is about TCP connections, and this rule is for udp only"
        ]
    );
    assert_eq!(warned("listen = 'tcp+udp/80'\nforward = '10.0.0.1'\npool.on-down = 'reset'"), [""; 0]);
}

#[test]
fn resolvers() {
    assert_eq!(ruleset("").dns, Dns::default());
    let text = "[dns]\nservers = ['10.0.0.53', '10.0.0.54:5353', '[fd00::53]:53', '[fd00::54]', '127.0.0.53']\n\
                timeout = '500ms'\nttl-min = '10s'\nttl-max = '1m'";
    let dns = ruleset(text).dns;
    let servers: Vec<String> = dns.servers.iter().map(SocketAddr::to_string).collect();
    assert_eq!(
        servers,
        ["10.0.0.53:53", "10.0.0.54:5353", "[fd00::53]:53", "[fd00::54]:53", "127.0.0.53:53"]
    );
    assert_eq!((dns.timeout, dns.ttl_min), (Duration::from_millis(500), Duration::from_secs(10)));
    assert_eq!(dns.ttl_max, Duration::from_secs(60));
}
