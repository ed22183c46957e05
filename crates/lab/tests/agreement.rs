//! The figures of the load generator against those of ab, wrk and iperf3: the same load on the same servers; and the
//! failures that need a network of their own.
//!
//! The wire is the bottleneck, by a token bucket with a queue that is long enough to lose nothing. So what can be had is the
//! same for all, whatever else the machine does and however cheap a generator is, and a tool that counts wrongly shows.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use portway_lab::{Namespace, Process, Scratch, peer, portway, process, wire};
use portway_load::{
    Direction, ErrorKind, Exchange, Length, Load, Outcome, Plan, ServeOptions, Server, Stop, run,
};
use serde_json::Value;

const SERVER: &str = "10.3.0.2";
/// Bytes of the page, which leave in two segments.
const PAGE: usize = 2_000;
/// Requests at a time: enough for the wire to stay busy while a generator does not get its turn for a tenth of a second.
const AT_A_TIME: u32 = 40;
/// How far figures may be apart. What begins and ends a run is a fiftieth of it.
const TOLERANCE: f64 = 0.05;
/// The same of the slowest requests, which are few.
const OF_TAILS: f64 = 0.15;
/// The same of streams, which fill the wire only while sender, receiver and wire all get their turns.
const OF_STREAMS: f64 = 0.1;

/// Two hosts and a wire.
fn hosts() -> (Namespace, Namespace) {
    let (client, server) = (Namespace::new("client"), Namespace::new("server"));
    wire::connect(&client, "eth0", &server, "eth0");
    client.ip("addr add 10.3.0.1/24 dev eth0");
    server.ip(&format!("addr add {SERVER}/24 dev eth0"));
    (client, server)
}

/// Gives what a host sends a rate, as of a real wire: segments go one by one, and wait rather than are lost.
fn limit(host: &Namespace, mbit: u32) {
    host.run("ethtool -K eth0 tso off gso off gro off");
    host.run(&format!("tc qdisc add dev eth0 root tbf rate {mbit}mbit burst 16k latency 2s"));
}

fn measured(client: &Namespace, plan: &Plan) -> Outcome {
    // What an earlier load had on the wire when it ended is still there, for as long as a request takes.
    thread::sleep(Duration::from_millis(500));
    let outcome = client.enter(|| run(plan, &Stop::new(), |_| {})).expect("it runs");
    assert_eq!(outcome.errors.total(), 0, "{:?}", outcome.errors.iter().collect::<Vec<_>>());
    outcome
}

fn plan(port: u16, load: Load) -> Plan {
    let target: SocketAddr = format!("{SERVER}:{port}").parse().expect("an address");
    let mut plan = Plan::new(target, load);
    (plan.warm_up, plan.concurrency) = (Duration::ZERO, AT_A_TIME);
    plan
}

#[track_caller]
fn agree(what: &str, ours: f64, theirs: f64, tolerance: f64) {
    println!("{what}: {ours:.3}, theirs {theirs:.3}, {:+.1} %", (ours / theirs - 1.0) * 100.0);
    assert!((ours / theirs - 1.0).abs() <= tolerance, "{what}: {ours}, and theirs {theirs}");
}

/// The number behind a name in a tool's report.
fn field(report: &str, name: &str) -> f64 {
    let line = report.lines().find_map(|line| line.trim_start().strip_prefix(name));
    let number = line.and_then(|line| {
        let word = line.split_whitespace().next()?;
        let (digits, unit) = word.split_at(word.find(|c: char| c.is_alphabetic()).unwrap_or(word.len()));
        Some(digits.parse::<f64>().ok()? * if unit == "s" { 1e3 } else { 1.0 })
    });
    number.unwrap_or_else(|| panic!("no {name:?}:\n{report}"))
}

#[test]
fn requests_agree_with_ab_and_wrk() {
    let (client, server) = hosts();
    let files = Scratch::new();
    peer::blob(&files.join("page"), PAGE);
    let _nginx = peer::nginx(&server, &format!("{SERVER}:80"), files.path());
    limit(&server, 5);
    let url = format!("http://{SERVER}/page");
    let exchange = Exchange::get(SERVER, "/page");

    let mut ab = client.command("ab");
    let ab = process::run(ab.args(["-q", "-n", "360", "-c", &AT_A_TIME.to_string(), &url]));
    let mut ours = plan(80, Load::Connections(exchange.clone()));
    ours.length = Length::Count(360);
    let ours = measured(&client, &ours);
    agree("ab: requests a second", ours.rate(), field(&ab, "Requests per second:"), TOLERANCE);
    let latency = ours.latency.expect("there were answers");
    agree("ab: median, ms", latency.p50 / 1e3, field(&ab, "50%"), TOLERANCE);
    agree("ab: p90, ms", latency.p90 / 1e3, field(&ab, "90%"), OF_TAILS);

    let mut wrk = client.command("wrk");
    let wrk = process::run(wrk.args(["-t1", "-d2", "--latency", "-c", &AT_A_TIME.to_string(), &url]));
    let mut ours = plan(80, Load::Keepalive(exchange));
    ours.length = Length::Time(Duration::from_secs(2));
    let ours = measured(&client, &ours);
    agree("wrk: requests a second", ours.rate(), field(&wrk, "Requests/sec:"), TOLERANCE);
    let latency = ours.latency.expect("there were answers");
    agree("wrk: median, ms", latency.p50 / 1e3, field(&wrk, "50%"), TOLERANCE);
    agree("wrk: p90, ms", latency.p90 / 1e3, field(&wrk, "90%"), OF_TAILS);
    agree("wrk: p99, ms", latency.p99 / 1e3, field(&wrk, "99%"), OF_TAILS);
}

