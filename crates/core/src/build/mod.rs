//! Config to Ruleset: from text to states that can exist.
//!
//! Every rule is built as far as it can be, so that all mistakes of a file are told at once; conflicts are
//! looked for among everything that could be read. Deliberately absent: what this host can do, which is
//! [`crate::assign`]'s question.

mod backend;
mod check;
pub mod conflict;
mod dns;
mod ebpf;
mod family;
mod pool;
mod ports;
mod source;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::config::endpoint::{Fault, Listen, ListenScope, parse_listen};
use crate::config::{Config, RuleConfig, Text};
use crate::diagnostic::{Diagnostic, Span, quote};
use crate::ruleset::{Listener, Origin, Rule, RuleName, Ruleset};
use conflict::Claim;
use family::Families;
use ports::Shape;

/// What a text came to: the rules that could be built, and everything that is wrong with it so far.
#[derive(Debug)]
pub struct Built {
    /// The rules without a mistake of their own, in the order of the text: enough to look for further mistakes, not to
    /// be used. For that there is [`Self::whole`].
    pub ruleset: Ruleset,
    /// Every mistake, in the order of the text; may be warnings only.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether no rule is left out.
    all: bool,
}

impl Built {
    /// Adds mistakes that were found elsewhere.
    pub fn note(&mut self, more: Vec<Diagnostic>) {
        self.diagnostics.extend(more);
        self.diagnostics
            .sort_by_key(|diagnostic| (diagnostic.primary.span.start, diagnostic.primary.span.end));
    }

    /// The ruleset, when every rule is there and nothing is an error; and what there is to say.
    pub fn whole(self) -> (Option<Ruleset>, Vec<Diagnostic>) {
        let fine = self.all && !self.diagnostics.iter().any(Diagnostic::is_error);
        (fine.then_some(self.ruleset), self.diagnostics)
    }
}

/// Builds what can be built of a config, whose shape had these `mistakes`, and names every further one.
pub fn build(config: &Config, mistakes: Vec<Diagnostic>) -> Built {
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
    let dns = dns::build(&config.dns, &mut diagnostics);
    let ebpf = ebpf::build(&config.ebpf, &mut diagnostics);
    let all = rules.len() == config.rules.len();
    let ruleset =
        Ruleset { rules, host: config.host, control: config.control.clone(), proxy: config.proxy, ebpf, dns };
    let mut built = Built { ruleset, diagnostics: mistakes, all };
    built.note(diagnostics);
    built
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

/// A listener and where it is written.
type Placed = (Listener, Span);

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
        let written = backend::read(&rule.backends, self.diagnostics);
        let families = Families::of(&written);
        let listens: Vec<(Listen, &Text)> = rule
            .listen
            .iter()
            .filter_map(|text| Some((noted(text, parse_listen(&text.value), self.diagnostics)?, text)))
            .collect();
        let listeners = self.listeners(&listens, &families);
        claims.extend(listeners.iter().map(|(listener, span)| Claim {
            rule: index,
            span: span.clone(),
            listener: listener.clone(),
        }));
        let shape = Shape { listens: &listens, listeners: &listeners };
        let backends = backend::build(&written, &shape, self.diagnostics);
        self.check_helper(&listeners);
        let source = source::build(rule.source.as_ref(), &families, self.diagnostics);
        let all = written.len() == rule.backends.len();
        let pool = pool::build(&rule.pool, backends, all, &shape, self.diagnostics);
        let name = self.name();
        let first =
            listeners.first().filter(|_| self.rule.name.is_none()).map(|(listener, _)| listener.clone());
        let readable = rule.name.is_some()
            || listens.first().is_some_and(|(_, text)| Some(*text) == rule.listen.first());
        if let Some(text) = written_name(rule).filter(|_| readable) {
            names.push(Named { rule, text, after: first });
        }
        self.warn_of_limits();
        ebpf::warn_of_udp(rule, &shape, self.diagnostics);
        let fine = !self.diagnostics[before..].iter().any(Diagnostic::is_error);
        let complete = fine && !rule.listen.is_empty() && !rule.backends.is_empty();
        let (listeners, spans) = listeners.into_iter().unzip();
        Some(Rule {
            name: name.filter(|_| complete)?,
            listeners,
            pool,
            engine: rule.engine.as_ref().and_then(|(engine, _)| *engine),
            source: source?,
            helper: rule.helper.as_ref().map(|(helper, _)| *helper),
            max_connections: rule.max_connections.as_ref().map(|(count, _)| *count),
            client_address: rule.client_address.as_ref().map(|(how, _)| *how),
            new_flow_rate: rule.new_flow_rate,
            syn_cookies: rule.syn_cookies.as_ref().map(|(above, _)| *above),
            timeouts: rule.timeouts.map(|timeouts| timeouts.over(self.config.proxy.timeouts)),
            origin: Origin {
                rule: rule.span.clone(),
                listeners: spans,
                backends: rule.backends.iter().map(|backend| backend.address.inside()).collect(),
                engine: rule.engine.as_ref().map(|(_, span)| span.clone()),
            },
        })
    }

    /// The listeners, as far as their family is known.
    fn listeners(&mut self, listens: &[(Listen, &Text)], families: &Families) -> Vec<Placed> {
        let family = families.listeners();
        let mut listeners = Vec::new();
        for (listen, text) in listens {
            match (listen.listeners(family), families.both()) {
                (Some(found), _) => listeners.extend(found.map(|listener| (listener, text.inside()))),
                (None, Some([(_, v4), (_, v6)])) => {
                    let hint = match &listen.scope {
                        ListenScope::Interface(_) => {
                            "write two rules, one for the backends of each family".to_owned()
                        }
                        _ => {
                            let (ports, protocol) = (listen.ports, listen.prefix());
                            format!(
                                "say which: {protocol}0.0.0.0:{ports}, {protocol}[::]:{ports}, or both in a list"
                            )
                        }
                    };
                    self.diagnostics.push(
                        Diagnostic::error(
                            text.inside(),
                            "this listener has its backends' family, and they have both",
                        )
                        .also(v4.clone(), "an IPv4 backend")
                        .also(v6.clone(), "an IPv6 backend")
                        .hint(hint),
                    );
                }
                (None, None) => {}
            }
        }
        listeners
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

/// What was parsed; a fault is noted.
fn noted<T>(text: &Text, parsed: Result<T, Fault>, diagnostics: &mut Vec<Diagnostic>) -> Option<T> {
    parsed
        .map_err(|fault| {
            diagnostics.push(Diagnostic::error(text.at(&fault.at), fault.message).maybe_hint(fault.hint));
        })
        .ok()
}

/// Whether an address can be this host's own, to send from.
fn can_send_from(address: IpAddr) -> bool {
    crate::address::is_one_host(address) && !address.is_loopback()
}
