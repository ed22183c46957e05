//! Config to Ruleset: from text to states that can exist.
//!
//! Every rule is built as far as it can be, so that all mistakes of a file are told at once; conflicts are
//! looked for among everything that could be read. Deliberately absent: what this host can do, which is
//! [`crate::assign`]'s question.

pub mod conflict;
mod source;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::address::Family;
use crate::config::endpoint::{Fault, Forward, Listen, parse_forward, parse_listen};
use crate::config::{Config, RuleConfig, Text};
use crate::diagnostic::{Diagnostic, Span, quote};
use crate::ruleset::{
    Backend, Dns, Listener, Origin, Pool, Rule, RuleName, Ruleset, Scope, Target, TargetPorts,
};
use conflict::Claim;

/// Builds the ruleset of a config, and names every mistake. The ruleset is there when every rule could be
/// built; whether it may be used is for the caller to say, who knows whether any diagnostic is an error.
pub fn build(config: &Config) -> (Option<Ruleset>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut rules = Vec::with_capacity(config.rules.len());
    let mut claims = Vec::with_capacity(config.rules.len());
    let mut names = Vec::with_capacity(config.rules.len());
    for (index, rule) in config.rules.iter().enumerate() {
        let builder = Builder { config, rule, diagnostics: &mut diagnostics };
        rules.extend(builder.build(index, &mut claims, &mut names));
    }
    unique_names(&names, &mut diagnostics);
    let mut told = HashSet::new();
    for (earlier, later) in conflict::conflicts(&claims) {
        let (earlier, later) = (&claims[earlier], &claims[later]);
        // Two `tcp+udp` listeners conflict twice, in one place.
        if told.insert((earlier.span.start, later.span.start)) {
            diagnostics.push(conflict_diagnostic(config, earlier, later));
        }
    }
    let whole = rules.len() == config.rules.len() && !diagnostics.iter().any(Diagnostic::is_error);
    let ruleset = Ruleset {
        rules,
        host: config.host,
        control: config.control.clone(),
        proxy: config.proxy,
        dns: Dns::default(),
    };
    (whole.then_some(ruleset), diagnostics)
}

/// The name of a rule as written, or the default.
fn written_name(rule: &RuleConfig) -> Option<&Text> {
    rule.name.as_ref().or(rule.listen.first())
}

/// What a rule is called, as far as it could be read.
struct Named<'a> {
    rule: &'a RuleConfig,
    text: &'a Text,
    /// The listener that an unnamed rule is called after.
    after: Option<Listener>,
}

impl Named<'_> {
    fn why(&self) -> &'static str {
        if self.rule.name.is_some() {
            "named here"
        } else {
            "a rule without a name is called like its first listener"
        }
    }
}

