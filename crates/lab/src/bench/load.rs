//! The two loads: new connections by ab, one bulk TCP stream by iperf3; and the CPU time spent meanwhile.

use std::time::{Duration, Instant};
use std::{fs, thread};

use portway_lab::{Process, Scratch, process};
use serde_json::Value;

use crate::lane::Lane;
use crate::sample::{Bulk, Connections};

/// Clients at a time.
const CONCURRENCY: &str = "64";

/// A new connection for every request, by ab.
pub fn connections(lane: &Lane, seconds: u32) -> Connections {
    let files = Scratch::new();
    let percentiles = files.join("percentiles");
    let mut ab = lane.net.client().command("ab");
    // The bound on requests is never reached; ab wants one, and after -t.
    ab.args(["-q", "-t", &seconds.to_string(), "-n", "500000", "-c", CONCURRENCY, "-s", "10", "-e"]);
    ab.arg(&percentiles).arg(format!("http://{}:{}/page", lane.address(), lane.web_port()));
    let (report, cpu) = watched(lane, || process::run(&mut ab));
    let done = field(&report, "Complete requests:");
    let failed = field(&report, "Failed requests:");
    assert!(failed == 0.0, "{}: {failed} of {done} requests failed", lane.kind.name());
    let table = fs::read_to_string(&percentiles).expect("ab wrote it");
    let p99 = table.lines().find_map(|line| line.strip_prefix("99,")?.parse().ok());
    Connections {
        requests_per_second: field(&report, "Requests per second:"),
        p99_ms: p99.expect("ab -e lists the 99th percentile"),
        lab_us: cpu.lab.as_secs_f64() * 1e6 / done,
        machine_us: cpu.machine.as_secs_f64() * 1e6 / done,
        forwarder_us: cpu.forwarder.map(|own| own.as_secs_f64() * 1e6 / done),
    }
}

/// One TCP stream from the client, by iperf3.
pub fn bulk(lane: &Lane, seconds: u32) -> Bulk {
    let mut iperf = lane.net.client().command("iperf3");
    iperf.args(["-c", lane.address(), "-p", "5201", "-J", "-t", &seconds.to_string()]);
    let (report, cpu) = watched(lane, || process::run(&mut iperf));
    let report: Value = serde_json::from_str(&report).expect("iperf3 -J prints JSON");
    let received = &report["end"]["sum_received"];
    let bytes = received["bytes"].as_f64().expect("iperf3 counts bytes");
    let gigabytes = bytes / 1e9;
    Bulk {
        gbit_per_second: received["bits_per_second"].as_f64().expect("iperf3 has a rate") / 1e9,
        lab_ms_per_gb: cpu.lab.as_secs_f64() * 1e3 / gigabytes,
        machine_ms_per_gb: cpu.machine.as_secs_f64() * 1e3 / gigabytes,
        forwarder_ms_per_gb: cpu.forwarder.map(|own| own.as_secs_f64() * 1e3 / gigabytes),
    }
}

/// CPU time spent while a load ran.
struct Cpu {
    /// By the lab: client, server and forwarder processes and the kernel's softirq threads. Packets in the
    /// kernel are handled in the context of the process that sent them or by those threads, so this is all of
    /// the work, whatever else the machine does meanwhile.
    lab: Duration,
    /// By everything.
    machine: Duration,
    /// By the forwarder's processes.
    forwarder: Option<Duration>,
}

/// Runs a load: its report, and the CPU time spent meanwhile.
fn watched(lane: &Lane, load: impl FnOnce() -> String) -> (String, Cpu) {
    let forwarder = || lane.process().map(Process::group_cpu_time);
    let lab = || {
        let servers: Duration = lane.peers.iter().map(Process::group_cpu_time).sum();
        let rest = process::ended_children_cpu_time() + process::softirq_cpu_time();
        servers + rest + forwarder().unwrap_or_default()
    };
    let before = (forwarder(), lab(), machine_busy());
    let report = load();
    let now = (forwarder(), lab(), machine_busy());
    let forwarder = now.0.zip(before.0).map(|(now, before)| now - before);
    (report, Cpu { lab: now.1 - before.1, machine: now.2 - before.2, forwarder })
}

/// How many CPUs others keep busy while no load runs.
pub fn background() -> f64 {
    let (before, start) = (machine_busy(), Instant::now());
    thread::sleep(Duration::from_millis(500));
    (machine_busy() - before).as_secs_f64() / start.elapsed().as_secs_f64()
}

/// CPU time of the whole machine that was not idle, interrupts included (proc(5), /proc/stat, in ticks of
/// 10 ms: user nice system idle iowait irq softirq).
fn machine_busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").expect("/proc is mounted");
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|tick| tick.parse().ok()).collect();
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum();
    Duration::from_millis(busy * 10)
}

fn field(report: &str, name: &str) -> f64 {
    let line = report.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("ab printed no {name:?}:\n{report}"))
}
