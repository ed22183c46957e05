//! The controller: the only mutable state. It owns the engines and the facts, and knows what is applied.
//!
//! An apply is all or nothing across the engines and the host's settings. Every engine prepares first; nothing
//! that traffic can notice happens until all of them and the host have agreed. Packets meet the ebpf engine's programs
//! before nf_tables, and nf_tables before sockets, so new sockets are bound before nf_tables changes and old ones closed
//! after, and the programs learn new rules before nf_tables changes and let go of old ones after all others
//! ([`Engine::retire`]): a rule that moves between engines never stands without a data plane.
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
use portway_core::plan::{Plans, World, ebpf, nftables, proxy};
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
    /// What could not be let go of; it is tried again ([`Controller::tick`]).
    pub left: Option<String>,
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
pub struct Controller<N, E, P> {
    /// Absent where the host or the privilege does not allow it; no rule is assigned to it then.
    nftables: Option<N>,
    /// Likewise.
    ebpf: Option<E>,
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

impl<N, E, P> Controller<N, E, P>
where
    N: Engine<Plan = nftables::Plan, Change = nftables::Change>,
    E: Engine<Plan = ebpf::Plan, Change = ebpf::Change>,
    P: Engine<Plan = proxy::Plan, Change = proxy::Change>,
{
    /// A controller that has applied nothing yet. `adopted_ids` are read back from the kernel, `facts` are what an
    /// earlier run left (the operator's orders, names as they were last).
    pub fn new(
        nftables: Option<N>,
        ebpf: Option<E>,
        proxy: P,
        sysctls: Option<Sysctls>,
        adopted_ids: nftables::Ids,
        facts: Facts,
    ) -> Self {
        let (concern, pending) = (Concern::default(), Pending::default());
        Self {
            nftables,
            ebpf,
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
        if let Err((failed, error)) = self.commit(&mut report.changed) {
            return Err(self.undone(failed, error, &candidate.ruleset, &report));
        }
        self.applied = Some(Applied { candidate, plans });
        (self.facts, self.concern) = (Arc::new(facts), concern);
        self.note_applied(now);
        // Every rule is served by now. What is left of the old ones takes nothing from them that does not come back.
        report.left = self.retire(now).err().map(|error| error.to_string());
        Ok(report)
    }

    /// Ends the flows that `filter` means, on every engine or on one, and says how many there were.
    ///
    /// # Errors
    /// The first engine that failed; flows of the others may have ended.
    pub fn end_flows(&mut self, filter: &FlowFilter, only: Option<EngineKind>) -> Result<u64, EngineError> {
        let wanted = |kind| only.is_none_or(|only| only == kind);
        let mut ended = 0;
        if let Some(engine) = self.nftables.as_mut().filter(|_| wanted(EngineKind::Nftables)) {
            ended += engine.end_flows(filter)?;
        }
        if let Some(engine) = self.ebpf.as_mut().filter(|_| wanted(EngineKind::Ebpf)) {
            ended += engine.end_flows(filter)?;
        }
        if wanted(EngineKind::Proxy) {
            ended += self.proxy.end_flows(filter)?;
        }
        Ok(ended)
    }

    /// What the operator should know of what is in force ([`Engine::notes`]).
    pub fn notes(&self) -> Vec<String> {
        let nftables = self.nftables.iter().flat_map(Engine::notes);
        let ebpf = self.ebpf.iter().flat_map(Engine::notes);
        nftables.chain(ebpf).chain(self.proxy.notes()).collect()
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
        if let Some(engine) = self.ebpf.as_mut().filter(|_| wanted(EngineKind::Ebpf)) {
            observers.push((EngineKind::Ebpf, engine.observer()?));
        }
        if wanted(EngineKind::Proxy) {
            observers.push((EngineKind::Proxy, self.proxy.observer()?));
        }
        Ok(observers)
    }

    /// Removes every trace: all engines' state and the host settings. Goes on past a failure.
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
        if let Some(Err(error)) = self.ebpf.as_mut().map(Engine::clear) {
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
        let prepared = self.prepare_engines(plans).map_err(|error| error.to_string());
        let needs = needs(plans, ruleset, self.nftables.is_some());
        let set = prepared.and_then(|()| {
            let Some(sysctls) = &mut self.sysctls else { return Ok(Vec::new()) };
            sysctls.apply(&needs, ruleset.host.settings).map_err(|error| {
                format!("host settings: {error} (hint: host.settings = \"check\" only reports)")
            })
        });
        set.map_err(|reason| {
            self.abort();
            ApplyError { reason, damage: None }
        })
    }

    fn prepare_engines(&mut self, plans: &Plans) -> Result<(), EngineError> {
        self.proxy.prepare(&plans.proxy)?;
        if let Some(engine) = &mut self.nftables {
            engine.prepare(&plans.nftables)?;
        }
        if let Some(engine) = &mut self.ebpf {
            engine.prepare(&plans.ebpf)?;
        }
        Ok(())
    }

    /// Switches every engine to what was prepared, those that packets meet first first, and says what each changed.
    fn commit(&mut self, changed: &mut Vec<(EngineKind, Changed)>) -> Result<(), (EngineKind, EngineError)> {
        let mut note = |kind, result: Result<Changed, EngineError>| match result {
            Ok(done) => {
                changed.push((kind, done));
                Ok(())
            }
            Err(error) => Err((kind, error)),
        };
        if let Some(engine) = &mut self.ebpf {
            note(EngineKind::Ebpf, engine.commit())?;
        }
        if let Some(engine) = &mut self.nftables {
            note(EngineKind::Nftables, engine.commit())?;
        }
        note(EngineKind::Proxy, self.proxy.commit())
    }

    /// Has the engine that meets packets before the others let go of what is theirs now; tried again later where it
    /// cannot.
    fn retire(&mut self, now: Moment) -> Result<(), EngineError> {
        let retired = self.ebpf.as_mut().map_or(Ok(()), Engine::retire);
        self.pending.retry_unless(&retired, now);
        retired
    }

    /// Forgets what was prepared.
    fn abort(&mut self) {
        self.proxy.abort();
        if let Some(engine) = &mut self.nftables {
            engine.abort();
        }
        if let Some(engine) = &mut self.ebpf {
            engine.abort();
        }
    }

    /// The error of a commit that failed on the engine `failed`, after those that had switched and the settings that
    /// this apply had set are taken back. Their order is not that of the commit: nf_tables serves its old rules again
    /// before the programs in front of it let go of them.
    fn undone(
        &mut self,
        failed: EngineKind,
        error: EngineError,
        ruleset: &Ruleset,
        report: &Report,
    ) -> ApplyError {
        self.abort();
        let mut damage = Vec::new();
        if failed == EngineKind::Proxy {
            damage.extend(self.roll_back_nftables().err());
        }
        if failed != EngineKind::Ebpf {
            let adopted = report.changed.iter().any(|(kind, done)| *kind == EngineKind::Ebpf && done.adopted);
            damage.extend(self.roll_back_ebpf(adopted).err());
        }
        let set = ruleset.host.settings == HostSettings::Set;
        if let Some(sysctls) = self.sysctls.as_ref().filter(|_| set) {
            damage.extend(sysctls.undo(&report.settings).err().map(|error| error.to_string()));
        }
        let damage = damage.into_iter().reduce(|one, other| format!("{one}; {other}"));
        ApplyError { reason: error.to_string(), damage }
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

    fn roll_back_ebpf(&mut self, adopted: bool) -> Result<(), String> {
        let Some(engine) = &mut self.ebpf else { return Ok(()) };
        match &self.applied {
            Some(applied) => {
                let back = engine.prepare(&applied.plans.ebpf).and_then(|()| engine.commit());
                back.and_then(|_| engine.retire()).map_err(|error| error.to_string())
            }
            None if !adopted => engine.clear().map_err(|error| error.to_string()),
            // As above.
            None => Err("ebpf: the rules of an earlier run are replaced already".to_owned()),
        }
    }
}

/// What the plans need of the host. Conntrack limits are nf_tables' business: without the engine they are not
/// touched.
pub fn needs(plans: &Plans, ruleset: &Ruleset, nftables: bool) -> Needs {
    let nat = &plans.nftables;
    let mut needs = Needs {
        route_localnet: nat.needs_route_localnet(),
        reserved_ports: plans.ebpf.reserved_ports(),
        ..Needs::default()
    };
    for family in [Family::V4, Family::V6] {
        needs.set_forwarding(family, nat.needs_forwarding(family) || plans.ebpf.needs_forwarding(family));
    }
    if nftables {
        needs.conntrack = ruleset.host.conntrack;
        needs.accounting = ruleset.host.conntrack.accounting && !nat.is_empty();
    }
    needs
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::fake::{Fakes, Script, candidate, controller, of_file};
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
    fn everything_is_prepared_before_anything_is_committed_and_old_rules_go_last() {
        let (controller, script, result) = second_apply("nothing");
        result.unwrap();
        let order = [
            "proxy prepare",
            "nftables prepare",
            "ebpf prepare",
            "ebpf commit",
            "nftables commit",
            "proxy commit",
            "ebpf retire",
        ];
        assert_eq!(*script.calls.borrow(), order);
        assert_eq!(target(&controller), "10.0.0.2:80");
    }

    #[test]
    fn a_refused_preparation_commits_nothing_and_leaves_nothing_prepared() {
        for fails in ["proxy prepare", "nftables prepare", "ebpf prepare"] {
            let (controller, script, result) = second_apply(fails);
            assert!(result.unwrap_err().to_string().ends_with("nothing was changed"));
            let calls = script.calls.borrow();
            assert!(!calls.iter().any(|call| call.ends_with("commit")), "{fails}");
            assert_eq!(calls[calls.len() - 3..], ["proxy abort", "nftables abort", "ebpf abort"], "{fails}");
            assert_eq!(target(&controller), "10.0.0.1:80");
        }
    }

    /// The calls after the one that failed.
    fn after(script: &Script, failed: &str) -> Vec<String> {
        let calls = script.calls.borrow();
        let at = calls.iter().position(|call| call == failed).unwrap();
        calls[at + 1..].to_vec()
    }

    const ABORTS: [&str; 3] = ["proxy abort", "nftables abort", "ebpf abort"];
    const EBPF_BACK: [&str; 3] = ["ebpf prepare", "ebpf commit", "ebpf retire"];

    #[test]
    fn a_failed_commit_takes_back_those_that_were_first() {
        for (fails, back) in [
            ("ebpf commit", [&ABORTS[..]].concat()),
            ("nftables commit", [&ABORTS[..], &EBPF_BACK[..]].concat()),
            (
                "proxy commit",
                [&ABORTS[..], &["nftables prepare", "nftables commit"], &EBPF_BACK[..]].concat(),
            ),
        ] {
            let (controller, script, result) = second_apply(fails);
            assert!(result.unwrap_err().damage.is_none(), "{fails}");
            assert_eq!(after(&script, fails), back, "{fails}");
            assert_eq!(target(&controller), "10.0.0.1:80");
        }
    }

    /// Nothing was applied before: what was begun is removed, and the rules of an earlier run are known no more.
    #[test]
    fn a_first_apply_that_fails_clears() {
        let script = Rc::<Script>::default();
        let mut controller = controller(&script);
        script.fails.replace(vec!["proxy commit"]);
        let error = controller.apply(candidate("10.0.0.1:80"), Moment::ZERO).unwrap_err();
        assert!(error.damage.is_none());
        assert_eq!(after(&script, "proxy commit"), [&ABORTS[..], &["nftables clear", "ebpf clear"]].concat());
        script.adopts.set(true);
        script.fails.replace(vec!["proxy commit"]);
        let error = controller.apply(candidate("10.0.0.1:80"), Moment::ZERO).unwrap_err();
        assert_eq!(error.damage.as_deref(), Some("ebpf: the rules of an earlier run are replaced already"));
    }

    /// The rules are served; what is left of the old ones is tried again.
    #[test]
    fn what_could_not_be_let_go_of_is_said_and_tried_again() {
        let (mut controller, script, result) = second_apply("ebpf retire");
        assert!(result.unwrap().left.unwrap().contains("ebpf retire"));
        assert_eq!(target(&controller), "10.0.0.2:80");
        assert!(controller.lags());
        script.calls.borrow_mut().clear();
        controller.tick(controller.due().unwrap()).unwrap();
        assert_eq!(script.calls.borrow().last().unwrap(), "ebpf retire");
        assert!(!controller.lags() && controller.due().is_none());
    }

    #[test]
    fn what_the_host_must_do_is_what_any_engine_needs() {
        let needs = |engine: &str, forward: &str| {
            let text =
                format!("[[rule]]\nlisten = '0.0.0.0:80'\nforward = '{forward}'\nengine = '{engine}'\n");
            let candidate = of_file(&text);
            let facts = Facts::default();
            let world = Applied::world(&candidate, &facts, Moment::ZERO);
            needs(&Plans::new(world, &nftables::Ids::default()), &candidate.ruleset, true)
        };
        let nat = needs("nftables", "10.0.0.1");
        assert!(nat.forward_v4 && !nat.forward_v6 && nat.accounting && nat.reserved_ports.is_none());
        let ebpf = needs("ebpf", "[fd00::1]");
        assert!(ebpf.forward_v4 && ebpf.forward_v6 && !ebpf.accounting && !ebpf.route_localnet);
        assert_eq!(ebpf.reserved_ports.unwrap().to_string(), "40000-65535");
        let relay = needs("proxy", "[fd00::1]");
        assert!(!relay.forward_v4 && !relay.forward_v6 && relay.reserved_ports.is_none());
    }

    #[test]
    fn clear_goes_on_past_a_failure_and_says_it() {
        let script = Rc::<Script>::default();
        let mut controller = controller(&script);
        controller.apply(candidate("10.0.0.1:80"), Moment::ZERO).unwrap();
        script.fails.replace(vec!["proxy clear", "nftables clear"]);
        assert_eq!(controller.clear().unwrap_err().len(), 2);
        assert_eq!(script.calls.borrow().last().unwrap(), "ebpf clear");
    }
}
