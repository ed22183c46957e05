//! Passive checks: failures of members are counted, and a member that fails too often is left out for a while.
//!
//! The arithmetic is [`portway_core::outlier`]'s, behind a lock that only failures take, and the first answer after
//! one. Choosing reads one number of the member.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portway_core::outlier::Outliers;
use portway_core::ruleset::{Passive, Target};

use crate::member::Member;

/// What is held against the members of one pool.
pub struct Ejection {
    passive: Passive,
    /// The members that the indices of `outliers` mean.
    targets: Vec<Target>,
    outliers: Mutex<Outliers>,
}

impl Ejection {
    /// Passive checks of a pool with these members; those that `before` knew keep what is held against them.
    pub fn new(passive: Passive, targets: Vec<Target>, before: Option<&Arc<Self>>) -> Arc<Self> {
        let outliers = match before {
            Some(before) if before.passive == passive && before.targets == targets => return before.clone(),
            Some(before) => {
                let places: Vec<_> = targets.iter().map(|target| before.place(*target)).collect();
                before.outliers.lock().unwrap_or_else(PoisonError::into_inner).changed(&places, passive)
            }
            None => Outliers::new(targets.len(), passive),
        };
        Arc::new(Self { passive, targets, outliers: Mutex::new(outliers) })
    }

    /// A flow failed at `now` (ms). When this ejects the member: for how long.
    pub fn failure(&self, member: &Member, now: u64) -> Option<Duration> {
        let place = self.place(member.target)?;
        let moment = Duration::from_millis(now);
        let until = self.outliers.lock().unwrap_or_else(PoisonError::into_inner).failure(place, moment)?;
        member.eject(u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
        Some(until - moment)
    }

    /// The member has answered after a failure.
    pub fn success(&self, member: &Member) {
        if let Some(place) = self.place(member.target) {
            self.outliers.lock().unwrap_or_else(PoisonError::into_inner).success(place);
        }
    }

    fn place(&self, target: Target) -> Option<usize> {
        self.targets.iter().position(|other| *other == target)
    }
}
