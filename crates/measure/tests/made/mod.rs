//! Records with known answers, and their noise: always the same, without a source of chance.

// Each file of tests is a crate of its own and has use for a part.
#[allow(dead_code)]
pub mod more;

use std::collections::BTreeMap;

use portway_measure::record::{
    Cpu, Figures, Host, Kind, Lane, Latency, LeftOut, MachineParts, Mode, Moment, Point, Record, Run, VERSION,
};

/// A lane: name, kind, base, added microseconds per connection by kernel and programs, added milliseconds per GB by both,
/// growth of a connection's cost with each rule in microseconds.
type Made = (&'static str, Kind, Option<&'static str>, (f64, f64), (f64, f64), f64);

pub const LANES: [Made; 9] = [
    ("routing", Kind::Routing, None, (0.0, 0.0), (0.0, 0.0), 0.0),
    ("iptables", Kind::Kernel, Some("routing"), (15.0, 0.4), (20.0, 1.0), 0.025),
    ("nft", Kind::Kernel, Some("routing"), (17.0, 0.5), (25.0, 1.0), 0.02),
    ("haproxy", Kind::Program, Some("routing"), (60.0, 31.0), (700.0, 280.0), 0.0),
    ("nginx-stream", Kind::Program, Some("routing"), (50.0, 21.0), (760.0, 300.0), 0.0),
    ("portway-nftables", Kind::Portway, Some("routing"), (22.0, 0.6), (40.0, 2.0), 0.0),
    ("portway-ebpf", Kind::Portway, Some("routing"), (7.0, 0.4), (-10.0, 2.0), 0.0),
    ("portway-proxy", Kind::Portway, Some("routing"), (35.0, 13.0), (380.0, 12.0), 0.0),
    ("socat", Kind::Program, Some("routing"), (420.0, 130.0), (900.0, 350.0), 0.0),
];

/// What routing costs: kernel and programs, for a connection in microseconds and for a GB in milliseconds.
pub const ROUTING: ((f64, f64), (f64, f64)) = ((92.0, 16.0), (640.0, 90.0));

/// Numbers between -1 and 1 that look like chance (xorshift; Marsaglia 2003).
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// A record of so many rounds whose figures are off by at most `noise` of themselves; each round has a pace of its own, up
/// to a fifth slower for all lanes.
pub fn record(rounds: u32, noise: f64, seed: u64) -> Record {
    let mut chance = Noise::new(seed);
    let mut runs = Vec::new();
    for round in 1..=rounds {
        let pace = 1.0 + 0.2 * chance.next().abs();
        for made in LANES {
            let mut off = || pace * (1.0 + noise * chance.next());
            runs.push(connections(made, round, off(), None));
            for load in ["bulk-up", "bulk-down"] {
                runs.push(bulk(made, load, round, off()));
            }
            runs.push(idle(made, round, off()));
            if made.2.is_some() {
                for rules in [1, 10, 100, 1000, 10_000, 100_000] {
                    runs.push(connections(made, round, off(), Some(rules)));
                }
            }
        }
    }
    Record {
        version: VERSION,
        portway: "0.1.0".into(),
        started: "2026-11-26T22:00:00Z".into(),
        seconds: 271.0,
        command: ["portway", "lab", "--rounds", "5", "--peer", "mine=socat {listen} {target}"]
            .map(String::from)
            .to_vec(),
        mode: Mode::Time,
        optimised: true,
        host: Host {
            kernel: "6.12.0-made".into(),
            cpu: "Made Processor 3000".into(),
            cpus: 2,
            memory: 25_000_000_000,
            hypervisor: Some("kvm".into()),
            programs: BTreeMap::from([
                ("haproxy".to_owned(), "HAProxy version 2.6.12".to_owned()),
                ("nginx".to_owned(), "nginx version: nginx/1.22.1".to_owned()),
            ]),
            settings: BTreeMap::from([("net.core.somaxconn".to_owned(), "4096".to_owned())]),
        },
        lanes: LANES.into_iter().map(lane).collect(),
        left_out: vec![LeftOut {
            name: "ipvs".into(),
            why: "this kernel has no ip_vs (CONFIG_IP_VS)".into(),
        }],
        runs,
        captures: Vec::new(),
        profiles: Vec::new(),
    }
}

fn lane((name, kind, base, ..): Made) -> Lane {
    Lane {
        name: name.into(),
        title: format!("{name}, made for a test"),
        kind,
        base: base.map(String::from),
        configuration: if name == "nft" { "table ip nat { … }\n".into() } else { String::new() },
    }
}

