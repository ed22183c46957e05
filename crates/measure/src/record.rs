//! What a run of the lab found, as data: reports, comparisons and advice are made from this and nothing else.
//!
//! It is written to a file as JSON and read back by `portway lab compare` and `advise`. Deliberately absent: anything that
//! follows from the figures (medians, added cost, verdicts), which is computed where it is shown.

use std::collections::BTreeMap;

pub use portway_load::Latency;
use serde::{Deserialize, Serialize};

/// The version of this form. A file of another one is refused by name.
pub const VERSION: u32 = 1;

/// Its name in the directory of a run.
pub const FILE: &str = "record.json";

/// One run of the command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// The version of Portway that measured.
    pub portway: String,
    /// When it began, as RFC 3339 has it, in UTC.
    pub started: String,
    /// How long all of it took, in seconds.
    pub seconds: f64,
    /// The command line, so that it can be repeated.
    pub command: Vec<String>,
    /// What the figures are of.
    pub mode: Mode,
    /// Whether it was built with optimisation.
    #[serde(default = "optimised")]
    pub optimised: bool,
    /// The machine.
    pub host: Host,
    /// What was compared, in the order in which it is shown.
    pub lanes: Vec<Lane>,
    /// What was asked for or usual, but not compared, and why.
    pub left_out: Vec<LeftOut>,
    /// Every run that was kept, warm-ups excluded.
    pub runs: Vec<Run>,
    /// Packet captures, where they were wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<Capture>,
    /// Where the work goes, where that was wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
}

/// Records that do not say it are of such programs.
fn optimised() -> bool {
    true
}

/// What the figures are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Time on this machine.
    Time,
    /// Instructions of an emulated machine that counts them: one nanosecond of its clock is one instruction.
    Exact,
}

/// The machine that was measured on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// How many of them.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// The hypervisor, if the machine says that it has one.
    pub hypervisor: Option<String>,
    /// Versions of the programs that took part: the program's name, its own words.
    pub programs: BTreeMap<String, String>,
    /// Settings of the machine that matter to the figures and are not of a namespace: name, value.
    pub settings: BTreeMap<String, String>,
}

/// A way to forward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// The name by which runs, options and other records know it, such as `nft` or `portway-ebpf`.
    pub name: String,
    /// What it is, in a few words.
    pub title: String,
    /// Of which kind.
    pub kind: Kind,
    /// The lane that it adds its cost to: the same hosts and wires without a forwarder. None of a zero line.
    pub base: Option<String>,
    /// The configuration that it ran with, for the reader to repeat.
    pub configuration: String,
}

/// Of which kind a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing is forwarded but by routes: the zero line.
    Routing,
    /// The kernel forwards by rules that others set.
    Kernel,
    /// A program of others forwards in user space.
    Program,
    /// One of Portway's engines.
    Portway,
}

/// What is missing from the comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// A lane, or a load.
    pub name: String,
    /// Why, as a sentence without a full stop: `haproxy is not installed`.
    pub why: String,
}

/// One lane under one load in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The lane's name.
    pub lane: String,
    /// The load's name, such as `connections`, `paced`, `keepalive`, `bulk-up`, `bulk-down`, `udp-small`, `udp-large`, `idle`,
    /// `churn`, `flood`, `article`.
    pub load: String,
    /// Which round; figures are compared within rounds.
    pub round: u32,
    /// Where on a series, if the run belongs to one.
    pub at: Option<Point>,
    /// What was measured.
    pub figures: Figures,
    /// CPU over time, where it was watched: a moment every so often from the start on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moments: Vec<Moment>,
}

/// What passed on the gateway's two wires in a short run of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// The lane's name.
    pub lane: String,
    /// The load's name.
    pub load: String,
    /// The file with the packets, from the record's directory on: `captures/nft-connections.pcapng`.
    pub file: String,
    /// What succeeded.
    pub done: u64,
    /// Payload that arrived, in bytes, both directions.
    pub bytes: u64,
    /// Packets that were counted but are not in the file.
    pub not_kept: u64,
    /// Packets that passed before they could be read, and are neither counted nor in the file.
    #[serde(default)]
    pub missed: u64,
    /// The client's wire, then the server's.
    pub wires: Vec<Wire>,
}

/// Where the work of a lane under a load goes: samples of a run of its own. Their shares count; what they are shares of is measured
/// without sampling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The lane's name.
    pub lane: String,
    /// The load's name.
    pub load: String,
    /// What succeeded.
    pub done: u64,
    /// From one sample of a processor to the next, in nanoseconds.
    pub period: u64,
    /// Samples of what the run set in motion: client, forwarder, server, and the kernel's work for them.
    pub samples: u64,
    /// Samples of processors that were idle or at others' work, which are in none of the other figures.
    pub elsewhere: u64,
    /// Samples that found no room.
    pub lost: u64,
    /// Samples by area: `client`, `server` and `forwarder` (programs), and of the kernel `calls`, `transport`, `ip`, `netfilter`,
    /// `conntrack`, `ipvs`, `bpf`, `devices`, `memory`, `tasks`, `other`.
    pub areas: BTreeMap<String, u64>,
    /// The functions of the kernel in which most of them are, most first.
    pub functions: Vec<Function>,
}

