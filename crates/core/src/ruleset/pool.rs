//! Pools: several backends and the policy that chooses among them.
//!
//! Deliberately absent: the arithmetic of choosing ([`crate::balance`]) and which backends are up ([`crate::facts`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::backend::{Backend, BackendHost, Resolve, Target};
use super::check::Check;

/// How new flows are spread over the backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// To the one with the fewest live flows for its weight.
    LeastConnections,
    /// The less loaded of two drawn by weight (Mitzenmacher, "The Power of Two Choices", 2001).
    Random,
    /// By a hash of the client, modulo the backends' shares: exact shares, many flows move when the pool changes.
    SourceHash,
    /// By a hash of the client through Maglev's table (Eisenbud et al., NSDI 2016): few flows move.
    ConsistentHash,
    /// Always the first in the order of the file that is up (and below its `max-connections`).
    First,
}

impl Balance {
    /// The words of the file, in the order of the reference.
    pub const WORDS: [(&'static str, Self); 6] = [
        ("round-robin", Self::RoundRobin),
        ("least-connections", Self::LeastConnections),
        ("random", Self::Random),
        ("source-hash", Self::SourceHash),
        ("consistent-hash", Self::ConsistentHash),
        ("first", Self::First),
    ];

    /// Whether the choice follows from a hash.
    pub const fn hashes(self) -> bool {
        matches!(self, Self::SourceHash | Self::ConsistentHash)
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, balance)| balance == self);
        f.write_str(word.map_or("", |(word, _)| word))
    }
}

/// What is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashKey {
    /// The client's address.
    #[default]
    Source,
    /// The client's address and port.
    SourcePort,
    /// The server name of a TLS ClientHello (RFC 6066 section 3); the client's address where there is none.
    Sni,
}

impl HashKey {
    /// The words of the file, in the order of the reference.
    pub const WORDS: [(&'static str, Self); 3] =
        [("source", Self::Source), ("source-port", Self::SourcePort), ("sni", Self::Sni)];
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, key)| key == self);
        f.write_str(word.map_or("", |(word, _)| word))
    }
}

/// What happens to the flows of a backend that goes down. UDP flows are let go at once in every case, so that their
/// clients reach another backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDown {
    /// They live as long as their ends let them.
    #[default]
    Keep,
    /// They have this long to end, then they are reset.
    Drain(Duration),
    /// They are reset at once.
    Reset,
}

/// What new flows meet while no backend is live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WhenEmpty {
    /// A TCP reset, an ICMP port unreachable for UDP.
    #[default]
    Refuse,
    /// Silence: a TCP client waits and tries again, and is served when a backend is back.
    Drop,
    /// Another backend, which is not checked and not part of the pool.
    Sorry(Target),
}

/// What a pool does before its names were ever resolved. Nothing waits for a resolver at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Clients wait for the first answer ([`WhenEmpty::Drop`] until then).
    Wait,
    /// The last answer of an earlier run is used; without one, as [`Init::Wait`].
    #[default]
    LastKnown,
    /// The pool is empty until the first answer, and [`WhenEmpty`] says what clients meet.
    None,
}

/// Passive checks, which only a socket in the middle can make: a backend that fails connections is left out for a
/// while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Passive {
    /// Failures (connect failed or timed out, reset before its first byte) within [`Self::fail_timeout`], with no flow
    /// that went well in between, that eject.
    pub max_fails: u32,
    /// The window in which failures count, and how long the first ejection lasts; each further one in a row lasts
    /// twice as long, at most 32 times.
    pub fail_timeout: Duration,
    /// The most of the pool that may be ejected at a time, in percent of its members; one may always be, but never the
    /// last.
    pub max_ejected: u8,
}

impl Passive {
    /// What holds where the file says nothing else.
    pub const DEFAULT: Self = Self { max_fails: 3, fail_timeout: Duration::from_secs(10), max_ejected: 50 };
}

/// Backends and policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// In the order of the file; never empty, at most [`Pool::MOST`].
    pub backends: Vec<Backend>,
    /// How new flows are spread.
    pub balance: Balance,
    /// What is hashed, for policies that hash.
    pub hash: HashKey,
    /// How backends are checked, if they are.
    pub check: Option<Arc<Check>>,
    /// Passive checks, where the file asks for them.
    pub passive: Option<Passive>,
    /// A client comes back to its backend for this long after its last new flow.
    pub persist: Option<Duration>,
    /// How long a backend that comes back takes to reach its full weight.
    pub slow_start: Option<Duration>,
    /// What happens to the flows of a backend that goes down.
    pub on_down: OnDown,
    /// What new flows meet while no backend is live.
    pub when_empty: WhenEmpty,
    /// How often a failed connection is tried with another backend, where the file says so.
    pub retries: Option<u8>,
    /// What holds before the first answer of a resolver.
    pub init: Init,
}

impl Pool {
    /// The most backends as written.
    pub const MOST: usize = 256;
    /// The most members, names resolved; further addresses are left out.
    pub const MOST_MEMBERS: usize = 1024;
    /// The addresses that a name is expected to have at most, for [`Pool::places`]: it may have more.
    pub const PLACES_OF_A_NAME: usize = 16;
    /// [`Pool::retries`] where the file does not say.
    pub const RETRIES: u8 = 2;

    /// A pool with no settings of its own.
    pub fn new(backends: Vec<Backend>) -> Self {
        Self {
            backends,
            balance: Balance::default(),
            hash: HashKey::default(),
            check: None,
            passive: None,
            persist: None,
            slow_start: None,
            on_down: OnDown::default(),
            when_empty: WhenEmpty::default(),
            retries: None,
            init: Init::default(),
        }
    }

    /// How many members the pool is made for, whatever is live now: one for each address, [`Pool::PLACES_OF_A_NAME`]
    /// for a name of which all addresses are used.
    pub fn places(&self) -> usize {
        let places = |backend: &Backend| match (&backend.host, backend.resolve) {
            (BackendHost::Address(_), _) | (_, Resolve::First) => 1,
            (BackendHost::Name(_) | BackendHost::Service(_), Resolve::All) => Self::PLACES_OF_A_NAME,
        };
        self.backends.iter().map(places).sum()
    }

    /// Every target that needs no resolver, the sorry backend included.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        let sorry = match self.when_empty {
            WhenEmpty::Sorry(target) => Some(target),
            WhenEmpty::Refuse | WhenEmpty::Drop => None,
        };
        self.backends.iter().filter_map(Backend::target).chain(sorry)
    }

    /// Whether a backend is a name or a service.
    pub fn has_names(&self) -> bool {
        self.backends.iter().any(|backend| !matches!(backend.host, BackendHost::Address(_)))
    }

    /// The target of a pool that is one fixed address and nothing else: no choice, no check, nothing that facts
    /// could change but the operator's hand.
    pub fn single(&self) -> Option<Target> {
        match self.backends.as_slice() {
            [backend] => backend.target(),
            _ => None,
        }
    }
}

impl fmt::Display for Pool {
    /// The backends, as they are written in `forward`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, backend) in self.backends.iter().enumerate() {
            if nth > 0 {
                f.write_str(", ")?;
            }
            backend.fmt(f)?;
        }
        Ok(())
    }
}