fn connections((name, kind, _, added, _, growth): Made, round: u32, off: f64, rules: Option<u64>) -> Run {
    let done = 40_000;
    let more = growth * rules.unwrap_or(1).saturating_sub(1) as f64;
    let (kernel, user) = (off * (ROUTING.0.0 + added.0 + more), off * (ROUTING.0.1 + added.1));
    let seconds = done as f64 * (kernel + user) / 1e6 / 1.9;
    let program = matches!(kind, Kind::Program) || name == "portway-proxy";
    let typical = 18.0 * (kernel + user);
    let moments = (1..=12).map(|step| Moment {
        at: seconds * f64::from(step) / 12.0,
        user: 1.9 * user / (kernel + user) * (1.0 - 0.02 * f64::from(step % 3)),
        kernel: 1.9 * 0.6 * kernel / (kernel + user),
        softirq: 1.9 * 0.4 * kernel / (kernel + user),
        forwarder: if program { 1.9 * (added.0 + added.1) / (kernel + user) } else { 0.0 },
    });
    Run {
        lane: name.into(),
        load: "connections".into(),
        round,
        at: rules.map(|count| Point { of: "rules".into(), count }),
        figures: Figures {
            seconds,
            done,
            bytes: done * 900,
            latency: Some(latency(typical, done)),
            cpu: Some(Cpu { user: user * done as f64 / 1e6, kernel: kernel * done as f64 / 1e6 }),
            machine_cpu: Some((user + kernel) * 1.01 * done as f64 / 1e6),
            machine_parts: Some(MachineParts {
                user: user * 1.01 * done as f64 / 1e6,
                kernel: kernel * 0.6 * 1.01 * done as f64 / 1e6,
                interrupts: kernel * 0.4 * 1.01 * done as f64 / 1e6,
                stolen: 0.01 * seconds,
            }),
            forwarder_cpu: program.then(|| Cpu { user: added.1 * done as f64 / 1e6, kernel: 0.2 }),
            forwarder_memory: program.then_some(14 << 20),
            kernel_memory: Some(1 << 20),
            packets: Some(done * if program { 20 } else { 10 }),
            retransmits: Some(0),
            conntrack: (kind != Kind::Routing && !program).then_some(20_000),
            source_ports: program.then_some(64),
            background: 0.01,
            ..Figures::default()
        },
        moments: if rules.is_none() { moments.collect() } else { Vec::new() },
    }
}

/// Times that spread as times do: few are very long.
fn latency(typical: f64, done: u64) -> Latency {
    let at = |share: f64| typical * (1.0 - share).powf(-0.35);
    let shares = (0..60).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 12.0));
    let mut steps: Vec<(f64, u64)> = shares.map(|share| (at(share), (share * done as f64) as u64)).collect();
    steps.push((at(0.999_99), done));
    Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(0.999_99), steps }
}

fn bulk((name, _, _, _, added, _): Made, load: &str, round: u32, off: f64) -> Run {
    let bytes = 4_000_000_000_u64;
    let (kernel, user) = (off * (ROUTING.1.0 + added.0), off * (ROUTING.1.1 + added.1));
    let cpu = |ms: f64| ms / 1e3 * bytes as f64 / 1e9;
    Run {
        lane: name.into(),
        load: load.into(),
        round,
        at: None,
        figures: Figures {
            seconds: cpu(kernel + user) / 1.8,
            done: 1,
            bytes,
            cpu: Some(Cpu { user: cpu(user), kernel: cpu(kernel) }),
            forwarder_cpu: (added.1 > 10.0).then(|| Cpu { user: cpu(added.1), kernel: cpu(added.0) }),
            background: 0.01,
            ..Figures::default()
        },
        moments: Vec::new(),
    }
}

fn idle((name, kind, ..): Made, round: u32, off: f64) -> Run {
    let program = matches!(kind, Kind::Program) || name == "portway-proxy";
    let each = match kind {
        Kind::Routing => 8200.0,
        Kind::Kernel => 8200.0 + 640.0,
        Kind::Program => 8200.0 + 8100.0,
        Kind::Portway => 8200.0 + 154.0,
    };
    Run {
        lane: name.into(),
        load: "idle".into(),
        round,
        at: None,
        figures: Figures {
            seconds: 3.0,
            done: 10_000,
            forwarder_memory: program.then_some((180_000_000.0 * off) as u64 + (14 << 20)),
            forwarder_memory_before: program.then_some(14 << 20),
            kernel_memory: Some((each * 10_000.0 * off) as i64),
            background: 0.01,
            ..Figures::default()
        },
        moments: Vec::new(),
    }
}
