//! In what the maps differ from the plan: read afresh, compared with what the engine thinks that they hold.

use std::collections::BTreeMap;

use portway_core::engine::EngineError;
use portway_core::plan::ebpf::Plan;

use crate::adopt::read;
use crate::held::Held;
use crate::refusal::failure;

/// The differences in words; none when there are none.
pub fn verify(held: &mut Held, plan: &Plan) -> Result<Vec<String>, EngineError> {
    let mut differences = Vec::new();
    let (rules, listening, _) = read(&held.maps).map_err(|error| failure("read the maps", &error))?;
    for name in plan.rules.keys() {
        let (Some(wanted), Some(found)) = (held.rules.get(name), rules.get(name)) else {
            differences.push(format!("rule {name} is missing"));
            continue;
        };
        if wanted.value != found.value || wanted.slots != found.slots {
            differences.push(format!("rule {name}: its entry in the maps is another"));
        }
        for (place, member) in &wanted.members {
            let other = found.members.get(place);
            if other.map(|other| (other.id, other.value)) != Some((member.id, member.value)) {
                let address = crate::value::ip(place.address);
                differences.push(format!("rule {name}: member {address} is missing or another"));
            }
        }
    }
    for (name, found) in &rules {
        if found.value.is_some() && !plan.rules.contains_key(name) {
            differences.push(format!("rule {name} is stale"));
        }
    }
    let wanted: BTreeMap<_, _> = held.rules.values().flat_map(|rule| &rule.keys).collect();
    let missing = wanted.iter().filter(|(key, value)| listening.get(*key) != Some(**value)).count();
    let stale = listening.keys().filter(|key| !wanted.contains_key(*key)).count();
    if missing > 0 {
        differences.push(format!("{missing} listeners are missing or lead elsewhere"));
    }
    if stale > 0 {
        differences.push(format!("{stale} listeners are stale"));
    }
    differences.extend(held.unattached());
    Ok(differences)
}
