//! What the kernel counts for a namespace. A test that asks how often something happened is as right on a busy machine as on
//! an idle one; one that asks how long it took is not.

use std::fs;

use crate::Namespace;

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
