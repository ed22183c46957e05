//! `portway lab --exact`: the machine that counts instructions counts the same as when the baseline was made, tells a
//! regression, and leaves nothing when it is killed.
//!
//! Needs root, the `portway` binary and qemu with Debian's kernel, which is fetched. The baseline is of such a build as the tests
//! run (without optimisation); CONTRIBUTING says how it is made again. Deliberately absent: judging other forwarders.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails where it stands.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portway_lab::emulated::Kernel;
use portway_lab::emulated::kernel::{CACHE, USUAL};
use portway_lab::{Scratch, portway, process, traces::Traces};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// What is compared, and IPVS, which is seen to work: few kernels but this machine's have it. The zero lines come along.
const ONLY: &str = "nft,ipvs,portway-nftables,portway-ebpf,portway-xdp,portway-proxy,connections,keepalive";
/// Differences in percent that are none. Medians of three rounds of the same program differ by less.
const LEAST: &str = "3";

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exact/record.json")
}

/// The command, with a kernel that is there: fetching one takes longer than a test waits for a machine.
fn lab(only: &str, rounds: &str, out: &Path) -> Command {
    let kernel = Kernel::named(USUAL, Path::new(CACHE)).unwrap();
    let mut command = Command::new(portway::binary());
    command.args(["lab", "--kernel"]).arg(kernel.directory());
    command.args(["--exact", "--quick", "--rounds", rounds, "--only", only, "--out"]).arg(out);
    command
}

/// How far apart rounds of the baseline may be: it is compared with for as long as it lies here.
const APART: f64 = 1.02;

fn compare(with: &Path) -> Result<String, String> {
    let mut command = Command::new(portway::binary());
    command
        .args(["lab", "compare", "--fail-on-regression", "--all", "--least", LEAST])
        .arg(baseline())
        .arg(with);
    process::attempt(&mut command)
}

fn read(record: &Path) -> Value {
    serde_json::from_slice(&fs::read(record).unwrap()).unwrap()
}

#[test]
fn no_engine_needs_more_instructions_than_it_did() {
    let files = Scratch::new();
    let out = files.join("out");
    process::run(&mut lab(ONLY, "3", &out));
    let path = out.join("record.json");
    let record = read(&path);
    assert_eq!(record["mode"], "exact");
    assert_eq!(record["left_out"], json!([]));
    let said = compare(&path).unwrap_or_else(|why| panic!("{why}"));
    for lane in ["portway-nftables", "portway-ebpf", "portway-xdp", "portway-proxy"] {
        assert!(said.contains(lane), "{lane} was not compared:\n{said}");
    }
    let runs = record["runs"].as_array().unwrap();
    let mut ipvs = runs.iter().filter(|run| run["lane"] == "ipvs" && run["load"] == "connections").peekable();
    assert!(ipvs.peek().is_some());
    for run in ipvs {
        let figures = &run["figures"];
        assert!(figures["done"].as_u64() > Some(0) && figures["conntrack"].as_u64() > Some(0), "{figures:#}");
        assert_eq!(figures["errors"], json!({}), "{figures:#}");
    }
}

/// That the comparison can fail: the baseline itself with a little more of something on one lane.
#[test]
fn four_percent_more_are_a_regression() {
    let files = Scratch::new();
    compare(&baseline()).unwrap_or_else(|why| panic!("{why}"));
    for (what, place) in [
        ("kernel", "/figures/cpu/kernel"),
        ("programs", "/figures/cpu/user"),
        ("packets", "/figures/packets"),
    ] {
        let mut record = read(&baseline());
        let runs = record["runs"].as_array_mut().unwrap();
        for run in runs.iter_mut().filter(|run| run["lane"] == "portway-ebpf") {
            let all = run["figures"]["cpu"]["kernel"].as_f64().unwrap()
                + run["figures"]["cpu"]["user"].as_f64().unwrap();
            let figure = run.pointer_mut(place).unwrap();
            *figure = match what {
                "packets" => json!((figure.as_f64().unwrap() * 1.04).ceil() as u64),
                _ => json!(figure.as_f64().unwrap() + all * 0.04),
            };
        }
        let worse = files.write(&format!("{what}.json"), record.to_string());
        let complaint = compare(&worse).unwrap_err();
        assert!(complaint.contains("that are worse: 2"), "{what}: {complaint}");
    }
}

