//! The engine: brings the kernel's table from what it holds to what the plan says, in one atomic batch.
//!
//! What the kernel holds is read once and then remembered together with the generation of the kernel's
//! ruleset. Every batch is valid for that generation only, so a change by somebody else in between is noticed
//! by the kernel itself; then the table is read again.

use std::io;

use portway_core::engine::{Changed, Engine, EngineError};
use portway_core::plan::nftables::{Change, Direction, Ids, Plan, RuleId, Set, Value, mark_of};
use portway_core::ruleset::{EngineKind, RuleName};
use portway_core::snapshot::EngineSnapshot;
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use crate::conntrack;
use crate::decode::{self, Held};
use crate::encode::{Batch, Subject};
use crate::socket::{Refusal, Socket};

/// How often a commit is tried again because others change the ruleset at the same time.
const TRIES: usize = 20;

/// NAT by the kernel's nf_tables.
pub struct NftablesEngine {
    socket: Socket,
    /// What the kernel held in a generation of its ruleset.
    held: Option<(u32, Held)>,
    prepared: Option<Plan>,
    /// Whether the table of an earlier run was found and not yet reported.
    adopted: bool,
    /// Whether this engine has committed.
    committed: bool,
}

impl NftablesEngine {
    /// Opens the engine in the network namespace of the calling thread. Changes nothing.
    ///
    /// # Errors
    /// When the kernel offers no netfilter sockets.
    pub fn open() -> Result<Self, EngineError> {
        let socket =
            Socket::open(Some(NETFILTER)).map_err(|error| failure("open a netfilter socket", &error))?;
        Ok(Self { socket, held: None, prepared: None, adopted: false, committed: false })
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
            self.held = Some(decode::read(&mut self.socket).map_err(|error| read(&error))?);
        }
        match &self.held {
            Some((generation, held)) => {
                self.adopted |= !self.committed && matches!(held, Held::Ours(_));
                Ok((*generation, held))
            }
            None => Err(failure("read the nf_tables ruleset", &io::ErrorKind::NotFound.into())),
        }
    }

    /// The batch that leads from what the kernel holds to `plan`, and what it changes.
    fn batch(&mut self, plan: &Plan, one_by_one: bool) -> Result<(Batch, Change), EngineError> {
        let first = self.socket.sequences(0);
        let (generation, held) = self.sync()?;
        let mut batch = Batch::new(first, Some(generation));
        if one_by_one {
            batch = batch.one_by_one();
        }
        let empty = Plan { guard: plan.guard, ..Plan::default() };
        let (old, change) = match held {
            Held::Ours(held) => (held, Plan::diff(held, plan)),
            Held::Nothing | Held::Other => (&empty, Plan::diff(&empty, plan)),
        };
        if matches!(held, Held::Other) {
            batch.delete_table();
        }
        if !matches!(held, Held::Ours(_)) {
            batch.create_table(plan.guard);
        }
        batch.change(&change, old);
        let used = batch.next_sequence().wrapping_sub(first).wrapping_add(1);
        self.socket.sequences(used);
        Ok((batch, change))
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
            && let Ok((single, _)) = self.batch(plan, true)
            && let Ok(refusals) = self.rehearse(&single)
            && !refusals.is_empty()
        {
            return refusal_error(plan, &single, &refusals);
        }
        refusal_error(plan, refused, refusals)
    }
}

/// Whether the kernel says that its ruleset is not the one that the batch was made for.
fn is_outdated(batch: &Batch, refusals: &[Refusal]) -> bool {
    refusals.iter().any(|refusal| {
        batch.subject(refusal.sequence).is_none() && matches!(refusal.error, Errno::RESTART | Errno::AGAIN)
    })
}

impl Engine for NftablesEngine {
    type Plan = Plan;

    fn kind(&self) -> EngineKind {
        EngineKind::Nftables
    }

    fn prepare(&mut self, plan: &Plan) -> Result<(), EngineError> {
        self.prepared = None;
        for _ in 0..TRIES {
            let (batch, _) = self.batch(plan, false)?;
            let refusals = if batch.is_empty() { Vec::new() } else { self.rehearse(&batch)? };
            if refusals.is_empty() {
                self.prepared = Some(plan.clone());
                return Ok(());
            }
            self.held = None;
            if !is_outdated(&batch, &refusals) {
                return Err(self.explain(plan, &batch, &refusals));
            }
        }
        Err(too_busy())
    }

