//! The committed configuration reference is what the code says.

use std::path::Path;

use portway_core::config::keys::{FILE, Kind};
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

/// Every key of the table, with its own example as the value, is read without a complaint about its shape.
#[test]
fn every_key_reads_its_own_example() {
    let mut read = 0;
    for section in FILE.walk() {
        for key in section.keys.iter().filter(|key| !matches!(key.kind, Kind::Table(_) | Kind::Tables(_))) {
            let rule = "[[rule]]\nlisten = \"80\"\nforward = \"10.0.0.1\"\n";
            let text = match section.header {
                "[[rule]]" if key.required => {
                    let other =
                        if key.name == "listen" { "forward = \"10.0.0.1\"" } else { "listen = \"80\"" };
                    format!("[[rule]]\n{other}\n{} = {}\n", key.name, key.example)
                }
                "[[rule]]" => format!("{rule}{} = {}\n", key.name, key.example),
                "[rule.timeouts]" => format!("{rule}[rule.timeouts]\n{} = {}\n", key.name, key.example),
                header => format!("{header}\n{} = {}\n", key.name, key.example),
            };
            let (_, mistakes) = config::parse(&text);
            assert!(mistakes.is_empty(), "{} {}: {mistakes:?}", section.header, key.name);
            read += 1;
        }
    }
    assert_eq!(read, 24, "keys in the table");
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
