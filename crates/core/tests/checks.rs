//! What valid checks mean, type by type, and what no check can be.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use portway_core::config;
use portway_core::ruleset::{Check, CheckKind, Expect, HostName, Tls};

fn load(listen: &str, check: &str) -> (Option<Check>, Vec<String>) {
    let text =
        format!("[[rule]]\nlisten = '{listen}'\nforward = '10.0.0.1:80'\n[rule.pool]\ncheck = {check}\n");
    let (ruleset, found) = config::load(&text).whole();
    assert_eq!(ruleset.is_none(), !found.is_empty(), "{check}: {found:?}");
    let check = ruleset.map(|ruleset| ruleset.rules[0].pool.check.clone().expect("a check is written"));
    (check.map(|check| (*check).clone()), found.into_iter().map(|found| found.message).collect())
}

fn check(text: &str) -> Check {
    let (check, found) = load("tcp+udp/0.0.0.0:80", text);
    check.unwrap_or_else(|| panic!("{text}: {found:?}"))
}

fn kind(text: &str) -> CheckKind {
    check(text).kind
}

fn mistakes(text: &str) -> Vec<String> {
    let (check, found) = load("tcp+udp/0.0.0.0:80", text);
    assert_eq!(check, None, "{text}");
    found
}

fn name(text: &str) -> Option<HostName> {
    Some(HostName::new(text).expect("a name"))
}

const TCP: CheckKind = CheckKind::Tcp { send: None, expect: None };

/// A word, an empty table, and a table with nothing but the type are the same.
#[test]
fn short_forms_are_the_type_with_its_defaults() {
    for word in CheckKind::WORDS {
        if ["udp", "command"].contains(&word) {
            assert_eq!(mistakes(&format!("'{word}'")).len(), 1, "{word} needs another key");
            continue;
        }
        let short = check(&format!("'{word}'"));
        assert_eq!(short.kind.word(), word);
        assert_eq!(short, Check::new(short.kind.clone()));
        assert_eq!(short, check(&format!("{{ type = '{word}' }}")));
    }
    assert_eq!(check("{}"), Check::new(TCP));
    let below =
        "[[rule]]\nlisten = '80'\nforward = '10.0.0.1'\n[rule.pool.check]\ntype = 'http'\npath = '/up'\n";
    let (ruleset, found) = config::load(below).whole();
    assert_eq!(found, []);
    let check = ruleset.expect("valid").rules.remove(0).pool.check.expect("a check");
    assert!(matches!(&check.kind, CheckKind::Http { path, .. } if path == "/up"));
}

#[test]
fn when_and_where_a_check_is_made() {
    let all = check(
        "{ interval = '10s', interval-down = '3s', timeout = '2s', rise = 1, fall = 100, address = 'fd00::9', \
         port = 8080, source = 'fd00::1' }",
    );
    let seconds = Duration::from_secs;
    assert_eq!((all.interval, all.interval_down, all.timeout), (seconds(10), seconds(3), seconds(2)));
    assert_eq!((all.rise, all.fall, all.port), (1, 100, Some(8080)));
    let address = |text: &str| text.parse::<IpAddr>().ok();
    assert_eq!((all.address, all.source), (address("fd00::9"), address("fd00::1")));
    // What is not written is never longer than the interval.
    let short = check("{ interval = '500ms' }");
    let half = Duration::from_millis(500);
    assert_eq!((short.interval, short.interval_down, short.timeout), (half, half, half));
    assert_eq!(mistakes("{ timeout = '3s' }"), ["`timeout` (3s) is longer than `interval` (2s)"]);
    assert_eq!(
        mistakes("{ interval = '500ms', interval-down = '1s', timeout = '501ms' }"),
        [
            "`interval-down` (1s) is longer than `interval` (500ms)",
            "`timeout` (501ms) is longer than `interval` (500ms)"
        ]
    );
}

