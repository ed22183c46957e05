//! `portway lab` measures every engine and every peer under loads that each do what they are for, and ends at any moment, in any
//! way, with nothing of it left.
//!
//! Needs root, the `portway` binary, the peers and tcpdump. The moments are spread evenly over the time that a run takes on this
//! machine, with a step that has nothing in common with its own; others are those of a load. Deliberately absent: instructions
//! (`exact.rs`), and any figure's size, which is the machine's.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use portway_lab::{Scratch, portway, process, traces, traces::Traces};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// From an empty stage to lanes of every engine under load: how long a run is watched, and how often.
const WATCHED: Duration = Duration::from_secs(6);
const TIMES: u32 = 8;

/// Deaths without a word, and those that are asked for.
const DEATHS: [Signal; TIMES as usize] = [
    Signal::KILL,
    Signal::KILL,
    Signal::INT,
    Signal::KILL,
    Signal::TERM,
    Signal::KILL,
    Signal::HUP,
    Signal::KILL,
];

/// Lanes and loads of all kinds.
const MIXED: [&str; 2] = ["--only", "nft,portway-ebpf,portway-proxy,connections,bulk-up"];

fn start(words: &[&str], out: &Path) -> Child {
    let mut command = Command::new(portway::binary());
    command.args(["lab", "--quick"]).args(words).arg("--out").arg(out);
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// A short run to its end: its record, what it said meanwhile, and where it left the rest. On a busy machine a lane may have had no
/// time at all: then another run, of three.
fn measured(words: &[&str], files: &Scratch) -> (Value, String, PathBuf) {
    let mut tries = (1..=3).map(|nth| files.join(&format!("out{nth}"))).map(|out| {
        let mut command = Command::new(portway::binary());
        command.args(["lab", "--quick"]).args(words).arg("--out").arg(&out);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {}\n{said}", output.status);
        (record(&out), said, out)
    });
    let had_time = |(record, ..): &(Value, String, PathBuf)| {
        let runs = record["runs"].as_array().unwrap().iter();
        let pairs: BTreeSet<(&str, &str)> =
            runs.filter_map(|run| Some((run["lane"].as_str()?, run["load"].as_str()?))).collect();
        let did = |(lane, load)| runs_of(record, lane, load).any(|run| run["figures"]["done"] != 0);
        pairs.into_iter().all(did)
    };
    let first = tries.next().unwrap();
    if had_time(&first) { first } else { tries.find(had_time).unwrap_or(first) }
}

fn record(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("record.json")).unwrap()).unwrap()
}

/// The runs of a lane under a load.
fn runs_of<'a>(record: &'a Value, lane: &'a str, load: &'a str) -> impl Iterator<Item = &'a Value> {
    let runs = record["runs"].as_array().unwrap().iter();
    runs.filter(move |run| run["lane"] == lane && run["load"] == load)
}

/// The figures of such a run, if there is one. The better of several: on a busy machine one may have had no time.
fn figures<'a>(record: &'a Value, lane: &'a str, load: &'a str) -> &'a Value {
    let run = runs_of(record, lane, load).max_by_key(|run| run["figures"]["bytes"].as_u64());
    &run.unwrap_or_else(|| panic!("{lane} has no run of {load}: {:#}", record["left_out"]))["figures"]
}

/// What is left out of a record, by name.
fn left_out(record: &Value) -> Vec<&str> {
    record["left_out"].as_array().unwrap().iter().filter_map(|each| each["name"].as_str()).collect()
}

