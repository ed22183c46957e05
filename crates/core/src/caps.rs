//! Caps: what this host can do, as plain data. The probe that fills it in lives in the `portway` crate.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::ruleset::Helper;

/// What the host offers to the engines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Caps {
    /// What nf_tables can do here, or why it cannot be used ("needs root (CAP_NET_ADMIN)").
    pub nftables: Result<Nftables, String>,
    /// The lowest port that may be bound without CAP_NET_BIND_SERVICE; 0 when every port may.
    pub first_port: u16,
}

/// What the kernel's nf_tables can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nftables {
    /// The conntrack helpers that the kernel has.
    pub helpers: BTreeSet<Helper>,
}

impl Caps {
    /// A host on which everything works.
    pub fn all() -> Self {
        Self {
            nftables: Ok(Nftables { helpers: [Helper::Ftp, Helper::Tftp, Helper::Sip].into() }),
            first_port: 0,
        }
    }
}
