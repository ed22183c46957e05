//! Caps: what this host can do, as plain data. The probe that fills it in lives in the `portway` crate.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use crate::address::PortRange;
use crate::ruleset::Helper;

/// What the host offers to the engines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Caps {
    /// What nf_tables can do here, or why it cannot be used ("needs root (CAP_NET_ADMIN)").
    pub nftables: Result<Nftables, String>,
    /// What eBPF can do here, or why it cannot be used ("needs root (CAP_BPF, CAP_NET_ADMIN)").
    pub ebpf: Result<Ebpf, String>,
    /// The addresses of this host, where they are known: what is sent to them never meets a program on an interface.
    pub addresses: BTreeSet<IpAddr>,
    /// The ports that the kernel gives to connections of this host's own (`net.ipv4.ip_local_port_range`).
    pub ephemeral_ports: PortRange,
    /// The lowest port that may be bound without CAP_NET_BIND_SERVICE; 0 when every port may.
    pub first_port: u16,
}

/// What the kernel's nf_tables can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nftables {
    /// The conntrack helpers that the kernel has.
    pub helpers: BTreeSet<Helper>,
}

/// What the kernel's eBPF can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ebpf {
    /// Whether programs can be attached as tcx links (Linux 6.6), which are replaced atomically; else by clsact.
    pub tcx: bool,
}

impl Caps {
    /// [`Self::ephemeral_ports`] of a host where nobody has changed them (`inet_init_net` in the kernel's
    /// `net/ipv4/af_inet.c`).
    pub const EPHEMERAL_PORTS: PortRange =
        PortRange::new(32_768, 60_999).expect("invariant: in order and not from 0");

    /// A host on which everything works.
    pub fn all() -> Self {
        Self {
            nftables: Ok(Nftables { helpers: [Helper::Ftp, Helper::Tftp, Helper::Sip].into() }),
            ebpf: Ok(Ebpf { tcx: true }),
            addresses: BTreeSet::new(),
            ephemeral_ports: Self::EPHEMERAL_PORTS,
            first_port: 0,
        }
    }
}
