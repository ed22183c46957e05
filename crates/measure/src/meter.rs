//! What a run costs: figures of the machine, of processes and of network namespaces before and after it, and some meanwhile.
//!
//! Packets in the kernel are handled in the context of the process that sent them or by the softirq threads. So the CPU time of
//! the client, the server, the forwarder and those threads is all of a run's work, whatever else the machine does meanwhile.
//! A kernel that counts interrupts apart from processes (CONFIG_IRQ_TIME_ACCOUNTING) takes their time out of that; there the
//! machine's count of it is used instead.
//!
//! Deliberately absent: the load itself, which says what was done and how long it took.

mod cpu;
mod network;
mod ports;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portway_lab::{Ends, Process};

use crate::host;
use crate::lane::Scheme;
use crate::lane::setup::Lane;
use crate::load::Held;
use crate::record::{Figures, Mode, Moment};
use cpu::{Memory, Spent};
use network::Counters;
use ports::Taken;

/// How often the CPUs are looked at during a run.
const INTERVAL: Duration = Duration::from_millis(100);
/// At every how many of these the memory of processes is: that takes longer.
const MEMORY_EVERY: u32 = 4;

/// All that is read before a run and after it.
struct Reading {
    client: Spent,
    servers: Spent,
    forwarder: Spent,
    softirq: Spent,
    counters: Counters,
    kernel_memory: i64,
}

impl Reading {
    fn take(lane: &Lane) -> Self {
        Self {
            client: Spent::by_ended_children(),
            servers: lane.servers().into_iter().map(Spent::by_group).sum(),
            forwarder: lane.forwarder().map(group).sum(),
            softirq: Spent::by_softirq(),
            counters: Counters::of(lane),
            kernel_memory: kernel_memory(),
        }
    }
}

/// Whether what the forwarder's processes do is a run's. Runs of the machine that counts instructions last a tenth of a second, and what a
/// daemon that no traffic passes does once in a second would fall into one and not into the next.
pub fn counts_forwarder(mode: Mode, scheme: &Scheme) -> bool {
    mode == Mode::Time || scheme.is_relay()
}

/// The processes of a process group.
pub fn members(group: u32) -> impl Iterator<Item = u32> {
    cpu::members(group).map(|(process, _)| process)
}

fn group(process: &Process) -> Spent {
    Spent::by_group(process.id())
}

/// What is seen during a run.
#[derive(Default)]
struct Seen {
    moments: Vec<Moment>,
    /// What of it is in no file.
    memory: Option<u64>,
    kernel_memory: i64,
    conntrack: Option<u64>,
    source_ports: Option<u64>,
}

/// Runs a load of which something is `held` or not, and says what it did and what it cost, where others kept so many CPUs busy just before.
pub fn measure(
    lane: &Lane,
    held: Held,
    mode: Mode,
    background: f64,
    load: impl FnOnce() -> Figures,
) -> (Figures, Vec<Moment>) {
    // What loads before have left is not this one's. First, since to ask is work for the forwarder.
    let ports = Taken::now(lane, held);
    let more_ports = || ports.as_ref().and_then(|before| Taken::now(lane, held)?.since(before));
    let tracked = lane.net.gateway.enter(network::conntrack);
    let memory_before = forwarder_memory(lane);
    let over = AtomicBool::new(false);
    let before = Reading::take(lane);
    // To read all that takes the machine's time as well: so that is read last, and first when the load has ended.
    let begin = cpu::machine();
    let (outcome, machine, after, seen) = thread::scope(|scope| {
        // It ends before the scope does even when the load panics.
        let end = Ends(&over);
        let watch = scope.spawn(|| lane.net.gateway.enter(|| watch(lane, held, &more_ports, &over)));
        let outcome = load();
        let machine = cpu::machine() - begin;
        let after = Reading::take(lane);
        drop(end);
        (outcome, machine, after, watch.join().unwrap_or_default())
    });
    let forwarder = (after.forwarder - before.forwarder).cpu();
    let mut parts =
        vec![after.client - before.client, after.servers - before.servers, after.softirq - before.softirq];
    if counts_forwarder(mode, &lane.scheme) {
        parts.push(after.forwarder - before.forwarder);
    }
    let source_ports = seen.source_ports.max(more_ports());
    let figures = Figures {
        cpu: Some(cpu::sum(parts.into_iter().map(Spent::cpu))),
        machine_cpu: (mode == Mode::Time).then(|| machine.busy()),
        machine_parts: (mode == Mode::Time).then_some(machine),
        forwarder_cpu: lane.scheme.is_relay().then_some(forwarder),
        forwarder_memory: seen.memory.zip(memory_before).map(|(most, before)| most + before.files),
        forwarder_memory_before: memory_before.map(Memory::total),
        kernel_memory: Some(seen.kernel_memory - before.kernel_memory),
        // An interface that a user's program removes takes its counters along.
        packets: after.counters.packets.checked_sub(before.counters.packets),
        retransmits: after.counters.retransmits.checked_sub(before.counters.retransmits),
        conntrack: seen.conntrack.zip(tracked).map(|(most, before)| most.saturating_sub(before)),
        // A relay cannot do without: where none was seen, it has sockets that do not say where they lead, or closed them.
        source_ports: source_ports.filter(|taken| *taken > 0 || !lane.scheme.is_relay()),
        background,
        ..outcome
    };
    // What is sampled at ticks means nothing of so short a run.
    (figures, if mode == Mode::Time { seen.moments } else { Vec::new() })
}

