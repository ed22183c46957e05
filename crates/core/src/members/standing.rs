//! Standing: what the facts say of one candidate, and the weight that follows from it.
//!
//! Deliberately absent: levels, which are a question to all candidates together ([`super::meets`]).

use std::collections::BTreeMap;
use std::time::Duration;

use super::candidate::{Candidate, WHOLE};
use super::watch::probe;
use crate::facts::{Admin, Facts, Health, Moment, Order};
use crate::ruleset::{Backend, BackendName, Rule};

/// The steps in which a slow start reaches the full weight.
pub const STEPS: u32 = 16;

/// The weight that a member with the highest weight of the file has beside one that has the smallest part of its own.
pub const MOST_WEIGHT: u32 = Backend::MOST_WEIGHT as u32 * UNIT;

/// A weight of 1, in the parts that shares and steps divide it into.
const UNIT: u32 = WHOLE * STEPS;

/// What the facts say of the candidates of one rule.
pub(crate) struct Judge<'a> {
    rule: &'a Rule,
    facts: &'a Facts,
    now: Moment,
    /// The rule's own orders.
    orders: BTreeMap<&'a str, &'a Order>,
}

/// What they say of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<'a> {
    /// The operator's order: of the address, else of the backend.
    pub order: Option<&'a Order>,
    /// The state that the operator ordered; the stricter where address and backend have one each.
    pub admin: Option<Admin>,
    /// The weight in the file or by order.
    pub weight: u16,
    /// Whether it is checked.
    pub checked: bool,
    /// The verdict.
    pub health: Option<&'a Health>,
    /// How far its slow start has come: 1 to [`STEPS`].
    pub step: u32,
    /// When it comes further.
    pub next_step: Option<Moment>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(rule: &'a Rule, facts: &'a Facts, now: Moment) -> Self {
        let orders = if facts.orders.is_empty() {
            BTreeMap::new()
        } else {
            let first = BackendName::new("!").expect("invariant: the lowest printable character");
            facts
                .orders
                .range((rule.name.clone(), first)..)
                .take_while(|((name, _), _)| *name == rule.name)
                .map(|((_, backend), order)| (backend.as_str(), order))
                .collect()
        };
        Self { rule, facts, now, orders }
    }

    /// The order for a backend's name, or for an address as it is displayed.
    pub(crate) fn order(&self, name: &str) -> Option<&'a Order> {
        self.orders.get(name).copied()
    }

    pub(crate) fn standing(&self, candidate: &Candidate<'_>) -> Standing<'a> {
        let backend = candidate.backend;
        // Addresses are only printed for rules that have orders.
        let of_target = if self.orders.is_empty() { None } else { self.order(&candidate.target.to_string()) };
        let of_backend = self.order(backend.name.as_str());
        let orders = || of_target.into_iter().chain(of_backend);
        let probe = probe(self.rule, backend, candidate.target);
        let health = probe.as_ref().and_then(|probe| self.facts.health.get(probe));
        let (step, next_step) = health.map_or((STEPS, None), |health| self.slow_start(health));
        Standing {
            order: of_target.or(of_backend),
            admin: orders().filter_map(|order| order.admin).max(),
            weight: orders().find_map(|order| order.weight).unwrap_or(backend.weight),
            checked: probe.is_some(),
            health,
            step,
            next_step,
        }
    }

    /// The step that a member has reached by `now`, and when it reaches the next: linear, and full at the end.
    fn slow_start(&self, health: &Health) -> (u32, Option<Moment>) {
        let elapsed = self.now.saturating_sub(health.since);
        let Some(whole) =
            self.rule.pool.slow_start.filter(|whole| health.up && health.recovered && elapsed < *whole)
        else {
            return (STEPS, None);
        };
        let (elapsed, whole, steps) = (elapsed.as_nanos(), whole.as_nanos(), u128::from(STEPS));
        let step = (elapsed * steps / whole).max(1);
        let next = ((step + 1) * whole).div_ceil(steps);
        let next = Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX));
        (u32::try_from(step).unwrap_or(STEPS), Some(health.since.saturating_add(next)))
    }
}

impl Standing<'_> {
    /// Whether its flows are to be treated by `on-down`: it failed its checks, or the operator has disabled it.
    pub(crate) fn is_down(&self) -> bool {
        self.admin == Some(Admin::Disable) || self.health.is_some_and(|health| !health.up)
    }

    /// The weight of a candidate for new flows in parts of [`UNIT`]; `None` while it gets none.
    pub(crate) fn weight(&self, candidate: &Candidate<'_>) -> Option<u32> {
        let takes = candidate.aside.is_none() && self.admin.is_none() && !self.is_down();
        let weight = u32::from(self.weight.min(Backend::MOST_WEIGHT)) * candidate.share * self.step;
        Some(weight).filter(|weight| takes && *weight > 0)
    }
}

/// A weight of [`Standing::weight`] in the file's terms.
pub(crate) fn in_the_files_terms(weight: u32) -> f64 {
    f64::from(weight) / f64::from(UNIT)
}

/// The weights in the smallest numbers that do not divide what the file says: its own where no member has only a part
/// of its weight.
pub(crate) fn simplified(weights: &[u32]) -> impl Iterator<Item = u32> {
    // The unit is a power of two, and so is what it shares with all of them.
    let shared =
        weights.iter().map(|weight| weight.trailing_zeros()).min().unwrap_or(0).min(UNIT.trailing_zeros());
    weights.iter().map(move |weight| weight >> shared)
}
