//! The engine: plans in, maps and programs brought to what they say, snapshots out.
//!
//! What it holds is shared with the thread that follows the host's interfaces and routes ([`crate::follow`]). Without rules it
//! holds nothing and leaves the host alone. Dropping it leaves everything at work: that is what a restart relies on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portway_core::engine::{Changed, Engine, EngineError, Observer};
use portway_core::flow::FlowFilter;
use portway_core::plan::ebpf::{Change, Plan};
use portway_core::ruleset::EngineKind;
use portway_datapath::abi::Port;

use crate::apply::Prepared;
use crate::attach::Attachments;
use crate::flow;
use crate::follow::Follower;
use crate::held::{Held, Log};
use crate::map::Table;
use crate::maps::FlowMemory;
use crate::observe::{EbpfObserver, Reader};
use crate::pins::Pins;
use crate::refusal::failure;
use crate::sweep::Sweeper;

/// Full NAT by programs on the interfaces.
pub struct EbpfEngine {
    pins: Pins,
    log: Log,
    held: Arc<Mutex<Option<Held>>>,
    prepared: Option<Ready>,
    threads: Option<(Follower, Sweeper)>,
}

/// What a commit finds.
enum Ready {
    /// There is nothing to hold, and nothing is held.
    Nothing,
    /// A plan.
    Plan(Box<Prepared>),
}

impl EbpfEngine {
    /// Opens the engine in the network namespace of the calling thread. Changes nothing. `log` gets one line per message, from
    /// any thread.
    ///
    /// # Errors
    /// When the kernel does not tell namespaces apart (before Linux 5.14).
    pub fn open(log: impl Fn(&str) + Send + Sync + 'static) -> Result<Self, EngineError> {
        let pins = Pins::here().map_err(|error| failure("find the network namespace", &error))?;
        Ok(Self { pins, log: Arc::new(log), held: Arc::default(), prepared: None, threads: None })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        // Who panicked left at most a plan half written, which the next one completes.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether maps of an earlier daemon are there.
    fn is_pinned(&self) -> bool {
        self.pins.maps().exists()
    }

    /// In what the maps differ from a plan, read afresh; nothing when they do not.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn verify(&mut self, plan: &Plan) -> Result<Vec<String>, EngineError> {
        match self.lock().as_mut() {
            Some(held) => held.verify(plan),
            None if plan.is_empty() => Ok(Vec::new()),
            None => Ok(vec!["there are no maps".to_owned()]),
        }
    }

    /// Starts the threads, if they do not run.
    fn start(&mut self, flows: Arc<FlowMemory>, ports: Table<u32, Port>) -> Result<(), EngineError> {
        if self.threads.is_none() {
            let start = |error| failure("start a thread", &error);
            let follower = Follower::start(Arc::clone(&self.held)).map_err(start)?;
            let sweeper = Sweeper::start(flows, ports, Arc::clone(&self.log)).map_err(start)?;
            self.threads = Some((follower, sweeper));
        }
        Ok(())
    }

    /// Lets go of what was made for a plan that never came.
    fn undo(&mut self) {
        let mut held = self.lock();
        if held.as_ref().is_some_and(|held| held.is_new) {
            *held = None;
            let _ = self.pins.clear();
        }
    }
}

impl Drop for EbpfEngine {
    fn drop(&mut self) {
        // What is in force stays; what was only made ready is nobody's.
        self.abort();
    }
}

impl Engine for EbpfEngine {
    type Plan = Plan;
    type Change = Change;

    fn kind(&self) -> EngineKind {
        EngineKind::Ebpf
    }

    fn prepare(&mut self, plan: &Plan) -> Result<(), EngineError> {
        self.abort();
        let held = Arc::clone(&self.held);
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let was_pinned = self.is_pinned();
        if held.is_none() && plan.is_empty() && !was_pinned {
            self.prepared = Some(Ready::Nothing);
            return Ok(());
        }
        let prepared = match held.as_mut() {
            Some(held) => held.prepare(plan),
            None => {
                let opened = Held::open(&self.pins, plan, Arc::clone(&self.log));
                opened.and_then(|opened| held.insert(opened).prepare(plan))
            }
        };
        drop(held);
        match prepared {
            Ok(prepared) => {
                self.prepared = Some(Ready::Plan(Box::new(prepared)));
                Ok(())
            }
            Err(error) => {
                self.undo();
                if !was_pinned && self.lock().is_none() {
                    let _ = self.pins.clear();
                }
                Err(error)
            }
        }
    }

    fn commit(&mut self) -> Result<Changed, EngineError> {
        let Some(Ready::Plan(prepared)) = self.prepared.take() else { return Ok(Changed::default()) };
        let (changed, maps) = {
            let mut held = self.lock();
            let Some(held) = held.as_mut() else { return Ok(Changed::default()) };
            (held.commit(*prepared)?, Arc::clone(&held.maps))
        };
        // Neither is made anew when maps grow.
        self.start(Arc::clone(&maps.flows), maps.ports.clone())?;
        Ok(changed)
    }

    fn retire(&mut self) -> Result<(), EngineError> {
        let is_needed = match self.lock().as_mut() {
            None => return Ok(()),
            Some(held) => {
                held.retire()?;
                !held.plan.is_empty() || flow::any_live(&held.maps.flows)
            }
        };
        // Programs that nothing needs would cost every packet of the host a look. Flows that live on keep them until the
        // next plan.
        if is_needed { Ok(()) } else { self.clear() }
    }

    fn abort(&mut self) {
        if let Some(Ready::Plan(prepared)) = self.prepared.take() {
            if let Some(held) = self.lock().as_mut() {
                held.abort(&prepared);
            }
            self.undo();
        }
    }

    fn adjust(&mut self, change: &Change) -> Result<(), EngineError> {
        self.abort();
        if change.is_empty() {
            return Ok(());
        }
        let nothing = || crate::refusal::refused("change members", "no plan is in force");
        self.lock().as_mut().ok_or_else(nothing)?.adjust(change)
    }

    fn end_flows(&mut self, filter: &FlowFilter) -> Result<u64, EngineError> {
        let mut held = self.lock();
        let Some(held) = held.as_mut() else { return Ok(0) };
        let known = held.known();
        Ok(flow::end(&held.maps.flows, &known.rules, filter))
    }

    fn observer(&mut self) -> Result<Box<dyn Observer>, EngineError> {
        let mut held = self.lock();
        let reader = held.as_mut().map(|held| Reader {
            maps: Arc::clone(&held.maps),
            known: held.known(),
            figures: held.figures(),
        });
        Ok(Box::new(EbpfObserver(reader)))
    }

    fn notes(&self) -> Vec<String> {
        self.lock().as_ref().map_or_else(Vec::new, Held::notes)
    }

    fn clear(&mut self) -> Result<(), EngineError> {
        self.prepared = None;
        self.threads = None;
        *self.lock() = None;
        if let Ok(mut attachments) = Attachments::open(&self.pins) {
            for interface in attachments.interfaces() {
                attachments.detach(interface);
            }
        }
        self.pins.clear().map_err(|error| failure("remove /sys/fs/bpf/portway", &error))
    }
}
