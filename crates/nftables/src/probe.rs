//! What this host's nf_tables can do, found out by asking the kernel to check the whole table and to undo it.

use std::collections::BTreeSet;

use portway_core::caps::Nftables;
use portway_core::plan::nftables::HelperObject;
use portway_core::ruleset::Helper;
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use crate::encode::{Batch, Subject};
use crate::socket::Socket;

/// What nf_tables offers in the network namespace of the calling thread. Leaves nothing behind, and does not
/// touch a table that is there.
///
/// # Errors
/// Why the engine cannot run here, in words for the user.
pub fn probe() -> Result<Nftables, String> {
    let mut socket = Socket::open(Some(NETFILTER))
        .map_err(|error| format!("the kernel offers no netfilter socket: {error}"))?;
    let mut batch = Batch::new(1, None).for_table("portway_probe");
    batch.create_table(true);
    HelperObject::ALL.into_iter().for_each(|object| batch.create_helper(object));
    let refusals =
        socket.batch(batch.rehearsal(), 1).map_err(|error| format!("cannot ask the kernel: {error}"))?;
    let mut missing = BTreeSet::new();
    for refusal in refusals {
        match (batch.subject(refusal.sequence), refusal.error) {
            (_, Errno::PERM) => return Err("needs root (CAP_NET_ADMIN)".to_owned()),
            (Some(Subject::Helper(object)), _) => {
                missing.insert(object.helper);
            }
            (Some(Subject::Structure(what)), error) => {
                return Err(format!("the kernel's nf_tables refuses {what}: {error}"));
            }
            (_, error) => return Err(format!("the kernel has no usable nf_tables: {error}")),
        }
    }
    let helpers = [Helper::Ftp, Helper::Tftp, Helper::Sip];
    Ok(Nftables { helpers: helpers.into_iter().filter(|helper| !missing.contains(helper)).collect() })
}
