//! The engine: brings the kernel's table from what it holds to what the plan says, in one atomic batch.
//!
//! What the kernel holds is read once and then remembered together with the generation of the kernel's
//! ruleset. Every batch is valid for that generation only, so a change by somebody else in between is noticed
//! by the kernel itself; then the table is read again.

use std::io;
use std::sync::Arc;

use portway_core::engine::{Changed, Engine, EngineError, Observer};
use portway_core::flow::FlowFilter;
use portway_core::plan::nftables::table::Chain;
use portway_core::plan::nftables::{Change, Ids, Plan, Value};
use portway_core::ruleset::EngineKind;
use portway_netlink::socket::{Refusal, Socket};
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use crate::adjust::Forget;
use crate::conntrack;
use crate::decode::{self, Held};
use crate::encode::{Batch, Subject};
use crate::flow;
use crate::observe::NftablesObserver;
use crate::refusal::{failure, refusal_error, too_busy};

/// How often a commit is tried again because others change the ruleset at the same time.
pub const TRIES: usize = 20;

/// NAT by the kernel's nf_tables.
pub struct NftablesEngine {
    pub(crate) socket: Socket,
    /// What the kernel held in a generation of its ruleset.
    pub(crate) held: Option<(u32, Held)>,
    /// The rules of the last commit, by which flows are named. Members come and go without it.
    ids: Arc<Ids>,
    pub(crate) prepared: Option<Prepared>,
    /// Whether the table of an earlier run was found and not yet reported.
    adopted: bool,
    /// Whether this engine has committed.
    has_committed: bool,
    /// The rules of which a member has gone for which clients may still be remembered.
    pub(crate) forget: Forget,
}

/// A way to a plan that the kernel has rehearsed.
pub(crate) struct Prepared {
    /// The generation of the ruleset from which it leads.
    generation: u32,
    batch: Batch,
    change: Change,
    /// Whether a table that the batch makes begins with the guard chain.
    guard: bool,
    /// The plan to which it leads, once `held` is no longer what it leads from. Until then the plan follows
    /// from `held` and `change`, and ten thousand rules need not be copied.
    plan: Option<Plan>,
}

impl NftablesEngine {
    /// Opens the engine in the network namespace of the calling thread. Changes nothing.
    ///
    /// # Errors
    /// When the kernel offers no netfilter sockets.
    pub fn open() -> Result<Self, EngineError> {
        let socket =
            Socket::open(Some(NETFILTER)).map_err(|error| failure("open a netfilter socket", &error))?;
        Ok(Self {
            socket,
            held: None,
            ids: Arc::default(),
            prepared: None,
            adopted: false,
            has_committed: false,
            forget: Forget::All,
        })
    }

