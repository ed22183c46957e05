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
    for (there, interface) in far_ends(host) {
        // An end that a scenario has removed is no longer there to be set.
        if let Err(complaint) = there.try_run(&format!("ethtool -K {interface} gro on tx off")) {
            let shown = there.run("ip -o link show");
            assert!(!shown.contains(&format!(": {interface}@")), "{complaint}");
        }
    }
}

/// The queue that [`queue_before_rings`] makes.
pub const QUEUE: &str = "pfifo limit 10000";

/// Has the same ends hold frames back while the ring at their other end is full. Of a ring there are 256 places, whoever
/// asks, and a program at XDP copies each frame before its place is free; what finds none is lost. A NIC's driver stops the
/// queue instead, and so does veth since Linux 6.16, if it has one.
///
/// # Panics
/// Without tc.
pub fn queue_before_rings(host: &Namespace) {
    for (there, interface) in far_ends(host) {
        there.run(&format!("tc qdisc replace dev {interface} root {QUEUE}"));
    }
}

/// The ends of all wires that can be reached from a host, but for the host's own.
fn far_ends(host: &Namespace) -> Vec<(Namespace, String)> {
    let (mut seen, mut next) = (BTreeSet::from([host.name().to_owned()]), vec![host.clone()]);
    let mut all = Vec::new();
    while let Some(here) = next.pop() {
        let far = |end: &End| Some((Namespace::upgrade(&end.host)?, end.interface.clone()));
        let ends: Vec<_> = here.wires().iter().filter_map(far).collect();
        for (there, interface) in ends.into_iter().filter(|(there, _)| there.name() != host.name()) {
            if seen.insert(there.name().to_owned()) {
                next.push(there.clone());
            }
            all.push((there, interface));
        }
    }
    all
}
