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
    /// Passive checks of a pool with these members from `now` (ms) on; those that `before` knew keep what is held
    /// against them, as far as the pool can do without them.
    pub fn new(passive: Passive, members: &[&Member], before: Option<&Arc<Self>>, now: u64) -> Arc<Self> {
        let targets: Vec<Target> = members.iter().map(|member| member.target).collect();
        let places: Vec<Option<usize>> = match before {
            Some(before) if before.passive == passive && before.targets == targets => return before.clone(),
            Some(before) => targets.iter().map(|target| before.place(*target)).collect(),
            None => vec![None; targets.len()],
        };
        let mut outliers = match before {
            Some(before) => {
                let outliers = before.outliers.lock().unwrap_or_else(PoisonError::into_inner);
                outliers.changed(&places, passive)
            }
            None => Outliers::new(targets.len(), passive),
        };
        let strangers = (0..targets.len()).filter(|nth| places[*nth].is_none());
        for nth in outliers.release(Duration::from_millis(now)).into_iter().chain(strangers) {
            members[nth].take_back(now);
        }
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
