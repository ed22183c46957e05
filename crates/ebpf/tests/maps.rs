//! What is in the maps: many rules, changed members, ranges, and maps that grow.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use portway_core::engine::Engine;
use portway_core::plan::ebpf::Plan;
use rustix::process::{Pid, Signal};
use support::{Lab, apply, apply_timed, attached, plan, rule};

/// So many rules, each for a port of its own.
fn many(count: usize) -> String {
    (0..count)
        .map(|nth| rule(&format!("r{nth}"), &format!("tcp/10.1.0.1:{}", 1000 + nth), "10.2.0.2:80"))
        .collect()
}

#[test]
fn maps_grow_with_the_rules() {
    let lab = Lab::new();
    let (mut engine, log) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&many(1))).unwrap();
    let before = attached(&lab.gateway, "lan");
    let large = plan(&many(10_000));
    let (changed, took) = apply_timed(&lab.gateway, &mut engine, &large);
    assert_eq!((changed.added, changed.removed), (9_999, 0));
    assert_ne!(attached(&lab.gateway, "lan"), before, "the programs are others, on larger maps");
    assert_eq!(attached(&lab.gateway, "lan").len(), 1);
    assert_eq!(lab.gateway.within(|| engine.verify(&large)).unwrap(), Vec::<String>::new());
    assert!(took < Duration::from_secs(5), "{took:?}");

    drop(engine);
    let (mut engine, _) = lab.engine();
    let (changed, took) = apply_timed(&lab.gateway, &mut engine, &large);
    assert_eq!((changed.added, changed.removed, changed.adopted), (0, 0, true));
    assert!(took < Duration::from_secs(5), "{took:?}");
    let changed = apply(&lab.gateway, &mut engine, &plan(&many(1))).unwrap();
    assert_eq!((changed.added, changed.removed), (0, 9_999));
    assert_eq!(lab.gateway.within(|| engine.verify(&plan(&many(1)))).unwrap(), Vec::<String>::new());
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
    lab.gateway.within(|| engine.clear()).unwrap();
}

/// What members and rules count is read by one call each, however many they are, and by none for a single element.
#[test]
fn the_counters_of_ten_thousand_rules_are_read_by_two_calls() {
    let lab = Lab::new();
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&many(10_000))).unwrap();
    let mut observer = lab.gateway.within(|| engine.observer().unwrap());
    let (calls, snapshot) = bpf_calls(|| observer.observe().unwrap());
    assert_eq!((snapshot.rules.len(), snapshot.members.len()), (10_000, 10_000));
    assert_eq!(calls, ["BPF_MAP_LOOKUP_BATCH"; 2]);
    lab.gateway.within(|| engine.clear()).unwrap();
}

/// The commands of bpf(2) that the calling thread gives while it does something, as strace sees them.
fn bpf_calls<T>(work: impl FnOnce() -> T) -> (Vec<String>, T) {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mut strace = Command::new("strace")
        .args(["--attach", &thread, "--trace=bpf", "--silence=exits"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines().map(Result::unwrap);
    let attached = lines.next().unwrap_or_default();
    assert!(attached.ends_with("attached"), "{attached}");
    let value = work();
    // It lets go of the thread and ends.
    rustix::process::kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
    let command = |line: String| Some(line.strip_prefix("bpf(")?.split_once(',')?.0.to_owned());
    let calls = lines.filter_map(command).collect();
    strace.wait().unwrap();
    (calls, value)
}

#[test]
fn a_change_of_members_takes_milliseconds_among_ten_thousand_rules() {
    let lab = Lab::new();
    let (mut engine, _) = lab.engine();
    let pool = |backends: &str| {
        "[[rule]]\nname = 'pool'\nengine = 'ebpf'\nlisten = '10.1.0.1:80'\n[rule.pool]\nbalance = 'consistent-hash'\n".to_owned()
            + &format!("backends = [{backends}]\n")
    };
    let rest = many(10_000);
    let both = plan(&(rest.clone() + &pool("'10.2.0.2:80', '10.2.0.3:80'")));
    let one = plan(&(rest + &pool("'10.2.0.2:80'")));
    apply(&lab.gateway, &mut engine, &both).unwrap();
    for (from, to) in [(&both, &one), (&one, &both)] {
        let change = Plan::diff(from, to);
        assert_eq!(change.changed.len(), 1);
        let (adjusted, took) = lab.gateway.timed(|| engine.adjust(&change));
        adjusted.unwrap();
        assert!(took < Duration::from_millis(20), "{took:?}");
        assert_eq!(lab.gateway.within(|| engine.verify(to)).unwrap(), Vec::<String>::new());
    }
    lab.gateway.within(|| engine.clear()).unwrap();
}
