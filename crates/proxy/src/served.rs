//! The engine's side of a rule that it serves: the counters, the pool in force, and every member that it knows.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use portway_core::address::PortRange;
use portway_core::plan::proxy::{PoolPlan, RulePlan, Socket};
use portway_core::ruleset::{Pool as Pools, RuleName, Target};
use portway_core::snapshot::MemberCounters;

use crate::context::returned;
use crate::member::Member;
use crate::pool::{Current, NoMember, Pool};
use crate::route::Route;
use crate::shared::{RuleState, Shared};

/// A rule.
#[derive(Clone)]
pub struct Served {
    /// What the workers count.
    pub state: Arc<RuleState>,
    pool: Arc<Current>,
    members: BTreeMap<Target, Arc<Member>>,
}

impl Served {
    /// A rule that is new at `now` (ms), with this pool.
    pub fn new(name: &RuleName, workers: usize, plan: &PoolPlan, now: u64) -> Self {
        let mut members = BTreeMap::new();
        let pool = Pool::new(plan, None, now, |target| known(&mut members, target));
        Self {
            state: Arc::new(RuleState::new(name.clone(), workers)),
            pool: Arc::new(Current::from_pointee(pool)),
            members,
        }
    }

    /// New flows meet this pool from `now` (ms) on. Whether clients may have waited for it.
    pub fn replace_pool(&mut self, plan: &PoolPlan, now: u64) -> bool {
        let before = self.pool.load();
        let pool = Pool::new(plan, Some(&before), now, |target| known(&mut self.members, target));
        let deserted = before.open(now) == Err(NoMember::Drop);
        self.pool.store(Arc::new(pool));
        self.forget_members(plan);
        deserted
    }

    /// The rule's sockets have changed: flows that began at the old ones keep the old pool, whose ports fit them.
    pub fn part_from_pool(&mut self) {
        self.pool = Arc::new(Current::new(self.pool.load_full()));
    }

    /// Where one of the rule's sockets leads.
    pub fn route(&self, socket: &Socket, ports: PortRange, plan: &RulePlan) -> Arc<Route> {
        let (state, pool) = (self.state.clone(), self.pool.clone());
        Arc::new(Route::new(state, pool, (socket.port, ports), &plan.source, &plan.timeouts))
    }

    /// The numbers of its members, by target; none when it never had more than one.
    pub fn members(&self, shared: &Shared) -> BTreeMap<String, MemberCounters> {
        let now = shared.now();
        if self.members.len() < 2 {
            return BTreeMap::new();
        }
        for member in self.members.values().filter(|member| member.has_returned(now)) {
            shared.log.always(&returned(&self.state.name, member));
        }
        self.members.iter().map(|(target, member)| (target.to_string(), member.snapshot(now))).collect()
    }

    /// Names may have changed their addresses for weeks: members that are no more are kept only up to a bound.
    fn forget_members(&mut self, plan: &PoolPlan) {
        let mut surplus = self.members.len().saturating_sub(Pools::MOST_MEMBERS);
        if surplus == 0 {
            return;
        }
        let planned = plan.targets();
        self.members.retain(|target, member| {
            let gone = surplus > 0 && member.live.get() == 0 && !planned.contains(target);
            surplus -= usize::from(gone);
            !gone
        });
    }
}

fn known(members: &mut BTreeMap<Target, Arc<Member>>, target: Target) -> Arc<Member> {
    match members.entry(target) {
        Entry::Occupied(entry) => entry.get().clone(),
        Entry::Vacant(entry) => entry.insert(Arc::new(Member::new(target))).clone(),
    }
}
