//! A member of a rule's pool as the workers share it: how many flows it has, and whether passive checks leave it out.
//!
//! A member is one target of one rule and outlives changes of the pool: its numbers go on, and flows that it has hold
//! it. Deliberately absent: its weight and its place in the pool, which are the plan's ([`crate::pool`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use portway_core::ruleset::Target;
use portway_core::snapshot::MemberCounters;

use crate::shared::Gauge;

/// A member. Aligned so that two members never share a cache line.
#[repr(align(128))]
pub struct Member {
    /// Where it is.
    pub target: Target,
    /// Flows that it has, and the most that it may have.
    pub live: Gauge,
    /// Flows that it was given.
    flows: AtomicU64,
    /// Bytes to it, and from it.
    bytes: [AtomicU64; 2],
    /// Flows that it did not take.
    failed: AtomicU64,
    /// Until when (ms since [`crate::shared::Shared::start`]) it is left out; 0 when it is not.
    ejected: AtomicU64,
    /// Whether it has failed since it last answered.
    suspect: AtomicBool,
}

impl Member {
    /// A member without flows, and without a bound.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            live: Gauge::new(usize::MAX),
            flows: AtomicU64::new(0),
            bytes: [const { AtomicU64::new(0) }; 2],
            failed: AtomicU64::new(0),
            ejected: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
        }
    }

    /// Whether passive checks leave it out at `now`.
    pub fn is_ejected(&self, now: u64) -> bool {
        self.ejected.load(Relaxed) > now
    }

    /// Leaves it out until then.
    pub fn eject(&self, until: u64) {
        self.ejected.store(until, Relaxed);
    }

    /// Ends its time out at `now`, if it is out.
    pub fn take_back(&self, now: u64) {
        if self.is_ejected(now) {
            self.ejected.store(now.max(1), Relaxed);
        }
    }

    /// Whether its time out has ended by `now`; true once.
    pub fn has_returned(&self, now: u64) -> bool {
        let until = self.ejected.load(Relaxed);
        until != 0 && until <= now && self.ejected.compare_exchange(until, 0, Relaxed, Relaxed).is_ok()
    }

    /// Counts bytes to it and from it.
    pub fn carried(&self, bytes_in: u64, bytes_out: u64) {
        for (sum, bytes) in self.bytes.iter().zip([bytes_in, bytes_out]) {
            if bytes > 0 {
                sum.fetch_add(bytes, Relaxed);
            }
        }
    }

    /// Counts a flow that it did not take.
    pub fn fail(&self) {
        self.failed.fetch_add(1, Relaxed);
        self.suspect.store(true, Relaxed);
    }

    /// Notes that it has answered; whether it had failed before.
    pub fn answer(&self) -> bool {
        self.suspect.load(Relaxed) && self.suspect.swap(false, Relaxed)
    }

    /// Its numbers at `now`.
    pub fn snapshot(&self, now: u64) -> MemberCounters {
        let [bytes_in, bytes_out] = self.bytes.each_ref().map(|sum| Some(sum.load(Relaxed)));
        MemberCounters {
            live: self.live.get() as u64,
            flows: self.flows.load(Relaxed),
            bytes_in,
            bytes_out,
            failed: Some(self.failed.load(Relaxed)),
            ejected: self.is_ejected(now),
            ..MemberCounters::default()
        }
    }
}

/// One flow's place at a member; given back when it is dropped.
pub struct Lease(Arc<Member>);

impl Lease {
    /// A place, unless the member is full.
    pub fn take(member: &Arc<Member>) -> Option<Self> {
        member.live.enter().then(|| {
            member.flows.fetch_add(1, Relaxed);
            Self(member.clone())
        })
    }

    /// The member.
    pub fn member(&self) -> &Arc<Member> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.live.leave();
    }
}
