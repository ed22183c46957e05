//! The controller: the only mutable state. It owns the engines and the facts, and knows what is applied.
//!
//! An apply is all or nothing across the engines and the host's settings. Every engine prepares first; nothing
//! that traffic can notice happens until all of them and the host have agreed. Packets meet nf_tables before
//! sockets, so new sockets are bound before nf_tables changes and old ones closed after: a rule that moves
//! between engines never stands without a data plane.
//!
//! A changed fact is smaller: it changes members of pools, on the one engine that serves the rule, at once
//! ([`Controller::learn`]).
//!
//! Deliberately absent: files, signals, the control socket (`daemon`) and words for people (`cli`).

#[cfg(test)]
mod fake;
mod learn;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use portway_core::address::Family;
use portway_core::assign::Assignment;
use portway_core::engine::{Changed, Engine, EngineError, Observer};
use portway_core::facts::{Facts, Moment};
use portway_core::flow::FlowFilter;
use portway_core::members::Reach;
use portway_core::plan::{Plans, World, nftables, proxy};
use portway_core::ruleset::{EngineKind, HostSettings, Rule, RuleName, Ruleset};

pub use self::learn::News;
use self::learn::Pending;
use crate::concern::Concern;
use crate::host::sysctl::{Change, Needs, Sysctls};

/// Readers by engine.
pub type Observers = Vec<(EngineKind, Box<dyn Observer>)>;

/// A ruleset with its engines chosen, ready to be planned and applied.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What the user asked for.
    pub ruleset: Ruleset,
    /// Who serves it.
    pub assignment: Assignment,
}

/// What is applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What the user asked for, and who serves it.
    pub candidate: Arc<Candidate>,
    /// What the engines hold.
    pub plans: Plans,
}

/// What an apply did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By engine.
    pub changed: Vec<(EngineKind, Changed)>,
    /// Host settings that were not as the rules need them: set, or only reported under `settings = "check"`.
    pub settings: Vec<Change>,
}

/// Why nothing was applied. The old state is whole unless `damage` says otherwise.
#[derive(Debug)]
pub struct ApplyError {
    /// What stood in the way.
    pub reason: String,
    /// What could not be put back, where even that failed.
    pub damage: Option<String>,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.damage {
            None => write!(f, "{}; nothing was changed", self.reason),
            Some(damage) => write!(f, "{}; and going back failed: {damage}", self.reason),
        }
    }
}

impl std::error::Error for ApplyError {}

impl Candidate {
    /// A rule, and which addresses its engine can reach.
    pub fn rule(&self, nth: usize) -> (&Rule, Reach) {
        let rule = &self.ruleset.rules[nth];
        (rule, Reach::of(rule, self.assignment.rules[nth].engine))
    }
}

impl Applied {
    /// What plans are made from.
    fn world<'a>(candidate: &'a Candidate, facts: &'a Facts, now: Moment) -> World<'a> {
        World { ruleset: &candidate.ruleset, assignment: &candidate.assignment, facts, now }
    }
}

/// The engines, what they hold, and the host's settings.
#[derive(Debug)]
pub struct Controller<N, P> {
    /// Absent where the host or the privilege does not allow it; no rule is assigned to it then.
    nftables: Option<N>,
    proxy: P,
    /// Absent in a daemon that does not own the host's state (a second `portway forward`): its rules need none.
    sysctls: Option<Sysctls>,
    /// The ids in the kernel's table when this daemon started: its names for rules of an earlier run.
    adopted_ids: nftables::Ids,
    applied: Option<Applied>,
    facts: Arc<Facts>,
    concern: Concern,
    pending: Pending,
    /// Rules none of whose backends is live.
    empty: BTreeSet<RuleName>,
    /// Rules that have become so, or are no longer.
    turns: Vec<(RuleName, bool)>,
}

