//! The members of a rule as `status` shows them: all of them, with what keeps each from new flows.

use serde::{Deserialize, Serialize};

use super::candidate::{Candidate, candidates};
use super::standing::{Judge, Standing, in_the_files_terms};
use super::{Reach, watch};
use crate::facts::{Admin, Facts, Moment, Order};
use crate::ruleset::{Backend, Rule};

/// The state of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// New flows may go there.
    Up,
    /// Its checks fail.
    Down,
    /// There is no verdict yet, which counts as up.
    Checking,
    /// The operator has drained it.
    Draining,
    /// The operator has disabled it.
    Disabled,
    /// A backup while others are live.
    Standby,
    /// A name without addresses.
    Unresolved,
    /// An address of a name that cannot be used here.
    Unusable,
}

/// One address of a pool, or a name that has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    /// The backend's name.
    pub backend: String,
    /// Where it is ("10.0.0.1:80").
    pub target: Option<String>,
    /// The weight in the file or by the operator's order.
    pub weight: u16,
    /// The weight for new flows now, in the same terms: a part of it for a service's lighter record or in a slow start,
    /// 0 while it gets none.
    pub effective: f64,
    /// Whether it waits for others to fail.
    pub backup: bool,
    /// Its state.
    pub state: MemberState,
    /// Why, in words; empty where there is nothing to say.
    pub reason: String,
    /// Since when the verdict of its checks holds.
    pub since: Option<Moment>,
    /// What the operator has said of it, by whom and when.
    pub order: Option<Order>,
}

/// The members of `rule` at `now` on an engine that has this reach, in the order of the file.
pub fn view(rule: &Rule, facts: &Facts, now: Moment, reach: Reach) -> Vec<MemberView> {
    let candidates = candidates(rule, facts, reach);
    let judge = Judge::new(rule, facts, now);
    let judged: Vec<_> = candidates.iter().map(|candidate| (candidate, judge.standing(candidate))).collect();
    let live = judged.iter().filter(|(candidate, standing)| standing.weight(candidate).is_some());
    let level = live.map(|(candidate, _)| candidate.level).min();
    let mut rows = Vec::with_capacity(judged.len());
    let mut judged = judged.into_iter().peekable();
    for backend in &rule.pool.backends {
        let before = rows.len();
        let its_own = |(candidate, _): &(&Candidate<'_>, _)| std::ptr::eq(candidate.backend, backend);
        while let Some((candidate, standing)) = judged.next_if(its_own) {
            rows.push(row(candidate, &standing, level));
        }
        if rows.len() == before {
            rows.push(unresolved(backend, facts, judge.order(backend.name.as_str())));
        }
    }
    rows
}

fn row(candidate: &Candidate<'_>, standing: &Standing<'_>, level: Option<u32>) -> MemberView {
    let weight = standing.weight(candidate);
    let standby = weight.is_some() && Some(candidate.level) != level;
    let (state, reason) = state(candidate, standing, standby);
    MemberView {
        backend: candidate.backend.name.to_string(),
        target: Some(candidate.target.to_string()),
        weight: standing.weight,
        effective: weight.filter(|_| !standby).map_or(0.0, in_the_files_terms),
        backup: candidate.level > 0,
        state,
        reason,
        since: standing.health.map(|health| health.since),
        order: standing.order.cloned(),
    }
}

fn state(candidate: &Candidate<'_>, standing: &Standing<'_>, standby: bool) -> (MemberState, String) {
    let by = || standing.order.map(|order| format!("by {}", order.by)).unwrap_or_default();
    let said = || standing.health.map(|health| health.reason.clone()).unwrap_or_default();
    match (&candidate.aside, standing.admin, standing.health) {
        (Some(aside), ..) => (MemberState::Unusable, aside.to_string()),
        (None, Some(Admin::Disable), _) => (MemberState::Disabled, by()),
        (None, Some(Admin::Drain), _) => (MemberState::Draining, by()),
        (None, None, Some(health)) if !health.up => (MemberState::Down, said()),
        (None, None, _) if standby => (MemberState::Standby, said()),
        (None, None, None) if standing.checked => {
            (MemberState::Checking, "no check has ended yet".to_owned())
        }
        (None, None, _) => (MemberState::Up, said()),
    }
}

fn unresolved(backend: &Backend, facts: &Facts, order: Option<&Order>) -> MemberView {
    let answered = watch::lookup(backend).is_some_and(|lookup| facts.names.contains_key(&lookup));
    let reason = if answered { "the name has no addresses" } else { "the name was not resolved yet" };
    MemberView {
        backend: backend.name.to_string(),
        target: None,
        weight: order.and_then(|order| order.weight).unwrap_or(backend.weight),
        effective: 0.0,
        backup: backend.backup,
        state: MemberState::Unresolved,
        reason: reason.to_owned(),
        since: None,
        order: order.cloned(),
    }
}