/// A function of the kernel in a profile, with those it calls that everybody calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its area.
    pub area: String,
    /// Samples.
    pub samples: u64,
}

/// The packets of a wire, by what they are: `SYN`, `SYN-ACK`, `ACK` (and nothing more), `data`, `FIN` (without data), `RST`,
/// `again` (what was sent before), `datagram`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Whose it is: `client` or `server`.
    pub name: String,
    /// Towards the server.
    pub forth: BTreeMap<String, u64>,
    /// Towards the client.
    pub back: BTreeMap<String, u64>,
}

/// A place on a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// What grows: `rules`, `flows`, `concurrency` or `backends`.
    pub of: String,
    /// How many.
    pub count: u64,
}

/// What one run measured. A figure that does not exist for a load or a lane is absent; zero is a figure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// How long the load ran, in seconds.
    pub seconds: f64,
    /// What succeeded: connections, requests, datagrams answered or streams, as the load counts.
    pub done: u64,
    /// Payload that arrived, in bytes, both directions.
    pub bytes: u64,
    /// What failed, by kind in a few words (`reset`, `timeout`, `refused`, `lost`).
    pub errors: BTreeMap<String, u64>,
    /// How long one took, from when it was due; under a load that has no rate, from when it was sent.
    pub latency: Option<Latency>,
    /// CPU time of all that the run set in motion: client, forwarder, server, and the kernel's work for them. Instructions are
    /// without those of a daemon that no traffic passes.
    pub cpu: Option<Cpu>,
    /// CPU time of the whole machine, all processors together, that was not idle, in seconds. What others did meanwhile is in
    /// it, what the hypervisor gave to others is not.
    pub machine_cpu: Option<f64>,
    /// How that divides; absent from older records.
    pub machine_parts: Option<MachineParts>,
    /// CPU time of the forwarder's processes, in seconds; absent where no process touches the traffic.
    pub forwarder_cpu: Option<Cpu>,
    /// The most memory that the forwarder's processes held, in bytes (proportional set size; the part of files as it was just
    /// before).
    pub forwarder_memory: Option<u64>,
    /// What they held just before, so that the difference is the load's.
    pub forwarder_memory_before: Option<u64>,
    /// What the kernel's memory grew by meanwhile, at most, in bytes (slab, sockets, BPF maps and page tables of the machine).
    pub kernel_memory: Option<i64>,
    /// Packets that entered or left the gateway.
    pub packets: Option<u64>,
    /// TCP segments that client, gateway and server sent again.
    pub retransmits: Option<u64>,
    /// What the run added to the entries of the gateway's conntrack table, at most: beyond those that were there just before, where
    /// it was not emptied then.
    pub conntrack: Option<u64>,
    /// Source ports of the gateway towards a server that are in use and were not before the run; of the address that has most.
    /// The kernel's translation and the ebpf engine keep them for minutes after a connection has ended. Relays do not, and to look
    /// for them disturbs: of those it is known only where connections are held, at a time, and under datagrams.
    pub source_ports: Option<u64>,
    /// SYNs from nobody that went out in a second beside the load, where there were any.
    pub flood: Option<f64>,
    /// CPUs that others kept busy just before; more than a tenth makes times doubtful.
    pub background: f64,
}

/// CPU time in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Of programs.
    pub user: f64,
    /// Of the kernel, softirq included.
    pub kernel: f64,
}

impl Cpu {
    /// Both.
    pub fn total(self) -> f64 {
        self.user + self.kernel
    }
}

/// CPU time of the whole machine in seconds, as the kernel counts it: at ticks, most of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineParts {
    /// Of programs.
    pub user: f64,
    /// Of the kernel on behalf of programs.
    pub kernel: f64,
    /// Of the kernel on behalf of packets and devices (softirq and interrupts).
    pub interrupts: f64,
    /// What the hypervisor gave to other machines while this one had work (steal): no part of the time that was not idle.
    pub stolen: f64,
}

impl MachineParts {
    /// All that was not idle.
    pub fn busy(self) -> f64 {
        self.user + self.kernel + self.interrupts
    }
}

/// What the CPUs did in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its end, in seconds from the start of the load.
    pub at: f64,
    /// Of all CPUs (1.0 is one CPU): programs.
    pub user: f64,
    /// The kernel, on behalf of programs.
    pub kernel: f64,
    /// The kernel, on behalf of packets (softirq and interrupts).
    pub softirq: f64,
    /// The forwarder's processes, all of their time.
    pub forwarder: f64,
}