/// The command by itself, against a server of others', at a rate that the wire carries: as many are answered as were due.
#[test]
fn the_command_keeps_a_rate() {
    const RATE: f64 = 100.0;
    let (client, server) = hosts();
    let files = Scratch::new();
    peer::blob(&files.join("page"), PAGE);
    let _nginx = peer::nginx(&server, &format!("{SERVER}:80"), files.path());
    limit(&server, 5);
    let mut command = client.command(portway::binary());
    command.args(["bench", "http", &format!("http://{SERVER}/page"), "--warm-up", "0s", "--json"]);
    let said = process::run(command.args(["--rate", &RATE.to_string(), "--requests", "200"]));
    let outcome: Value = serde_json::from_str(&said).expect("--json prints JSON");
    assert_eq!((&outcome["done"], &outcome["errors"]), (&200.into(), &serde_json::json!({})), "{outcome:#}");
    agree("a rate", outcome["per_second"].as_f64().expect("a rate"), RATE, TOLERANCE);
}

#[test]
fn streams_agree_with_iperf3() {
    let (client, server) = hosts();
    let _iperf3 = peer::iperf3(&server, 5201);
    let options = ServeOptions {
        listen: vec![format!("{SERVER}:9000").parse().expect("an address")],
        page: 1,
        threads: 1,
    };
    let _own = server.enter(|| Server::start(&options)).expect("the port is free");
    [&client, &server].into_iter().for_each(|host| limit(host, 100));
    // Both ways at once. What goes on before a stream is up to speed is left out.
    let mut iperf3 = client.command("iperf3");
    let report = process::run(iperf3.args(["-c", SERVER, "-J", "--bidir", "-O", "1", "-t", "2"]));
    let report: Value = serde_json::from_str(&report).expect("iperf3 -J prints JSON");
    let stream = |direction| {
        let mut ours = plan(9000, Load::Bulk(direction));
        (ours.concurrency, ours.warm_up) = (1, Duration::from_secs(1));
        ours.length = Length::Time(Duration::from_secs(2));
        measured(&client, &ours)
    };
    let (up, down) = thread::scope(|scope| {
        let up = scope.spawn(|| stream(Direction::Up));
        let down = stream(Direction::Down);
        (up.join().expect("it runs"), down)
    });
    for (ours, theirs) in [(up, "sum_received"), (down, "sum_received_bidir_reverse")] {
        let rate = report["end"][theirs]["bits_per_second"].as_f64().expect("iperf3 has a rate");
        agree(&format!("iperf3: {theirs}, Gbit/s"), ours.gbit(), rate / 1e9, OF_STREAMS);
    }
}

/// Failures that the kernel of the client has to be set up for.
#[test]
fn no_port_and_no_way() {
    let (client, server) = hosts();
    let _own = Process::start(server.command("socat").args(["TCP-LISTEN:9000,fork", "EXEC:cat"]))
        .until_tcp(&server, 9000);
    client.sysctl("net.ipv4.ip_local_port_range", "40000 40009");
    let held = |plan: &Plan| client.enter(|| run(plan, &Stop::new(), |_| {})).expect("it runs");
    let mut many = plan(9000, Load::Idle);
    (many.concurrency, many.length) = (30, Length::Time(Duration::from_millis(300)));
    let outcome = held(&many);
    assert_eq!((outcome.done, outcome.errors.of(ErrorKind::NoPort)), (10, 20));
    assert_eq!(outcome.errors.total(), 20);
    // Another address has ports of its own.
    client.ip("addr add 10.3.0.3/24 dev eth0\naddr add 10.3.0.4/24 dev eth0");
    many.from = ["10.3.0.1", "10.3.0.3", "10.3.0.4"].map(|from| from.parse().expect("an address")).to_vec();
    let outcome = held(&many);
    assert_eq!((outcome.done, outcome.errors.total()), (30, 0));
    let mut lost = plan(9000, Load::Connections(Exchange::Echo { size: 64 }));
    (lost.target, lost.length) = ("192.0.2.1:9000".parse().expect("an address"), Length::Count(5));
    let outcome = held(&lost);
    assert_eq!((outcome.errors.of(ErrorKind::Unreachable), outcome.errors.total()), (5, 5));
}
