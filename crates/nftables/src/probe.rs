//! What this host's nf_tables can do, found out by asking the kernel to check the whole table and to undo it.

use std::collections::BTreeSet;

use portway_core::caps::Nftables;
use portway_core::plan::nftables::pool::OwnChain;
use portway_core::plan::nftables::table::Chain;
use portway_core::plan::nftables::{HelperObject, RuleId};
use portway_core::ruleset::Helper;
use portway_netlink::socket::{Refusal, Socket};
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use crate::encode::{Batch, Subject};

/// What nf_tables offers in the network namespace of the calling thread. Leaves nothing behind, and does not
/// touch a table that is there.
///
/// # Errors
/// Why the engine cannot run here, in words for the user.
pub fn probe() -> Result<Nftables, String> {
    let mut socket = Socket::open(Some(NETFILTER))
        .map_err(|error| format!("the kernel offers no netfilter socket: {error}"))?;
    let batch = everything();
    let refusals =
        socket.batch(batch.rehearsal(), 1).map_err(|error| format!("cannot ask the kernel: {error}"))?;
    judge(&batch, &refusals)
}

/// A table with everything that any plan can ask for.
fn everything() -> Batch {
    let mut batch = Batch::new(1, None).for_table("portway_probe");
    batch.create_table(true);
    HelperObject::ALL.into_iter().for_each(|object| batch.create_helper(object));
    for (id, own) in (1..).filter_map(RuleId::new).zip(OwnChain::samples()) {
        let chain = match own {
            OwnChain::Choose { .. } => Chain::Pool(id),
            OwnChain::Remember { .. } => Chain::Remember(id),
        };
        batch.create_chain(chain);
        batch.create_rules(chain, &chain.own_rules(&own));
    }
    batch
}

/// What follows from what the kernel refused.
fn judge(batch: &Batch, refusals: &[Refusal]) -> Result<Nftables, String> {
    let mut missing = BTreeSet::new();
    for refusal in refusals {
        match (batch.subject(refusal.sequence), refusal.error) {
            (_, Errno::PERM) => return Err("needs root (CAP_NET_ADMIN)".to_owned()),
            (Some(Subject::Helper(object)), _) => {
                missing.insert(object.helper);
            }
            (Some(Subject::Structure(what) | Subject::Own(_, what)), error) => {
                let lack = lack(what).filter(|_| error == Errno::NOENT);
                let lack = lack.map(|(what, module)| format!(", it lacks {what} (module {module})"));
                let lack = lack.unwrap_or_default();
                return Err(format!("the kernel's nf_tables refuses {what}: {error}{lack}"));
            }
            (_, error) => return Err(format!("the kernel has no usable nf_tables: {error}")),
        }
    }
    let helpers = [Helper::Ftp, Helper::Tftp, Helper::Sip];
    Ok(Nftables { helpers: helpers.into_iter().filter(|helper| !missing.contains(helper)).collect() })
}

/// The expression that a kernel lacks which does not know a rule, and the module that has it: the first of these whose
/// word stands in the rule, the rarer ones first.
fn lack(rule: &str) -> Option<(&'static str, &'static str)> {
    [
        ("numgen", "numgen", "nft_numgen"),
        ("jhash", "hash", "nft_hash"),
        ("reject", "reject", "nft_reject_inet"),
        ("update @", "dynset", "nf_tables"),
        ("fib", "fib", "nft_fib_inet"),
        ("masquerade", "masq", "nft_masq"),
        ("dnat", "nat", "nft_nat"),
        ("ct ", "ct", "nft_ct"),
    ]
    .into_iter()
    .find(|(word, ..)| rule.contains(word))
    .map(|(_, expression, module)| (expression, module))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict when the kernel does not know the rules with this word.
    fn without(word: &str) -> String {
        let batch = everything();
        let about = |sequence: &u32| match batch.subject(*sequence) {
            Some(Subject::Structure(what) | Subject::Own(_, what)) => {
                what.starts_with("rule") && what.contains(word)
            }
            _ => false,
        };
        let refusals: Vec<Refusal> = (1..batch.next_sequence())
            .filter(about)
            .map(|sequence| Refusal { sequence, error: Errno::NOENT })
            .collect();
        judge(&batch, &refusals).unwrap_err()
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        for (word, lack) in [
            ("numgen", "it lacks numgen (module nft_numgen)"),
            ("jhash ip saddr mod", "it lacks hash (module nft_hash)"),
            ("reject", "it lacks reject (module nft_reject_inet)"),
            ("update @persist6", "it lacks dynset (module nf_tables)"),
            ("fib", "it lacks fib (module nft_fib_inet)"),
        ] {
            let verdict = without(word);
            assert!(verdict.contains(word) && verdict.ends_with(lack), "{verdict}");
        }
        let batch = everything();
        assert_eq!(judge(&batch, &[]).unwrap().helpers.len(), 3);
        let busy = Refusal { sequence: 3, error: Errno::BUSY };
        assert!(!judge(&batch, &[busy]).unwrap_err().contains("lacks"));
    }
}
