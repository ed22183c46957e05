//! The two loads: new connections by ab, one bulk TCP stream by iperf3; and the machine's CPU meanwhile.

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
    let (report, busy, own) = watched(lane, || process::run(&mut ab));
    let done = field(&report, "Complete requests:");
    let failed = field(&report, "Failed requests:");
    assert!(failed == 0.0, "{}: {failed} of {done} requests failed", lane.kind.name());
    let table = fs::read_to_string(&percentiles).expect("ab wrote it");
    let p99 = table.lines().find_map(|line| line.strip_prefix("99,")?.parse().ok());
    Connections {
        requests_per_second: field(&report, "Requests per second:"),
        p99_ms: p99.expect("ab -e lists the 99th percentile"),
        machine_us: busy.as_secs_f64() * 1e6 / done,
        forwarder_us: own.map(|own| own.as_secs_f64() * 1e6 / done),
    }
}

/// One TCP stream from the client, by iperf3.
pub fn bulk(lane: &Lane, seconds: u32) -> Bulk {
    let mut iperf = lane.net.client().command("iperf3");
    iperf.args(["-c", lane.address(), "-p", "5201", "-J", "-t", &seconds.to_string()]);
    let (report, busy, own) = watched(lane, || process::run(&mut iperf));
    let report: Value = serde_json::from_str(&report).expect("iperf3 -J prints JSON");
    let received = &report["end"]["sum_received"];
    let bytes = received["bytes"].as_f64().expect("iperf3 counts bytes");
    let gigabytes = bytes / 1e9;
    Bulk {
        gbit_per_second: received["bits_per_second"].as_f64().expect("iperf3 has a rate") / 1e9,
        machine_ms_per_gb: busy.as_secs_f64() * 1e3 / gigabytes,
        forwarder_ms_per_gb: own.map(|own| own.as_secs_f64() * 1e3 / gigabytes),
    }
}

/// Runs a load: its report, the machine's CPU time meanwhile, and that of the forwarder's processes.
fn watched(lane: &Lane, load: impl FnOnce() -> String) -> (String, Duration, Option<Duration>) {
    let own_before = lane.process().map(Process::group_cpu_time);
    let before = machine_busy();
    let report = load();
    let busy = machine_busy() - before;
    let own = lane.process().map(Process::group_cpu_time).zip(own_before).map(|(now, before)| now - before);
    (report, busy, own)
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
