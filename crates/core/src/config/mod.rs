//! Config: the shape of the file, nothing more.
//!
//! [`parse`] gives back what could be read together with every mistake, so that what [`crate::build`] finds
//! in the readable part is reported in the same run. Endpoints are still text here, with their places.

pub mod command_line;
mod ebpf;
pub mod endpoint;
pub mod keys;
pub(crate) mod nearest;
mod pool;
mod read;
pub mod reference;
mod rule;
mod syntax;
pub mod value;

use std::time::Duration;

use toml::de::DeTable;

use crate::diagnostic::{Diagnostic, Span};
use crate::ruleset::{Control, Host, HostSettings, ProxySettings, Timeouts};
use read::{Fields, Reader};

pub use command_line::from_command_line;
pub use ebpf::EbpfConfig;
pub use pool::{BackendConfig, CheckConfig, PassiveConfig, PoolConfig};
use rule::timeouts_section;
pub use rule::{RuleConfig, SourceConfig, TimeoutsConfig};

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

/// `[dns]`, servers still as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// The keys that could not be read.
    pub unread: Vec<&'static str>,
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
    /// `[ebpf]`.
    pub ebpf: EbpfConfig,
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

/// Parse and build: the rules that could be built, and everything that is wrong with a text by itself.
pub fn load(text: &str) -> crate::build::Built {
    let (config, mistakes) = parse(text);
    crate::build::build(&config, mistakes)
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
    config.ebpf = fields.table("ebpf").map(ebpf::section).unwrap_or_default();
    config.dns = fields.table("dns").map(dns_section).unwrap_or_default();
    let rules = fields.tables("rule").unwrap_or_default();
    config.rules = rules.into_iter().map(|fields| rule::rule(fields, reader)).collect();
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
        host.conntrack.accounting = conntrack.flag("accounting").unwrap_or(true);
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

fn dns_section(mut fields: Fields) -> DnsConfig {
    let dns = DnsConfig {
        unread: fields.unread(),
        servers: fields.texts("servers").map(|(texts, _, span)| (texts, span)),
        timeout: fields.duration("timeout").map(only),
        ttl_min: fields.duration("ttl-min"),
        ttl_max: fields.duration("ttl-max"),
    };
    fields.finish();
    dns
}
