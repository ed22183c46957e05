//! The quick way: members of pools change, and nothing else. And what follows a change of members, quick or not: clients
//! that are remembered for members that have gone are forgotten.

use std::collections::BTreeSet;
use std::io;

use portway_core::engine::{Engine, EngineError};
use portway_core::plan::nftables::{Change, Key, RuleId};
use portway_netlink::socket::Refusal;
use rustix::io::Errno;

use crate::decode::Held;
use crate::encode::{Batch, Subject};
use crate::engine::{NftablesEngine, TRIES, after, is_outdated};
use crate::memory;
use crate::refusal::{failure, too_busy};

/// Which rules' remembered clients must be looked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    /// Every rule's: nobody knows what an earlier run left undone.
    All,
    /// These.
    Rules(BTreeSet<RuleId>),
}

impl NftablesEngine {
    /// Carries out what changed facts change: one batch without a rehearsal, since members of pools are the only thing
    /// that changes. See [`Engine::adjust`].
    pub(crate) fn adjust_members(&mut self, change: &Change) -> Result<(), EngineError> {
        self.prepared = None;
        if change.is_empty() {
            return Ok(());
        }
        let Some((_, Held::Ours(_))) = &self.held else {
            return Err(failure("change members of pools", &io::ErrorKind::NotFound.into()));
        };
        let (_, refusals) = self.send(|mut batch| {
            batch.change(change);
            batch
        })?;
        if let Some((_, Held::Ours(plan))) = &mut self.held {
            plan.change(change);
        }
        if !refusals.is_empty() {
            // The table is not what is known of it: from what it is now to what it should be.
            self.note_forget(change);
            let Some((_, Held::Ours(wanted))) = self.held.take() else { return Err(too_busy()) };
            self.prepare(&wanted)?;
            return self.commit().map(drop);
        }
        self.forget_clients(change);
        Ok(())
    }

    /// Sends a batch at once. When the generation of the kernel's ruleset is another than the one that is known, the
    /// batch goes without it: on a busy host every change by others would otherwise cost a reading of the whole table.
    /// What they did to this table is then found by the next [`Self::sync`], because the known generation stays behind.
    fn send(&mut self, fill: impl Fn(Batch) -> Batch) -> Result<(Batch, Vec<Refusal>), EngineError> {
        let mut known = self.held.as_ref().map(|(generation, _)| *generation);
        loop {
            let first = self.socket.sequences(0);
            let mut batch = fill(Batch::new(first, known));
            self.socket.sequences(batch.next_sequence().wrapping_sub(first).wrapping_add(1));
            let refusals = self.socket.batch(batch.finish(), first);
            let refusals = refusals.map_err(|error| failure("change the nf_tables ruleset", &error))?;
            if is_outdated(&batch, &refusals) && known.take().is_some() {
                continue;
            }
            if let (true, Some(_), Some((generation, _))) = (refusals.is_empty(), known, &mut self.held) {
                *generation = after(*generation);
            }
            return Ok((batch, refusals));
        }
    }

    /// Forgets the clients that are remembered for members which a change removes, and those that an earlier attempt
    /// did not get to. New flows go elsewhere already unless their client is remembered, so a failure is no reason to
    /// report the change as failed; the next change tries again.
    pub(crate) fn forget_clients(&mut self, change: &Change) {
        self.note_forget(change);
        if self.forget_now().is_ok() {
            self.forget = Forget::Rules(BTreeSet::new());
        }
    }

    fn note_forget(&mut self, change: &Change) {
        if let Forget::Rules(rules) = &mut self.forget {
            rules.extend(&change.forget);
        }
    }

    fn forget_now(&mut self) -> Result<(), EngineError> {
        let rules = match &self.forget {
            Forget::Rules(rules) if rules.is_empty() => return Ok(()),
            Forget::Rules(rules) => Some(rules),
            Forget::All => None,
        };
        let Some((_, Held::Ours(plan))) = &self.held else { return Ok(()) };
        let stale = memory::stale(&mut self.socket, plan, rules);
        let mut stale = stale.map_err(|error| failure("read the remembered clients", &error))?;
        for _ in 0..TRIES {
            if stale.is_empty() {
                return Ok(());
            }
            let remove = |batch: Batch| {
                let mut batch = batch.one_by_one();
                stale.iter().for_each(|(set, key)| batch.remove_elements(*set, std::iter::once(key)));
                batch
            };
            let (batch, refusals) = self.send(remove)?;
            if refusals.is_empty() {
                return Ok(());
            }
            // Some have expired since they were read. All the others are asked for again, in a batch without those.
            let gone: BTreeSet<Key> = refusals
                .iter()
                .filter(|refusal| refusal.error == Errno::NOENT)
                .filter_map(|refusal| match batch.subject(refusal.sequence) {
                    Some(Subject::Elements(_, keys)) => keys.first().cloned(),
                    _ => None,
                })
                .collect();
            if gone.is_empty() {
                return Err(failure("forget clients", &refusals[0].error.into()));
            }
            stale.retain(|(_, key)| !gone.contains(key));
        }
        Err(too_busy())
    }
}
