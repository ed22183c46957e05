//! A pool's settings in words, those that are not the defaults.
//!
//! Deliberately absent: secrets. That one changed is said, what it is is not.

use std::fmt::Write as _;

use super::FieldChange;
use crate::config::value::format_duration;
use crate::ruleset::{
    Backend, Balance, Check, CheckKind, Expect, Init, OnDown, Pool, Resolve, Tls, WhenEmpty,
};

/// The backends with their settings.
pub fn backends(pool: &Pool) -> String {
    pool.backends.iter().map(backend).collect::<Vec<_>>().join(", ")
}

fn backend(backend: &Backend) -> String {
    let written = backend.to_string();
    let mut settings = Vec::new();
    if backend.name.as_str() != written {
        settings.push(format!("called {}", backend.name));
    }
    if backend.weight != 1 {
        settings.push(format!("weight {}", backend.weight));
    }
    if backend.backup {
        settings.push("backup".to_owned());
    }
    if let Some(most) = backend.max_connections {
        settings.push(format!("max-connections {most}"));
    }
    if backend.resolve == Resolve::First {
        settings.push("resolve first".to_owned());
    }
    if settings.is_empty() { written } else { format!("{written} ({})", settings.join(", ")) }
}

/// The settings that are not the defaults, by their keys.
pub fn settings(pool: &Pool) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if pool.balance != Balance::default() {
        found.push(("balance", pool.balance.to_string()));
    }
    if pool.balance.hashes() {
        found.push(("hash", pool.hash.to_string()));
    }
    if let Some(check) = &pool.check {
        found.push(("check", self::check(check)));
    }
    if let Some(passive) = pool.passive {
        let time = format_duration(passive.fail_timeout);
        let (fails, ejected) = (passive.max_fails, passive.max_ejected);
        found.push(("passive", format!("max-fails {fails}, fail-timeout {time}, max-ejected {ejected}")));
    }
    found.extend(pool.persist.map(|time| ("persist", format_duration(time))));
    found.extend(pool.slow_start.map(|time| ("slow-start", format_duration(time))));
    match pool.on_down {
        OnDown::Keep => {}
        OnDown::Drain(time) => found.push(("on-down", format!("drain, at most {}", format_duration(time)))),
        OnDown::Reset => found.push(("on-down", "reset".to_owned())),
    }
    match pool.when_empty {
        WhenEmpty::Refuse => {}
        WhenEmpty::Drop => found.push(("when-empty", "drop".to_owned())),
        WhenEmpty::Sorry(target) => found.push(("when-empty", target.to_string())),
    }
    found.extend(pool.retries.map(|retries| ("retries", retries.to_string())));
    match pool.init {
        Init::LastKnown => {}
        Init::Wait => found.push(("init", "wait".to_owned())),
        Init::None => found.push(("init", "none".to_owned())),
    }
    found
}

/// The change of two pools that read the same: a secret of the check.
pub fn secret_change(was: &Pool, is: &Pool) -> Option<FieldChange> {
    let (old, new) = (was.check.as_deref()?, is.check.as_deref()?);
    (old != new).then(|| FieldChange {
        field: "check",
        from: Some(check(old)),
        to: Some(format!("{}, with another password", check(new))),
    })
}

fn check(check: &Check) -> String {
    let [interval, down, timeout] = [check.interval, check.interval_down, check.timeout].map(format_duration);
    let mut text = format!(
        "{}, every {interval}, {down} while down, timeout {timeout}, rise {}, fall {}",
        kind(&check.kind),
        check.rise,
        check.fall
    );
    // Writing to a String cannot fail.
    if let Some(address) = check.address {
        let _ = write!(text, ", address {address}");
    }
    if let Some(port) = check.port {
        let _ = write!(text, ", port {port}");
    }
    if let Some(source) = check.source {
        let _ = write!(text, ", source {source}");
    }
    text
}

fn kind(kind: &CheckKind) -> String {
    let mut words = vec![kind.word().to_owned()];
    let mut say = |name: &str, value: Option<String>| {
        words.extend(value.map(|value| format!("{name} {value}").trim().to_owned()))
    };
    match kind {
        CheckKind::Tcp { send, expect } => {
            say("send", send.as_deref().map(bytes));
            say("expect", expect.as_ref().map(self::expect));
        }
        CheckKind::Http { tls, method, path, host, status, body } => {
            say(method, Some(path.clone()));
            say("host", host.clone());
            let range = |(first, last): &(u16, u16)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            };
            say("status", Some(status.iter().map(range).collect::<Vec<_>>().join(", ")));
            say("expect", body.as_ref().map(self::expect));
            if let Some(tls) = tls {
                say_tls(tls, say);
            }
        }
        CheckKind::Tls(tls) => say_tls(tls, say),
        CheckKind::Postgresql { user, database } => {
            say("user", Some(user.clone()));
            say("database", database.clone());
        }
        CheckKind::Mysql { user } => say("user", user.clone()),
        CheckKind::Redis { password } => say("with a password", password.as_ref().map(|_| String::new())),
        CheckKind::Smtp { hello } => say("hello", Some(hello.clone())),
        CheckKind::Dns { name } => say("query", name.as_ref().map(ToString::to_string)),
        CheckKind::Udp { send, expect } => {
            say("send", Some(bytes(send)));
            say("expect", expect.as_ref().map(self::expect));
        }
        CheckKind::Command { words } => say("", Some(words.join(" "))),
    }
    words.join(", ")
}

fn say_tls(tls: &Tls, mut say: impl FnMut(&str, Option<String>)) {
    say("server-name", tls.server_name.as_ref().map(ToString::to_string));
    say("ca", tls.ca.as_ref().map(|path| path.display().to_string()));
}

fn bytes(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

fn expect(expect: &Expect) -> String {
    match expect {
        Expect::Bytes(found) => bytes(found),
        Expect::Regex(pattern) => format!("/{pattern}/"),
    }
}
