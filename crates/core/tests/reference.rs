//! The committed configuration reference is what the code says.

use std::path::Path;
use std::time::Duration;

use portway_core::config::keys::{FILE, Key, Section};
use portway_core::config::value::{format_duration, parse_duration};
use portway_core::config::{self, reference};
use portway_core::ruleset::{Dns, EbpfSettings, Init, OnDown, Pool, Resolve, Timeouts, WhenEmpty};

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = reference::markdown();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("docs/configuration.md is there");
    assert!(committed == page, "docs/configuration.md is not what the code says; run with UPDATE=1");
}

/// A file with nothing but this key, and what it cannot be without.
fn file_with(section: &Section, key: &Key) -> String {
    let line = format!("{} = {}\n", key.name, key.example);
    let needed = |names: &[(&str, &str)]| {
        let others = names.iter().filter(|(name, _)| *name != key.name);
        others.map(|(name, value)| format!("{name} = {value}\n")).collect::<String>()
    };
    let listen = "[[rule]]\nlisten = \"80\"\n";
    match section.header {
        "[[rule]]" => {
            format!("[[rule]]\n{}{line}", needed(&[("listen", "\"80\""), ("forward", "\"10.0.0.1\"")]))
        }
        "[rule.pool]" if key.name == "backends" => format!("{listen}[rule.pool]\n{line}"),
        header @ "[[rule.pool.backends]]" => {
            format!("{listen}{header}\n{}{line}", needed(&[("address", "\"10.0.0.1\"")]))
        }
        header if header.starts_with("[rule.") => {
            let kind = key.types.first().map(|word| format!("type = \"{word}\"\n")).unwrap_or_default();
            format!("{listen}forward = \"10.0.0.1\"\n{header}\n{kind}{line}")
        }
        header => format!("{header}\n{line}"),
    }
}

/// Every key of the table, with its own example as the value, is read without a complaint about its shape.
#[test]
fn every_key_reads_its_own_example() {
    let mut read = 0;
    for section in FILE.walk() {
        for key in section.keys.iter().filter(|key| !key.example.is_empty()) {
            let text = file_with(section, key);
            let (_, mistakes) = config::parse(&text);
            assert!(mistakes.is_empty(), "{} {}: {mistakes:?}", section.header, key.name);
            read += 1;
        }
    }
    assert_eq!(read, 90, "keys in the table");
}

/// The section with this header.
fn section(header: &str) -> &'static Section {
    FILE.walk().into_iter().find(|section| section.header == header).expect("is there")
}

/// The default of a key, of several the first: without quotes and backquotes.
fn default(key: &Key) -> &'static str {
    let first = key.default.split(',').next().unwrap_or_default();
    first.trim_matches(['"', '`'])
}

/// The defaults that the page names are those that hold.
#[test]
fn the_defaults_are_the_defaults() {
    let defaults = Timeouts::default();
    for key in section("[proxy.timeouts]").keys {
        let holds = match key.name {
            "connect" => defaults.connect,
            "idle" => defaults.idle,
            "half-closed" => defaults.half_closed,
            "udp-idle" => defaults.udp_idle,
            other => panic!("{other} is not tested"),
        };
        assert_eq!(parse_duration(default(key)), Ok(holds), "{}", key.name);
    }
}

#[test]
fn the_defaults_of_the_ebpf_engine_are_the_defaults() {
    let holds = EbpfSettings::default();
    for key in section("[ebpf]").keys.iter().filter(|key| key.kind.section().is_none()) {
        let value = match key.name {
            "attach" => holds.attach.to_string(),
            "interfaces" => if holds.interfaces.is_empty() { "all" } else { "some" }.to_owned(),
            "max-flows" => holds.max_flows.to_string(),
            "source-ports" => holds.source_ports.to_string(),
            other => panic!("{other} is not tested"),
        };
        assert_eq!(default(key), value, "{}", key.name);
    }
    for key in section("[ebpf.timeouts]").keys {
        let holds = match key.name {
            "opening" => holds.timeouts.opening,
            "established" => holds.timeouts.established,
            "closing" => holds.timeouts.closing,
            "time-wait" => holds.timeouts.time_wait,
            "udp" => holds.timeouts.udp,
            "udp-stream" => holds.timeouts.udp_stream,
            other => panic!("{other} is not tested"),
        };
        assert_eq!(parse_duration(default(key)), Ok(holds), "{}", key.name);
    }
}

#[test]
fn the_defaults_of_pools_are_the_defaults() {
    let text = "[[rule]]\nlisten = '80'\nforward = 'a.example'\n[rule.pool]\npassive = {}\ncheck = {}\n";
    let ruleset = config::load(text).whole().0.expect("valid");
    let pool = &ruleset.rules[0].pool;
    let check = pool.check.as_ref().expect("is there");
    let passive = pool.passive.expect("is there");
    let backend = &pool.backends[0];
    let duration = |duration: Duration| Some(format_duration(duration));
    let number = |number: u32| Some(number.to_string());
    let holds = |name: &str| match name {
        "balance" => Some(pool.balance.to_string()),
        "hash" => Some(pool.hash.to_string()),
        "on-down" => (pool.on_down == OnDown::Keep).then(|| "keep".to_owned()),
        "when-empty" => (pool.when_empty == WhenEmpty::Refuse).then(|| "refuse".to_owned()),
        "init" => (pool.init == Init::LastKnown).then(|| "last-known".to_owned()),
        "retries" => Some(format!("{} on the proxy", Pool::RETRIES)),
        "weight" => number(backend.weight.into()),
        "backup" => Some(backend.backup.to_string()),
        "resolve" => (backend.resolve == Resolve::All).then(|| "all".to_owned()),
        "max-fails" => number(passive.max_fails),
        "fail-timeout" => duration(passive.fail_timeout),
        "max-ejected" => number(passive.max_ejected.into()),
        "type" => Some(check.kind.word().to_owned()),
        "interval" => duration(check.interval),
        "interval-down" => duration(check.interval_down),
        "timeout" => duration(check.timeout),
        "rise" => number(check.rise),
        "fall" => number(check.fall),
        _ => None,
    };
    let mut tested = 0;
    for header in
        ["[rule.pool]", "[[rule.pool.backends]]", "[rule.pool.passive]", "[rule.pool.check]"].map(section)
    {
        for key in header.keys {
            if let Some(holds) = holds(key.name) {
                assert_eq!(default(key), holds, "{}", key.name);
                tested += 1;
            }
        }
    }
    assert_eq!(tested, 18);
    let dns = Dns::default();
    for (name, holds) in [("timeout", dns.timeout), ("ttl-min", dns.ttl_min), ("ttl-max", dns.ttl_max)] {
        let key = section("[dns]").key(name).expect("is there");
        assert_eq!(parse_duration(default(key)), Ok(holds), "{name}");
    }
    // How long a drain lasts is no value of a pool that does not drain.
    let drain = config::load(&text.replace("passive = {}", "on-down = 'drain'")).whole().0.expect("valid");
    let key = section("[rule.pool]").key("drain-timeout").expect("is there");
    let time = parse_duration(default(key)).expect("a duration");
    assert_eq!(drain.rules[0].pool.on_down, OnDown::Drain(time));
}