    /// The ids of the rules in the kernel's table; none when there is no table of this version.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn previous_ids(&mut self) -> Result<Ids, EngineError> {
        Ok(match self.sync()? {
            (_, Held::Ours(plan)) => plan.ids(),
            (_, Held::Nothing | Held::Other) => Ids::default(),
        })
    }

    /// In what the kernel's table differs from a plan, read afresh; nothing when it does not.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn verify(&mut self, plan: &Plan) -> Result<Vec<String>, EngineError> {
        let (_, held) = decode::read(&mut self.socket).map_err(|error| failure("read the table", &error))?;
        let held = match held {
            Held::Nothing if plan.is_empty() => return Ok(Vec::new()),
            Held::Nothing => return Ok(vec!["there is no table inet portway".to_owned()]),
            Held::Other => return Ok(vec!["table inet portway is not of this version".to_owned()]),
            Held::Ours(held) => held,
        };
        let change = Plan::diff(&held, plan);
        let key = |values: &[Value]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . ");
        let mut differences = Vec::new();
        for (set, keys) in &change.remove {
            let name = set.shape().name;
            differences.extend(keys.iter().map(|found| format!("{name}: {} is stale", key(found))));
        }
        for (set, elements) in &change.add {
            let name = set.shape().name;
            differences.extend(elements.keys().map(|missing| format!("{name}: {} is missing", key(missing))));
        }
        let objects = |prefix: &'static str| move |name: &str| format!("ct helper {name} is {prefix}");
        differences.extend(change.add_helpers.iter().map(|object| objects("missing")(object.name())));
        differences.extend(change.remove_helpers.iter().map(|object| objects("stale")(object.name())));
        let own = |chain: Chain, what: &str| format!("chain {} is {what}", chain.name());
        differences.extend(change.add_chains.keys().map(|chain| own(*chain, "missing or another")));
        let gone = change.remove_chains.iter().filter(|chain| !change.add_chains.contains_key(chain));
        differences.extend(gone.map(|chain| own(*chain, "stale")));
        if let Some(wanted) = change.guard {
            differences.push(format!("chain guard is {}", if wanted { "missing" } else { "stale" }));
        }
        Ok(differences)
    }

    /// What the kernel holds now, read only when its ruleset has changed since the last time.
    fn sync(&mut self) -> Result<(u32, &Held), EngineError> {
        let read = |error: &io::Error| failure("read the nf_tables ruleset", error);
        let generation = decode::generation(&mut self.socket).map_err(|error| read(&error))?;
        if self.held.as_ref().is_none_or(|(known, _)| *known != generation) {
            if let Some(mut way) = self.prepared.take() {
                way.plan = Some(self.destination(&mut way));
                self.prepared = Some(way);
            }
            self.held = Some(decode::read(&mut self.socket).map_err(|error| read(&error))?);
        }
        match &self.held {
            Some((generation, held)) => {
                self.adopted |= !self.has_committed && matches!(held, Held::Ours(_));
                Ok((*generation, held))
            }
            None => Err(failure("read the nf_tables ruleset", &io::ErrorKind::NotFound.into())),
        }
    }

    /// The way from what the kernel holds to `plan`.
    fn way(&mut self, plan: &Plan, one_by_one: bool) -> Result<Prepared, EngineError> {
        let (generation, _) = self.sync()?;
        let first = self.socket.sequences(0);
        let held = self.held.as_ref().map_or(&Held::Nothing, |(_, held)| held);
        let mut batch = Batch::new(first, Some(generation));
        if one_by_one {
            batch = batch.one_by_one();
        }
        let empty = Plan::empty(plan.guard);
        let old = match held {
            Held::Ours(held) => held,
            Held::Nothing | Held::Other => &empty,
        };
        let change = Plan::diff(old, plan);
        if matches!(held, Held::Other) {
            batch.delete_table();
        }
        // No table while no rule needs one: its hooks alone would have the kernel track every connection of the
        // host. A table that its last rule has left stays, for the sake of the flows that live on.
        if matches!(held, Held::Other) || matches!(held, Held::Nothing) && !plan.is_empty() {
            batch.create_table(plan.guard);
        }
        batch.change(&change);
        let used = batch.next_sequence().wrapping_sub(first).wrapping_add(1);
        self.socket.sequences(used);
        Ok(Prepared { generation, batch, change, guard: plan.guard, plan: None })
    }

    /// Finds a way to `plan` that the kernel would go.
    fn find_way(&mut self, plan: &Plan) -> Result<Prepared, EngineError> {
        for _ in 0..TRIES {
            let way = self.way(plan, false)?;
            let refusals = if way.batch.is_empty() { Vec::new() } else { self.rehearse(&way.batch)? };
            if refusals.is_empty() {
                return Ok(way);
            }
            self.held = None;
            if !is_outdated(&way.batch, &refusals) {
                return Err(self.explain(plan, &way.batch, &refusals));
            }
        }
        Err(too_busy())
    }

    /// The plan to which a prepared way leads. Forgets what the kernel held.
    fn destination(&mut self, way: &mut Prepared) -> Plan {
        if let Some(plan) = way.plan.take() {
            return plan;
        }
        let base = match self.held.take() {
            Some((_, Held::Ours(held))) => held,
            _ => Plan::empty(way.guard),
        };
        base.apply(&way.change)
    }

    /// Takes note of a way that the kernel has gone.
    fn committed(&mut self, mut way: Prepared) -> Changed {
        let changed =
            Changed { added: way.change.added(), removed: way.change.removed(), adopted: self.adopted };
        if !way.batch.is_empty() {
            // Nobody else's change was in between, or the batch would have been refused.
            self.held = Some((after(way.generation), Held::Ours(self.destination(&mut way))));
            // The table forwards already; a flow that stays stuck is no reason to report it as failed.
            let _ = conntrack::release_udp(&mut self.socket, &way.change);
        }
        if let Some((_, Held::Ours(plan))) = &self.held {
            self.ids = Arc::new(plan.ids().after(&self.ids));
        }
        self.forget_clients(&way.change);
        (self.adopted, self.has_committed) = (false, true);
        changed
    }

    fn rehearse(&mut self, batch: &Batch) -> Result<Vec<Refusal>, EngineError> {
        let first = batch.first_sequence();
        let refusals = self.socket.batch(batch.rehearsal(), first);
        refusals.map_err(|error| failure("ask the kernel for its verdict", &error))
    }

    /// Why the kernel refuses the way to `plan`, as narrowly as it says: the whole is asked again with every
    /// element in a message of its own.
    fn explain(&mut self, plan: &Plan, refused: &Batch, refusals: &[Refusal]) -> EngineError {
        let elements =
            |refusal: &Refusal| matches!(refused.subject(refusal.sequence), Some(Subject::Elements(..)));
        if refusals.iter().any(elements)
            && let Ok(single) = self.way(plan, true)
            && let Ok(refusals) = self.rehearse(&single.batch)
            && !refusals.is_empty()
        {
            return refusal_error(plan, &single.batch, &refusals);
        }
        refusal_error(plan, refused, refusals)
    }
}

