//! Members: the addresses that a rule's new flows meet now, from its pool and the facts.
//!
//! Pure and the same for every engine. A pool's addresses (`candidate`) are judged one by one (`standing`); what is
//! left are the members. Deliberately absent: the choice among members for one flow ([`crate::balance`]), and what
//! happens to flows of those that are members no longer ([`crate::effects`]).

pub(crate) mod candidate;
pub(crate) mod standing;
mod view;
mod watch;

use std::net::IpAddr;
use std::num::NonZeroU32;

use crate::address::Family;
use crate::facts::{Facts, Moment};
use crate::ruleset::{BackendName, EngineKind, Init, Rule, Scope, Target, WhenEmpty};
use candidate::candidates;
use standing::Judge;

pub use standing::{MOST_WEIGHT, STEPS};
pub use view::{MemberState, MemberView, view};
pub use watch::{lookups, probe, probes};

/// One address that new flows may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The backend that it belongs to.
    pub backend: BackendName,
    /// Where it is; no two members have the same.
    pub target: Target,
    /// Its share now: 1 to [`MOST_WEIGHT`], so that a sum may want 64 bits. Only the proportion to the other members
    /// counts; it is the file's weight unless a service's records or slow start take fractions of it.
    pub weight: u32,
    /// The most connections and flows at a time.
    pub max_connections: Option<NonZeroU32>,
}

/// What new flows meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meets {
    /// One of these; never empty, in the order of the file.
    Members(Vec<Member>),
    /// A TCP reset, an ICMP port unreachable for UDP.
    Refuse,
    /// Silence.
    Drop,
}

impl Meets {
    /// Whether a backend of the pool is live; the one that says sorry is none.
    pub fn is_live(&self) -> bool {
        match self {
            Self::Members(members) => members.iter().any(|member| member.backend.as_str() != SORRY),
            Self::Refuse | Self::Drop => false,
        }
    }
}

/// The name of the backend that says sorry; no other can have it ([`crate::build`]).
const SORRY: &str = "sorry";

/// Which addresses an engine can reach for a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Only this family, for an engine that cannot translate between families.
    pub family: Option<Family>,
    /// Whether a name may lead to loopback addresses. Those that are written in the file always can be reached:
    /// [`crate::assign`] has seen to it.
    pub loopback: bool,
    /// Whether the flows to a backend are the host's own and can be caught by a listener on any address.
    pub relay: bool,
}

impl Reach {
    /// Every address.
    pub const ANY: Self = Self { family: None, loopback: true, relay: false };

    /// What `engine` can reach for `rule`. nf_tables reaches loopback only where `route_localnet` is set for the rule as
    /// it is written, so that an answer of a resolver never sets it; `[::1]` it does not reach at all.
    pub fn of(rule: &Rule, engine: EngineKind) -> Self {
        match engine {
            EngineKind::Proxy => Self { relay: true, ..Self::ANY },
            // What is sent to loopback does not leave by an interface that a program could send it to.
            EngineKind::Ebpf => Self { loopback: false, ..Self::ANY },
            EngineKind::Nftables => {
                // All listeners have it: [`crate::assign`] has seen to that, too.
                let family = rule.listeners.first().map(|listener| listener.scope.family());
                let loopback4 = |address: IpAddr| address.is_ipv4() && address.is_loopback();
                let listens = rule.listeners.iter().any(|listener| match listener.scope {
                    Scope::Any(family) => family == Family::V4,
                    Scope::Address(address) => loopback4(address),
                    Scope::Interface(..) => false,
                });
                let written = rule.pool.targets().any(|target| loopback4(target.address));
                Self { family, loopback: family == Some(Family::V4) && (listens || written), relay: false }
            }
        }
    }
}

/// What new flows of `rule` meet at `now` on an engine that has this reach.
pub fn meets(rule: &Rule, facts: &Facts, now: Moment, reach: Reach) -> Meets {
    let candidates = candidates(rule, facts, reach);
    let judge = Judge::new(rule, facts, now);
    let live: Vec<_> = candidates
        .iter()
        .filter_map(|candidate| Some((candidate, judge.standing(candidate).weight(candidate)?)))
        .collect();
    let level = live.iter().map(|(candidate, _)| candidate.level).min();
    let (used, weights): (Vec<_>, Vec<u32>) =
        live.into_iter().filter(|(candidate, _)| Some(candidate.level) == level).unzip();
    let members: Vec<Member> = used
        .into_iter()
        .zip(standing::simplified(&weights))
        .map(|(candidate, weight)| Member {
            backend: candidate.backend.name.clone(),
            target: candidate.target,
            weight,
            max_connections: candidate.backend.max_connections,
        })
        .collect();
    if !members.is_empty() {
        return Meets::Members(members);
    }
    if rule.pool.init != Init::None && watch::awaits_an_answer(rule, facts) {
        return Meets::Drop;
    }
    match rule.pool.when_empty {
        WhenEmpty::Refuse => Meets::Refuse,
        WhenEmpty::Drop => Meets::Drop,
        WhenEmpty::Sorry(target) => {
            let backend = BackendName::new(SORRY).expect("invariant: a printable word");
            Meets::Members(vec![Member { backend, target, weight: 1, max_connections: None }])
        }
    }
}

/// When time alone next changes what new flows of `rule` meet on an engine that has this reach: the next step of a slow
/// start. `None` while only facts can.
pub fn next_change(rule: &Rule, facts: &Facts, now: Moment, reach: Reach) -> Option<Moment> {
    rule.pool.slow_start.filter(|_| !facts.health.is_empty())?;
    let judge = Judge::new(rule, facts, now);
    let candidates = candidates(rule, facts, reach);
    candidates.iter().filter_map(|candidate| judge.standing(candidate).next_step).min()
}
