//! What else is not the same about two records, and may be why their figures differ: machine, programs, configurations.

use crate::record::Record;
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