impl<N, P> Controller<N, P>
where
    N: Engine<Plan = nftables::Plan, Change = nftables::Change>,
    P: Engine<Plan = proxy::Plan, Change = proxy::Change>,
{
    /// A controller that has applied nothing yet. `adopted_ids` are read back from the kernel, `facts` are what an
    /// earlier run left (the operator's orders, names as they were last).
    pub fn new(
        nftables: Option<N>,
        proxy: P,
        sysctls: Option<Sysctls>,
        adopted_ids: nftables::Ids,
        facts: Facts,
    ) -> Self {
        let (concern, pending) = (Concern::default(), Pending::default());
        Self {
            nftables,
            proxy,
            sysctls,
            adopted_ids,
            applied: None,
            facts: Arc::new(facts),
            concern,
            pending,
            empty: BTreeSet::new(),
            turns: Vec::new(),
        }
    }

    /// What the world says, as far as it concerns the rules that are applied.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// What must be watched for the rules that are applied.
    pub fn concern(&self) -> &Concern {
        &self.concern
    }

    /// What is applied now.
    pub fn applied(&self) -> Option<&Applied> {
        self.applied.as_ref()
    }

    /// Makes `candidate` the running state, or changes nothing.
    ///
    /// # Errors
    /// What stood in the way; see [`ApplyError`].
    pub fn apply(&mut self, candidate: Arc<Candidate>, now: Moment) -> Result<Report, ApplyError> {
        let previous = match &self.applied {
            Some(applied) => &applied.plans.ids,
            None => &self.adopted_ids,
        };
        let concern = Concern::new(&candidate.ruleset, &candidate.assignment, &self.facts);
        let facts = self.facts_for(&candidate.ruleset, &concern);
        let plans = Plans::new(Applied::world(&candidate, &facts, now), previous);
        let settings = self.prepare(&plans, &candidate.ruleset)?;
        let mut report = Report { settings, ..Report::default() };
        if let Some(engine) = &mut self.nftables {
            match engine.commit() {
                Ok(changed) => report.changed.push((EngineKind::Nftables, changed)),
                Err(error) => {
                    self.proxy.abort();
                    return Err(self.undone(error, &candidate.ruleset, &report.settings));
                }
            }
        }
        match self.proxy.commit() {
            Ok(changed) => report.changed.push((EngineKind::Proxy, changed)),
            Err(error) => {
                self.proxy.abort();
                let damage = self.roll_back_nftables().err();
                let mut undone = self.undone(error, &candidate.ruleset, &report.settings);
                let all = damage.into_iter().chain(undone.damage.take());
                undone.damage = all.reduce(|one, other| format!("{one}; {other}"));
                return Err(undone);
            }
        }
        self.applied = Some(Applied { candidate, plans });
        (self.facts, self.concern) = (Arc::new(facts), concern);
        self.note_applied(now);
        Ok(report)
    }

    /// Ends the flows that `filter` means, on every engine or on one, and says how many there were.
    ///
    /// # Errors
    /// The first engine that failed; flows of the other may have ended.
    pub fn end_flows(&mut self, filter: &FlowFilter, only: Option<EngineKind>) -> Result<u64, EngineError> {
        let wanted = |kind| only.is_none_or(|only| only == kind);
        let mut ended = 0;
        if let Some(engine) = self.nftables.as_mut().filter(|_| wanted(EngineKind::Nftables)) {
            ended += engine.end_flows(filter)?;
        }
        if wanted(EngineKind::Proxy) {
            ended += self.proxy.end_flows(filter)?;
        }
        Ok(ended)
    }

    /// Readers of every engine, or of one, for another thread.
    ///
    /// # Errors
    /// The first reader that could not be made.
    pub fn observers(&mut self, only: Option<EngineKind>) -> Result<Observers, EngineError> {
        let wanted = |kind| only.is_none_or(|only| only == kind);
        let mut observers = Observers::new();
        if let Some(engine) = self.nftables.as_mut().filter(|_| wanted(EngineKind::Nftables)) {
            observers.push((EngineKind::Nftables, engine.observer()?));
        }
        if wanted(EngineKind::Proxy) {
            observers.push((EngineKind::Proxy, self.proxy.observer()?));
        }
        Ok(observers)
    }

    /// Removes every trace: both engines' state and the host settings. Goes on past a failure.
    ///
    /// # Errors
    /// What could not be removed, a sentence each.
    pub fn clear(&mut self) -> Result<(), Vec<String>> {
        let mut failures = Vec::new();
        if let Err(error) = self.proxy.clear() {
            failures.push(error.to_string());
        }
        if let Some(Err(error)) = self.nftables.as_mut().map(Engine::clear) {
            failures.push(error.to_string());
        }
        if let Some(Err(error)) = self.sysctls.as_mut().map(Sysctls::restore) {
            failures.push(error.to_string());
        }
        self.applied = None;
        self.adopted_ids = nftables::Ids::default();
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// Prepares the engines and the host. On failure nothing is left prepared and no setting changed.
    fn prepare(&mut self, plans: &Plans, ruleset: &Ruleset) -> Result<Vec<Change>, ApplyError> {
        let refused = |reason: String| ApplyError { reason, damage: None };
        self.proxy.prepare(&plans.proxy).map_err(|error| refused(error.to_string()))?;
        if let Some(Err(error)) = self.nftables.as_mut().map(|engine| engine.prepare(&plans.nftables)) {
            self.proxy.abort();
            return Err(refused(error.to_string()));
        }
        let needs = needs(&plans.nftables, ruleset, self.nftables.is_some());
        let Some(sysctls) = &mut self.sysctls else { return Ok(Vec::new()) };
        sysctls.apply(&needs, ruleset.host.settings).map_err(|error| {
            self.proxy.abort();
            if let Some(engine) = &mut self.nftables {
                engine.abort();
            }
            refused(format!("host settings: {error} (hint: host.settings = \"check\" only reports)"))
        })
    }

    /// The error of a commit that failed, after the settings that this apply had set are put back.
    fn undone(&mut self, error: EngineError, ruleset: &Ruleset, settings: &[Change]) -> ApplyError {
        let set = ruleset.host.settings == HostSettings::Set;
        let sysctls = self.sysctls.as_ref().filter(|_| set);
        let damage = sysctls.and_then(|sysctls| sysctls.undo(settings).err());
        ApplyError { reason: error.to_string(), damage: damage.map(|error| error.to_string()) }
    }

    fn roll_back_nftables(&mut self) -> Result<(), String> {
        let Some(engine) = &mut self.nftables else { return Ok(()) };
        match &self.applied {
            Some(applied) => {
                let back = engine.prepare(&applied.plans.nftables).and_then(|()| engine.commit());
                back.map(|_| ()).map_err(|error| error.to_string())
            }
            None if self.adopted_ids.is_empty() => engine.clear().map_err(|error| error.to_string()),
            // What the earlier run forwarded is known no more; forwarding by the new rules beats nothing.
            None => Err("nftables: the rules of an earlier run are replaced already".to_owned()),
        }
    }
}

/// What the plan needs of the host. Conntrack limits are nf_tables' business: without the engine they are not
/// touched.
pub fn needs(plan: &nftables::Plan, ruleset: &Ruleset, nftables: bool) -> Needs {
    let mut needs = Needs { route_localnet: plan.needs_route_localnet(), ..Needs::default() };
    for family in [Family::V4, Family::V6] {
        needs.set_forwarding(family, plan.needs_forwarding(family));
    }
    if nftables {
        needs.conntrack = ruleset.host.conntrack;
        needs.accounting = ruleset.host.conntrack.accounting && !plan.is_empty();
    }
    needs
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::fake::{Fakes, Script, candidate, controller};
    use super::*;

    /// An apply on top of a good one, with one step failing; the calls of the second apply.
    fn second_apply(fails: &'static str) -> (Fakes, Rc<Script>, Result<Report, ApplyError>) {
        let script = Rc::<Script>::default();
        let mut controller = controller(&script);
        controller.apply(candidate("10.0.0.1:80"), Moment::ZERO).unwrap();
        script.calls.borrow_mut().clear();
        script.fails.replace(vec![fails]);
        let result = controller.apply(candidate("10.0.0.2:80"), Moment::ZERO);
        (controller, script, result)
    }

    fn target(controller: &Fakes) -> String {
        controller.applied().unwrap().candidate.ruleset.rules[0].pool.to_string()
    }

    #[test]
    fn everything_is_prepared_before_anything_is_committed_and_sockets_close_last() {
        let (controller, script, result) = second_apply("nothing");
        result.unwrap();
        let order = ["proxy prepare", "nftables prepare", "nftables commit", "proxy commit"];
        assert_eq!(*script.calls.borrow(), order);
        assert_eq!(target(&controller), "10.0.0.2:80");
    }

    #[test]
    fn a_refused_preparation_commits_nothing() {
        for fails in ["proxy prepare", "nftables prepare"] {
            let (controller, script, result) = second_apply(fails);
            assert!(result.unwrap_err().to_string().ends_with("nothing was changed"));
            assert!(!script.calls.borrow().iter().any(|call| call.ends_with("commit")), "{fails}");
            assert_eq!(target(&controller), "10.0.0.1:80");
        }
    }

    #[test]
    fn a_failed_commit_of_the_first_engine_aborts_the_second() {
        let (controller, script, result) = second_apply("nftables commit");
        result.unwrap_err();
        assert_eq!(script.calls.borrow().last().unwrap(), "proxy abort");
        assert_eq!(target(&controller), "10.0.0.1:80");
    }

    #[test]
    fn a_failed_commit_of_the_second_engine_takes_the_first_back() {
        let (controller, script, result) = second_apply("proxy commit");
        assert!(result.unwrap_err().damage.is_none());
        let calls = script.calls.borrow();
        assert_eq!(calls[calls.len() - 2..], ["nftables prepare", "nftables commit"]);
        assert_eq!(target(&controller), "10.0.0.1:80");
    }

    #[test]
    fn clear_goes_on_past_a_failure_and_says_it() {
        let script = Rc::<Script>::default();
        let mut controller = controller(&script);
        controller.apply(candidate("10.0.0.1:80"), Moment::ZERO).unwrap();
        script.fails.replace(vec!["proxy clear"]);
        assert_eq!(controller.clear().unwrap_err().len(), 1);
        assert_eq!(script.calls.borrow().last().unwrap(), "nftables clear");
    }
}
