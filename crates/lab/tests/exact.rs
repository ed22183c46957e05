//! `portway lab --exact`: the machine that counts instructions counts the same as when the baseline was made, tells a
//! regression, and leaves nothing when it is killed.
//!
//! Needs root, the `portway` binary and qemu with Debian's kernel, which is fetched. The baseline is of such a build as the tests
//! run (without optimisation); CONTRIBUTING says how it is made again. Deliberately absent: judging other forwarders.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails where it stands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portway_lab::emulated::Kernel;
use portway_lab::emulated::kernel::{CACHE, USUAL};
use portway_lab::{Scratch, portway, process, traces::Traces};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What is compared. The zero lines come along.
const ONLY: &str = "nft,portway-nftables,portway-ebpf,portway-xdp,portway-proxy,connections,keepalive";
/// Differences in percent that are none. Medians of three rounds of the same program differ by less.
const LEAST: &str = "3";

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exact/record.json")
}

/// The command, with a kernel that is there: fetching one takes longer than a test waits for a machine.
fn lab(only: &str, out: &Path) -> Command {
    let kernel = Kernel::named(USUAL, Path::new(CACHE)).unwrap();
    let mut command = Command::new(portway::binary());
    command.args(["lab", "--kernel"]).arg(kernel.directory());
    command.args(["--exact", "--quick", "--rounds", "3", "--only", only, "--out"]).arg(out);
    command
}

fn compare(with: &Path) -> Result<String, String> {
    let mut command = Command::new(portway::binary());
    command
        .args(["lab", "compare", "--fail-on-regression", "--all", "--least", LEAST])
        .arg(baseline())
        .arg(with);
    process::attempt(&mut command)
}

#[test]
fn no_engine_needs_more_instructions_than_it_did() {
    let files = Scratch::new();
    let out = files.join("out");
    process::run(&mut lab(ONLY, &out));
    let path = out.join("record.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(record["mode"], "exact");
    let said = compare(&path).unwrap_or_else(|why| panic!("{why}"));
    for lane in ["portway-nftables", "portway-ebpf", "portway-xdp", "portway-proxy"] {
        assert!(said.contains(lane), "{lane} was not compared:\n{said}");
    }
    // That it can fail: the same with a fifth more of the kernel's on one lane.
    let runs = record["runs"].as_array_mut().unwrap();
    for run in runs.iter_mut().filter(|run| run["lane"] == "portway-ebpf") {
        let kernel = run["figures"]["cpu"]["kernel"].as_f64().unwrap();
        run["figures"]["cpu"]["kernel"] = (kernel * 1.2).into();
    }
    let worse = files.write("worse.json", record.to_string());
    let complaint = compare(&worse).unwrap_err();
    assert!(complaint.contains("that are worse: "), "{complaint}");
}

#[test]
fn a_machine_that_is_killed_leaves_nothing() {
    let files = Scratch::new();
    let mut command = lab("nft,connections", &files.join("out"));
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
