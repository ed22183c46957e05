//! A rule's pool: policy, what happens to flows, what clients meet when nothing is left.
//!
//! A setting that cannot have an effect is an error: it was written for one. Deliberately absent: whether an engine can
//! follow the policy ([`crate::assign`]).

use std::sync::Arc;
use std::time::Duration;

use super::ports::Shape;
use super::{check, noted};
use crate::address::Protocol;
use crate::config::endpoint::parse_forward;
use crate::config::nearest::nearest;
use crate::config::{PassiveConfig, PoolConfig, Text};
use crate::diagnostic::{Diagnostic, Span, quote};
use crate::ruleset::{
    Backend, BackendHost, Balance, HashKey, Init, OnDown, Passive, Pool, SourceMode, Target, WhenEmpty,
};

/// How long the connections of a backend that went down may go on, where the file does not say.
const DRAIN: Duration = Duration::from_secs(30);

/// Builds the pool of `backends`, of which `all` says whether every written one is there.
pub fn build(
    config: &PoolConfig,
    backends: Vec<Backend>,
    all: bool,
    shape: &Shape<'_>,
    source: Option<&SourceMode>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Pool {
    let balance = config.balance.as_ref().map_or(Balance::default(), |(balance, _)| *balance);
    let check = config
        .check
        .as_ref()
        .and_then(|check| check::build(check, &backends, shape, source, diagnostics))
        .map(Arc::new);
    let pool = Pool {
        balance,
        hash: hash(config, balance, shape, diagnostics),
        check,
        passive: config.passive.map(passive),
        persist: config.persist.as_ref().map(|(time, _)| *time),
        slow_start: config.slow_start.as_ref().map(|(time, _)| *time),
        on_down: on_down(config, diagnostics),
        when_empty: config
            .when_empty
            .as_ref()
            .map_or(WhenEmpty::default(), |text| when_empty(text, shape, diagnostics).unwrap_or_default()),
        retries: config.retries.as_ref().and_then(|(retries, _)| u8::try_from(*retries).ok()),
        init: config.init.as_ref().map_or(Init::default(), |(init, _)| *init),
        backends,
    };
    if let (Some((_, span)), None) = (&config.slow_start, &config.check) {
        diagnostics.push(
            Diagnostic::error(
                span.clone(),
                "`slow-start` needs a `check`: without one no backend comes back",
            )
            .hint("for example check = \"tcp\""),
        );
    }
    if let Some((_, span)) = config.init.as_ref().filter(|_| all && !pool.has_names()) {
        diagnostics.push(
            Diagnostic::error(span.clone(), "`init` is for names, and every backend is an address")
                .hint("leave it out"),
        );
    }
    warn_of_udp(config, shape, diagnostics);
    pool
}

fn hash(
    config: &PoolConfig,
    balance: Balance,
    shape: &Shape<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> HashKey {
    let Some((key, span)) = &config.hash else { return HashKey::default() };
    if !balance.hashes() {
        let mut mistake = Diagnostic::error(
            span.clone(),
            format!("`hash` has no effect: balance = \"{balance}\" does not hash"),
        )
        .hint("write balance = \"source-hash\" or \"consistent-hash\", or leave `hash` out");
        if let Some((_, place)) = &config.balance {
            mistake = mistake.also(place.clone(), "the policy");
        }
        diagnostics.push(mistake);
    } else if *key == HashKey::Sni && !shape.may_speak(Protocol::Tcp) {
        diagnostics.push(
            Diagnostic::error(span.clone(), "`sni` is read from TLS over TCP, and this rule is for udp only")
                .hint("write hash = \"source\" or \"source-port\""),
        );
    }
    *key
}

fn on_down(config: &PoolConfig, diagnostics: &mut Vec<Diagnostic>) -> OnDown {
    let word = config.on_down.as_ref().map_or("keep", |(word, _)| *word);
    if let Some((_, span)) = config.drain_timeout.as_ref().filter(|_| word != "drain") {
        let mut mistake = Diagnostic::error(
            span.clone(),
            format!("`drain-timeout` has no effect with on-down = \"{word}\""),
        )
        .hint("write on-down = \"drain\", or leave `drain-timeout` out");
        if let Some((_, place)) = &config.on_down {
            mistake = mistake.also(place.clone(), "what happens instead");
        }
        diagnostics.push(mistake);
    }
    match word {
        "drain" => OnDown::Drain(config.drain_timeout.as_ref().map_or(DRAIN, |(time, _)| *time)),
        "reset" => OnDown::Reset,
        _ => OnDown::Keep,
    }
}

/// `when-empty`: a word or a backend that is an address; `None` when a mistake was noted.
fn when_empty(text: &Text, shape: &Shape<'_>, diagnostics: &mut Vec<Diagnostic>) -> Option<WhenEmpty> {
    const WORDS: [&str; 2] = ["refuse", "drop"];
    const ELSEWHERE: [(&str, &str); 6] = [
        ("reject", "refuse"),
        ("reset", "refuse"),
        ("deny", "refuse"),
        ("wait", "drop"),
        ("queue", "drop"),
        ("silent", "drop"),
    ];
    match text.value.as_str() {
        "refuse" => return Some(WhenEmpty::Refuse),
        "drop" => return Some(WhenEmpty::Drop),
        word if word.bytes().all(|b| b.is_ascii_alphabetic()) => {
            let called = ELSEWHERE.iter().find(|(other, _)| *other == word).map(|(_, word)| *word);
            let hint = match called.or(nearest(word, WORDS.into_iter())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "there is refuse, drop, or an address: \"10.0.0.9:80\"".to_owned(),
            };
            diagnostics.push(
                Diagnostic::error(text.inside(), format!("`when-empty` cannot be {}", quote(word)))
                    .hint(hint),
            );
            return None;
        }
        _ => {}
    }
    let forward = noted(text, parse_forward(&text.value), diagnostics)?;
    let BackendHost::Address(address) = forward.host else {
        diagnostics.push(
            Diagnostic::error(
                text.inside(),
                format!("{} is a name, and the backend of `when-empty` is an address", quote(&text.value)),
            )
            .hint("it must be there when nothing else is, resolvers included: \"10.0.0.9:80\""),
        );
        return None;
    };
    let ports = shape.target_ports(&forward, text, diagnostics);
    let target = Target { address, ports };
    shape.refuse_loop(target, text, diagnostics);
    Some(WhenEmpty::Sorry(target))
}

fn passive(config: PassiveConfig) -> Passive {
    let default = Passive::DEFAULT;
    Passive {
        max_fails: config.max_fails.unwrap_or(default.max_fails),
        fail_timeout: config.fail_timeout.unwrap_or(default.fail_timeout),
        max_ejected: config
            .max_ejected
            .and_then(|percent| u8::try_from(percent).ok())
            .unwrap_or(default.max_ejected),
    }
}

/// Settings of connections in a rule that has none.
fn warn_of_udp(config: &PoolConfig, shape: &Shape<'_>, diagnostics: &mut Vec<Diagnostic>) {
    if shape.may_speak(Protocol::Tcp) {
        return;
    }
    let on_down = config.on_down.as_ref().filter(|(word, _)| *word != "keep").map(|(_, span)| span);
    let mut warn = |span: Option<&Span>, message: &str, hint: &str| {
        if let Some(span) = span {
            diagnostics.push(Diagnostic::warning(span.clone(), message).hint(hint));
        }
    };
    warn(
        on_down,
        "`on-down` is about TCP connections, and this rule is for udp only",
        "the flows of a backend that goes down are let go at once in every case",
    );
    warn(
        config.retries.as_ref().map(|(_, span)| span),
        "`retries` is about TCP connections, and this rule is for udp only",
        "leave it out",
    );
}
