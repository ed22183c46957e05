//! Members: the addresses that a rule's new flows meet now, from its pool and the facts.
//!
//! Pure and the same for every engine. Deliberately absent: the choice among members for one flow
//! ([`crate::balance`]).

use crate::address::Family;
use crate::facts::{Facts, Moment};
use crate::ruleset::{BackendName, Rule, Target, WhenEmpty};
use std::num::NonZeroU32;

/// One address that new flows may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The backend that it belongs to.
    pub backend: BackendName,
    /// Where it is.
    pub target: Target,
    /// Its share now; never 0. Only the proportion to the other members counts.
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

/// What new flows of `rule` meet at `now`. `family`: only targets of this family, for an engine that cannot translate
/// between families.
pub fn meets(rule: &Rule, _facts: &Facts, _now: Moment, family: Option<Family>) -> Meets {
    let members: Vec<Member> = rule
        .pool
        .backends
        .iter()
        .filter_map(|backend| {
            let target =
                backend.target().filter(|target| family.is_none_or(|family| target.family() == family))?;
            let (backend, weight, max_connections) =
                (backend.name.clone(), u32::from(backend.weight), backend.max_connections);
            (weight > 0).then_some(Member { backend, target, weight, max_connections })
        })
        .collect();
    match (members.is_empty(), rule.pool.when_empty) {
        (false, _) => Meets::Members(members),
        (true, WhenEmpty::Refuse) => Meets::Refuse,
        (true, WhenEmpty::Drop) => Meets::Drop,
        (true, WhenEmpty::Sorry(target)) => {
            let backend = BackendName::new("sorry").expect("invariant: a printable word");
            Meets::Members(vec![Member { backend, target, weight: 1, max_connections: None }])
        }
    }
}
