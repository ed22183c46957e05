//! What `portway bench` found, for people and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use portway_core::config::value::format_duration;
use portway_load::{Close, Direction, Exchange, Length, Load, Outcome, Plan};
use serde::Serialize;

use super::super::report;

/// From here on the generator itself may be what was measured.
const BUSY: f64 = 0.9;

/// What `--json` prints.
#[derive(Serialize)]
pub(super) struct Row {
    load: String,
    target: String,
    concurrency: u32,
    rate_asked: Option<f64>,
    seconds: f64,
    done: u64,
    per_second: f64,
    sent_bytes: u64,
    received_bytes: u64,
    gbit_per_second: f64,
    errors: BTreeMap<String, u64>,
    latency_us: Option<Microseconds>,
    generator_cpu_seconds: f64,
    generator_busy: f64,
}

#[derive(Serialize)]
struct Microseconds {
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
    /// Upper bound, and how many of all took at most that.
    steps: Vec<(f64, u64)>,
}

pub(super) fn row(plan: &Plan, outcome: &Outcome) -> Row {
    Row {
        load: name(&plan.load).to_owned(),
        target: plan.target.to_string(),
        concurrency: plan.concurrency,
        rate_asked: plan.rate,
        seconds: outcome.seconds,
        done: outcome.done,
        per_second: outcome.rate(),
        sent_bytes: outcome.sent,
        received_bytes: outcome.received,
        gbit_per_second: outcome.gbit(),
        errors: outcome.errors.iter().map(|(kind, count)| (kind.to_string(), count)).collect(),
        latency_us: outcome.latency.as_ref().map(|latency| Microseconds {
            p50: latency.p50,
            p90: latency.p90,
            p99: latency.p99,
            p999: latency.p999,
            max: latency.max,
            steps: latency.steps.clone(),
        }),
        generator_cpu_seconds: outcome.cpu,
        generator_busy: outcome.busy,
    }
}

fn name(load: &Load) -> &'static str {
    match load {
        Load::Connections(_) => "connections",
        Load::Keepalive(_) => "keepalive",
        Load::Udp { .. } => "udp",
        Load::Bulk(Direction::Up) => "bulk-up",
        Load::Bulk(Direction::Down) => "bulk-down",
        Load::Idle => "idle",
    }
}

/// What is about to be done, as a sentence.
pub(super) fn intent(plan: &Plan) -> String {
    let Plan { target, concurrency, .. } = plan;
    let what = |exchange: &Exchange| match exchange {
        Exchange::Http { path, .. } => format!("GET {path}"),
        Exchange::Echo { size } => format!("an echo of {size} bytes"),
    };
    let load = match &plan.load {
        Load::Connections(exchange) => {
            let end = match plan.close {
                Close::Wait => "ended by the server",
                Close::Fin => "ended by a FIN from here",
                Close::Reset => "ended by a reset from here",
            };
            format!("{}, each over a new connection, {end}", what(exchange))
        }
        Load::Keepalive(exchange) => format!("{} over connections that stay", what(exchange)),
        Load::Udp { size, fresh: false } => format!("datagrams of {size} bytes"),
        Load::Udp { size, fresh: true } => format!("datagrams of {size} bytes, each from a new port"),
        Load::Bulk(Direction::Up) => {
            return format!("{target}: {} up", report::counted((*concurrency).into(), "stream"));
        }
        Load::Bulk(Direction::Down) => {
            return format!("{target}: {} down", report::counted((*concurrency).into(), "stream"));
        }
        Load::Idle => {
            return format!("{target}: {} held", report::counted((*concurrency).into(), "connection"));
        }
    };
    let pace = match plan.rate {
        Some(rate) => format!("{rate} due a second, at most {concurrency} at a time"),
        None => format!("{concurrency} at a time"),
    };
    let length = match plan.length {
        Length::Time(time) => format_duration(time),
        Length::Count(count) => report::counted(count, "request"),
        Length::Bytes(bytes) => report::counted(bytes, "byte"),
    };
    format!("{target}: {load}; {pace}; {length}")
}

/// What was found, in lines.
pub(super) fn lines(plan: &Plan, outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    let seconds = outcome.seconds;
    match &plan.load {
        Load::Bulk(_) => lines.push(format!("{:.3} Gbit/s", outcome.gbit())),
        Load::Idle => lines.push(format!("held       {} for {seconds:.1} s", outcome.done)),
        _ => lines.push(format!(
            "done       {} in {seconds:.2} s: {:.0} a second",
            outcome.done,
            outcome.rate()
        )),
    }
    if let Some(latency) = &outcome.latency {
        let parts = [
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p99", latency.p99),
            ("p99.9", latency.p999),
            ("max", latency.max),
        ];
        let parts = parts.map(|(name, us)| format!("{name} {}", time(us)));
        let from = match (&plan.load, plan.rate) {
            (Load::Idle, _) => " (to connect)",
            (_, Some(_)) => " (from when due)",
            _ => "",
        };
        lines.push(format!("latency    {}{from}", parts.join(", ")));
    }
    lines.push(format!(
        "payload    {} sent, {} received",
        report::bytes(outcome.sent),
        report::bytes(outcome.received)
    ));
    let errors: Vec<String> = outcome.errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    lines.push(format!(
        "errors     {}",
        if errors.is_empty() { "none".to_owned() } else { errors.join(", ") }
    ));
    lines.push(format!(
        "generator  {:.2} s of CPU, busy for {:.0} % of the time",
        outcome.cpu,
        outcome.busy * 100.0
    ));
    lines
}

/// A doubt about the figures, where there is one.
pub(super) fn doubt(outcome: &Outcome) -> Option<String> {
    (outcome.busy > BUSY).then(|| {
        "the generator had no time left: it may be what was measured; --threads gives it more".to_owned()
    })
}

/// A time for people.
fn time(us: f64) -> String {
    if us < 1_000.0 {
        format!("{us:.0} us")
    } else if us < 1_000_000.0 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{:.2} s", us / 1e6)
    }
}

/// How far it is, in one short line.
pub(super) fn progress(elapsed: Duration, done: u64, failed: u64, bytes: u64) -> String {
    format!("{:.1} s: {done} done, {failed} failed, {}", elapsed.as_secs_f64(), report::bytes(bytes))
}
