//! What the kernel counts for a namespace. A test that asks how often something happened is as right on a busy machine as on
//! an idle one; one that asks how long it took is not.

use std::fs;
use std::time::{Duration, Instant};

use crate::{Namespace, Topology};

/// A little less than what a SYN that is not answered waits before it is sent again (1 s; RFC 6298, section 2.1).
pub const SECOND_SYN: Duration = Duration::from_millis(900);

impl Namespace {
    /// A counter of the kernel by its name, such as `TCPSynRetrans` (`/proc/net/netstat` and `/proc/net/snmp`,
    /// Documentation/networking/snmp_counter.rst).
    ///
    /// # Panics
    /// When there is no such counter.
    pub fn counter(&self, name: &str) -> u64 {
        let files = ["netstat", "snmp"].map(|file| format!("/proc/thread-self/net/{file}"));
        let read = || files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
        let text: String = self.enter(read);
        // Two lines at a time: names, and figures in the same order.
        let lines: Vec<&str> = text.lines().collect();
        let figures = lines.chunks_exact(2).flat_map(|pair| pair[0].split(' ').zip(pair[1].split(' ')));
        let found = figures.filter(|(named, _)| *named == name).find_map(|(_, figure)| figure.parse().ok());
        found.unwrap_or_else(|| panic!("the kernel has no counter {name}"))
    }
}

impl Topology {
    /// How many SYNs the clients, and the gateway where it connects by itself, have sent a second time. One that a TIME_WAIT
    /// answers is sent again at once (nftables masquerades with such ports at times); one that nothing answers, a second
    /// later.
    pub fn syns_sent_again(&self) -> u64 {
        self.clients.iter().chain([&self.gateway]).map(|host| host.counter("TCPSynRetrans")).sum()
    }

    /// Insists that what connects meanwhile does not wait for a second SYN. A busy machine is slow too, but sends none.
    ///
    /// # Panics
    /// When it took as long and a SYN was sent again.
    pub fn none_waits<T>(&self, what: &str, connect: impl FnOnce() -> T) -> T {
        let (before, start) = (self.syns_sent_again(), Instant::now());
        let connected = connect();
        let (took, again) = (start.elapsed(), self.syns_sent_again() - before);
        assert!(took < SECOND_SYN || again == 0, "{what} took {took:?}, and {again} SYNs were sent again");
        connected
    }
}
