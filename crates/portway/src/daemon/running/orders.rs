//! The operator's hand: orders for one backend, checked against what runs, put into the facts and kept on request.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use portway_core::engine::EngineError;
use portway_core::facts::{Admin, Order};
use portway_core::members;
use portway_core::ruleset::{Backend, BackendName, Rule, RuleName};

use super::{Failure, Running};
use crate::cli::report;
use crate::control::{BackendStatus, Ordered};
use crate::controller::News;

impl Running {
    /// Carries out an order, and gives back what reads how the backend stands then: one row, or one for each address of
    /// a name.
    pub(super) fn order(
        &mut self,
        rule: &str,
        backend: &str,
        ordered: Ordered,
        keep: bool,
        by: &str,
    ) -> Result<impl FnOnce() -> Result<Vec<BackendStatus>, EngineError> + Send + use<>, Failure> {
        let (nth, rule, backend) = self.find(rule, backend)?;
        if let Ordered::Weight(Some(weight)) = ordered
            && weight > Backend::MOST_WEIGHT
        {
            return Err(format!("a weight is from 0 to {}", Backend::MOST_WEIGHT));
        }
        if keep && self.parts.remembered.is_none() {
            return Err("rules given on the command line are not remembered: leave out --keep".to_owned());
        }
        let key = (rule.clone(), backend.clone());
        let known = self.parts.controller.facts().orders.get(&key).cloned().unwrap_or_default();
        let order = changed(known, ordered, keep, by);
        let said = format!("{by}: {rule}/{backend} {}", said(ordered));
        let order = (order.admin.is_some() || order.weight.is_some()).then_some(order);
        let (since, now) = (Instant::now(), self.now());
        let news = vec![News::Order(rule, backend.clone(), order)];
        let learned = self.parts.controller.learn(news, now);
        self.note(learned, since);
        report::log(&said);
        self.keep_orders().map_err(|error| format!("{said}; but it cannot be remembered: {error}"))?;
        let reading = self.reading(None).map_err(|error| error.to_string())?;
        Ok(move || {
            let mut rows = reading.backends(nth)?;
            let meant = |text: &str| text == backend.as_str();
            rows.retain(|row| meant(&row.name) || row.target.as_deref().is_some_and(meant));
            Ok(rows)
        })
    }

    /// Says which orders of an earlier run hold: whoever starts the daemon may not know of them.
    pub(in crate::daemon) fn tell_orders(&self) {
        for ((rule, backend), order) in &self.parts.controller.facts().orders {
            let admin = order.admin.map(|admin| match admin {
                Admin::Drain => "drains".to_owned(),
                Admin::Disable => "is disabled".to_owned(),
            });
            let weight = order.weight.map(|weight| format!("has weight {weight}"));
            let words: Vec<String> = admin.into_iter().chain(weight).collect();
            report::note(&format!("{rule}/{backend} {} by an order of {}", words.join(" and "), order.by));
        }
    }

    /// The rule (and its place) and the backend that are meant, by name or by address. A backend that is an address in
    /// the file is known by its name, however it was asked for: an order must be found again by either.
    fn find(&self, rule: &str, backend: &str) -> Result<(usize, RuleName, BackendName), Failure> {
        let candidate = self.applied().map(|applied| &applied.candidate);
        let rules = candidate.map_or(&[][..], |candidate| &candidate.ruleset.rules);
        let place = rules.iter().position(|known| known.name.as_str() == rule);
        let Some((nth, candidate)) = place.zip(candidate) else {
            return Err(no_rule(rule, rules));
        };
        let (found, reach) = candidate.rule(nth);
        let views = members::view(found, self.parts.controller.facts(), self.now(), reach);
        let named = || found.pool.backends.iter().find(|known| known.name.as_str() == backend);
        let written = || {
            let at = |known: &&Backend| known.target().is_some_and(|target| target.to_string() == backend);
            found.pool.backends.iter().find(at)
        };
        let resolved = || {
            views.iter().find(|view| view.target.as_deref() == Some(backend))?;
            BackendName::new(backend)
        };
        match named().or_else(written).map(|known| known.name.clone()).or_else(resolved) {
            Some(backend) => Ok((nth, found.name.clone(), backend)),
            None => {
                // A name and each of its addresses, which are meant by themselves.
                let mut names: Vec<&str> = Vec::new();
                for view in &views {
                    names.extend(Some(view.backend.as_str()).filter(|name| !names.contains(name)));
                    names.extend(view.target.as_deref().filter(|target| *target != view.backend));
                }
                let names = names.into_iter().take(20).collect::<Vec<_>>().join(", ");
                Err(format!("rule {rule} has no backend {backend} (it has {names})"))
            }
        }
    }
}

/// What a misspelt rule is told.
pub(super) fn no_rule(rule: &str, rules: &[Rule]) -> String {
    let names: Vec<&str> = rules.iter().take(20).map(|known| known.name.as_str()).collect();
    format!("no rule is called {rule} (there is {})", names.join(", "))
}

/// An order after another. Each may be given twice: a script need not ask first.
fn changed(mut order: Order, ordered: Ordered, keep: bool, by: &str) -> Order {
    match ordered {
        Ordered::Drain => order.admin = Some(Admin::Drain),
        Ordered::Disable => order.admin = Some(Admin::Disable),
        Ordered::Undrain => order.admin = order.admin.filter(|admin| *admin != Admin::Drain),
        Ordered::Enable => order.admin = order.admin.filter(|admin| *admin != Admin::Disable),
        Ordered::Weight(weight) => order.weight = weight,
    }
    by.clone_into(&mut order.by);
    order.at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // One entry in the state directory holds both: a weight that may go must not take a drain with it that is to stay.
    order.keep |= keep;
    order
}

fn said(ordered: Ordered) -> String {
    match ordered {
        Ordered::Drain => "drains".to_owned(),
        Ordered::Undrain => "drains no more".to_owned(),
        Ordered::Disable => "is disabled".to_owned(),
        Ordered::Enable => "is enabled".to_owned(),
        Ordered::Weight(Some(weight)) => format!("has weight {weight}"),
        Ordered::Weight(None) => "has the file's weight".to_owned(),
    }
}