/// Names are unique.
fn unique_names(names: &[Named<'_>], diagnostics: &mut Vec<Diagnostic>) {
    let mut seen: HashMap<&str, &Named<'_>> = HashMap::with_capacity(names.len());
    for named in names {
        let Some(first) = seen.get(named.text.value.as_str()) else {
            seen.insert(&named.text.value, named);
            continue;
        };
        // Two rules called after one listener conflict, which says it better.
        if named.after.is_some() && named.after == first.after {
            continue;
        }
        diagnostics.push(
            Diagnostic::error(
                named.text.inside(),
                format!("two rules are called {}", quote(&named.text.value)),
            )
            .label(named.why())
            .also(first.text.inside(), first.why())
            .hint("give one of them another `name`"),
        );
    }
}

fn conflict_diagnostic(config: &Config, earlier: &Claim, later: &Claim) -> Diagnostic {
    let name = |claim: &Claim| {
        let name = written_name(&config.rules[claim.rule]).map_or("", |name| name.value.as_str());
        quote(name)
    };
    let message = if earlier.rule == later.rule {
        format!("rule {} listens twice on {}", name(later), shared(&earlier.listener, &later.listener))
    } else {
        let shared = shared(&earlier.listener, &later.listener);
        format!("rules {} and {} both listen on {shared}", name(earlier), name(later))
    };
    let diagnostic = Diagnostic::error(later.span.clone(), message);
    if earlier.span == later.span {
        return diagnostic;
    }
    diagnostic
        .label("claimed again here")
        .also(earlier.span.clone(), "claimed here")
        .hint("each protocol, address and port leads to one place; change one of the two")
}

/// What two overlapping listeners share, as a listener.
fn shared(a: &Listener, b: &Listener) -> String {
    let first = a.ports.first().max(b.ports.first());
    let last = a.ports.last().min(b.ports.last());
    let ports = crate::address::PortRange::new(first, last).unwrap_or(b.ports);
    Listener { ports, ..b.clone() }.to_string()
}

/// One rule on its way.
struct Builder<'a, 'd> {
    config: &'a Config,
    rule: &'a RuleConfig,
    diagnostics: &'d mut Vec<Diagnostic>,
}

impl<'a> Builder<'a, '_> {
    fn build(mut self, index: usize, claims: &mut Vec<Claim>, names: &mut Vec<Named<'a>>) -> Option<Rule> {
        let rule = self.rule;
        let before = self.diagnostics.len();
        let forward = rule
            .forward
            .as_ref()
            .and_then(|text| Some((self.noted(text, parse_forward(&text.value))?, text)));
        let listens: Vec<(Listen, &Text)> = rule
            .listen
            .iter()
            .filter_map(|text| Some((self.noted(text, parse_listen(&text.value))?, text)))
            .collect();
        let family = forward.as_ref().map(|(forward, _)| Family::of(forward.address));
        let listeners: Vec<(Listener, Span)> = listens
            .iter()
            .filter_map(|(listen, text)| Some((listen.listeners(family)?, text)))
            .flat_map(|(listeners, text)| listeners.map(|listener| (listener, text.inside())))
            .collect();
        claims.extend(listeners.iter().map(|(listener, span)| Claim {
            rule: index,
            span: span.clone(),
            listener: listener.clone(),
        }));
        let backend = forward.as_ref().map(|(forward, text)| Target {
            address: forward.address,
            ports: self.target_ports(&listens, forward, text),
        });
        if let Some((backend, (_, text))) = backend.zip(forward.as_ref()) {
            self.refuse_loops(&listeners, backend, text);
        }
        self.check_helper(&listeners);
        let source = source::build(rule.source.as_ref(), family, self.diagnostics);
        let name = self.name();
        let first =
            listeners.first().filter(|_| self.rule.name.is_none()).map(|(listener, _)| listener.clone());
        let readable = rule.name.is_some()
            || listens.first().is_some_and(|(_, text)| Some(*text) == rule.listen.first());
        if let Some(text) = written_name(rule).filter(|_| readable) {
            names.push(Named { rule, text, after: first });
        }
        self.warn_of_limits();
        let fine = !self.diagnostics[before..].iter().any(Diagnostic::is_error);
        let complete = fine && !rule.listen.is_empty();
        let (listeners, spans) = listeners.into_iter().unzip();
        Some(Rule {
            name: name.filter(|_| complete)?,
            listeners,
            pool: Pool::new(vec![Backend::of(backend?)]),
            engine: rule.engine.as_ref().and_then(|(engine, _)| *engine),
            source: source?,
            helper: rule.helper.as_ref().map(|(helper, _)| *helper),
            max_connections: rule.max_connections.as_ref().map(|(count, _)| *count),
            timeouts: rule.timeouts.map(|timeouts| timeouts.over(self.config.proxy.timeouts)),
            origin: Origin {
                rule: rule.span.clone(),
                listeners: spans,
                backends: forward.iter().map(|(_, text)| text.inside()).collect(),
                engine: rule.engine.as_ref().map(|(_, span)| span.clone()),
            },
        })
    }

    /// What was parsed; a fault is noted.
    fn noted<T>(&mut self, text: &Text, parsed: Result<T, Fault>) -> Option<T> {
        parsed
            .map_err(|fault| {
                let diagnostic = Diagnostic::error(text.at(&fault.at), fault.message).maybe_hint(fault.hint);
                self.diagnostics.push(diagnostic);
            })
            .ok()
    }

    fn name(&mut self) -> Option<RuleName> {
        let text = written_name(self.rule)?;
        let name = RuleName::new(&text.value);
        if name.is_none() && self.rule.name.is_some() {
            self.diagnostics.push(
                Diagnostic::error(text.inside(), format!("{} cannot be a rule's name", quote(&text.value)))
                    .hint(format!(
                        "1 to {} printable ASCII characters without white space, quotes and backslashes",
                        RuleName::MAX
                    )),
            );
        }
        name
    }

    /// How the backend's ports follow from the listeners'.
    fn target_ports(&mut self, listens: &[(Listen, &Text)], forward: &Forward, text: &Text) -> TargetPorts {
        let Some(target) = forward.ports else { return TargetPorts::Same };
        if target.is_single() {
            return TargetPorts::One(target.first());
        }
        let at = text.at(&forward.ports_at);
        for (listen, listen_text) in
            listens.iter().filter(|(listen, _)| listen.ports.count() != target.count())
        {
            let (from, to) = (listen.ports.count(), target.count());
            let last = u32::from(target.first()) + from - 1;
            let hint = match u16::try_from(last) {
                Ok(last) if last > target.first() => {
                    format!("for {from} ports write {}-{last}, or one port for all of them", target.first())
                }
                Ok(_) => format!("one listener port leads to one port: write {}", target.first()),
                Err(_) => format!(
                    "{from} ports from {} on would end beyond 65535: begin at {} or lower",
                    target.first(),
                    65536 - from
                ),
            };
            let plural = if from == 1 { "1 port" } else { &format!("{from} ports") };
            self.diagnostics.push(
                Diagnostic::error(at.clone(), "the listener's range and the backend's differ in length")
                    .label(format!("{to} ports"))
                    .also(listen_text.at(&listen.ports_at), plural)
                    .hint(hint),
            );
        }
        if listens.iter().all(|(listen, _)| listen.ports == target) {
            return TargetPorts::Same;
        }
        if listens.iter().all(|(listen, _)| listen.ports.count() == target.count()) {
            self.refuse_two_targets(listens, &at);
        }
        TargetPorts::Shifted(target)
    }

    /// Ranges of one length that overlap but do not begin together would send one port to two places.
    fn refuse_two_targets(&mut self, listens: &[(Listen, &Text)], at: &Span) {
        let mut sorted: Vec<_> = listens.iter().collect();
        sorted.sort_by_key(|(listen, _)| listen.ports);
        for pair in sorted.windows(2) {
            let [(a, a_text), (b, b_text)] = pair else { continue };
            if a.ports.overlaps(b.ports) && a.ports.first() != b.ports.first() {
                let port = b.ports.first();
                self.diagnostics.push(
                    Diagnostic::error(
                        b_text.at(&b.ports_at),
                        format!("port {port} would lead to two ports of the backend"),
                    )
                    .label(format!("{port} is the first of this range"))
                    .also(a_text.at(&a.ports_at), format!("{port} is not the first of this range"))
                    .also(at.clone(), "the n-th port leads to the n-th of these")
                    .hint("write two rules, or ranges that do not overlap"),
                );
            }
        }
    }

    /// A backend that is the rule's own listener would forward to itself for ever. Loopback behind an any
    /// listener is another matter: NAT tells the two apart, a relay does not ([`crate::assign`]).
    fn refuse_loops(&mut self, listeners: &[(Listener, Span)], backend: Target, text: &Text) {
        let is_loop = |listener: &Listener| {
            listener.scope == Scope::Address(backend.address) && backend.ports.meet(listener.ports)
        };
        if let Some((listener, span)) = listeners.iter().find(|(listener, _)| is_loop(listener)) {
            self.diagnostics.push(
                Diagnostic::error(text.inside(), "this rule forwards to itself")
                    .label("the backend")
                    .also(span.clone(), format!("{listener} answers for it"))
                    .hint("forward to another address or another port"),
            );
        }
    }

    fn check_helper(&mut self, listeners: &[(Listener, Span)]) {
        let Some((helper, span)) = &self.rule.helper else { return };
        if let Some((listener, at)) = listeners.iter().find(|(listener, _)| !helper.speaks(listener.protocol))
        {
            let other = if listener.protocol == crate::address::Protocol::Tcp { "udp" } else { "tcp" };
            self.diagnostics.push(
                Diagnostic::error(
                    span.clone(),
                    format!("the {helper} helper does not speak {}", listener.protocol),
                )
                .also(at.clone(), format!("this listener is {}", listener.protocol))
                .hint(format!("listen on {other}/…, or leave the helper out")),
            );
        }
    }

    fn warn_of_limits(&mut self) {
        let Some(((rule, span), whole)) =
            self.rule.max_connections.as_ref().zip(self.config.proxy.max_connections)
        else {
            return;
        };
        if *rule > whole {
            self.diagnostics.push(
                Diagnostic::warning(
                    span.clone(),
                    format!("the limit of all rules together is lower ({whole})"),
                )
                .hint("raise max-connections in [proxy], or lower it here"),
            );
        }
    }
}

/// Whether an address can be this host's own, to send from.
fn can_send_from(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}
