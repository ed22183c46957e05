//! Probe: asks the host what it can do and fills in [`Caps`]. Leaves nothing behind.

use std::collections::BTreeSet;

use portway_core::caps::Caps;
use rustix::thread::{CapabilitySet, capabilities};

/// What this process can do on this host, in this network namespace.
pub fn caps() -> Caps {
    // A process that may not read its own capabilities has none worth counting on.
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let nftables = if effective.contains(CapabilitySet::NET_ADMIN) {
        portway_nftables::probe()
    } else {
        Err("needs root (CAP_NET_ADMIN)".to_owned())
    };
    let first_port = if effective.contains(CapabilitySet::NET_BIND_SERVICE) {
        0
    } else {
        // ip(7): ports below this one need CAP_NET_BIND_SERVICE; 1024 where the kernel does not say.
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1024)
    };
    let ebpf = Err("this build has no ebpf engine".to_owned());
    Caps { nftables, ebpf, addresses: BTreeSet::new(), first_port }
}
