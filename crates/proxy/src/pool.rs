//! Choosing a member for a new flow.
//!
//! A [`Pool`] is what a rule's new flows meet, shared by all its sockets and workers. It never changes but for its
//! counters: when facts change it is replaced as a whole ([`Current`]), and members that stay keep their numbers
//! ([`Member`]). Choosing takes no lock, except where a rule asks for persistence, and a pool of one member costs
//! nothing but counting its flows.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use portway_core::address::Family;
use portway_core::balance::{SEED, client_hash, jhash, slot, table};
use portway_core::members::Meets;
use portway_core::plan::proxy::PoolPlan;
use portway_core::ruleset::{Balance, HashKey, Target};

use crate::ejection::Ejection;
use crate::member::{Lease, Member};
use crate::persist::Persist;
use crate::random::Random;
use crate::shared::milliseconds;

/// Where the sockets of a rule find its pool. Routes keep it; what is in it changes.
pub type Current = ArcSwap<Pool>;

/// What new flows of a rule meet.
pub struct Pool {
    balance: Balance,
    hash: HashKey,
    /// Empty when [`Pool::empty`] says what new flows meet.
    places: Box<[Place]>,
    empty: NoMember,
    /// Indices into `places`; see [`portway_core::balance::table`].
    slots: Box<[u16]>,
    turn: Turn,
    /// Whether a member has a bound.
    limited: bool,
    families: [bool; 2],
    persist: Option<(Arc<Persist>, u64)>,
    /// Passive checks.
    pub ejection: Option<Arc<Ejection>>,
    /// How often a failed connection is tried with another member.
    pub retries: usize,
}

struct Place {
    member: Arc<Member>,
    weight: u32,
    /// When (ms) it was put into the pool, where it has been since. Clients that are remembered for it from an earlier
    /// time are not sent there: they had lost it.
    since: u64,
}

/// Turns taken, in a cache line of its own: what stands around it is only read.
#[repr(align(128))]
struct Turn(AtomicUsize);

/// Why there is no member for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMember {
    /// No member is live: the client shall be told so.
    Refuse,
    /// No member is live: the client shall wait.
    Drop,
    /// Every member has as many flows as it may have.
    Full,
}

/// What a choice depends on.
pub struct Asking<'a> {
    /// Who asks, where [`Pool::needs_client`].
    pub client: Option<SocketAddr>,
    /// The server name that the client asks for, where it is known and [`Pool::needs_name`].
    pub name: Option<&'a str>,
    /// Members that have failed this flow already.
    pub failed: &'a [Arc<Member>],
    /// The time (ms).
    pub now: u64,
    /// Where chance comes from.
    pub random: &'a mut Random,
}

/// Which members may be chosen, the better ones first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Sound,
    NotFailed,
    Any,
}

impl Pool {
    /// The pool of a plan. `member` gives the member of a target, the known one where there is one; `before` is the
    /// pool that this one replaces at `now` (ms).
    pub fn new(
        plan: &PoolPlan,
        before: Option<&Self>,
        now: u64,
        mut member: impl FnMut(Target) -> Arc<Member>,
    ) -> Self {
        let (members, empty) = match &plan.meets {
            Meets::Members(members) => (members.as_slice(), NoMember::Full),
            Meets::Refuse => (&[][..], NoMember::Refuse),
            Meets::Drop => (&[][..], NoMember::Drop),
        };
        let known = before.map_or(&[][..], |before| &before.places);
        let known: HashMap<Target, u64> =
            known.iter().map(|place| (place.member.target, place.since)).collect();
        let place = |planned: &portway_core::members::Member| {
            let member = member(planned.target);
            member.live.set_max(planned.max_connections.map_or(usize::MAX, |max| max.get() as usize));
            let since = known.get(&planned.target).copied().unwrap_or(now);
            Place { member, weight: planned.weight, since }
        };
        let persist = plan.persist.map(|timeout| {
            let known = before.and_then(|before| before.persist.as_ref());
            let table = known.map_or_else(|| Arc::new(Persist::new()), |(table, _)| table.clone());
            (table, milliseconds(timeout))
        });
        let places: Box<[Place]> = members.iter().map(place).collect();
        let checked: Vec<&Member> = places.iter().map(|place| &*place.member).collect();
        let ejection = plan.passive.map(|passive| {
            Ejection::new(passive, &checked, before.and_then(|before| before.ejection.as_ref()), now)
        });
        if ejection.is_none() {
            checked.iter().for_each(|member| member.take_back(now));
        }
        let has = |family| members.iter().any(|member| member.target.family() == family);
        Self {
            balance: plan.balance,
            hash: plan.hash,
            empty,
            slots: if members.len() > 1 {
                table(plan.balance, plan.places, members).into()
            } else {
                Box::default()
            },
            turn: Turn(AtomicUsize::new(before.map_or(0, |before| before.turn.0.load(Relaxed)))),
            limited: members.iter().any(|member| member.max_connections.is_some()),
            families: [has(Family::V4), has(Family::V6)],
            places,
            persist,
            ejection,
            retries: usize::from(plan.retries),
        }
    }

    /// Whether a member is of this family.
    pub fn has_family(&self, family: Family) -> bool {
        self.families[usize::from(family == Family::V6)]
    }

    /// Whether there is a choice: with one member at most nothing else can be tried.
    pub fn has_choice(&self) -> bool {
        self.places.len() > 1
    }

    /// Whether the choice depends on who asks.
    pub fn needs_client(&self) -> bool {
        self.persist.is_some() || self.has_choice() && self.balance.hashes()
    }

