//! The shape of one `[[rule]]`.
//!
//! Endpoints and addresses are still text here, with their places. Deliberately absent: the pool's settings
//! ([`super::pool`]).

use std::num::NonZeroU32;
use std::time::Duration;

use super::pool::{BackendConfig, PoolConfig};
use super::read::{Fields, Reader};
use super::{Text, only, pool};
use crate::diagnostic::{Diagnostic, Span};
use crate::ruleset::{ClientAddress, EngineKind, Helper, Timeouts};

/// What a rule's `source` says, addresses still as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    /// A word: `masquerade` or `preserve`.
    Word(Text),
    /// A list of addresses, and the place of the list.
    Pool(Vec<Text>, Span),
}

/// Timeouts as far as they are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutsConfig {
    /// `connect`.
    pub connect: Option<Duration>,
    /// `idle`.
    pub idle: Option<Duration>,
    /// `half-closed`.
    pub half_closed: Option<Duration>,
    /// `udp-idle`.
    pub udp_idle: Option<Duration>,
}

impl TimeoutsConfig {
    /// These, and where they say nothing, `base`.
    pub fn over(self, base: Timeouts) -> Timeouts {
        Timeouts {
            connect: self.connect.unwrap_or(base.connect),
            idle: self.idle.unwrap_or(base.idle),
            half_closed: self.half_closed.unwrap_or(base.half_closed),
            udp_idle: self.udp_idle.unwrap_or(base.udp_idle),
        }
    }
}

/// One `[[rule]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleConfig {
    /// Where the rule begins.
    pub span: Span,
    /// `name`.
    pub name: Option<Text>,
    /// `listen`; empty when it could not be read.
    pub listen: Vec<Text>,
    /// The entries of `forward`, or of `backends` in `pool`; empty when none could be read.
    pub backends: Vec<BackendConfig>,
    /// `pool`.
    pub pool: PoolConfig,
    /// `engine`: `None` when not written, `Some((None, _))` for `auto`.
    pub engine: Option<(Option<EngineKind>, Span)>,
    /// `source`.
    pub source: Option<SourceConfig>,
    /// `helper`.
    pub helper: Option<(Helper, Span)>,
    /// `max-connections`.
    pub max_connections: Option<(NonZeroU32, Span)>,
    /// `client-address`.
    pub client_address: Option<(ClientAddress, Span)>,
    /// `new-flow-rate`.
    pub new_flow_rate: Option<NonZeroU32>,
    /// `syn-cookies`.
    pub syn_cookies: Option<(u32, Span)>,
    /// `timeouts`.
    pub timeouts: Option<TimeoutsConfig>,
}

/// The clocks of a section.
pub(super) fn timeouts_section(mut fields: Fields) -> TimeoutsConfig {
    let timeouts = TimeoutsConfig {
        connect: fields.duration("connect").map(only),
        idle: fields.duration("idle").map(only),
        half_closed: fields.duration("half-closed").map(only),
        udp_idle: fields.duration("udp-idle").map(only),
    };
    fields.finish();
    timeouts
}

/// The rule of a section.
pub(super) fn rule(mut fields: Fields, reader: &mut Reader<'_>) -> RuleConfig {
    let (pool, backends) = backends(&mut fields, reader);
    let rule = RuleConfig {
        span: fields.span.clone(),
        name: fields.text("name"),
        listen: fields.texts("listen").map(|(texts, ..)| texts).unwrap_or_default(),
        backends,
        pool,
        engine: fields.choice("engine").map(|(word, span)| (engine(word), span)),
        source: fields.texts("source").map(|(mut texts, list, span)| match texts.pop() {
            Some(word) if !list => SourceConfig::Word(word),
            last => SourceConfig::Pool(texts.into_iter().chain(last).collect(), span),
        }),
        helper: fields.choice("helper").and_then(|(word, span)| Some((helper(word)?, span))),
        max_connections: fields.count("max-connections"),
        client_address: fields.choice("client-address").map(|(_, span)| (ClientAddress::Toa, span)),
        new_flow_rate: fields.count("new-flow-rate").map(only),
        syn_cookies: fields.number("syn-cookies"),
        timeouts: fields.table("timeouts").map(timeouts_section),
    };
    fields.finish();
    rule
}

/// The pool and its backends, which stand in `forward` or in the pool.
fn backends(fields: &mut Fields, reader: &mut Reader<'_>) -> (PoolConfig, Vec<BackendConfig>) {
    let forward = fields.texts("forward").map(|(texts, ..)| texts);
    let section = fields.table("pool");
    let here = fields.written("forward");
    let below = section.as_ref().and_then(|section| section.written("backends")).cloned();
    // A pool that could not be read may have them.
    let unread = section.is_none() && fields.written("pool").is_some();
    match (here, &below) {
        (Some(here), Some(below)) => reader.mistakes.push(
            Diagnostic::error(below.clone(), "this rule has `forward` and `backends`")
                .also(here.clone(), "the backends stand here as well")
                .hint("keep one of the two: `backends` has room for the settings of each backend"),
        ),
        (None, None) if reader.complete && !unread => reader.mistakes.push(
            Diagnostic::error(fields.span.clone(), "`forward` is missing in this [[rule]]")
                .hint("for example forward = \"192.168.1.100:80\""),
        ),
        _ => {}
    }
    let (pool, listed) = section.map(pool::pool).unwrap_or_default();
    let written = forward.unwrap_or_default().into_iter().map(BackendConfig::from);
    (pool, written.chain(listed.unwrap_or_default()).collect())
}

/// The engine of a word; `None` for `auto`.
pub(super) fn engine(word: &str) -> Option<EngineKind> {
    EngineKind::ALL.into_iter().find(|engine| engine.to_string() == word)
}

fn helper(word: &str) -> Option<Helper> {
    [Helper::Ftp, Helper::Tftp, Helper::Sip].into_iter().find(|helper| helper.name() == word)
}