    fn commit(&mut self) -> Result<Changed, EngineError> {
        let Some(plan) = self.prepared.take() else {
            return Ok(Changed::default());
        };
        for _ in 0..TRIES {
            let (mut batch, change) = self.batch(&plan, false)?;
            let (adopted, generation) = (self.adopted, self.held.as_ref().map(|(generation, _)| *generation));
            let changed = Changed { added: change.added(), removed: change.removed(), adopted };
            if !batch.is_empty() {
                let first = batch.first_sequence();
                let refusals = self
                    .socket
                    .batch(batch.finish(), first)
                    .map_err(|error| failure("change the nf_tables ruleset", &error))?;
                if !refusals.is_empty() {
                    self.held = None;
                    if is_outdated(&batch, &refusals) {
                        continue;
                    }
                    return Err(self.explain(&plan, &batch, &refusals));
                }
                // The kernel counts generations from 1 and skips 0; nobody else's change was in between, or the
                // batch would have been refused.
                let next = generation.map_or(1, |generation| generation.checked_add(1).unwrap_or(1));
                self.held = Some((next, Held::Ours(plan)));
                // The table forwards already; a flow that stays stuck is no reason to report it as failed.
                let _ = conntrack::release_udp(&mut self.socket, &change);
            }
            (self.adopted, self.committed) = (false, true);
            return Ok(changed);
        }
        Err(too_busy())
    }

    fn abort(&mut self) {
        self.prepared = None;
    }

    fn observe(&mut self) -> Result<EngineSnapshot, EngineError> {
        let mut snapshot = EngineSnapshot::default();
        let read = |error: io::Error| failure("read the counters", &error);
        let flows = match decode::counters(&mut self.socket, Set::Flows) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(snapshot),
            other => other.map_err(read)?,
        };
        let traffic = decode::counters(&mut self.socket, Set::Traffic).map_err(read)?;
        let live =
            conntrack::live(&mut self.socket).map_err(|error| failure("count the live flows", &error))?;
        let mut names = std::collections::BTreeMap::new();
        for (key, name, counter) in flows {
            if let (Some(mark), Some(name)) = (mark_of(&key), name) {
                let rule = snapshot.rules.entry(name.clone()).or_default();
                rule.flows = counter.packets;
                rule.live = live.get(&mark).copied().unwrap_or(0);
                names.insert(mark, name);
            }
        }
        for (key, _, counter) in traffic {
            let rule = mark_of(&key).and_then(|mark| snapshot.rules.get_mut(names.get(&mark)?));
            match (rule, key.get(1)) {
                (Some(rule), Some(Value::Direction(Direction::Original))) => rule.bytes_in = counter.bytes,
                (Some(rule), Some(Value::Direction(Direction::Reply))) => rule.bytes_out = counter.bytes,
                _ => {}
            }
        }
        snapshot.gauges.insert("live_flows".to_owned(), live.values().sum());
        Ok(snapshot)
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
        (self.adopted, self.committed) = (false, false);
        conntrack::delete_ours(&mut self.socket)
            .map_err(|error| failure("delete the conntrack entries", &error))
    }
}

fn refusal_error(plan: &Plan, batch: &Batch, refusals: &[Refusal]) -> EngineError {
    let rule_of = |set: Set, key: &[Value]| -> Option<RuleName> {
        let mark =
            key.iter().find_map(|value| if let Value::Mark(mark) = value { Some(*mark) } else { None });
        let by_mark = |mark| {
            let id = RuleId::of_mark(mark)?;
            plan.ids().iter().find(|(_, other)| *other == id).map(|(name, _)| name.clone())
        };
        mark.and_then(by_mark)
            .or_else(|| RuleName::new(plan.elements.get(&set)?.get(key)?.comment.as_deref()?))
    };
    let Some(refusal) = refusals.first() else { return too_busy() };
    let mut error = failure("change the nf_tables ruleset", &refusal.error.into());
    match batch.subject(refusal.sequence) {
        None => {}
        Some(Subject::Structure(what)) => {
            error.doing = format!("set up {what}");
            error.hint = error.hint.or_else(|| Some("the kernel may be too old or lack a module".to_owned()));
        }
        Some(Subject::Helper(object)) => {
            error.doing = format!("declare the conntrack helper {} for {}", object.helper, object.protocol);
            error.rule = plan.elements(Set::Helpers).find_map(|(key, entry)| {
                (entry.data == portway_core::plan::nftables::Data::Helper(*object))
                    .then(|| rule_of(Set::Helpers, key))?
            });
            error.hint = Some(format!("load the kernel module nf_conntrack_{}", object.helper));
        }
        Some(Subject::Elements(set, keys)) => {
            error.rule = keys.first().filter(|_| keys.len() == 1).and_then(|key| rule_of(*set, key));
            let key =
                keys.first().map(|key| key.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . "));
            error.doing = format!("change {} of {}", key.unwrap_or_default(), set.shape().name);
        }
    }
    if refusals.len() > 1 {
        error.reason = format!("{} (and {} more refusals)", error.reason, refusals.len() - 1);
    }
    error
}

pub(crate) fn failure(doing: &str, error: &io::Error) -> EngineError {
    let hint = (error.kind() == io::ErrorKind::PermissionDenied)
        .then(|| "run as root or with CAP_NET_ADMIN, or use engine = \"proxy\"".to_owned());
    EngineError {
        engine: EngineKind::Nftables,
        rule: None,
        doing: doing.to_owned(),
        reason: error.to_string(),
        hint,
    }
}

fn too_busy() -> EngineError {
    let error =
        io::Error::new(io::ErrorKind::Interrupted, "other programs keep changing the nf_tables ruleset");
    failure("change the nf_tables ruleset", &error)
}