    /// Whether the choice depends on the name that the client asks for.
    pub fn needs_name(&self) -> bool {
        self.has_choice() && self.balance.hashes() && self.hash == HashKey::Sni
    }

    /// Whether a flow would find a member at `now`; else why not.
    pub fn open(&self, now: u64) -> Result<(), NoMember> {
        if self.places.is_empty() {
            return Err(self.empty);
        }
        if !self.limited {
            return Ok(());
        }
        let room = |choice| {
            let mut found = self.places.iter().filter(|place| place.may(choice, &[], now)).peekable();
            found.peek().is_some().then(|| found.any(|place| place.member.live.has_room()))
        };
        match room(Choice::Sound).or_else(|| room(Choice::Any)) {
            Some(true) => Ok(()),
            _ => Err(NoMember::Full),
        }
    }

    /// A place at a member.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose(&self, mut asking: Asking<'_>) -> Result<Lease, NoMember> {
        let lease = match &*self.places {
            [] => return Err(self.empty),
            [only] => Lease::take(&only.member),
            _ => self.remembered(&asking).or_else(|| {
                // Members that are left out, and those that have failed this flow, serve only where there is no other.
                let choices = [Choice::Sound, Choice::NotFailed, Choice::Any];
                let may =
                    |choice| self.places.iter().any(|place| place.may(choice, asking.failed, asking.now));
                let choice = choices.into_iter().find(|choice| may(*choice))?;
                self.by_policy(choice, &mut asking)
            }),
        };
        let lease = lease.ok_or(NoMember::Full)?;
        if let (Some((persist, timeout)), Some(client)) = (&self.persist, asking.client) {
            persist.remember(client.ip(), lease.member().target, asking.now, *timeout);
        }
        Ok(lease)
    }

    fn remembered(&self, asking: &Asking<'_>) -> Option<Lease> {
        let (persist, timeout) = self.persist.as_ref()?;
        let (target, at) = persist.recall(asking.client?.ip(), asking.now, *timeout)?;
        let place = self.places.iter().find(|place| place.member.target == target && place.since <= at)?;
        place.take(Choice::Sound, asking)
    }

    fn by_policy(&self, choice: Choice, asking: &mut Asking<'_>) -> Option<Lease> {
        let chosen = match self.balance {
            Balance::First => None,
            Balance::RoundRobin => (0..self.slots.len()).find_map(|_| self.next().take(choice, asking)),
            Balance::LeastConnections => self.least(choice, asking),
            Balance::Random => self.less_of_two(choice, asking),
            Balance::SourceHash | Balance::ConsistentHash => self.by_hash(choice, asking),
        };
        // Where the policy found none (its members were full, or other workers were quicker): whoever has room.
        chosen.or_else(|| self.places.iter().find_map(|place| place.take(choice, asking)))
    }

    /// The place whose turn it is.
    fn next(&self) -> &Place {
        &self.places[self.next_index()]
    }

    fn next_index(&self) -> usize {
        let turn = self.turn.0.fetch_add(1, Relaxed);
        usize::from(self.slots[turn % self.slots.len()])
    }

    /// The one with the fewest flows for its weight; of equal ones the next behind the one whose turn it is.
    fn least(&self, choice: Choice, asking: &Asking<'_>) -> Option<Lease> {
        let (before, from) = self.places.split_at(self.next_index());
        let able = from
            .iter()
            .chain(before)
            .filter(|place| place.may(choice, asking.failed, asking.now) && place.member.live.has_room());
        able.reduce(|least, place| if place.is_less_loaded(least) { place } else { least })?
            .take(choice, asking)
    }

    /// The less loaded of two drawn by weight.
    fn less_of_two(&self, choice: Choice, asking: &mut Asking<'_>) -> Option<Lease> {
        // Each draw may hit a member that cannot be chosen; the turn finds the others then.
        for _ in 0..self.places.len() {
            let [one, other] = [(); 2]
                .map(|()| &self.places[usize::from(self.slots[asking.random.below(self.slots.len())])]);
            let (less, more) = if other.is_less_loaded(one) { (other, one) } else { (one, other) };
            if let Some(lease) = less.take(choice, asking).or_else(|| more.take(choice, asking)) {
                return Some(lease);
            }
        }
        (0..self.slots.len()).find_map(|_| self.next().take(choice, asking))
    }

    /// The member of the hash's slot, or of the next slot whose member can be chosen.
    fn by_hash(&self, choice: Choice, asking: &Asking<'_>) -> Option<Lease> {
        let hash = match (asking.name, asking.client) {
            (Some(name), _) => jhash(name.as_bytes(), SEED),
            (None, Some(client)) => client_hash(self.hash, client),
            (None, None) => 0,
        };
        let (before, from) = self.slots.split_at(slot(hash, self.slots.len()));
        from.iter().chain(before).find_map(|place| self.places[usize::from(*place)].take(choice, asking))
    }
}

impl Place {
    fn may(&self, choice: Choice, failed: &[Arc<Member>], now: u64) -> bool {
        match choice {
            Choice::Sound if self.member.is_ejected(now) => false,
            Choice::Sound | Choice::NotFailed => {
                !failed.iter().any(|member| Arc::ptr_eq(member, &self.member))
            }
            Choice::Any => true,
        }
    }

    fn take(&self, choice: Choice, asking: &Asking<'_>) -> Option<Lease> {
        if self.may(choice, asking.failed, asking.now) { Lease::take(&self.member) } else { None }
    }

    fn is_less_loaded(&self, other: &Self) -> bool {
        let load = |place: &Self, weight: u32| place.member.live.get() as u64 * u64::from(weight);
        load(self, other.weight) < load(other, self.weight)
    }
}