#[test]
fn what_each_type_asks() {
    let bytes = |text: &str| text.as_bytes().to_vec();
    assert_eq!(
        kind("{ type = 'tcp', send = \"PING\\r\\n\", expect = '+PONG' }"),
        CheckKind::Tcp { send: Some(bytes("PING\r\n")), expect: Some(Expect::Bytes(bytes("+PONG"))) }
    );
    assert_eq!(
        kind("{ send-hex = '00 0aFF', expect-hex = '0102' }"),
        CheckKind::Tcp { send: Some(vec![0, 10, 255]), expect: Some(Expect::Bytes(vec![1, 2])) }
    );
    assert_eq!(
        kind("{ expect-regex = '^220 .*(?i:esmtp)' }"),
        CheckKind::Tcp { send: None, expect: Some(Expect::Regex("^220 .*(?i:esmtp)".to_owned())) }
    );
    let http = |tls, method: &str, path: &str, host: Option<&str>, status| CheckKind::Http {
        tls,
        method: method.to_owned(),
        path: path.to_owned(),
        host: host.map(ToOwned::to_owned),
        status,
        body: None,
    };
    assert_eq!(kind("'http'"), http(None, "GET", "/", None, vec![(200, 399)]));
    assert_eq!(
        kind(
            "{ type = 'http', method = 'HEAD', path = '/up?x=1', host = 'a.example:81', status = '200-299, 301,404' }"
        ),
        http(None, "HEAD", "/up?x=1", Some("a.example:81"), vec![(200, 299), (301, 301), (404, 404)])
    );
    let tls = Tls { server_name: name("a.example"), ca: Some(PathBuf::from("/etc/ca.pem")) };
    assert_eq!(
        kind("{ type = 'https', server-name = 'A.example.', ca = '/etc/ca.pem' }"),
        http(Some(tls.clone()), "GET", "/", None, vec![(200, 399)])
    );
    assert_eq!(kind("{ type = 'tls', server-name = 'a.example', ca = '/etc/ca.pem' }"), CheckKind::Tls(tls));
    assert_eq!(
        kind("{ type = 'http', expect-regex = 'ok|fine' }"),
        CheckKind::Http {
            tls: None,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            status: vec![(200, 399)],
            body: Some(Expect::Regex("ok|fine".to_owned())),
        }
    );
    let postgresql = |user: &str, database: Option<&str>| CheckKind::Postgresql {
        user: user.to_owned(),
        database: database.map(ToOwned::to_owned),
    };
    assert_eq!(kind("'postgresql'"), postgresql("portway", None));
    assert_eq!(kind("{ type = 'postgresql', user = 'm', database = 'd' }"), postgresql("m", Some("d")));
    assert_eq!(kind("'mysql'"), CheckKind::Mysql { user: None });
    assert_eq!(kind("{ type = 'mysql', user = 'm' }"), CheckKind::Mysql { user: Some("m".to_owned()) });
    assert_eq!(
        kind("{ type = 'redis', password = 'p w' }"),
        CheckKind::Redis { password: Some("p w".to_owned()) }
    );
    assert_eq!(kind("'smtp'"), CheckKind::Smtp { hello: "portway".to_owned() });
    assert_eq!(kind("{ type = 'dns', query = 'a.example' }"), CheckKind::Dns { name: name("a.example") });
    assert_eq!(kind("{ type = 'dns', query = '.' }"), CheckKind::Dns { name: None });
    assert_eq!(kind("{ type = 'udp', send = 'x' }"), CheckKind::Udp { send: bytes("x"), expect: None });
    let words = vec!["/bin/test".to_owned(), "a b".to_owned()];
    assert_eq!(kind("{ type = 'command', command = ['/bin/test', 'a b'] }"), CheckKind::Command { words });
    let words = vec!["/bin/true".to_owned()];
    assert_eq!(kind("{ type = 'command', command = '/bin/true' }"), CheckKind::Command { words });
}

