//! What the parts of a worker share: its number, its epoll instance, the time of the present turn.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use portway_core::ruleset::RuleName;

use crate::member::{Lease, Member};
use crate::pool::{Asking, NoMember};
use crate::random::Random;
use crate::route::Route;
use crate::shared::{Counters, Shared};
use crate::token::GENERATION;

/// What every part of a worker needs.
pub(crate) struct Context {
    pub(crate) id: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) epoll: OwnedFd,
    /// Milliseconds since [`Shared::start`], read once per turn.
    pub(crate) now: u64,
    /// For the choice among members.
    pub(crate) random: Random,
    generation: u32,
}

impl Context {
    pub(crate) fn new(id: usize, shared: Arc<Shared>, epoll: OwnedFd) -> Self {
        Self { id, shared, epoll, now: 0, random: Random::new(), generation: 0 }
    }

    pub(crate) fn next_generation(&mut self) -> u32 {
        self.generation = (self.generation + 1) & GENERATION;
        self.generation
    }

    pub(crate) fn counters<'a>(&self, route: &'a Route) -> &'a Counters {
        route.rule.counters(self.id)
    }

    pub(crate) fn read_clock(&mut self) {
        self.now = self.shared.now();
    }

    /// A member for a new flow of `route`, or for one that the members `failed` have failed.
    pub(crate) fn choose(
        &mut self,
        route: &Route,
        client: Option<SocketAddr>,
        name: Option<&str>,
        failed: &[Arc<Member>],
    ) -> Result<Lease, NoMember> {
        let asking = Asking { client, name, failed, now: self.now, random: &mut self.random };
        let lease = route.pool.load().choose(asking)?;
        if lease.member().has_returned(self.now) {
            self.shared.log.always(&returned(&route.rule.name, lease.member()));
        }
        Ok(lease)
    }

    /// A flow of `route` that `member` did not take. `blamed`: passive checks count it.
    pub(crate) fn member_failed(&self, route: &Route, member: &Member, blamed: bool) {
        member.fail();
        let pool = route.pool.load();
        let Some(ejection) = pool.ejection.as_ref().filter(|_| blamed) else { return };
        if let Some(time) = ejection.failure(member, self.now) {
            let (name, target) = (&route.rule.name, member.target);
            self.shared
                .log
                .always(&format!("proxy, rule {name}: {target} fails and is left out for {time:?}"));
        }
    }

    /// `member` has answered a flow of `route`.
    pub(crate) fn member_answered(&self, route: &Route, member: &Member) {
        if member.answer()
            && let Some(ejection) = &route.pool.load().ejection
        {
            ejection.success(member);
        }
    }
}

/// What is said when a member is no longer left out.
pub(crate) fn returned(rule: &RuleName, member: &Member) -> String {
    format!("proxy, rule {rule}: {} gets new flows again", member.target)
}
