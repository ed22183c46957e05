//! The engine: plans in, commands to the workers, snapshots out.
//!
//! A plan is prepared by opening sockets, and committed by handing them to the workers. Pools are replaced in place
//! ([`Served`]), so that a changed fact needs no worker's attention.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use portway_core::address::{PortRange, Protocol};
use portway_core::engine::{Changed, Engine, EngineError, Observer};
use portway_core::flow::FlowFilter;
use portway_core::plan::proxy::{Change, Plan, RulePlan, Socket};
use portway_core::ruleset::{EngineKind, RuleName};

use crate::command::{Command, ListenerId};
use crate::limits::{self, Limits};
use crate::listen;
use crate::observe::ProxyObserver;
use crate::served::Served;
use crate::shared::{Log, Shared};
use crate::threads::Threads;

/// The proxy engine. Dropping it ends all connections.
pub struct ProxyEngine {
    shared: Arc<Shared>,
    threads: Threads,
    worker_count: usize,
    plan: Plan,
    listeners: BTreeMap<Socket, ListenerId>,
    /// Every rule in the plan, and removed ones that have connections still.
    rules: BTreeMap<RuleName, Served>,
    /// Ports that were ever ours: a bind there may meet our own sockets.
    used: BTreeSet<(Protocol, u16)>,
    next_listener: ListenerId,
    prepared: Option<Prepared>,
    files: usize,
}

struct Prepared {
    plan: Plan,
    workers: usize,
    /// New listeners: one socket per worker.
    open: Vec<(RuleName, Socket, PortRange, Vec<OwnedFd>)>,
    /// Listeners that stay and lead elsewhere or by other clocks.
    route: Vec<(RuleName, Socket, PortRange, ListenerId)>,
    remove: Vec<Socket>,
}

impl ProxyEngine {
    /// An engine that forwards nothing yet. `log` gets one line per message, from any thread; repeated messages
    /// are left out.
    pub fn new(log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared::new(Log::new(log))),
            threads: Threads::default(),
            worker_count: 0,
            plan: Plan::default(),
            listeners: BTreeMap::new(),
            rules: BTreeMap::new(),
            used: BTreeSet::new(),
            next_listener: 1,
            prepared: None,
            // Here already: what else counts its share of descriptors in this process shall count from the same number.
            files: limits::raise_file_limit(),
        }
    }

    /// The plan that is carried out now.
    pub fn plan(&self) -> &Plan {
        &self.plan
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

    /// Gives the rules of `plan` the pools and limits that they shall have.
    fn set_rules(&mut self, plan: &Plan) {
        let now = self.shared.now();
        for (name, rule) in &plan.rules {
            let before = self.plan.rules.get(name);
            if before == Some(rule) {
                continue;
            }
            let served = match self.rules.get_mut(name) {
                Some(served) => {
                    if before.is_none_or(|before| before.sockets != rule.sockets) {
                        served.part_from_pool();
                    }
                    served.replace_pool(&rule.pool, now);
                    served
                }
                None => {
                    let served = Served::new(name, self.worker_count, &rule.pool, now);
                    self.rules.entry(name.clone()).or_insert(served)
                }
            };
            let max = rule.max_connections.map_or(usize::MAX, |max| max.get() as usize);
            served.state.live.set_max(max);
        }
    }

    fn forget_rules(&mut self) {
        let plan = &self.plan;
        self.rules.retain(|name, served| plan.rules.contains_key(name) || served.state.live.get() > 0);
    }
}

fn failure(doing: &str, reason: impl ToString) -> EngineError {
    EngineError {
        engine: EngineKind::Proxy,
        rule: None,
        doing: doing.to_owned(),
        reason: reason.to_string(),
        hint: None,
    }
}

