//! What the parts of a worker share: its number, its epoll instance, the time of the present turn.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::shared::{Counters, Route, Shared};
use crate::token::GENERATION;

/// What every part of a worker needs.
pub(crate) struct Context {
    pub(crate) id: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) epoll: OwnedFd,
    /// Milliseconds since [`Shared::start`], read once per turn.
    pub(crate) now: u64,
    generation: u32,
}

impl Context {
    pub(crate) fn new(id: usize, shared: Arc<Shared>, epoll: OwnedFd) -> Self {
        Self { id, shared, epoll, now: 0, generation: 0 }
    }

    pub(crate) fn next_generation(&mut self) -> u32 {
        self.generation = (self.generation + 1) & GENERATION;
        self.generation
    }

    pub(crate) fn counters<'a>(&self, route: &'a Route) -> &'a Counters {
        route.rule.counters(self.id)
    }

    pub(crate) fn read_clock(&mut self) {
        self.now = u64::try_from(self.shared.start.elapsed().as_millis()).unwrap_or(u64::MAX / 2);
    }
}
