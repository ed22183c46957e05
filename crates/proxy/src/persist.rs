//! Persistence: which member a client was given last, so that it comes back there.
//!
//! One table per rule, shared by its workers and kept when the pool changes. Bounded: the client that has been away
//! for longest is forgotten first. Only rules that ask for persistence take its lock.

use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use portway_core::ruleset::Target;

/// The most clients that a rule remembers.
const MOST: usize = 65_536;
/// The most forgotten clients that one new flow clears away.
const CLEARED: usize = 4;

/// What a rule remembers of its clients.
pub struct Persist {
    /// The oldest first; all have the same time to live, so the oldest is the first to be forgotten.
    clients: Mutex<LruCache<IpAddr, (Target, u64), RandomState>>,
}

impl Persist {
    /// Nobody yet.
    pub fn new() -> Self {
        Self { clients: Mutex::new(LruCache::unbounded_with_hasher(RandomState::new())) }
    }

    /// Where `client` was sent within the last `timeout` ms, and when (ms).
    pub fn recall(&self, client: IpAddr, now: u64, timeout: u64) -> Option<(Target, u64)> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let (target, since) = *clients.peek(&client.to_canonical())?;
        (now < since.saturating_add(timeout)).then_some((target, since))
    }

    /// Remembers where `client` is sent now.
    pub fn remember(&self, client: IpAddr, target: Target, now: u64, timeout: u64) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..CLEARED {
            match clients.peek_lru() {
                Some((_, (_, since))) if since.saturating_add(timeout) <= now => _ = clients.pop_lru(),
                _ => break,
            }
        }
        clients.put(client.to_canonical(), (target, now));
        if clients.len() > MOST {
            clients.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use portway_core::ruleset::TargetPorts;

    use super::*;

    fn target(port: u16) -> Target {
        Target { address: Ipv4Addr::LOCALHOST.into(), ports: TargetPorts::One(port) }
    }

    fn recall(persist: &Persist, client: IpAddr, now: u64, timeout: u64) -> Option<Target> {
        persist.recall(client, now, timeout).map(|(target, _)| target)
    }

    fn client(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[test]
    fn a_client_is_remembered_for_as_long_as_it_comes_back() {
        let persist = Persist::new();
        persist.remember(client(1), target(80), 0, 100);
        assert_eq!(recall(&persist, client(1), 99, 100), Some(target(80)));
        assert_eq!(recall(&persist, client(2), 99, 100), None);
        persist.remember(client(1), target(80), 99, 100);
        assert_eq!(recall(&persist, client(1), 198, 100), Some(target(80)));
        assert_eq!(recall(&persist, client(1), 199, 100), None);
        let mapped = Ipv4Addr::from(1u32).to_ipv6_mapped().into();
        assert_eq!(recall(&persist, mapped, 198, 100), Some(target(80)), "one host, however it is written");
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let persist = Persist::new();
        let most = u32::try_from(MOST).unwrap();
        for number in 0..most {
            persist.remember(client(number), target(80), 0, 100);
        }
        persist.remember(client(0), target(81), 0, 100);
        persist.remember(client(most), target(80), 0, 100);
        assert_eq!(recall(&persist, client(0), 0, 100), Some(target(81)), "it came back");
        assert_eq!(recall(&persist, client(1), 0, 100), None);
        assert_eq!(recall(&persist, client(2), 0, 100), Some(target(80)));
        assert_eq!(persist.clients.lock().unwrap().len(), MOST);
    }

    #[test]
    fn those_forgotten_take_no_memory() {
        let persist = Persist::new();
        for number in 0..1000 {
            persist.remember(client(number), target(80), 0, 100);
        }
        for number in 0..250 {
            persist.remember(client(5000 + number), target(80), 200, 100);
        }
        assert_eq!(persist.clients.lock().unwrap().len(), 250);
    }
}
