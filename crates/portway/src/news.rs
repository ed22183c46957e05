//! The way of news from the threads that find them to the daemon: a place where they wait, the newest of each kind.
//!
//! Bounded by what is watched, not by how often it changes: a probe that goes up and down while the daemon is busy
//! leaves one entry. Deliberately absent: what follows from news (`controller`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use portway_core::facts::{Answer, Health, Lookup, Probe};
use portway_watch::Event;

use crate::controller::News;

/// News that wait for the daemon.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    health: BTreeMap<Probe, Health>,
    names: BTreeMap<Lookup, Answer>,
    /// When the oldest of them was found.
    since: Option<Instant>,
}

impl Waiting {
    /// Puts an event there; whether it is the first, for which the daemon must be woken.
    pub fn put(&self, event: Event) -> bool {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = entries.since.is_none();
        let at = match event {
            Event::Health { probe, health, at } => {
                entries.health.insert(probe, health);
                at
            }
            Event::Names { lookup, answer, at } => {
                entries.names.insert(lookup, answer);
                at
            }
        };
        entries.since.get_or_insert(at);
        first
    }

    /// Takes all of them, and when the oldest was found.
    pub fn take(&self) -> Option<(Vec<News>, Instant)> {
        let entries = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Names first: verdicts are about the addresses that they stand for.
        let names = entries.names.into_iter().map(|(lookup, answer)| News::Names(lookup, answer));
        let health = entries.health.into_iter().map(|(probe, health)| News::Health(probe, health));
        entries.since.map(|since| (names.chain(health).collect(), since))
    }
}
