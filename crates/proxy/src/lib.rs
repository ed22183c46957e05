//! Portway's proxy engine: a user-space TCP and UDP relay.
//!
//! One thread per core, each with its own epoll instance and its own SO_REUSEPORT listening sockets; see
//! the module `worker` for why there is no async runtime. [`ProxyEngine`] opens sockets, hands them to the workers and
//! adds up what they count.
//!
//! The process must ignore SIGPIPE, as Rust's runtime arranges: splice(2) has no flag against it.
//!
//! Deliberately absent: everything above the transport (PROXY protocol, TLS, balancing), and any change to the
//! host's settings.

mod context;
mod icmp;
mod limits;
mod listen;
mod pipes;
mod shared;
mod sys;
mod tcp;
mod timer;
mod token;
mod udp;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use portway_core::address::Protocol;
use portway_core::engine::{Changed, Engine, EngineError};
use portway_core::flow::{FlowFilter, Flows};
use portway_core::members::Meets;
use portway_core::plan::proxy::{Change, Plan, Socket};
use portway_core::ruleset::{EngineKind, RuleName};
use portway_core::snapshot::EngineSnapshot;

use crate::limits::Limits;
use crate::shared::{Log, Route, RuleState, Shared};
use crate::worker::{Command, ListenerId, Worker};

/// How long a worker may take to answer a command. Its loop never blocks, so this only catches defects.
const PATIENCE: Duration = Duration::from_secs(10);

/// The proxy engine. Dropping it ends all connections.
pub struct ProxyEngine {
    shared: Arc<Shared>,
    workers: Vec<Handle>,
    worker_count: usize,
    plan: Plan,
    listeners: BTreeMap<Socket, ListenerId>,
    /// Every rule in the plan, and removed ones that have connections still.
    rules: BTreeMap<RuleName, Arc<RuleState>>,
    /// Ports that were ever ours: a bind there may meet our own sockets.
    used: BTreeSet<(Protocol, u16)>,
    next_listener: ListenerId,
    prepared: Option<Prepared>,
    files: usize,
}

struct Handle {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

struct Prepared {
    plan: Plan,
    workers: usize,
    rules: BTreeMap<RuleName, Arc<RuleState>>,
    /// New listeners: one socket per worker.
    add: Vec<(Socket, Vec<OwnedFd>, Arc<Route>)>,
    /// Listeners that stay and lead elsewhere or by other clocks.
    route: Vec<(ListenerId, Arc<Route>)>,
    remove: Vec<Socket>,
}

impl ProxyEngine {
    /// An engine that forwards nothing yet. `log` gets one line per message, from any thread; repeated messages
    /// are left out.
    pub fn new(log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared::new(Log::new(log))),
            workers: Vec::new(),
            worker_count: 0,
            plan: Plan::default(),
            listeners: BTreeMap::new(),
            rules: BTreeMap::new(),
            used: BTreeSet::new(),
            next_listener: 1,
            prepared: None,
            files: 0,
        }
    }

    /// The plan that is carried out now.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn start_workers(&mut self, count: usize) -> Result<(), EngineError> {
        self.worker_count = count;
        for id in self.workers.len()..count {
            let (commands, receiver) = channel();
            let failed = |error: std::io::Error| failure("start a worker", error.to_string());
            let (worker, wake) = Worker::new(id, self.shared.clone(), receiver).map_err(failed)?;
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name(format!("proxy-{id}")).spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
                    shared.workers_failed.fetch_add(1, Relaxed);
                    shared.log.always(&format!(
                        "proxy: worker {id} has failed (a defect: please report it); its connections have ended, \
                         the other workers go on"
                    ));
                }
            });
            self.workers.push(Handle { commands, wake, thread: Some(thread.map_err(failed)?) });
        }
        Ok(())
    }

    fn stop_workers(&mut self) {
        for worker in &self.workers {
            // A worker that has failed is gone already.
            _ = worker.commands.send(Command::Stop);
            worker.wake();
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                _ = thread.join();
            }
        }
        self.workers.clear();
    }

    fn set_limits(&self, plan: &Plan, listeners: usize) {
        let limits = Limits::new(self.files, listeners, &plan.settings);
        self.shared.connections.set_max(limits.connections);
        self.shared.flows.set_max(limits.flows);
        self.shared.pipes.set_max(limits.pipes);
        if limits.exceed_files(listeners) {
            self.shared.log.always(&format!(
                "proxy: {} connections and {} flows need more than the {} files that may be open; accept pauses \
                 when they run out",
                limits.connections, limits.flows, limits.files
            ));
        }
    }
}

