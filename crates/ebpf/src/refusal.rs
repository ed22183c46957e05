//! Why the kernel or the host said no, in words.

use std::io;

use portway_core::engine::EngineError;
use portway_core::ruleset::{EngineKind, RuleName};

/// An error of this engine that is about no rule.
pub fn failure(doing: impl Into<String>, error: &io::Error) -> EngineError {
    let hint = (error.kind() == io::ErrorKind::PermissionDenied)
        .then(|| "run as root or with CAP_BPF and CAP_NET_ADMIN, or use another engine".to_owned());
    EngineError { engine: EngineKind::Ebpf, rule: None, doing: doing.into(), reason: error.to_string(), hint }
}

/// An error in words.
pub fn refused(doing: impl Into<String>, reason: impl Into<String>) -> EngineError {
    EngineError {
        engine: EngineKind::Ebpf,
        rule: None,
        doing: doing.into(),
        reason: reason.into(),
        hint: None,
    }
}

/// A rule does not fit in a map.
pub fn no_room(rule: &RuleName, what: &str) -> EngineError {
    EngineError {
        rule: Some(rule.clone()),
        hint: Some(
            "`portway clear`, then start again: the maps are then made as large as the rules need".to_owned(),
        ),
        ..refused("give the rule its place in the maps", format!("there is no room for its {what}"))
    }
}
