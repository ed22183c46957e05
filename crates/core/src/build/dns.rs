//! What `[dns]` says of resolving names. Deliberately absent: the system's resolvers, which the host knows.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::noted;
use crate::config::endpoint::parse_server;
use crate::config::value::format_duration;
use crate::config::{DnsConfig, Text};
use crate::diagnostic::{Diagnostic, Span, quote};
use crate::ruleset::Dns;

/// The most resolvers.
pub const MOST: usize = 8;

/// Builds the settings; mistakes are noted.
pub fn build(config: &DnsConfig, diagnostics: &mut Vec<Diagnostic>) -> Dns {
    let default = Dns::default();
    let servers =
        config.servers.as_ref().map(|(texts, span)| servers(texts, span, diagnostics)).unwrap_or_default();
    let ttl_min = config.ttl_min.as_ref().map_or(default.ttl_min, |(ttl, _)| *ttl);
    let ttl_max = config.ttl_max.as_ref().map_or(default.ttl_max, |(ttl, _)| *ttl);
    if ttl_min > ttl_max {
        // At least one of the two is written: the defaults are in order.
        let (least, most) = (config.ttl_min.as_ref(), config.ttl_max.as_ref());
        let place = least.or(most).map(|(_, span)| span.clone()).unwrap_or_default();
        let message = format!(
            "`ttl-min` ({}) is longer than `ttl-max` ({})",
            format_duration(ttl_min),
            format_duration(ttl_max)
        );
        let mut mistake = Diagnostic::error(place, message).hint("write both, the shorter one as `ttl-min`");
        if let (Some(_), Some((_, span))) = (least, most) {
            mistake = mistake.also(span.clone(), "the longest");
        }
        diagnostics.push(mistake);
    }
    Dns { servers, timeout: config.timeout.unwrap_or(default.timeout), ttl_min, ttl_max }
}

fn servers(texts: &[Text], span: &Span, diagnostics: &mut Vec<Diagnostic>) -> Vec<SocketAddr> {
    if texts.len() > MOST {
        diagnostics.push(Diagnostic::error(
            span.clone(),
            format!("at most {MOST} resolvers are asked, and these are {}", texts.len()),
        ));
    }
    let mut seen: HashMap<SocketAddr, &Text> = HashMap::new();
    let mut servers = Vec::with_capacity(texts.len().min(MOST));
    for text in texts {
        let Some(server) = noted(text, parse_server(&text.value), diagnostics) else { continue };
        match seen.insert(server, text) {
            Some(first) => diagnostics.push(
                Diagnostic::error(text.inside(), format!("{} is listed twice", quote(&text.value)))
                    .also(first.inside(), "it is here as well")
                    .hint("leave one of the two out"),
            ),
            None => servers.push(server),
        }
    }
    servers
}
