//! Probe: asks the host what it can do and fills in [`Caps`]. Leaves nothing behind.

use portway_core::address::PortRange;
use portway_core::caps::Caps;
use rustix::thread::{CapabilitySet, capabilities};

/// What the ebpf engine needs of a process, in words: to load programs, to attach them, and to have the verifier follow
/// pointers into packets without the precautions against strangers' programs.
const FOR_EBPF: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];

/// What this process can do on this host, in this network namespace.
pub fn caps() -> Caps {
    // A process that may not read its own capabilities has none worth counting on.
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let nftables = if effective.contains(CapabilitySet::NET_ADMIN) {
        portway_nftables::probe()
    } else {
        Err("needs root (CAP_NET_ADMIN)".to_owned())
    };
    let ebpf = lacking(effective).map_or_else(portway_ebpf::probe, Err);
    let first_port = if effective.contains(CapabilitySet::NET_BIND_SERVICE) {
        0
    } else {
        // ip(7): ports below this one need CAP_NET_BIND_SERVICE; 1024 where the kernel does not say.
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1024)
    };
    // Not known is not ours: a backend that is this host is then found out when nothing arrives there.
    let addresses = portway_ebpf::addresses().unwrap_or_default();
    let (first, last) = portway_ebpf::ephemeral_ports();
    let ephemeral_ports = PortRange::new(first, last).unwrap_or(Caps::EPHEMERAL_PORTS);
    Caps { nftables, ebpf, addresses, ephemeral_ports, first_port }
}

/// Which privileges the ebpf engine would miss, if any.
fn lacking(effective: CapabilitySet) -> Option<String> {
    let lacks = FOR_EBPF.iter().filter(|(needed, _)| !effective.contains(*needed));
    let names: Vec<&str> = lacks.map(|(_, name)| *name).collect();
    (!names.is_empty()).then(|| format!("needs root ({})", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_for_ebpf_is_named() {
        assert_eq!(lacking(CapabilitySet::all()), None);
        assert_eq!(
            lacking(CapabilitySet::empty()).as_deref(),
            Some("needs root (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON)")
        );
        let admin = CapabilitySet::all() - CapabilitySet::BPF;
        assert_eq!(lacking(admin).as_deref(), Some("needs root (CAP_BPF)"));
    }
}
