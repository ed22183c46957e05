//! Engines that only write down what they were asked, for the tests of the controller.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use portway_core::caps::Caps;
use portway_core::diagnostic::Source;
use portway_core::engine::{Changed, Engine, EngineError, Observer};
use portway_core::facts::Facts;
use portway_core::flow::FlowFilter;
use portway_core::plan::{ebpf, nftables, proxy};
use portway_core::ruleset::EngineKind;

use super::{Candidate, Controller};
use crate::load;

/// What the fakes were asked, in order, and which steps of which engines fail.
#[derive(Default)]
pub(super) struct Script {
    pub(super) calls: RefCell<Vec<String>>,
    pub(super) fails: RefCell<Vec<&'static str>>,
    /// Whether engines say that they have taken over what an earlier run left.
    pub(super) adopts: Cell<bool>,
}

pub(super) struct Fake<P, C> {
    kind: EngineKind,
    script: Rc<Script>,
    plan: std::marker::PhantomData<(P, C)>,
}

impl<P, C> Fake<P, C> {
    fn new(kind: EngineKind, script: &Rc<Script>) -> Self {
        Self { kind, script: Rc::clone(script), plan: std::marker::PhantomData }
    }

    fn step(&self, step: &str) -> Result<(), EngineError> {
        let call = format!("{} {step}", self.kind);
        self.script.calls.borrow_mut().push(call.clone());
        // Each fails once: going back afterwards works.
        let failing = self.script.fails.borrow().iter().position(|step| *step == call);
        if let Some(nth) = failing {
            self.script.fails.borrow_mut().remove(nth);
            let reason = "as the test wants".to_owned();
            return Err(EngineError { engine: self.kind, rule: None, doing: call, reason, hint: None });
        }
        Ok(())
    }
}

impl<P, C> Engine for Fake<P, C> {
    type Plan = P;
    type Change = C;
    fn kind(&self) -> EngineKind {
        self.kind
    }
    fn prepare(&mut self, _: &P) -> Result<(), EngineError> {
        self.step("prepare")
    }
    fn commit(&mut self) -> Result<Changed, EngineError> {
        self.step("commit").map(|()| Changed { adopted: self.script.adopts.get(), ..Changed::default() })
    }
    fn retire(&mut self) -> Result<(), EngineError> {
        self.step("retire")
    }
    fn abort(&mut self) {
        let _ = self.step("abort");
    }
    fn adjust(&mut self, _: &C) -> Result<(), EngineError> {
        self.step("adjust")
    }
    fn end_flows(&mut self, filter: &FlowFilter) -> Result<u64, EngineError> {
        let FlowFilter { backend, backend_port, protocol, .. } = filter;
        let backend = backend.zip(*backend_port).map(|(address, port)| format!(" {address}:{port}"));
        let protocol = protocol.as_ref().map(|protocol| format!(" {protocol}"));
        self.step(&format!("end{}{}", backend.unwrap_or_default(), protocol.unwrap_or_default())).map(|()| 0)
    }
    fn observer(&mut self) -> Result<Box<dyn Observer>, EngineError> {
        unimplemented!("no test of the controller reads")
    }
    fn clear(&mut self) -> Result<(), EngineError> {
        self.step("clear")
    }
}

pub(super) type Fakes = Controller<
    Fake<nftables::Plan, nftables::Change>,
    Fake<ebpf::Plan, ebpf::Change>,
    Fake<proxy::Plan, proxy::Change>,
>;

pub(super) fn controller(script: &Rc<Script>) -> Fakes {
    let nft = Fake::new(EngineKind::Nftables, script);
    let ebpf = Fake::new(EngineKind::Ebpf, script);
    let proxy = Fake::new(EngineKind::Proxy, script);
    Controller::new(Some(nft), Some(ebpf), proxy, None, nftables::Ids::default(), Facts::default())
}

pub(super) fn candidate(forward: &str) -> Arc<Candidate> {
    of_file(&format!("[[rule]]\nname = \"web\"\nlisten = \"0.0.0.0:80\"\nforward = \"{forward}\"\n"))
}

pub(super) fn of_file(text: &str) -> Arc<Candidate> {
    load::load(Source::new("test", text.to_owned()), &Caps::all()).candidate.map(Arc::new).unwrap()
}