/// The generation of the kernel's ruleset after a change: it counts from 1 and skips 0.
pub fn after(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// Whether the kernel says that its ruleset is not the one that the batch was made for.
pub fn is_outdated(batch: &Batch, refusals: &[Refusal]) -> bool {
    refusals.iter().any(|refusal| {
        batch.subject(refusal.sequence).is_none() && matches!(refusal.error, Errno::RESTART | Errno::AGAIN)
    })
}

impl Engine for NftablesEngine {
    type Plan = Plan;
    type Change = Change;

    fn kind(&self) -> EngineKind {
        EngineKind::Nftables
    }

    fn prepare(&mut self, plan: &Plan) -> Result<(), EngineError> {
        self.prepared = None;
        self.prepared = Some(self.find_way(plan)?);
        Ok(())
    }

    fn commit(&mut self) -> Result<Changed, EngineError> {
        let Some(mut way) = self.prepared.take() else {
            return Ok(Changed::default());
        };
        for _ in 0..TRIES {
            let generation = decode::generation(&mut self.socket);
            let generation = generation.map_err(|error| failure("read the nf_tables ruleset", &error))?;
            let refusals = if generation != way.generation {
                None
            } else if way.batch.is_empty() {
                Some(Vec::new())
            } else {
                let first = way.batch.first_sequence();
                let refusals = self.socket.batch(way.batch.finish(), first);
                Some(refusals.map_err(|error| failure("change the nf_tables ruleset", &error))?)
            };
            let plan = match refusals {
                Some(refusals) if refusals.is_empty() => return Ok(self.committed(way)),
                Some(refusals) if !is_outdated(&way.batch, &refusals) => {
                    let plan = self.destination(&mut way);
                    return Err(self.explain(&plan, &way.batch, &refusals));
                }
                // Somebody else changed the ruleset since: look again.
                _ => self.destination(&mut way),
            };
            way = self.find_way(&plan)?;
        }
        Err(too_busy())
    }

    fn abort(&mut self) {
        self.prepared = None;
    }

    fn adjust(&mut self, change: &Change) -> Result<(), EngineError> {
        self.adjust_members(change)
    }

    fn end_flows(&mut self, filter: &FlowFilter) -> Result<u64, EngineError> {
        flow::end(&mut self.socket, &self.ids, filter).map_err(|error| failure("end flows", &error))
    }

    fn observer(&mut self) -> Result<Box<dyn Observer>, EngineError> {
        Ok(Box::new(NftablesObserver::open(Arc::clone(&self.ids))?))
    }

    fn clear(&mut self) -> Result<(), EngineError> {
        self.prepared = None;
        self.held = None;
        let mut batch = Batch::new(self.socket.sequences(3), None);
        batch.delete_table();
        let first = batch.first_sequence();
        let refusals = self.socket.batch(batch.finish(), first);
        let refusals = refusals.map_err(|error| failure("delete table inet portway", &error))?;
        if let Some(refusal) = refusals.iter().find(|refusal| refusal.error != Errno::NOENT) {
            return Err(failure("delete table inet portway", &refusal.error.into()));
        }
        (self.adopted, self.has_committed) = (false, false);
        self.forget = Forget::All;
        conntrack::delete_ours(&mut self.socket)
            .map_err(|error| failure("delete the conntrack entries", &error))
    }
}