/// A disturbed round of the baseline would hide what is worse, or blame what is not.
#[test]
fn the_baseline_was_not_disturbed() {
    let record = read(&baseline());
    let mut figures = BTreeMap::<(&str, &str), Vec<f64>>::new();
    for run in record["runs"].as_array().unwrap() {
        let of = |part: &str| run["figures"]["cpu"][part].as_f64().unwrap();
        let each = (of("user") + of("kernel")) / run["figures"]["done"].as_f64().unwrap();
        let place = (run["lane"].as_str().unwrap(), run["load"].as_str().unwrap());
        figures.entry(place).or_default().push(each);
    }
    for (place, rounds) in figures {
        let (least, most) = rounds.iter().fold((f64::MAX, 0.0), |(a, b), each| (each.min(a), each.max(b)));
        assert!(rounds.len() == 3 && most / least <= APART, "{place:?}: {rounds:?} s");
    }
}

/// Where the work goes: in netfilter only where there are rules, in a forwarder's program only where there is one, and the parts are the
/// whole.
#[test]
fn it_is_seen_where_the_instructions_go() {
    let files = Scratch::new();
    let out = files.join("out");
    process::run(lab("nft,portway-ebpf,portway-proxy,connections", "1", &out).arg("--profile"));
    let record = read(&out.join("record.json"));
    assert_eq!(record["left_out"], json!([]));
    let all = record["profiles"].as_array().unwrap();
    for lane in ["routing", "nft", "portway-ebpf", "portway-proxy"] {
        let profile = all.iter().find(|profile| profile["lane"] == lane).unwrap();
        let area = |name: &str| profile["areas"][name].as_u64().unwrap_or(0);
        let samples = profile["samples"].as_u64().unwrap();
        // 500 connections of more than a hundred thousand instructions, each sample of 25,000 of them or, with its own, fewer.
        assert!(samples > 2000, "{profile:#}");
        assert_eq!((&profile["done"], &profile["lost"]), (&json!(500), &json!(0)), "{lane}");
        let sum: u64 =
            profile["areas"].as_object().unwrap().values().map(|samples| samples.as_u64().unwrap()).sum();
        assert_eq!(sum, samples, "{lane}");
        for each in ["client", "server", "calls", "transport", "ip", "devices", "memory"] {
            assert!(area(each) * 100 > samples, "{lane}: {each}: {profile:#}");
        }
        // The kernel's security modules have hooks of their own, everywhere: a third of a percent, where nft's rules make it one.
        assert_eq!(area("netfilter") * 1000 > samples * 7, lane == "nft", "{lane}: {profile:#}");
        assert_eq!(area("conntrack") > 0, lane == "nft", "{lane}: {profile:#}");
        assert_eq!(area("conntrack") * 20 > samples, lane == "nft", "{lane}: {profile:#}");
        assert_eq!(area("bpf") * 100 > samples, lane == "portway-ebpf", "{lane}: {profile:#}");
        assert_eq!(area("forwarder") > 0, lane == "portway-proxy", "{lane}: {profile:#}");
        assert!(area("other") * 50 < samples, "{lane}: {profile:#}");
        let functions = profile["functions"].as_array().unwrap();
        let has = |name: &str| functions.iter().any(|function| function["name"] == name);
        assert_eq!(has("nf_conntrack_tcp_packet"), lane == "nft", "{lane}: {profile:#}");
    }
}

#[test]
fn a_machine_that_is_killed_leaves_nothing() {
    let files = Scratch::new();
    let mut command = lab("nft,connections", "3", &files.join("out"));
    let mut command =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let machine = || Traces::of(command.id()).programs().any(|name| name.starts_with("qemu"));
    portway_lab::netns::wait_for("the machine", machine);
    let traces = Traces::of(command.id());
    let pid = Pid::from_raw(i32::try_from(command.id()).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    command.wait().unwrap();
    portway_lab::netns::wait_for("that nothing is left", || traces.left().is_empty());
}
