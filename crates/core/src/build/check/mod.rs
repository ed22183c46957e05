//! A pool's health check: when, from where and to where; what is asked is in [`kind`].
//!
//! Deliberately absent: which keys go with which type, which the table of keys says and the reader has seen to.

mod bytes;
mod kind;

use std::net::IpAddr;
use std::time::Duration;

use super::ports::Shape;
use super::source::plain_address;
use crate::address::{Family, Protocol, is_one_host};
use crate::config::value::format_duration;
use crate::config::{CheckConfig, Text};
use crate::diagnostic::{Diagnostic, Span};
use crate::ruleset::{Backend, Check, CheckKind};

/// Builds the check; `None` when a mistake was noted.
pub fn build(
    config: &CheckConfig,
    backends: &[Backend],
    shape: &Shape<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Check> {
    let before = diagnostics.len();
    let kind = kind::build(config, diagnostics);
    let (interval, interval_down, timeout) = times(config, diagnostics);
    let address = config.address.as_ref().and_then(|text| address(text, diagnostics));
    let source = config.source.as_ref().and_then(|text| source(text, address, backends, diagnostics));
    refuse_other_protocol(config, shape, diagnostics);
    let kind = kind.filter(|_| !diagnostics[before..].iter().any(Diagnostic::is_error))?;
    let default = Check::new(kind);
    Some(Check {
        interval,
        interval_down,
        timeout,
        rise: config.rise.unwrap_or(default.rise),
        fall: config.fall.unwrap_or(default.fall),
        address,
        port: config.port.and_then(|port| u16::try_from(port).ok()),
        source,
        ..default
    })
}

/// `interval`, `interval-down` and `timeout`. A check is over before the next one begins, and a backend that is down is
/// not asked less often than one that is up.
fn times(config: &CheckConfig, diagnostics: &mut Vec<Diagnostic>) -> (Duration, Duration, Duration) {
    // The defaults are the same for every kind.
    let default = Check::new(CheckKind::Tcp { send: None, expect: None });
    let interval = config.interval.as_ref().map_or(default.interval, |(time, _)| *time);
    let mut within = |name: &str, written: &Option<(Duration, Span)>, default: Duration| {
        let Some((time, span)) = written else { return default.min(interval) };
        if *time > interval && !config.unread.contains(&"interval") {
            let mut mistake = Diagnostic::error(
                span.clone(),
                format!(
                    "`{name}` ({}) is longer than `interval` ({})",
                    format_duration(*time),
                    format_duration(interval)
                ),
            );
            mistake = match &config.interval {
                Some((_, place)) => mistake.also(place.clone(), "the interval"),
                None => mistake.label("without `interval` it is 2s"),
            };
            diagnostics.push(mistake.hint(format!(
                "write interval = \"{}\" or more, or a shorter `{name}`",
                format_duration(*time)
            )));
        }
        *time
    };
    let interval_down = within("interval-down", &config.interval_down, default.interval_down);
    let timeout = within("timeout", &config.timeout, default.timeout);
    (interval, interval_down, timeout)
}

/// An address to check.
fn address(text: &Text, diagnostics: &mut Vec<Diagnostic>) -> Option<IpAddr> {
    let found = plain_address(text).and_then(|address| {
        if !is_one_host(address) {
            return Err(Diagnostic::error(text.inside(), format!("{address} cannot be checked"))
                .hint("write the address of one host"));
        }
        Ok(address)
    });
    found.map_err(|mistake| diagnostics.push(mistake)).ok()
}

/// An address to check from.
fn source(
    text: &Text,
    checked: Option<IpAddr>,
    backends: &[Backend],
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<IpAddr> {
    let found = plain_address(text).and_then(|address| {
        let family = Family::of(address);
        if !(address.is_loopback() || super::can_send_from(address)) {
            return Err(Diagnostic::error(text.inside(), format!("nothing can be sent from {address}"))
                .hint("write an address of this host"));
        }
        if let Some(other) = checked.filter(|other| Family::of(*other) != family) {
            let other = Family::of(other);
            return Err(Diagnostic::error(
                text.inside(),
                format!("{address} is {family}, and the address to check is {other}"),
            )
            .hint(format!("write an {other} address of this host")));
        }
        // A name may have any family.
        let may = |backend: &Backend| backend.target().is_none_or(|target| target.family() == family);
        if checked.is_none() && !backends.is_empty() && !backends.iter().any(may) {
            return Err(Diagnostic::error(
                text.inside(),
                format!("{address} is {family}, and no backend is"),
            )
            .hint("write an address of this host in the backends' family"));
        }
        Ok(address)
    });
    found.map_err(|mistake| diagnostics.push(mistake)).ok()
}

/// A check over TCP of backends that are reached by UDP only, or the other way round, has no port to go to.
fn refuse_other_protocol(config: &CheckConfig, shape: &Shape<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let (Some(word), None) = (config.kind, config.port) else { return };
    if config.unread.contains(&"port") {
        return;
    }
    let (protocol, other) = match word {
        "command" => return,
        "dns" | "udp" => (Protocol::Udp, Protocol::Tcp),
        _ => (Protocol::Tcp, Protocol::Udp),
    };
    if !shape.may_speak(protocol) {
        let instead = match other {
            Protocol::Udp => "\"dns\" or \"udp\"",
            Protocol::Tcp => "\"tcp\"",
        };
        diagnostics.push(
            Diagnostic::error(
                config.span.clone(),
                format!("{word} checks speak {protocol}, and this rule forwards only {other}: their port is not known"),
            )
            .hint(format!("write the port to check (port = 53), or type = {instead}")),
        );
    }
}
