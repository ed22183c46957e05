//! What the controller asks of every engine. A contract only: engines live in crates of their own.
//!
//! An apply has two steps so that several engines change together: `prepare` does everything that can fail
//! and nothing that traffic can notice; `commit` switches. The controller prepares all engines, then commits
//! them in the order that never leaves a rule without a data plane (packets meet nf_tables before sockets, so
//! sockets are ready before nf_tables lets go). What meets packets before all others only adds in `commit`, and lets go
//! in a third step that cannot take the others back ([`Engine::retire`]).

use std::fmt;

use crate::flow::{FlowFilter, Flows};
use crate::ruleset::{EngineKind, RuleName};
use crate::snapshot::EngineSnapshot;

/// A data plane.
pub trait Engine {
    /// The plain data that the engine applies.
    type Plan;
    /// The difference of two plans.
    type Change;

    /// Which engine this is.
    fn kind(&self) -> EngineKind;

    /// Makes everything ready for `plan` (sockets bound, the kernel asked for its verdict) without changing
    /// what traffic meets. A second `prepare` replaces the first.
    ///
    /// # Errors
    /// What stands in the way. The running state is untouched and nothing is left prepared.
    fn prepare(&mut self, plan: &Self::Plan) -> Result<(), EngineError>;

    /// Switches to what was prepared, without disturbing established flows.
    ///
    /// # Errors
    /// The old state is still whole.
    fn commit(&mut self) -> Result<Changed, EngineError>;

    /// Lets go of what the committed plan has not: rules that are another engine's now. Called when every engine has
    /// committed, so that whoever takes over is ready; an engine whose commit does all of it has nothing to do here.
    ///
    /// # Errors
    /// What could not be let go of: it stays, and the next call tries again.
    fn retire(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Forgets what was prepared.
    fn abort(&mut self);

    /// Carries out at once what a changed fact changed in the plan that is in force: members of pools, never listeners.
    /// Established flows are not disturbed.
    ///
    /// # Errors
    /// What stood in the way. The old state is still whole; what was prepared is gone.
    fn adjust(&mut self, change: &Self::Change) -> Result<(), EngineError>;

    /// Ends the live flows that `filter` means (TCP by reset) and says how many there were.
    ///
    /// # Errors
    /// What could not be done; some may have ended.
    fn end_flows(&mut self, filter: &FlowFilter) -> Result<u64, EngineError>;

    /// A reader of what the engine does now, for another thread: with ten thousand rules or flows reading takes its
    /// time, and a backend that goes down must not wait for it.
    ///
    /// # Errors
    /// The reader could not be made.
    fn observer(&mut self) -> Result<Box<dyn Observer>, EngineError>;

    /// What the operator should know of what is in force, a sentence each; few, and known without looking.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Removes everything that the engine owns on this host and nothing else; ends the flows it carried.
    ///
    /// # Errors
    /// What could not be removed.
    fn clear(&mut self) -> Result<(), EngineError>;
}

/// Reads an engine beside its work.
pub trait Observer: Send {
    /// Reads counters and live flows.
    ///
    /// # Errors
    /// What could not be read.
    fn observe(&mut self) -> Result<EngineSnapshot, EngineError>;

    /// Lists live flows of the engine that `filter` means, at most `most` of them.
    ///
    /// # Errors
    /// What could not be read.
    fn flows(&mut self, filter: &FlowFilter, most: usize) -> Result<Flows, EngineError>;
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Things added or replaced (map elements, sockets, rules: the engine's own unit).
    pub added: usize,
    /// Things removed.
    pub removed: usize,
    /// Whether state of an earlier run was taken over rather than made.
    pub adopted: bool,
}

/// Why an engine could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineError {
    /// Which engine.
    pub engine: EngineKind,
    /// The rule concerned, where it is one.
    pub rule: Option<RuleName>,
    /// What was being done ("bind tcp/0.0.0.0:80").
    pub doing: String,
    /// What came back ("Address already in use (os error 98)").
    pub reason: String,
    /// What the user can do about it, where something is known.
    pub hint: Option<String>,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.engine)?;
        if let Some(rule) = &self.rule {
            write!(f, ", rule {rule}")?;
        }
        write!(f, ": {}: {}", self.doing, self.reason)?;
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for EngineError {}
