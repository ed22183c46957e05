//! Config: the shape of the file, nothing more.
//!
//! [`parse`] gives back what could be read together with every mistake, so that what [`crate::build`] finds
//! in the readable part is reported in the same run. Endpoints are still text here, with their places.

pub mod command_line;
pub mod endpoint;
pub mod keys;
pub(crate) mod nearest;
mod pool;
mod read;
pub mod reference;
mod syntax;
pub mod value;

use std::num::NonZeroU32;
use std::time::Duration;

use toml::de::DeTable;

use crate::diagnostic::{Diagnostic, Span};
use crate::ruleset::{Control, EngineKind, Helper, Host, HostSettings, ProxySettings, Timeouts};
use read::{Fields, Reader};

pub use command_line::from_command_line;
pub use pool::{BackendConfig, CheckConfig, PassiveConfig, PoolConfig};

/// A text of the file and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, escapes resolved.
    pub value: String,
    /// Where it stands, quotes included.
    pub span: Span,
    /// Where its first character stands, when the source holds the value as it is (no escapes).
    inner: Option<usize>,
}

impl Text {
    /// A text that stands in the source as it is, from `start` on.
    pub fn verbatim(value: &str, start: usize) -> Self {
        Self { value: value.to_owned(), span: start..start + value.len(), inner: Some(start) }
    }

    /// Where the value stands without its quotes, as exactly as is known.
    pub fn inside(&self) -> Span {
        self.at(&(0..self.value.len()))
    }

    /// Where a byte range of the value stands, as exactly as is known. An empty range has no place of its own
    /// to underline; it is the whole text.
    pub fn at(&self, range: &Span) -> Span {
        match self.inner {
            Some(start) if !range.is_empty() => start + range.start..start + range.end,
            _ => self.span.clone(),
        }
    }
}

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
    /// `timeouts`.
    pub timeouts: Option<TimeoutsConfig>,
}

/// `[dns]`, servers still as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// `servers`, and the place of the list.
    pub servers: Option<(Vec<Text>, Span)>,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `ttl-min`.
    pub ttl_min: Option<(Duration, Span)>,
    /// `ttl-max`.
    pub ttl_max: Option<(Duration, Span)>,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[host]`.
    pub host: Host,
    /// `[control]`.
    pub control: Control,
    /// `[proxy]`.
    pub proxy: ProxySettings,
    /// `[dns]`.
    pub dns: DnsConfig,
    /// `[[rule]]`, in the order of the file.
    pub rules: Vec<RuleConfig>,
}

/// Reads a file's text: what could be read, and every mistake in its shape. A ruleset may only be built and
/// used when there are no errors.
pub fn parse(text: &str) -> (Config, Vec<Diagnostic>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let syntax = syntax::Errors::new(text, &errors);
    let mut reader = Reader { text, mistakes: Vec::new(), complete: errors.is_empty() };
    let fields = reader.table(table.get_ref(), 0..0, &keys::FILE);
    let mut config = config(fields, &mut reader);
    let mistakes = syntax.and(reader.mistakes);
    // What stands on a line that could not be read is not built: it is not what the user wrote.
    for rule in &mut config.rules {
        rule.listen.retain(|text| !syntax.spoils(&text.span));
        rule.backends.retain(|backend| !syntax.spoils(&backend.address.span));
    }
    (config, mistakes)
}

/// Parse and build: everything that is wrong with a text, and the ruleset when nothing is. Diagnostics come
/// in the order of the text, and may be warnings only.
pub fn load(text: &str) -> (Option<crate::ruleset::Ruleset>, Vec<Diagnostic>) {
    let (config, mut diagnostics) = parse(text);
    let (ruleset, more) = crate::build::build(&config);
    diagnostics.extend(more);
    diagnostics.sort_by_key(|diagnostic| (diagnostic.primary.span.start, diagnostic.primary.span.end));
    let ruleset = ruleset.filter(|_| !diagnostics.iter().any(Diagnostic::is_error));
    (ruleset, diagnostics)
}

fn config(mut fields: Fields, reader: &mut Reader<'_>) -> Config {
    let mut config = Config::default();
    if let Some(host) = fields.table("host") {
        config.host = host_section(host);
    }
    if let Some(mut control) = fields.table("control") {
        config.control.group =
            control.text("group").and_then(|group| group_name(group, &mut reader.mistakes));
        control.finish();
    }
    if let Some(mut proxy) = fields.table("proxy") {
        config.proxy.workers = proxy.count("workers").map(only);
        config.proxy.max_connections = proxy.count("max-connections").map(only);
        config.proxy.max_flows = proxy.count("max-flows").map(only);
        if let Some(timeouts) = proxy.table("timeouts") {
            config.proxy.timeouts = timeouts_section(timeouts).over(Timeouts::default());
        }
        proxy.finish();
    }
    config.dns = fields.table("dns").map(dns_section).unwrap_or_default();
    let rules = fields.tables("rule").unwrap_or_default();
    config.rules = rules.into_iter().map(|fields| rule(fields, reader)).collect();
    fields.finish();
    config
}

fn host_section(mut fields: Fields) -> Host {
    let mut host = Host::default();
    if let Some((word, _)) = fields.choice("settings") {
        host.settings = if word == "check" { HostSettings::Check } else { HostSettings::Set };
    }
    if let Some(mut conntrack) = fields.table("conntrack") {
        host.conntrack.max = conntrack.count("max").map(only);
        host.conntrack.tcp_established = conntrack.duration("tcp-established").map(only);
        host.conntrack.udp = conntrack.duration("udp").map(only);
        host.conntrack.udp_stream = conntrack.duration("udp-stream").map(only);
        conntrack.finish();
    }
    fields.finish();
    host
}

/// A value without its place.
fn only<T>((value, _): (T, Span)) -> T {
    value
}

/// A group's name, as `groupadd` of Debian's shadow suite accepts them.
fn group_name(group: Text, mistakes: &mut Vec<Diagnostic>) -> Option<String> {
    let letters =
        group.value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$'));
    if letters && (1..=32).contains(&group.value.len()) && !group.value.starts_with('-') {
        return Some(group.value);
    }
    mistakes
        .push(Diagnostic::error(group.span, "this is not a group name").hint("for example group = \"adm\""));
    None
}

fn timeouts_section(mut fields: Fields) -> TimeoutsConfig {
    let timeouts = TimeoutsConfig {
        connect: fields.duration("connect").map(only),
        idle: fields.duration("idle").map(only),
        half_closed: fields.duration("half-closed").map(only),
        udp_idle: fields.duration("udp-idle").map(only),
    };
    fields.finish();
    timeouts
}

fn dns_section(mut fields: Fields) -> DnsConfig {
    let dns = DnsConfig {
        servers: fields.texts("servers").map(|(texts, _, span)| (texts, span)),
        timeout: fields.duration("timeout").map(only),
        ttl_min: fields.duration("ttl-min"),
        ttl_max: fields.duration("ttl-max"),
    };
    fields.finish();
    dns
}

fn rule(mut fields: Fields, reader: &mut Reader<'_>) -> RuleConfig {
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
fn engine(word: &str) -> Option<EngineKind> {
    EngineKind::ALL.into_iter().find(|engine| engine.to_string() == word)
}

fn helper(word: &str) -> Option<Helper> {
    [Helper::Ftp, Helper::Tftp, Helper::Sip].into_iter().find(|helper| helper.name() == word)
}
