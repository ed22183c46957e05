//! The shape of `[rule.pool]` and of what stands in it.
//!
//! Endpoints, addresses and what is sent and expected are still text here, with their places. Deliberately absent:
//! what a missing value means, which is [`crate::build`]'s business.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Text;
use super::read::Fields;
use crate::diagnostic::Span;
use crate::ruleset::{Balance, HashKey, Init, Resolve};

/// One backend: an entry of `forward` or of `backends`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// `address`, or the entry that is a text.
    pub address: Text,
    /// `name`.
    pub name: Option<Text>,
    /// `weight`.
    pub weight: Option<(u32, Span)>,
    /// `backup`.
    pub backup: bool,
    /// `max-connections`.
    pub max_connections: Option<(NonZeroU32, Span)>,
    /// `resolve`.
    pub resolve: Option<(Resolve, Span)>,
}

impl From<Text> for BackendConfig {
    fn from(address: Text) -> Self {
        Self { address, name: None, weight: None, backup: false, max_connections: None, resolve: None }
    }
}

/// `[rule.pool]` without its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolConfig {
    /// `balance`.
    pub balance: Option<(Balance, Span)>,
    /// `hash`.
    pub hash: Option<(HashKey, Span)>,
    /// `persist`.
    pub persist: Option<(Duration, Span)>,
    /// `slow-start`.
    pub slow_start: Option<(Duration, Span)>,
    /// `on-down`: the word.
    pub on_down: Option<(&'static str, Span)>,
    /// `drain-timeout`.
    pub drain_timeout: Option<(Duration, Span)>,
    /// `when-empty`: a word or a backend.
    pub when_empty: Option<Text>,
    /// `retries`.
    pub retries: Option<(u32, Span)>,
    /// `init`.
    pub init: Option<(Init, Span)>,
    /// `passive`.
    pub passive: Option<PassiveConfig>,
    /// `check`.
    pub check: Option<CheckConfig>,
}

/// `passive`, as far as it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassiveConfig {
    /// `max-fails`.
    pub max_fails: Option<u32>,
    /// `fail-timeout`.
    pub fail_timeout: Option<Duration>,
    /// `max-ejected`, in percent.
    pub max_ejected: Option<u32>,
}

/// `check`. Which keys go with which type, the reader has seen to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckConfig {
    /// Its header, its braces, or the word of the short form.
    pub span: Span,
    /// `type`: the word; `None` when it could not be read.
    pub kind: Option<&'static str>,
    /// `interval`.
    pub interval: Option<(Duration, Span)>,
    /// `interval-down`.
    pub interval_down: Option<(Duration, Span)>,
    /// `timeout`.
    pub timeout: Option<(Duration, Span)>,
    /// `rise`.
    pub rise: Option<u32>,
    /// `fall`.
    pub fall: Option<u32>,
    /// `address`.
    pub address: Option<Text>,
    /// `port`.
    pub port: Option<u32>,
    /// `source`.
    pub source: Option<Text>,
    /// `send`.
    pub send: Option<Text>,
    /// `send-hex`.
    pub send_hex: Option<Text>,
    /// `expect`.
    pub expect: Option<Text>,
    /// `expect-hex`.
    pub expect_hex: Option<Text>,
    /// `expect-regex`.
    pub expect_regex: Option<Text>,
    /// `method`.
    pub method: Option<Text>,
    /// `path`.
    pub path: Option<Text>,
    /// `host`.
    pub host: Option<Text>,
    /// `status`.
    pub status: Option<Text>,
    /// `server-name`.
    pub server_name: Option<Text>,
    /// `ca`.
    pub ca: Option<Text>,
    /// `user`.
    pub user: Option<Text>,
    /// `database`.
    pub database: Option<Text>,
    /// `password`.
    pub password: Option<Text>,
    /// `hello`.
    pub hello: Option<Text>,
    /// `query`.
    pub query: Option<Text>,
    /// `command`; empty when not given.
    pub command: Vec<Text>,
}

/// The pool of a section, and its backends where it has any.
pub(super) fn pool(mut fields: Fields) -> (PoolConfig, Option<Vec<BackendConfig>>) {
    let backends = fields.tables("backends");
    let pool = PoolConfig {
        balance: fields.choice("balance").and_then(|word| meant(word, &Balance::WORDS)),
        hash: fields.choice("hash").and_then(|word| meant(word, &HashKey::WORDS)),
        persist: fields.duration("persist"),
        slow_start: fields.duration("slow-start"),
        on_down: fields.choice("on-down"),
        drain_timeout: fields.duration("drain-timeout"),
        when_empty: fields.text("when-empty"),
        retries: fields.number("retries"),
        init: fields.choice("init").and_then(|word| meant(word, &INIT)),
        passive: fields.table("passive").map(passive),
        check: fields.table("check").map(check),
    };
    fields.finish();
    (pool, backends.map(|backends| backends.into_iter().filter_map(backend).collect()))
}

const INIT: [(&str, Init); 3] = [("wait", Init::Wait), ("last-known", Init::LastKnown), ("none", Init::None)];
const RESOLVE: [(&str, Resolve); 2] = [("all", Resolve::All), ("first", Resolve::First)];

/// What a word of a choice means.
fn meant<T: Copy>((word, span): (&str, Span), words: &[(&str, T)]) -> Option<(T, Span)> {
    words.iter().find(|(name, _)| *name == word).map(|(_, meaning)| (*meaning, span))
}

/// A backend; `None` when its address could not be read.
fn backend(mut fields: Fields) -> Option<BackendConfig> {
    let address = fields.text("address");
    let (name, weight) = (fields.text("name"), fields.number("weight"));
    let (backup, max_connections) = (fields.flag("backup"), fields.count("max-connections"));
    let resolve = fields.choice("resolve").and_then(|word| meant(word, &RESOLVE));
    fields.finish();
    let backup = backup.unwrap_or(false);
    Some(BackendConfig { address: address?, name, weight, backup, max_connections, resolve })
}

fn passive(mut fields: Fields) -> PassiveConfig {
    let passive = PassiveConfig {
        max_fails: fields.number("max-fails").map(|(number, _)| number),
        fail_timeout: fields.duration("fail-timeout").map(|(duration, _)| duration),
        max_ejected: fields.number("max-ejected").map(|(number, _)| number),
    };
    fields.finish();
    passive
}

fn check(mut fields: Fields) -> CheckConfig {
    let typed = fields.written("type").is_some();
    let kind = fields.choice("type").map(|(word, _)| word);
    let check = CheckConfig {
        span: fields.span.clone(),
        kind: kind.or((!typed).then_some("tcp")),
        interval: fields.duration("interval"),
        interval_down: fields.duration("interval-down"),
        timeout: fields.duration("timeout"),
        rise: fields.number("rise").map(|(number, _)| number),
        fall: fields.number("fall").map(|(number, _)| number),
        address: fields.text("address"),
        port: fields.number("port").map(|(number, _)| number),
        source: fields.text("source"),
        send: fields.text("send"),
        send_hex: fields.text("send-hex"),
        expect: fields.text("expect"),
        expect_hex: fields.text("expect-hex"),
        expect_regex: fields.text("expect-regex"),
        method: fields.text("method"),
        path: fields.text("path"),
        host: fields.text("host"),
        status: fields.text("status"),
        server_name: fields.text("server-name"),
        ca: fields.text("ca"),
        user: fields.text("user"),
        database: fields.text("database"),
        password: fields.text("password"),
        hello: fields.text("hello"),
        query: fields.text("query"),
        command: fields.texts("command").map(|(words, ..)| words).unwrap_or_default(),
    };
    fields.finish();
    check
}