/// Whether the two plans of a rule differ in their pools at most.
fn same_but_for_pool(one: &RulePlan, other: &RulePlan) -> bool {
    one.sockets == other.sockets
        && one.source == other.source
        && one.timeouts == other.timeouts
        && one.max_connections == other.max_connections
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
        let workers = if self.threads.workers.len() == 0 { wanted } else { self.worker_count };
        if workers != wanted {
            self.shared.log.always("proxy: a changed number of workers takes effect at the next start");
        }
        let (mut open, mut route) = (Vec::new(), Vec::new());
        let mut closing: BTreeSet<&Socket> = self.listeners.keys().collect();
        let mut ports = self.used.clone();
        for (name, rule) in &plan.rules {
            let before = self.plan.rules.get(name);
            let stays = before.is_some_and(|before| {
                same_but_for_pool(
                    before,
                    &RulePlan { max_connections: before.max_connections, ..rule.clone() },
                )
            });
            for (socket, range) in &rule.sockets {
                closing.remove(socket);
                match self.listeners.get(socket) {
                    Some(_) if stays => {}
                    Some(id) => route.push((name.clone(), socket.clone(), *range, *id)),
                    None => {
                        let port = (socket.protocol, socket.port);
                        let sockets = listen::open(socket, name, workers, ports.contains(&port))?;
                        ports.insert(port);
                        open.push((name.clone(), socket.clone(), *range, sockets));
                    }
                }
            }
        }
        let remove = closing.into_iter().cloned().collect();
        self.prepared = Some(Prepared { plan: plan.clone(), workers, open, route, remove });
        Ok(())
    }

    fn commit(&mut self) -> Result<Changed, EngineError> {
        let Some(prepared) = self.prepared.take() else { return Ok(Changed::default()) };
        self.worker_count = prepared.workers;
        self.threads.start(prepared.workers, &self.shared).map_err(|e| failure("start a worker", e))?;
        let change = Plan::diff(&self.plan, &prepared.plan);
        let changed = Changed {
            added: change.added.values().chain(change.changed.values()).map(|rule| rule.sockets.len()).sum(),
            removed: prepared.remove.len(),
            adopted: false,
        };
        self.set_rules(&prepared.plan);
        let route_of = |name: &RuleName, socket: &Socket, ports: PortRange| {
            Some(self.rules.get(name)?.route(socket, ports, prepared.plan.rules.get(name)?))
        };
        let mut route = Vec::with_capacity(prepared.route.len());
        for (name, socket, ports, id) in &prepared.route {
            route.extend(route_of(name, socket, *ports).map(|route| (*id, route)));
        }
        let mut add: Vec<Vec<_>> = (0..self.threads.workers.len()).map(|_| Vec::new()).collect();
        for (name, socket, ports, sockets) in prepared.open {
            let Some(route) = route_of(&name, &socket, ports) else { continue };
            let id = self.next_listener;
            self.next_listener += 1;
            for (fd, add) in sockets.into_iter().zip(&mut add) {
                add.push((id, socket.protocol, fd, route.clone()));
            }
            self.used.insert((socket.protocol, socket.port));
            self.listeners.insert(socket, id);
        }
        let remove: Vec<ListenerId> =
            prepared.remove.iter().filter_map(|socket| self.listeners.remove(socket)).collect();
        self.set_limits(&prepared.plan, self.listeners.len() * self.threads.workers.len());
        self.plan = prepared.plan;
        self.forget_rules();
        let answers = self.threads.workers.ask(|worker, done| Command::Apply {
            add: std::mem::take(&mut add[worker]),
            route: route.clone(),
            remove: remove.clone(),
            done,
        });
        if answers.is_empty() {
            return Err(failure("hand listeners to the workers", "no worker answered"));
        }
        Ok(changed)
    }

    fn abort(&mut self) {
        self.prepared = None;
    }

    fn adjust(&mut self, change: &Change) -> Result<(), EngineError> {
        self.prepared = None;
        let only_pools = change.settings.is_none() && change.added.is_empty() && change.removed.is_empty();
        let mut changed = change.changed.iter();
        let fits = |(name, rule): (&RuleName, &RulePlan)| {
            self.rules.contains_key(name)
                && self.plan.rules.get(name).is_some_and(|planned| same_but_for_pool(planned, rule))
        };
        if !only_pools || !changed.all(fits) {
            return Err(failure("change members", "more than the members differs from the plan in force"));
        }
        let now = self.shared.now();
        // Those who wait for room may find it with the new members.
        let mut waited_for = self.shared.wanting.load(Relaxed) > 0;
        for (name, rule) in &change.changed {
            if let (Some(served), Some(planned)) = (self.rules.get_mut(name), self.plan.rules.get_mut(name)) {
                waited_for |= served.replace_pool(&rule.pool, now);
                planned.pool.clone_from(&rule.pool);
            }
        }
        if waited_for {
            self.threads.workers.tell(|_| Command::Look);
        }
        Ok(())
    }

    fn end_flows(&mut self, filter: &FlowFilter) -> Result<u64, EngineError> {
        Ok(self
            .threads
            .workers
            .ask(|_, answer| Command::End { filter: filter.clone(), answer })
            .into_iter()
            .sum())
    }

    fn observer(&mut self) -> Result<Box<dyn Observer>, EngineError> {
        self.forget_rules();
        Ok(Box::new(ProxyObserver {
            shared: self.shared.clone(),
            workers: self.threads.workers.clone(),
            rules: self.rules.clone(),
            listeners: self.listeners.len(),
            files: self.files,
        }))
    }

    fn clear(&mut self) -> Result<(), EngineError> {
        self.prepared = None;
        self.threads.stop(&self.shared);
        self.listeners.clear();
        self.rules.clear();
        self.plan = Plan::default();
        Ok(())
    }
}

impl Drop for ProxyEngine {
    fn drop(&mut self) {
        self.threads.stop(&self.shared);
    }
}
