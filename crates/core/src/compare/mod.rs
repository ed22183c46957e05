//! What a changed file would change, rule by rule: for `portway diff` and for the line that a reload prints.
//!
//! Deliberately absent: what an engine has to send for it; that is each plan's own diff.

mod pool;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::assign::Assignment;
use crate::ruleset::{Rule, RuleName, Ruleset};

pub use pool::backends;

/// What happens to one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "change")]
pub enum RuleChange {
    /// The rule is new.
    Added {
        /// Its name.
        rule: RuleName,
        /// What it says.
        fields: BTreeMap<&'static str, String>,
    },
    /// The rule is gone.
    Removed {
        /// Its name.
        rule: RuleName,
        /// What it said.
        fields: BTreeMap<&'static str, String>,
    },
    /// The rule says something else.
    Changed {
        /// Its name.
        rule: RuleName,
        /// What differs.
        fields: Vec<FieldChange>,
    },
}

/// One difference between two states of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// Which key.
    pub field: &'static str,
    /// What it said, if anything.
    pub from: Option<String>,
    /// What it says, if anything.
    pub to: Option<String>,
}

/// The changes from one assigned ruleset to another, ordered by rule name. Rules are the same when their names
/// are; host and proxy settings are not rules and not compared here.
pub fn compare(old: (&Ruleset, &Assignment), new: (&Ruleset, &Assignment)) -> Vec<RuleChange> {
    let (old, mut new) = (fields_by_name(old), fields_by_name(new));
    let mut changes = BTreeMap::new();
    for (rule, (was, before)) in old {
        match new.remove(&rule) {
            None => {
                changes.insert(rule.clone(), RuleChange::Removed { rule, fields: before });
            }
            Some((is, after)) => {
                let mut fields = field_changes(before, after);
                if fields.iter().all(|change| change.field != "check") {
                    fields.extend(pool::secret_change(&was.pool, &is.pool));
                    fields.sort_by_key(|change| change.field);
                }
                if !fields.is_empty() {
                    changes.insert(rule.clone(), RuleChange::Changed { rule, fields });
                }
            }
        }
    }
    for (rule, (_, fields)) in new {
        changes.insert(rule.clone(), RuleChange::Added { rule, fields });
    }
    changes.into_values().collect()
}

/// What a rule says, in words, by its keys.
pub type Fields = BTreeMap<&'static str, String>;

fn fields_by_name<'a>(
    (ruleset, assignment): (&'a Ruleset, &Assignment),
) -> BTreeMap<RuleName, (&'a Rule, Fields)> {
    let assigned = ruleset.rules.iter().zip(&assignment.rules);
    let named = assigned.map(|(rule, assigned)| {
        let fields = fields(rule, assigned.engine.to_string());
        (rule.name.clone(), (rule, fields))
    });
    named.collect()
}

fn fields(rule: &Rule, engine: String) -> Fields {
    let listeners: Vec<_> = rule.listeners.iter().map(ToString::to_string).collect();
    let mut fields = settings(rule);
    fields.extend([
        ("listen", listeners.join(", ")),
        ("forward", pool::backends(&rule.pool)),
        ("source", rule.source.to_string()),
        ("engine", engine),
    ]);
    fields
}

/// The settings of a rule that are not the defaults: not where it listens and leads, by which source address and which
/// engine.
pub fn settings(rule: &Rule) -> Fields {
    let mut fields: Fields = pool::settings(&rule.pool).into_iter().collect();
    if let Some(helper) = rule.helper {
        fields.insert("helper", helper.to_string());
    }
    if let Some(max) = rule.max_connections {
        fields.insert("max-connections", max.to_string());
    }
    fields.extend(rule.client_address.map(|how| ("client-address", how.to_string())));
    fields.extend(rule.new_flow_rate.map(|rate| ("new-flow-rate", rate.to_string())));
    fields.extend(rule.syn_cookies.map(|above| ("syn-cookies", above.to_string())));
    if let Some(timeouts) = rule.timeouts {
        let text = format!(
            "connect {:?}, idle {:?}, half-closed {:?}, udp-idle {:?}",
            timeouts.connect, timeouts.idle, timeouts.half_closed, timeouts.udp_idle
        );
        fields.insert("timeouts", text);
    }
    fields
}

fn field_changes(mut before: Fields, after: Fields) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    for (field, to) in after {
        let from = before.remove(field);
        if from.as_ref() != Some(&to) {
            changes.push(FieldChange { field, from, to: Some(to) });
        }
    }
    changes.extend(before.into_iter().map(|(field, from)| FieldChange { field, from: Some(from), to: None }));
    changes.sort_by_key(|change| change.field);
    changes
}

impl fmt::Display for RuleChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |f: &mut fmt::Formatter<'_>, sign, rule, fields: &Fields| {
            let said = |field| fields.get(field).map_or("", String::as_str);
            write!(f, "{sign} {rule}: {} -> {} ({})", said("listen"), said("forward"), said("engine"))
        };
        match self {
            Self::Added { rule, fields } => whole(f, '+', rule, fields),
            Self::Removed { rule, fields } => whole(f, '-', rule, fields),
            Self::Changed { rule, fields } => {
                let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
                let one = |change: &FieldChange| {
                    format!("{}: {} => {}", change.field, shown(&change.from), shown(&change.to))
                };
                write!(f, "~ {rule}: {}", fields.iter().map(one).collect::<Vec<_>>().join("; "))
            }
        }
    }
}
