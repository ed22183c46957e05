//! Which port of a backend each listener port leads to, and whether that is the rule itself.
//!
//! Deliberately absent: whether an engine can lead there ([`crate::assign`]).

use crate::address::{PortRange, Protocol};
use crate::config::Text;
use crate::config::endpoint::{Forward, Listen};
use crate::diagnostic::{Diagnostic, Span};
use crate::ruleset::{Listener, Scope, Target, TargetPorts};

/// Where a rule listens, as far as it could be read.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// As written.
    pub listens: &'a [(Listen, &'a Text)],
    /// Those whose family is known.
    pub listeners: &'a [(Listener, Span)],
}

impl Shape<'_> {
    /// How a backend's ports follow from the listeners'. A range of another length is noted.
    pub fn target_ports(
        &self,
        forward: &Forward,
        text: &Text,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> TargetPorts {
        let Some(target) = forward.ports else { return TargetPorts::Same };
        if target.is_single() {
            return TargetPorts::One(target.first());
        }
        let at = text.at(&forward.ports_at);
        for (listen, listen_text) in
            self.listens.iter().filter(|(listen, _)| listen.ports.count() != target.count())
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
            diagnostics.push(
                Diagnostic::error(at.clone(), "the listener's range and the backend's differ in length")
                    .label(format!("{to} ports"))
                    .also(listen_text.at(&listen.ports_at), plural)
                    .hint(hint),
            );
        }
        if self.listens.iter().all(|(listen, _)| listen.ports == target) {
            return TargetPorts::Same;
        }
        TargetPorts::Shifted(target)
    }

    /// Listeners that are as long as a backend's range `at`, overlap and do not begin together would send one port
    /// to two places of it.
    pub fn refuse_two_targets(&self, range: PortRange, at: &Span, diagnostics: &mut Vec<Diagnostic>) {
        if self.listens.iter().any(|(listen, _)| listen.ports.count() != range.count()) {
            return;
        }
        let mut sorted: Vec<_> = self.listens.iter().collect();
        sorted.sort_by_key(|(listen, _)| listen.ports);
        for pair in sorted.windows(2) {
            let [(a, a_text), (b, b_text)] = pair else { continue };
            if a.ports.overlaps(b.ports) && a.ports.first() != b.ports.first() {
                let port = b.ports.first();
                diagnostics.push(
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
    pub fn refuse_loop(&self, backend: Target, text: &Text, diagnostics: &mut Vec<Diagnostic>) {
        let is_loop = |listener: &Listener| {
            listener.scope == Scope::Address(backend.address) && backend.ports.meet(listener.ports)
        };
        if let Some((listener, span)) = self.listeners.iter().find(|(listener, _)| is_loop(listener)) {
            diagnostics.push(
                Diagnostic::error(text.inside(), "this rule forwards to itself")
                    .label("the backend")
                    .also(span.clone(), format!("{listener} answers for it"))
                    .hint("forward to another address or another port"),
            );
        }
    }

    /// Whether a listener has this protocol; every protocol may be there when no listener could be read.
    pub fn may_speak(&self, protocol: Protocol) -> bool {
        self.listens.is_empty() || self.listens.iter().any(|(listen, _)| listen.protocols.contains(&protocol))
    }

    /// The only port of all listeners, where they have only one.
    pub fn only_port(&self) -> Option<u16> {
        let (first, _) = self.listens.first()?;
        let same =
            first.ports.is_single() && self.listens.iter().all(|(listen, _)| listen.ports == first.ports);
        same.then(|| first.ports.first())
    }
}
