//! What a changed file changes, in words.

use portway_core::assign::assign;
use portway_core::caps::Caps;
use portway_core::compare::compare;
use portway_core::config;

/// The changes from one pool to another.
fn changes(old: &str, new: &str) -> Vec<String> {
    let load = |pool: &str| {
        let text = format!("[[rule]]\nname = 'web'\nlisten = '0.0.0.0:80'\n[rule.pool]\n{pool}\n");
        let (ruleset, found) = config::load(&text).whole();
        assert_eq!(found, [], "{text}");
        let ruleset = ruleset.expect("valid");
        let assignment = assign(&ruleset, &Caps::all()).expect("can be served");
        (ruleset, assignment)
    };
    let (old, new) = (load(old), load(new));
    let changes = compare((&old.0, &old.1), (&new.0, &new.1));
    changes.iter().map(ToString::to_string).collect()
}

const PLAIN: &str = "backends = ['10.0.0.1:80', '10.0.0.2:80']";

#[test]
fn nothing_changes_nothing() {
    assert_eq!(changes(PLAIN, PLAIN), [""; 0]);
    // The default, written.
    let written = format!("{PLAIN}\nbalance = 'round-robin'\non-down = 'keep'\nwhen-empty = 'refuse'");
    assert_eq!(changes(PLAIN, &written), [""; 0]);
    let secret = format!("{PLAIN}\ncheck = {{ type = 'redis', password = 'old' }}");
    assert_eq!(changes(&secret, &secret), [""; 0]);
}

#[test]
fn what_a_rule_asks_of_the_ebpf_engine_is_told() {
    let with = |asks: &str| {
        changes(PLAIN, &format!("{PLAIN}\n[[rule]]\nname = 'x'\nlisten = '81'\nforward = '10.0.0.1'\n{asks}"))
    };
    let both = with("client-address = 'toa'\nsyn-cookies = 0\nnew-flow-rate = 7");
    assert_eq!(both, ["+ x: tcp/0.0.0.0:81 -> 10.0.0.1 (ebpf)"]);
    let rule =
        |asks: &str| format!("{PLAIN}\n[[rule]]\nname = 'x'\nlisten = '81'\nforward = '10.0.0.1'\n{asks}");
    assert_eq!(
        changes(&rule(""), &rule("client-address = 'toa'\nsyn-cookies = 0\nnew-flow-rate = 7")),
        ["~ x: client-address: (none) => toa; engine: nftables => ebpf; new-flow-rate: (none) => 7; \
             syn-cookies: (none) => 0"]
    );
}

#[test]
fn each_setting_of_a_pool_is_told() {
    let settings = [
        ("balance = 'first'", "balance: (none) => first"),
        (
            "balance = 'source-hash'\nhash = 'source-port'",
            "balance: (none) => source-hash; hash: (none) => source-port",
        ),
        ("persist = '10m'", "persist: (none) => 10m"),
        ("on-down = 'reset'", "on-down: (none) => reset"),
        ("on-down = 'drain'", "on-down: (none) => drain, at most 30s"),
        ("when-empty = 'drop'", "when-empty: (none) => drop"),
        ("when-empty = '10.0.0.9:80'", "when-empty: (none) => 10.0.0.9:80"),
        ("retries = 3", "engine: nftables => proxy; retries: (none) => 3"),
        (
            "passive = {}",
            "engine: nftables => proxy; passive: (none) => max-fails 3, fail-timeout 10s, max-ejected 50",
        ),
        ("check = 'tcp'", "check: (none) => tcp, every 2s, 1s while down, timeout 1s, rise 2, fall 3"),
        (
            "check = { type = 'http', status = '200, 300-399', host = 'a', address = '10.0.0.9', port = 81, source = \
             '10.0.0.8', expect-regex = 'o.k' }\nslow-start = '5s'",
            "check: (none) => http, GET /, host a, status 200, 300-399, expect /o.k/, every 2s, 1s while down, timeout \
             1s, rise 2, fall 3, address 10.0.0.9, port 81, source 10.0.0.8; slow-start: (none) => 5s",
        ),
        (
            "check = { type = 'https', server-name = 'a', ca = '/c' }",
            "check: (none) => https, GET /, status 200-399, server-name a, ca /c, every 2s, 1s while down, timeout 1s, \
             rise 2, fall 3",
        ),
        (
            "check = { type = 'tcp', send = \"PING\\r\\n\", expect-hex = '00ff', interval = '5s' }",
            "check: (none) => tcp, send \"PING\\r\\n\", expect \"\\x00\\xff\", every 5s, 1s while down, timeout 1s, \
             rise 2, fall 3",
        ),
        (
            "check = { type = 'command', command = ['/bin/a', 'b'] }",
            "check: (none) => command, /bin/a b, every 2s, 1s while down, timeout 1s, rise 2, fall 3",
        ),
    ];
    for (lines, told) in settings {
        assert_eq!(changes(PLAIN, &format!("{PLAIN}\n{lines}")), [format!("~ web: {told}")], "{lines}");
    }
}

#[test]
fn settings_of_backends_stand_with_them() {
    let other = "backends = ['10.0.0.1:80', { address = 'app.example:80', name = 'b', weight = 50, backup = true, \
                 max-connections = 9, resolve = 'first' }]\ninit = 'none'";
    assert_eq!(
        changes(PLAIN, other),
        [
            "~ web: engine: nftables => proxy; forward: 10.0.0.1:80, 10.0.0.2:80 => 10.0.0.1:80, app.example:80 (called \
          b, weight 50, backup, max-connections 9, resolve first); init: (none) => none"
        ]
    );
}

/// A password that changes is a change, and neither password is shown.
#[test]
fn secrets_are_not_shown() {
    let with = |password: &str| format!("{PLAIN}\ncheck = {{ type = 'redis', password = '{password}' }}");
    let told = changes(&with("old-secret"), &with("new-secret"));
    let check = "redis, with a password, every 2s, 1s while down, timeout 1s, rise 2, fall 3";
    assert_eq!(told, [format!("~ web: check: {check} => {check}, with another password")]);
    // Besides another change it is told as well.
    let told = changes(&with("old-secret"), &format!("{}\npersist = '1h'", with("new-secret")));
    assert_eq!(
        told,
        [format!("~ web: check: {check} => {check}, with another password; persist: (none) => 1h")]
    );
}