/// Every key is refused by every type that it does not go with, and by no other.
#[test]
fn keys_belong_to_types() {
    use portway_core::config::keys::FILE;
    let section =
        FILE.walk().into_iter().find(|section| section.header == "[rule.pool.check]").expect("is there");
    let mut refused = 0;
    for key in section.keys.iter().filter(|key| !key.types.is_empty()) {
        for word in CheckKind::WORDS {
            let (_, found) =
                load("tcp+udp/80", &format!("{{ type = '{word}', {} = {} }}", key.name, key.example));
            let told = found.contains(&format!("`{}` does not go with type = \"{word}\"", key.name));
            assert_eq!(told, !key.types.contains(&word), "{word} {}: {found:?}", key.name);
            refused += usize::from(told);
        }
    }
    assert!(refused > 100, "{refused}");
}

/// A header, a line or a request can hold nothing that ends it.
#[test]
fn nothing_can_be_smuggled_in() {
    for text in [
        "{ type = 'http', path = \"/ HTTP/1.1\\r\\nx: y\" }",
        "{ type = 'http', host = \"a\\r\\nx: y\" }",
        "{ type = 'http', host = 'a b' }",
        "{ type = 'http', host = 'user@a' }",
        "{ type = 'http', method = 'GET /' }",
        "{ type = 'http', path = 'é' }",
        "{ type = 'http', path = '' }",
        "{ type = 'smtp', hello = \"a\\nQUIT\" }",
        "{ type = 'postgresql', user = \"a\\u0000b\" }",
        "{ type = 'postgresql', database = \"\\u0000\" }",
        "{ type = 'mysql', user = \"a\\u0000\" }",
        "{ type = 'redis', password = \"a\\r\\nFLUSHALL\" }",
        "{ type = 'command', command = [\"/bin/a\\u0000\"] }",
        "{ type = 'tls', ca = \"/a\\u0000\" }",
    ] {
        assert_eq!(mistakes(text).len(), 1, "{text}");
    }
}

#[test]
fn what_is_too_long_is_refused() {
    let long = "a".repeat(1025);
    for (key, name) in [("send", "send"), ("expect", "expect"), ("expect-regex", "expect-regex")] {
        assert_eq!(
            mistakes(&format!("{{ {key} = '{long}' }}")),
            [format!("`{name}` has 1025 bytes, and 1024 is the most")]
        );
        check(&format!("{{ {key} = '{}' }}", &long[..1024]));
    }
    assert_eq!(
        mistakes(&format!("{{ send-hex = '{}' }}", "00".repeat(1025))),
        ["`send-hex` has 1025 bytes, and 1024 is the most"]
    );
    // Short, and large when compiled.
    assert_eq!(
        mistakes("{ expect-regex = '(?:(?:\\w{100}){100}){100}' }"),
        ["this is not a regular expression: it would be too large"]
    );
    let words = vec!["'a'"; 64].join(", ");
    assert_eq!(mistakes(&format!("{{ type = 'command', command = ['/a', {words}] }}")).len(), 1);
    assert_eq!(mistakes(&format!("{{ type = 'redis', password = '{}' }}", "a".repeat(513))).len(), 1);
}

/// The port of a backend is of the protocol that the rule forwards.
#[test]
fn a_check_of_another_protocol_needs_a_port() {
    let (_, found) = load("udp/53", "'tcp'");
    assert_eq!(found, ["tcp checks speak tcp, and this rule forwards only udp: their port is not known"]);
    let (_, found) = load("80", "'dns'");
    assert_eq!(found, ["dns checks speak udp, and this rule forwards only tcp: their port is not known"]);
    for (listen, check) in [
        ("udp/53", "{ type = 'tcp', port = 53 }"),
        ("udp/53", "'dns'"),
        ("80", "{ type = 'udp', send = 'x', port = 1 }"),
        ("udp/53", "{ type = 'command', command = '/bin/true' }"),
        ("tcp+udp/53", "'dns'"),
        ("tcp+udp/53", "'tcp'"),
    ] {
        assert_eq!(load(listen, check).1, [""; 0], "{listen} {check}");
    }
}
