//! Wires between hosts: veth pairs, and what they must be set to before XDP may use them.
//!
//! A veth device hands frames over as the kernel's own buffers, checksums still to be computed, and takes frames from XDP
//! only where the other end polls for them. A NIC does neither, so what is set here takes nothing away from a test: it
//! makes the pair behave like a cable.

use std::collections::BTreeSet;
use std::sync::Weak;

use crate::Namespace;
use crate::netns::Name;

/// One end of a wire, as the host at the other end knows it.
#[derive(Debug)]
pub(crate) struct End {
    host: Weak<Name>,
    interface: String,
}

/// A wire between two hosts, both ends up. Addresses on it may be used at once, and no router speaks up.
///
/// # Panics
/// When a name is taken.
pub fn connect(a: &Namespace, a_name: &str, b: &Namespace, b_name: &str) {
    for end in [a, b] {
        end.sysctl("net/ipv6/conf/default/accept_dad", "0");
        end.sysctl("net/ipv6/conf/default/accept_ra", "0");
    }
    a.ip(&format!("link add name {a_name} type veth peer name {b_name} netns {}", b.name()));
    a.ip(&format!("link set {a_name} up"));
    b.ip(&format!("link set {b_name} up"));
    a.wires().push(End { host: b.downgrade(), interface: b_name.to_owned() });
    b.wires().push(End { host: a.downgrade(), interface: a_name.to_owned() });
}

/// Prepares all wires that can be reached from a host, but for the host's own ends, for XDP programs on that host: the
/// ends poll (GRO), which redirected frames need, and compute their checksums, which a frame in XDP cannot leave undone.
///
/// # Panics
/// Without ethtool.
pub fn prepare_for_xdp(host: &Namespace) {
    let (mut seen, mut next) = (BTreeSet::from([host.name().to_owned()]), vec![host.clone()]);
    while let Some(here) = next.pop() {
        let far = |end: &End| Some((Namespace::upgrade(&end.host)?, end.interface.clone()));
        let ends: Vec<_> = here.wires().iter().filter_map(far).collect();
        for (there, interface) in ends.into_iter().filter(|(there, _)| there.name() != host.name()) {
            // An end that a scenario has removed is no longer there to be set.
            if let Err(complaint) = there.try_run(&format!("ethtool -K {interface} gro on tx off")) {
                let shown = there.run("ip -o link show");
                assert!(!shown.contains(&format!(": {interface}@")), "{complaint}");
            }
            if seen.insert(there.name().to_owned()) {
                next.push(there);
            }
        }
    }
}