/// What the processes at the gateway hold; none where there is none. What they have of files is theirs before a load as it is
/// meanwhile, but a client that runs the same program takes its part of it, which would hide what connections take.
fn forwarder_memory(lane: &Lane) -> Option<Memory> {
    let held: Memory = lane.forwarder().map(|process| Memory::of_group(process.id())).sum();
    (held.total() > 0).then_some(held)
}

/// Looks every now and then, in the gateway's namespace, until the load is over.
fn watch(lane: &Lane, held: Held, more_ports: &dyn Fn() -> Option<u64>, over: &AtomicBool) -> Seen {
    let forwarder = || lane.forwarder().map(group).sum::<Spent>();
    let mut seen = Seen::default();
    let start = Instant::now();
    let mut last = (start, cpu::machine(), forwarder());
    for nth in 0_u32.. {
        // What connections that are held take is the question, and it is gone with them.
        if nth % MEMORY_EVERY == 0 || held == Held::Connections {
            seen.memory = seen.memory.max(forwarder_memory(lane).map(|held| held.own));
        }
        // Connections that are held do not mind, but those that are still opened would. They are gone when it has ended.
        if nth % MEMORY_EVERY == MEMORY_EVERY / 2 && held == Held::Connections && lane.scheme.is_relay() {
            seen.source_ports = seen.source_ports.max(more_ports());
        }
        seen.kernel_memory = seen.kernel_memory.max(kernel_memory());
        seen.conntrack = seen.conntrack.max(network::conntrack());
        if over.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(INTERVAL);
        let now = (Instant::now(), cpu::machine(), forwarder());
        let share = |seconds: f64| seconds / (now.0 - last.0).as_secs_f64();
        seen.moments.push(Moment {
            at: (now.0 - start).as_secs_f64(),
            user: share(now.1.user - last.1.user),
            kernel: share(now.1.kernel - last.1.kernel),
            softirq: share(now.1.interrupts - last.1.interrupts),
            forwarder: share((now.2 - last.2).cpu().total()),
        });
        last = now;
    }
    seen
}

/// How many CPUs others keep busy while no load runs.
pub fn background() -> f64 {
    let (before, start) = (cpu::machine(), Instant::now());
    thread::sleep(Duration::from_millis(150));
    (cpu::machine() - before).busy() / start.elapsed().as_secs_f64()
}

/// Memory that the kernel uses for itself, in bytes: slab, vmalloc (BPF maps), page tables, stacks, per-CPU areas. What sockets hold in whole pages is in none of these.
fn kernel_memory() -> i64 {
    host::memory(["Slab:", "VmallocUsed:", "PageTables:", "KernelStack:", "Percpu:"]) as i64
}
