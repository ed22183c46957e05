//! What the drivers count of XDP: which packets programs at that hook took, and the kernel, with the programs at TC, never saw.
//!
//! Deliberately absent: what the engine says of itself. Where its packets went is asked of somebody else.

use std::ops::Sub;

use crate::{Namespace, Topology};

/// Frames that an interface of a veth pair has received since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// All of them, as long as the interface polls.
    pub frames: u64,
    /// Those that a program at XDP has sent on: by another interface, or back by the same.
    pub sent_at_xdp: u64,
}

impl Received {
    /// Until now, by an interface of this host (drivers/net/veth.c counts each queue).
    ///
    /// # Panics
    /// Without ethtool, or when it is no veth.
    pub fn by(host: &Namespace, interface: &str) -> Self {
        let text = host.run(&format!("ethtool -S {interface}"));
        let sum = |kind: &str| {
            let figures = text.lines().filter_map(|line| line.trim().split_once(": "));
            let queues = figures.filter(|(name, _)| {
                let queue = name.strip_prefix("rx_queue_").and_then(|rest| rest.split_once('_'));
                queue.is_some_and(|(_, counted)| counted == kind)
            });
            let found: Vec<u64> = queues.filter_map(|(_, figure)| figure.parse().ok()).collect();
            assert!(!found.is_empty(), "{interface} counts no {kind}:\n{text}");
            found.iter().sum::<u64>()
        };
        Self { frames: sum("xdp_packets"), sent_at_xdp: sum("xdp_redirect") + sum("xdp_tx") }
    }
}

impl Sub for Received {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { frames: self.frames - before.frames, sent_at_xdp: self.sent_at_xdp - before.sent_at_xdp }
    }
}

impl Topology {
    /// What the gateway receives while `f` runs: from the clients, and from the servers.
    ///
    /// # Panics
    /// As [`Received::by`].
    pub fn received<T>(&self, f: impl FnOnce() -> T) -> ([Received; 2], T) {
        let now = || ["lan", "wan"].map(|interface| Received::by(&self.gateway, interface));
        let before = now();
        let value = f();
        let [lan, wan] = now();
        ([lan - before[0], wan - before[1]], value)
    }
}
