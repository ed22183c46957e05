//! Why the kernel or the host said no, in words.

use std::io;

use portway_core::engine::EngineError;
use portway_core::plan::nftables::table::Chain;
use portway_core::plan::nftables::{Data, Plan, RuleId, Set, Value};
use portway_core::ruleset::{EngineKind, RuleName};
use portway_netlink::socket::Refusal;

use crate::encode::{Batch, Subject};

/// The error for what the kernel refused on the way to `plan`; names the rule where the refusal is about one.
pub fn refusal_error(plan: &Plan, batch: &Batch, refusals: &[Refusal]) -> EngineError {
    let rule_of = |set: Set, key: &[Value]| -> Option<RuleName> {
        let mark =
            key.iter().find_map(|value| if let Value::Mark(mark) = value { Some(*mark) } else { None });
        let by_mark = |mark| {
            let id = RuleId::of_mark(mark)?;
            plan.ids().iter().find(|(_, other)| *other == id).map(|(name, _)| name.clone())
        };
        mark.and_then(by_mark)
            .or_else(|| RuleName::new(plan.elements.get(&set)?.get(key)?.comment.as_deref()?))
    };
    let Some(refusal) = refusals.first() else { return too_busy() };
    let mut error = failure("change the nf_tables ruleset", &refusal.error.into());
    match batch.subject(refusal.sequence) {
        None => {}
        Some(Subject::Structure(what) | Subject::Own(_, what)) => {
            error.doing = format!("set up {what}");
            if let Some(Subject::Own(id, _)) = batch.subject(refusal.sequence) {
                error.rule = plan.ids().iter().find(|(_, other)| other == id).map(|(name, _)| name.clone());
            }
            error.hint = error.hint.or_else(|| Some("the kernel may be too old or lack a module".to_owned()));
        }
        Some(Subject::Helper(object)) => {
            error.doing = format!("declare the conntrack helper {} for {}", object.helper, object.protocol);
            error.rule = plan.elements(Set::Helpers).find_map(|(key, entry)| {
                (entry.data == Data::Jump(Chain::Attach(*object))).then(|| rule_of(Set::Helpers, key))?
            });
            error.hint = Some(format!("load the kernel module nf_conntrack_{}", object.helper));
        }
        Some(Subject::Elements(set, keys)) => {
            error.rule = keys.first().filter(|_| keys.len() == 1).and_then(|key| rule_of(*set, key));
            let key =
                keys.first().map(|key| key.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . "));
            error.doing = format!("change {} of {}", key.unwrap_or_default(), set.shape().name);
        }
    }
    if refusals.len() > 1 {
        error.reason = format!("{} (and {} more refusals)", error.reason, refusals.len() - 1);
    }
    error
}

/// An error of this engine that is about no rule.
pub fn failure(doing: &str, error: &io::Error) -> EngineError {
    let hint = (error.kind() == io::ErrorKind::PermissionDenied)
        .then(|| "run as root or with CAP_NET_ADMIN, or use engine = \"proxy\"".to_owned());
    EngineError {
        engine: EngineKind::Nftables,
        rule: None,
        doing: doing.to_owned(),
        reason: error.to_string(),
        hint,
    }
}

/// The ruleset never held still.
pub fn too_busy() -> EngineError {
    let error =
        io::Error::new(io::ErrorKind::Interrupted, "other programs keep changing the nf_tables ruleset");
    failure("change the nf_tables ruleset", &error)
}
