//! Figures of the data path: what a packet costs by the number of flows, and what flows take of memory.
//!
//! `cargo build --release -p portway && sudo cargo run --release -p portway-lab --bin datapath`
//!
//! The engine's programs are run where they hang, on packets made up for them (`BPF_PROG_TEST_RUN`), with the maps of a
//! running daemon. Deliberately absent: what the kernel does before and after them, which `portway lab` shows.

mod flows;
mod ground;
mod report;
mod walk;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use portway_lab::machine;

use flows::{ACK, Direction, SYN, SYN_ACK};
use ground::Ground;
use report::{Full, Row};
use walk::{Behind, Hook, PACKET, Walk};

/// Measures the programs of the ebpf engine. Needs root.
#[derive(Debug, Parser)]
struct Options {
    /// A look at whether everything runs: few flows, few rounds, and no judgement.
    #[arg(long)]
    quick: bool,
    /// Write the report to this file as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// Packets of one timing, or a round of all flows where those are more: short enough for kept routes to stay young.
const TIMING: u32 = 100_000;

/// New flows that are asked for at the full table.
const BEYOND: u32 = 1000;

fn main() {
    let options = Options::parse();
    let load = fs::read_to_string("/proc/loadavg").expect("/proc is mounted");
    let load = load.split_whitespace().next().unwrap_or_default().to_owned();
    let (sizes, timings) =
        if options.quick { (&[1, 1000, 10_000][..], 3) } else { (&[1, 100_000, 1_000_000][..], 5) };
    let start = Instant::now();
    let (mut rows, mut full) = (Vec::new(), None);
    for hook in [Hook::Tc, Hook::Xdp] {
        let most = sizes[sizes.len() - 1];
        let ground = Ground::new(hook, most + spare(most));
        // Flows begin at TC; what is already a flow is carried at XDP.
        let (mut first, mut walk) = (ground.walk(Hook::Tc, most), ground.walk(hook, most));
        let mut begun = 0;
        let mut beginning = Duration::ZERO;
        for &flows in sizes {
            eprintln!("{hook:?}, {flows} flows ({:.0} s)", start.elapsed().as_secs_f64());
            beginning = begin(&ground, &mut first, begun..flows);
            begun = flows;
            for direction in [Direction::Forth, Direction::Back] {
                rows.push(measure(&ground, &mut walk, flows, direction, timings));
            }
        }
        if hook == Hook::Tc {
            full = Some(fill(&ground, &mut walk, most, beginning));
        }
    }
    let machine = machine::describe(&[]);
    let report = format!(
        "# Data path: figures\n\n{machine} Load average before: {load}; times suffer from it.\n\n## A packet\n\n{}\n## A full table\n\n{}",
        report::nanoseconds(&rows),
        report::full(&full.expect("TC is among the hooks")),
    );
    println!("{report}");
    if let Some(path) = &options.markdown {
        fs::write(path, &report).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
    assert!(options.quick || !report.contains(report::MISSED), "a bound was missed");
}

/// Begins flows by the three packets of a handshake, in the order of their numbers. How long a SYN took.
fn begin(ground: &Ground, walk: &mut Walk, flows: std::ops::Range<u32>) -> Duration {
    let before = ground.counted();
    let mut took = Vec::new();
    for (direction, flags) in [(Direction::Forth, SYN), (Direction::Back, SYN_ACK), (Direction::Forth, ACK)] {
        walk.steps(flows.clone().map(|flow| flows::step(flow, direction, flags)));
        let at = ground.arrival(direction);
        took.push(ground.within(|| walk.run(Behind::Engine, at, 1, false, None)));
    }
    let now = ground.counted();
    let wanted = u64::from(flows.end - flows.start);
    assert_eq!((now.flows - before.flows, now.live - before.live), (wanted, wanted), "flows begun");
    took[0]
}

/// One row of the table.
fn measure(ground: &Ground, walk: &mut Walk, flows: u32, direction: Direction, timings: usize) -> Row {
    let order = flows::shuffled(flows);
    walk.steps(order.into_iter().map(|flow| flows::step(flow, direction, ACK)));
    let at = ground.arrival(direction);
    let rounds = TIMING.div_ceil(flows);
    let before = ground.counted();
    let mut packets = 0;
    let mut run = |behind, rounds, ask| {
        packets += if behind == Behind::Engine { u64::from(rounds * flows) } else { 0 };
        ground.within(|| walk.run(behind, at, rounds, ask, None))
    };
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..timings {
        times[0].push(run(Behind::Nothing, rounds, false));
        times[3].push(run(Behind::Question, rounds, false));
        // The first round asks for routes, if they have become old; what follows at once does not.
        run(Behind::Engine, rounds, false);
        times[1].push(run(Behind::Engine, rounds, false));
        times[2].push(run(Behind::Engine, rounds, true));
    }
    // Some seconds in one go, so that each second's look-ups are in it.
    run(Behind::Engine, rounds, false);
    let normal = run(Behind::Engine, rounds * (10_000_000 / (rounds * flows)).max(1), false);
    let carried = ground.counted().bytes - before.bytes;
    assert_eq!(carried, packets * PACKET, "bytes carried");
    let [nothing, kept, asked, question] = times.map(median);
    Row { hook: ground.hook, direction, flows, nothing, kept, normal, asked, question }
}

/// Room beyond the flows that are measured: the last of a million may find both of its buckets of the index full, and a walk
/// wants each of its flows to be there.
const fn spare(flows: u32) -> u32 {
    flows / 50
}

/// Fills the table up, asks for more flows than there is room for, and for all that were there before.
fn fill(ground: &Ground, walk: &mut Walk, flows: u32, beginning: Duration) -> Full {
    let bytes = ["records", "buckets", "free"].map(|map| ground.memory(map)).iter().sum();
    let at = ground.arrival(Direction::Forth);
    let before = ground.counted();
    let mut ask = |from: u32, to: u32, verdict: Option<u32>| {
        walk.steps((from..to).map(|flow| flows::step(flow, Direction::Forth, SYN)));
        ground.within(|| walk.run(Behind::Engine, at, 1, false, verdict))
    };
    let room = flows + spare(flows);
    let dropped = Some(ground.hook.dropped());
    // Some more than there is room for: one that finds both of its buckets full leaves its record to another.
    const MORE: u32 = 64;
    ask(flows, room + MORE, dropped);
    let full = ground.counted();
    let refusing = ask(room + MORE, room + MORE + BEYOND, dropped);
    let after = ground.counted();
    walk.steps((0..flows).map(|flow| flows::step(flow, Direction::Forth, ACK)));
    ground.within(|| walk.run(Behind::Engine, at, 1, false, None));
    let carried = (ground.counted().bytes - after.bytes) / PACKET;
    assert!(full.flows > before.flows, "there was room for more");
    assert_eq!(after.flows, full.flows, "no flow has begun at the full table");
    Full {
        flows: after.live,
        room: u64::from(room),
        bytes,
        beginning,
        asked: u64::from(BEYOND),
        refused: after.failed - full.failed,
        refusing,
        before: u64::from(flows),
        carried,
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
