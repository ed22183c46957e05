//! What `[ebpf]` says, and what of a rule's keys for that engine is in vain. Deliberately absent: whether the engine can
//! serve a rule ([`crate::assign`]) and whether an interface is there, which the host knows.

use std::collections::HashMap;

use super::noted;
use super::ports::Shape;
use crate::address::{InterfaceName, PortRange, Protocol};
use crate::config::endpoint::parse_ports;
use crate::config::{EbpfConfig, RuleConfig, Text};
use crate::diagnostic::{Diagnostic, quote};
use crate::ruleset::EbpfSettings;

/// Builds the settings; mistakes are noted.
pub fn build(config: &EbpfConfig, diagnostics: &mut Vec<Diagnostic>) -> EbpfSettings {
    let default = EbpfSettings::default();
    let interfaces = config.interfaces.as_ref().map(|(texts, _)| interfaces(texts, diagnostics));
    let source_ports = config.source_ports.as_ref().and_then(|text| source_ports(text, diagnostics));
    EbpfSettings {
        attach: config.attach.unwrap_or(default.attach),
        interfaces: interfaces.unwrap_or_default(),
        max_flows: config.max_flows.unwrap_or(default.max_flows),
        source_ports: source_ports.unwrap_or(default.source_ports),
        timeouts: config.timeouts,
    }
}

fn interfaces(texts: &[Text], diagnostics: &mut Vec<Diagnostic>) -> Vec<InterfaceName> {
    let mut seen: HashMap<InterfaceName, &Text> = HashMap::new();
    let mut names = Vec::with_capacity(texts.len());
    for text in texts {
        let error = |message: String| Diagnostic::error(text.inside(), message);
        match InterfaceName::new(&text.value) {
            None => diagnostics.push(
                error(format!("{} is not the name of an interface", quote(&text.value)))
                    .hint("`ip link` lists them; for example interfaces = [\"eth0\"]"),
            ),
            Some(name) if name.as_str() == "lo" => diagnostics.push(
                error("the ebpf engine does not serve the loopback interface".to_owned())
                    .hint("list the interfaces that clients and backends are behind"),
            ),
            Some(name) => match seen.insert(name.clone(), text) {
                Some(first) => diagnostics.push(
                    error(format!("{} is listed twice", quote(&text.value)))
                        .also(first.inside(), "it is here as well")
                        .hint("leave one of the two out"),
                ),
                None => names.push(name),
            },
        }
    }
    names
}

fn source_ports(text: &Text, diagnostics: &mut Vec<Diagnostic>) -> Option<PortRange> {
    let ports = noted(text, parse_ports(&text.value), diagnostics)?;
    if ports.first() < EbpfSettings::LOWEST_PORT {
        diagnostics.push(
            Diagnostic::error(
                text.inside(),
                format!("`source-ports` begins at {} or higher", EbpfSettings::LOWEST_PORT),
            )
            .hint("the ports below belong to services; leave the key out for 40000-65535"),
        );
        return None;
    }
    Some(ports)
}

/// What is for TCP, in a rule that has none.
pub fn warn_of_udp(rule: &RuleConfig, shape: &Shape<'_>, diagnostics: &mut Vec<Diagnostic>) {
    if shape.may_speak(Protocol::Tcp) {
        return;
    }
    let toa = rule.client_address.as_ref().map(|(_, span)| ("client-address", "a TCP option", span));
    let cookies = rule.syn_cookies.as_ref().map(|(_, span)| ("syn-cookies", "about TCP connections", span));
    for (key, what, span) in toa.into_iter().chain(cookies) {
        diagnostics.push(
            Diagnostic::warning(span.clone(), format!("`{key}` is {what}, and this rule is for udp only"))
                .hint("leave it out"),
        );
    }
}
