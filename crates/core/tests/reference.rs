//! The committed configuration reference is what the code says.

use std::path::Path;

use portway_core::config::keys::{FILE, Key, Section};
use portway_core::config::{self, reference};

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
    assert_eq!(read, 76, "keys in the table");
}

/// The defaults that the page names are those that hold.
#[test]
fn the_defaults_are_the_defaults() {
    let defaults = portway_core::ruleset::Timeouts::default();
    let section =
        FILE.walk().into_iter().find(|section| section.header == "[proxy.timeouts]").expect("is there");
    for key in section.keys {
        let named = config::value::parse_duration(key.default.trim_matches('"')).expect("a duration");
        let holds = match key.name {
            "connect" => defaults.connect,
            "idle" => defaults.idle,
            "half-closed" => defaults.half_closed,
            "udp-idle" => defaults.udp_idle,
            other => panic!("{other} is not tested"),
        };
        assert_eq!(named, holds, "{}", key.name);
    }
}
