//! What else is not the same about two records, and may be why their figures differ: machine, programs, configurations; and what is gone.

use super::places;
use crate::record::{Kind, Record};
use crate::report::words;

/// What else is not the same.
pub(super) fn warnings(first: &Record, second: &Record) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut differ = |what: &str, a: &str, b: &str| {
        if a != b {
            warnings.push(format!("{what} differs: {a}, then {b}"));
        }
    };
    let (a, b) = (&first.host, &second.host);
    differ("the kernel", &a.kernel, &b.kernel);
    differ("the processor", &format!("{} of {}", a.cpus, a.cpu), &format!("{} of {}", b.cpus, b.cpu));
    differ("memory", &words::bytes(a.memory as f64), &words::bytes(b.memory as f64));
    let none = || "none".to_owned();
    let hypervisor = |host: &crate::record::Host| host.hypervisor.clone().unwrap_or_else(none);
    differ("the hypervisor", &hypervisor(a), &hypervisor(b));
    for (what, a, b) in [("program", &a.programs, &b.programs), ("setting", &a.settings, &b.settings)] {
        for (name, value) in a {
            if let Some(other) = b.get(name) {
                differ(&format!("the {what} {name}"), value, other);
            }
        }
    }
    for lane in &first.lanes {
        match second.lane(&lane.name) {
            Some(other) if other.configuration != lane.configuration => {
                warnings.push(format!("the configuration of {} differs", lane.name));
            }
            Some(_) => (),
            None => warnings.push(format!("{} is in the first only", lane.name)),
        }
    }
    for lane in second.lanes.iter().filter(|lane| first.lane(&lane.name).is_none()) {
        warnings.push(format!("{} is in the second only", lane.name));
    }
    for (which, record) in [("first", first), ("second", second)] {
        if record.is_disturbed() {
            warnings.push(format!("the machine was not quiet during the {which}"));
        }
    }
    warnings
}

/// Where Portway's own lanes, which both have, were measured in the first only: what does not run any more is not better.
pub(super) fn gone(first: &Record, second: &Record) -> Vec<String> {
    let own =
        first.lanes.iter().filter(|lane| lane.kind == Kind::Portway && second.lane(&lane.name).is_some());
    let loads = second.loads();
    own.flat_map(|lane| {
        let places = places(first, lane).into_iter();
        places
            .filter(|(load, at)| {
                // What the second was not asked is not missed.
                let asked = match at {
                    Some(at) => !second.points(&lane.name, &at.of, load).is_empty(),
                    None => loads.contains(load),
                };
                asked && second.runs_of(&lane.name, load, at.as_ref()).next().is_none()
            })
            .map(|(load, at)| match at {
                Some(at) => format!("{} under {load} at {} {}", lane.name, at.of, at.count),
                None => format!("{} under {load}", lane.name),
            })
            .collect::<Vec<_>>()
    })
    .collect()
}