impl Handle {
    fn wake(&self) {
        // Fails only when the counter is at its end, and then the worker is being woken anyway.
        _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

fn failure(doing: &str, reason: String) -> EngineError {
    EngineError { engine: EngineKind::Proxy, rule: None, doing: doing.to_owned(), reason, hint: None }
}

impl Engine for ProxyEngine {
    type Plan = Plan;
    type Change = Change;

    fn kind(&self) -> EngineKind {
        EngineKind::Proxy
    }

    fn prepare(&mut self, plan: &Plan) -> Result<(), EngineError> {
        self.prepared = None;
        self.files = limits::raise_file_limit();
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = plan.settings.workers.map_or_else(cores, |workers| workers.get() as usize);
        let workers = if self.workers.is_empty() { wanted } else { self.worker_count };
        if workers != wanted {
            self.shared.log.always("proxy: a changed number of workers takes effect at the next start");
        }
        let mut prepared = Prepared {
            plan: plan.clone(),
            workers,
            rules: BTreeMap::new(),
            add: Vec::new(),
            route: Vec::new(),
            remove: Vec::new(),
        };
        let mut owners = BTreeMap::new();
        for (name, rule) in &self.plan.rules {
            owners.extend(rule.sockets.keys().map(|socket| (socket, (name, rule))));
        }
        let mut ports = self.used.clone();
        for (name, rule) in &plan.rules {
            let state = match self.rules.get(name) {
                Some(state) => state.clone(),
                None => Arc::new(RuleState::new(name.clone(), workers)),
            };
            for (socket, range) in &rule.sockets {
                let Meets::Members(members) = &rule.pool.meets else { continue };
                let target = members[0].target.socket(*range, socket.port);
                let route = || Arc::new(Route::new(state.clone(), target, &rule.source, &rule.timeouts));
                match (owners.remove(socket), self.listeners.get(socket)) {
                    (Some(owner), Some(_)) if owner == (name, rule) => {}
                    (Some(_), Some(id)) => prepared.route.push((*id, route())),
                    _ => {
                        let port = (socket.protocol, socket.port);
                        let sockets = listen::open(socket, name, workers, ports.contains(&port))?;
                        ports.insert(port);
                        prepared.add.push((socket.clone(), sockets, route()));
                    }
                }
            }
            prepared.rules.insert(name.clone(), state);
        }
        prepared.remove = owners.into_keys().cloned().collect();
        self.prepared = Some(prepared);
        Ok(())
    }

    fn commit(&mut self) -> Result<Changed, EngineError> {
        let Some(mut prepared) = self.prepared.take() else { return Ok(Changed::default()) };
        self.start_workers(prepared.workers)?;
        let changed = Changed {
            added: prepared.add.len() + prepared.route.len(),
            removed: prepared.remove.len(),
            adopted: false,
        };
        for (name, state) in &prepared.rules {
            let max = prepared.plan.rules.get(name).and_then(|rule| rule.max_connections);
            state.live.set_max(max.map_or(usize::MAX, |max| max.get() as usize));
        }
        let remove: Vec<ListenerId> =
            prepared.remove.iter().filter_map(|s| self.listeners.remove(s)).collect();
        let mut add: Vec<Vec<_>> = self.workers.iter().map(|_| Vec::new()).collect();
        for (socket, sockets, route) in prepared.add.drain(..) {
            let id = self.next_listener;
            self.next_listener += 1;
            for (fd, add) in sockets.into_iter().zip(&mut add) {
                add.push((id, socket.protocol, fd, route.clone()));
            }
            self.used.insert((socket.protocol, socket.port));
            self.listeners.insert(socket, id);
        }
        self.set_limits(&prepared.plan, self.listeners.len() * self.workers.len());
        let (done, answers) = channel();
        let mut waiting = 0;
        for (worker, add) in self.workers.iter().zip(add) {
            let (route, remove) = (prepared.route.clone(), remove.clone());
            if worker.commands.send(Command::Apply { add, route, remove, done: done.clone() }).is_ok() {
                worker.wake();
                waiting += 1;
            }
        }
        drop(done);
        self.rules.retain(|name, state| prepared.rules.contains_key(name) || state.live.get() > 0);
        self.rules.append(&mut prepared.rules);
        self.plan = prepared.plan;
        let mut answered = 0;
        while answered < waiting && answers.recv_timeout(PATIENCE).is_ok() {
            answered += 1;
        }
        if answered == 0 {
            return Err(failure("hand listeners to the workers", "no worker answered".to_owned()));
        }
        Ok(changed)
    }

    fn abort(&mut self) {
        self.prepared = None;
    }

    fn adjust(&mut self, _change: &Self::Change) -> Result<(), EngineError> {
        Err(failure("serve this", String::new()))
    }

    fn flows(&mut self, _filter: &FlowFilter, _most: usize) -> Result<Flows, EngineError> {
        Err(failure("serve this", String::new()))
    }

    fn end_flows(&mut self, _filter: &FlowFilter) -> Result<u64, EngineError> {
        Err(failure("serve this", String::new()))
    }

    fn observe(&mut self) -> Result<EngineSnapshot, EngineError> {
        let plan = &self.plan;
        self.rules.retain(|name, state| plan.rules.contains_key(name) || state.live.get() > 0);
        let shared = &self.shared;
        let gauges = [
            ("workers", self.workers.len() as u64),
            ("workers_failed", shared.workers_failed.load(Relaxed) as u64),
            ("listeners", self.listeners.len() as u64),
            ("connections", shared.connections.get() as u64),
            ("connections_max", shared.connections.max() as u64),
            ("udp_flows", shared.flows.get() as u64),
            ("udp_flows_max", shared.flows.max() as u64),
            ("udp_dropped", shared.udp_dropped.load(Relaxed)),
            ("icmp_refusals_sent", shared.icmp_sent.load(Relaxed)),
            ("open_pipes", shared.pipes.get() as u64),
            ("open_pipes_max", shared.pipes.max() as u64),
            ("accept_paused", shared.paused.load(Relaxed) as u64),
            ("accept_paused_total", shared.paused_total.load(Relaxed)),
            ("open_files_max", self.files as u64),
        ];
        Ok(EngineSnapshot {
            rules: self.rules.iter().map(|(name, state)| (name.to_string(), state.snapshot())).collect(),
            members: BTreeMap::new(),
            gauges: gauges.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }

    fn clear(&mut self) -> Result<(), EngineError> {
        self.prepared = None;
        self.stop_workers();
        self.listeners.clear();
        self.rules.clear();
        self.plan = Plan::default();
        Ok(())
    }
}

impl Drop for ProxyEngine {
    fn drop(&mut self) {
        self.stop_workers();
    }
}
