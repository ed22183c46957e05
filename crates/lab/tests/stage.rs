//! `portway lab` measures every engine, and ends at any moment, in any way, with nothing of it left.
//!
//! Needs root and the `portway` binary, as the conformance suite does. The moments are spread evenly over the time that a run
//! takes on this machine, with a step that has nothing in common with its own.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use portway_lab::{Scratch, portway, traces, traces::Traces};
use rustix::process::{Pid, Signal, kill_process};

/// From an empty stage to lanes of every engine under load: how long a run is watched, and how often.
const WATCHED: Duration = Duration::from_secs(6);
const TIMES: u32 = 8;

fn start(out: &Path) -> Child {
    let mut command = Command::new(portway::binary());
    command
        .args(["lab", "--quick", "--only", "nft,portway-ebpf,portway-proxy,connections,bulk-up", "--out"])
        .arg(out);
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Waits until nothing is left, and says what is if that takes too long.
fn until_none(what: &str, left: impl Fn() -> Vec<String>) {
    let start = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        // Namespaces are taken down by a thread of the kernel, BPF programs when nobody can be using them any more.
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: left are {left:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// In which lines a host is not as it was.
fn host_unlike(before: &BTreeMap<&'static str, String>) -> Vec<String> {
    let now = traces::of_host();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<String>>();
    let differ = |(topic, then): (&&str, &String)| {
        let (then, now) = (lines(then), lines(&now[*topic]));
        then.symmetric_difference(&now).map(|line| format!("{topic}: {line}")).collect::<Vec<_>>()
    };
    before.iter().flat_map(differ).collect()
}

#[test]
fn killed_at_any_moment_it_leaves_nothing() {
    let files = Scratch::new();
    let before = traces::of_host();
    let mut settings = traces::settings();
    let (mut most, mut interrupted) = ((0, 0), 0);
    for time in 0..TIMES {
        let out = files.join(&format!("out{time}"));
        let mut command = start(&out);
        thread::sleep(WATCHED * time / TIMES);
        let traces = Traces::of(command.id());
        most = (most.0.max(traces.count().0), most.1.max(traces.count().1));
        // Two deaths without a word, and one that is asked for.
        let how = if time % 3 == 2 { Signal::INT } else { Signal::KILL };
        signal(command.id(), how);
        let status = command.wait().unwrap();
        assert!(!status.success(), "{status}");
        if how == Signal::INT {
            // What was measured until then is there to be read.
            let record = std::fs::read_to_string(out.join("record.json")).unwrap();
            assert!(record.contains("the command was interrupted"), "{record}");
            interrupted += 1;
        }
        until_none(&format!("{how:?} after {:?}", WATCHED * time / TIMES), || traces.left());
    }
    assert!(interrupted > 0);
    // The moments were not all before there was anything.
    assert!(most.0 > 9 && most.1 > 9, "at most {most:?} namespaces and BPF objects were seen");
    until_none("on the host", || host_unlike(&before));
    // Figures that change by themselves, beside the settings, have changed in the second that nothing ran as well.
    let after = traces::settings();
    thread::sleep(Duration::from_secs(1));
    let later = traces::settings();
    settings.retain(|file, value| after.get(file) != Some(value) && later.get(file) == after.get(file));
    assert!(settings.is_empty(), "settings have changed: {settings:?}");
}

/// The other half may die first.
#[test]
fn a_stage_that_dies_is_an_error_and_leaves_nothing() {
    let files = Scratch::new();
    let mut command = start(&files.join("out"));
    let stage = || {
        let text =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", command.id())).unwrap_or_default();
        text.trim().parse::<u32>().ok()
    };
    portway_lab::netns::wait_for("the stage", || Traces::of(command.id()).count().0 > 4);
    let traces = Traces::of(command.id());
    signal(stage().unwrap(), Signal::KILL);
    let status = command.wait().unwrap();
    assert!(!status.success(), "{status}");
    let mut said = String::new();
    command.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("the stage has ended before its time"), "{said}");
    until_none("without a stage", || traces.left());
}

/// Every engine of this program, and a forwarder that is the user's, in one short run.
#[test]
fn every_engine_is_measured() {
    let files = Scratch::new();
    let out = files.join("out");
    let mut command = Command::new(portway::binary());
    command.args(["lab", "--quick", "--rounds", "2", "--out"]).arg(&out).args(["--only", ENGINES, "--peer"]);
    command.arg("mine=socat TCP-LISTEN:{listen_port},bind={listen_host},reuseaddr,fork TCP:{target}");
    portway_lab::process::run(&mut command);
    let record = std::fs::read_to_string(out.join("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let lanes = ["portway-nftables", "portway-ebpf", "portway-xdp", "portway-proxy", "mine", "routing"];
    for (lane, load) in lanes.iter().flat_map(|lane| [(*lane, "connections"), (*lane, "bulk-up")]) {
        let runs = record["runs"].as_array().unwrap();
        // The better of two: on a busy machine one may have had no time.
        let of_pair = runs.iter().filter(|run| run["lane"] == lane && run["load"] == load);
        let run = of_pair.max_by_key(|run| run["figures"]["bytes"].as_u64());
        let figures = &run.unwrap_or_else(|| panic!("{lane} has no run of {load}: {:#}", record["left_out"]))
            ["figures"];
        assert!(
            figures["done"].as_u64() > Some(0) && figures["bytes"].as_u64() > Some(0),
            "{lane}: {figures:#}"
        );
        assert_eq!(figures["errors"], serde_json::json!({}), "{lane}: {figures:#}");
        // A request and its answer are some packets at the gateway, and some CPU time.
        assert!(figures["packets"].as_u64() > figures["done"].as_u64(), "{lane}: {figures:#}");
        // Which of it is the kernel's is sampled by ticks, which a short run may escape.
        let time = |of: &str| Some(figures[of]["user"].as_f64()? + figures[of]["kernel"].as_f64()?);
        assert!(time("cpu") > Some(0.0), "{lane}: {figures:#}");
        let relay = lane == "portway-proxy" || lane == "mine";
        assert_eq!(time("forwarder_cpu") > Some(0.0), relay, "{lane}: {figures:#}");
        assert_eq!(figures["forwarder_memory"].as_u64() > Some(0), lane != "routing", "{lane}: {figures:#}");
        let added = |of: &str| figures[of].as_u64() > Some(0);
        let tracked = lane == "portway-nftables";
        if load == "connections" {
            // Each connection is an entry and a port, and few of those before run out meanwhile. A relay's ports are not known.
            assert_eq!(added("source_ports"), lane.starts_with("portway-") && !relay, "{lane}: {figures:#}");
            assert_eq!(added("conntrack"), tracked, "{lane}: {figures:#}");
        } else {
            assert!(tracked || !added("conntrack"), "{lane}: {figures:#}");
        }
    }
}

const ENGINES: &str = "portway-nftables,portway-ebpf,portway-xdp,portway-proxy,connections,bulk-up";
