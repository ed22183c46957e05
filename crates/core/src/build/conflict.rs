//! Which listeners claim the same traffic.
//!
//! Two listeners conflict when they have the same protocol and the same scope and share a port. Different
//! scopes do not: the more specific one wins on every engine (address, interface, any). A port inside a range
//! of the same scope does conflict: the proxy's two sockets would collide.

use crate::diagnostic::Span;
use crate::ruleset::Listener;

/// A listener and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The rule's index.
    pub rule: usize,
    /// Where it is written.
    pub span: Span,
    /// What it claims.
    pub listener: Listener,
}

/// The conflicts, as pairs of indices, the earlier written first. Every claim that shares a port with one of
/// a lower or equal first port is in exactly one pair as one that came second, so there are fewer pairs than
/// claims, and none exactly when nothing conflicts. O(n log n).
pub fn conflicts(claims: &[Claim]) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_unstable_by(|a, b| {
        let (left, right) = (&claims[*a].listener, &claims[*b].listener);
        let key = |listener: &Listener| (listener.protocol, listener.ports.first());
        left.scope.cmp(&right.scope).then_with(|| key(left).cmp(&key(right))).then_with(|| a.cmp(b))
    });
    let mut pairs = Vec::new();
    // Of the claims so far in this scope and protocol, the one that reaches furthest: if any of them reaches
    // the next claim's first port, this one does.
    let mut furthest: Option<usize> = None;
    for index in order {
        let claim = &claims[index].listener;
        match furthest {
            Some(other) if same_place(&claims[other].listener, claim) => {
                if claims[other].listener.ports.last() >= claim.ports.first() {
                    pairs.push((other.min(index), other.max(index)));
                }
                if claim.ports.last() > claims[other].listener.ports.last() {
                    furthest = Some(index);
                }
            }
            _ => furthest = Some(index),
        }
    }
    pairs.sort_unstable();
    pairs
}

fn same_place(a: &Listener, b: &Listener) -> bool {
    a.protocol == b.protocol && a.scope == b.scope
}