/// Each lane has a capture of new connections, of which nothing is missing, that each begin with one SYN on either wire, and
/// whose packets are as many for tcpdump.
fn captures_are_whole(record: &Value, lanes: &[&str], out: &Path) {
    for lane in lanes {
        let all = record["captures"].as_array().unwrap();
        let capture = all.iter().find(|each| each["lane"] == *lane && each["load"] == "connections");
        let capture = capture.unwrap_or_else(|| panic!("no capture of {lane}: {:#}", record["left_out"]));
        assert_eq!((&capture["missed"], &capture["not_kept"]), (&json!(0), &json!(0)), "{capture:#}");
        let done = capture["done"].as_u64().unwrap();
        assert!(done > 0, "{capture:#}");
        let wires = capture["wires"].as_array().unwrap();
        assert_eq!(wires.iter().map(|wire| &wire["name"]).collect::<Vec<_>>(), ["client", "server"]);
        assert!(wires.iter().all(|wire| wire["forth"]["SYN"] == done), "{capture:#}");
        let kinds =
            || wires.iter().flat_map(|wire| [&wire["forth"], &wire["back"]]).filter_map(Value::as_object);
        let counted: u64 = kinds().flat_map(|kinds| kinds.values()).filter_map(Value::as_u64).sum();
        let again: u64 = kinds().filter_map(|kinds| kinds.get("again")?.as_u64()).sum();
        let file = out.join(capture["file"].as_str().unwrap());
        let read = |what: &str| {
            let mut command = process::program("tcpdump");
            command.args(["-nn", "-q", "-r"]).arg(&file).arg(what);
            process::run(&mut command).lines().count() as u64
        };
        // The neighbours' questions (ARP) are in the file and no packets of the load.
        assert_eq!(read("ip and (tcp or udp)"), counted, "{lane}: {capture:#}");
        let opening = read("tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn");
        assert!((2 * done..=2 * done + again).contains(&opening), "{lane}: {opening} SYNs, {capture:#}");
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Ends a command by a signal. If it was asked, what was measured until then is there to be read.
fn end(command: &mut Child, how: Signal, out: &Path) {
    signal(command.id(), how);
    let status = command.wait().unwrap();
    assert!(!status.success(), "{how:?}: {status}");
    if how != Signal::KILL {
        let last = record(out)["left_out"].as_array().and_then(|all| all.last()).cloned();
        let why = json!({ "name": "the rest", "why": "the command was interrupted" });
        assert_eq!(last, Some(why), "{how:?}");
    }
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
        let mut command = start(&MIXED, &out);
        thread::sleep(WATCHED * time / TIMES);
        let traces = Traces::of(command.id());
        most = (most.0.max(traces.count().0), most.1.max(traces.count().1));
        let how = DEATHS[time as usize];
        end(&mut command, how, &out);
        interrupted += usize::from(how != Signal::KILL);
        until_none(&format!("{how:?} after {:?}", WATCHED * time / TIMES), || traces.left());
    }
    assert_eq!(interrupted, 3);
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
    let mut command = start(&MIXED, &files.join("out"));
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

/// The article's load holds ten thousand connections and changes settings, and a flood is a program that nobody answers: a run
/// that ends then leaves nothing either. The settings are those of the hosts that it is for, for as long as it lasts.
#[test]
fn ended_during_the_loads_that_change_most_it_leaves_nothing() {
    let files = Scratch::new();
    let own = cookies();
    let (mut first, mut other) = (BTreeSet::new(), false);
    for (during, how) in [("flood", Signal::HUP), ("article", Signal::KILL), ("next article", Signal::TERM)] {
        let out = files.join(during);
        let mut command = start(&["--only", "portway-xdp,article,flood", "--pcap"], &out);
        let id = command.id();
        until(during, &mut command, || {
            let traces = Traces::of(id);
            let without = without_cookies(&traces);
            match during {
                "flood" => traces.command_lines().any(|line| line.contains("Flood")),
                "article" => without.len() == 3,
                _ => {
                    if first.is_empty() && without.len() == 3 {
                        first.clone_from(&without);
                    }
                    // Those of the lane before have theirs back.
                    other = !without.is_empty() && without.is_disjoint(&first);
                    !first.is_empty() && other
                }
            }
        });
        assert_eq!(cookies(), own, "the machine's own setting during {during}");
        let traces = Traces::of(id);
        assert!(traces.count().1 > 9, "{:?} namespaces and BPF objects were seen", traces.count());
        end(&mut command, how, &out);
        until_none(&format!("{how:?} during {during}"), || traces.left());
        assert_eq!(cookies(), own, "the machine's own setting after {during}");
        if during == "next article" {
            let figures = figures(&record(&out), "portway-xdp", "article").clone();
            assert!(figures["done"].as_u64() > Some(0), "{figures:#}");
        }
    }
}

/// The setting of SYN cookies in the network namespace of the thread.
fn cookies() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies").unwrap_or_default().trim().to_owned()
}

/// The hosts of a run without SYN cookies.
fn without_cookies(traces: &Traces) -> BTreeSet<String> {
    let all = traces.in_networks(cookies).into_iter();
    all.filter(|(_, setting)| setting == "0").map(|(host, _)| host).collect()
}

/// Waits for a moment of a run.
fn until(moment: &str, command: &mut Child, mut is_now: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_now() {
        if let Some(status) = command.try_wait().unwrap() {
            let mut said = String::new();
            command.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("{moment}: the command has ended before ({status}): {said}");
        }
        assert!(start.elapsed() < Duration::from_secs(120), "waited in vain for {moment}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Every engine of this program, and a forwarder that is the user's, in one short run.
#[test]
fn every_engine_is_measured() {
    let files = Scratch::new();
    let mine =
        "mine=socat TCP-LISTEN:{listen_port},bind={listen_host},backlog=4096,reuseaddr,fork TCP:{target}";
    let only = "portway-nftables,portway-ebpf,portway-xdp,portway-proxy,connections,bulk-up";
    let (record, _, out) = measured(&["--rounds", "2", "--only", only, "--peer", mine, "--pcap"], &files);
    assert_eq!(left_out(&record), [""; 0]);
    let lanes = ["portway-nftables", "portway-ebpf", "portway-xdp", "portway-proxy", "mine", "routing"];
    for (lane, load) in lanes.iter().flat_map(|lane| [(*lane, "connections"), (*lane, "bulk-up")]) {
        let figures = figures(&record, lane, load);
        assert!(
            figures["done"].as_u64() > Some(0) && figures["bytes"].as_u64() > Some(0),
            "{lane}: {figures:#}"
        );
        assert_eq!(figures["errors"], json!({}), "{lane}: {figures:#}");
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
    captures_are_whole(&record, &lanes, &out);
}

/// What they are compared with: each peer forwards what it is asked to.
#[test]
fn every_peer_is_measured() {
    let files = Scratch::new();
    let lanes = ["iptables", "nft", "haproxy", "nginx-stream", "socat", "routing"];
    let only = format!("{},haproxy-splice,connections,bulk-up", lanes.join(","));
    let (record, said, out) = measured(&["--only", &only, "--pcap"], &files);
    let estimate = |line: &str| line.starts_with("about ") && line.ends_with(" to go");
    assert!(said.lines().any(estimate), "{said}");
    // Nothing else is missing than what makes no sense.
    assert_eq!(left_out(&record), ["haproxy-splice under connections"]);
    let asked = lanes.iter().flat_map(|lane| [(*lane, "connections"), (*lane, "bulk-up")]);
    for (lane, load) in asked.chain([("haproxy-splice", "bulk-up")]) {
        let figures = figures(&record, lane, load);
        assert!(
            figures["done"].as_u64() > Some(0) && figures["bytes"].as_u64() > Some(0),
            "{lane} under {load}: {figures:#}"
        );
        assert_eq!(figures["errors"], json!({}), "{lane} under {load}: {figures:#}");
        let tracked = lane == "iptables" || lane == "nft";
        if load == "connections" || !tracked {
            assert_eq!(figures["conntrack"].as_u64() > Some(0), tracked, "{lane} under {load}: {figures:#}");
        }
    }
    captures_are_whole(&record, &lanes, &out);
}

/// Whoever holds a connection for others holds something for it, and holds it for as long as it is looked at. In a run of its own:
/// what other loads have left free would be taken first.
#[test]
fn a_held_connection_takes_memory() {
    let files = Scratch::new();
    let (record, ..) = measured(&["--only", "portway-nftables,portway-proxy,haproxy,idle"], &files);
    assert_eq!(left_out(&record), [""; 0]);
    let idle = |lane| figures(&record, lane, "idle");
    for lane in ["portway-nftables", "portway-proxy", "haproxy", "routing"] {
        let run = runs_of(&record, lane, "idle").next();
        assert!(
            run.is_some_and(|run| run["moments"].as_array().is_some_and(|all| !all.is_empty())),
            "{lane}"
        );
        assert_eq!((&idle(lane)["done"], &idle(lane)["errors"]), (&json!(200), &json!({})), "{lane}");
    }
    let each = |lane| {
        let of = |figure: &str| idle(lane)[figure].as_f64().unwrap();
        (of("forwarder_memory") - of("forwarder_memory_before")) / of("done")
    };
    // Addresses, two sockets and a timer; a session with its buffers. The daemon has nothing to do with it.
    assert!(each("portway-proxy") > 100.0, "{} bytes for a connection", each("portway-proxy"));
    assert!(each("haproxy") > 1024.0, "{} bytes for a connection", each("haproxy"));
    assert!(each("portway-nftables") < 100.0, "{} bytes for a connection", each("portway-nftables"));
    assert!(idle("portway-nftables")["conntrack"].as_u64() >= Some(200));
}

/// The loads that no other test runs: each does what it is for.
#[test]
fn every_load_is_what_it_says() {
    const LANES: [&str; 2] = ["portway-nftables", "portway-proxy"];
    let files = Scratch::new();
    let loads = ["churn", "flood", "udp-small", "udp-large", "bulk-down"];
    let only = format!("{},{}", LANES.join(","), loads.join(","));
    let (record, ..) = measured(&["--only", &only], &files);
    assert_eq!(left_out(&record), ["routing under churn"]);
    for (lane, load) in LANES.iter().flat_map(|lane| loads.map(|load| (*lane, load))) {
        let run =
            runs_of(&record, lane, load).next().unwrap_or_else(|| panic!("{lane} has no run of {load}"));
        assert!(run["figures"]["done"].as_u64() > Some(0), "{lane} under {load}: {run:#}");
        assert!(!run["moments"].as_array().unwrap().is_empty(), "{lane} under {load}: {run:#}");
        if matches!(load, "udp-small" | "udp-large" | "bulk-down") {
            assert_eq!(run["figures"]["errors"], json!({}), "{lane} under {load}: {run:#}");
        }
    }
    for lane in LANES {
        // A thousand a second for three seconds, during the second of which a backend is dead. Had nothing come through after that
        // at most half of them had succeeded.
        let churn = figures(&record, lane, "churn");
        assert!(churn["done"].as_u64() > Some(1500), "{lane}: {churn:#}");
    }
    // Until a check finds out, every other connection is refused. The proxy tries the other backend instead.
    let churn = figures(&record, "portway-nftables", "churn");
    let failed = churn["errors"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
    assert!(failed > 0, "a backend died and nobody noticed: {churn:#}");
    // The strongest of three: on a busy machine whoever floods has no time either.
    let floods =
        ["routing", LANES[0], LANES[1]].map(|lane| figures(&record, lane, "flood")["flood"].as_f64());
    assert!(floods.iter().any(|rate| *rate >= Some(15_000.0)), "{floods:?} SYNs a second");
}
