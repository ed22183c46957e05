//! The control socket: one JSON request per line, one JSON answer per line, over a unix socket that only its
//! owner can open (and a group, where the file names one).
//!
//! Deliberately absent: a network listener and authentication of its own. The socket's file mode is the lock.

pub mod client;
pub mod server;

use std::collections::BTreeMap;

use portway_core::flow::{FlowFilter, Flows};
use portway_core::ruleset::EngineKind;
use portway_core::snapshot::{Fill, MemberCounters, RuleCounters, SourcePorts};
use serde::{Deserialize, Serialize};

/// The longest request, in bytes: every request is a few words.
pub const MAX_REQUEST: u64 = 4096;

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// What runs and how it does.
    Status,
    /// Read the file again and apply it.
    Reload,
    /// The text that is applied now, for a comparison with another.
    Applied,
    /// An order for one backend.
    Order {
        /// The rule's name.
        rule: String,
        /// The backend's name, or one address of it.
        backend: String,
        /// What it shall do.
        order: Ordered,
        /// Whether the order outlives the daemon.
        keep: bool,
    },
    /// Live flows.
    Conns {
        /// Which.
        filter: FlowFilter,
        /// Of one engine only.
        engine: Option<EngineKind>,
        /// At most so many.
        most: usize,
    },
    /// End flows.
    Kill {
        /// Which.
        filter: FlowFilter,
        /// Of one engine only.
        engine: Option<EngineKind>,
    },
}

/// What the operator wants of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ordered {
    /// No new flows; the present ones end by themselves.
    Drain,
    /// Takes a drain back.
    Undrain,
    /// As if it were down.
    Disable,
    /// Takes a disable back.
    Enable,
    /// This weight; `None` for the file's.
    Weight(Option<u16>),
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Reload`]: what changed, a line each.
    Reloaded(Vec<String>),
    /// To [`Request::Order`]: how the backend stands now.
    Ordered(Vec<BackendStatus>),
    /// To [`Request::Conns`].
    Conns(Flows),
    /// To [`Request::Kill`]: how many flows ended.
    Killed(u64),
    /// To [`Request::Applied`].
    Applied {
        /// The file's path, or `<command line>`.
        name: String,
        /// Its text.
        text: String,
    },
    /// The request could not be carried out; nothing changed. Ready to be shown to a person.
    Refused(String),
}

/// A running daemon, as `portway status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Portway's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// The file's path, or `<command line>`.
    pub config: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Seconds since the last change was applied.
    pub applied_seconds: u64,
    /// The rules, in the order of the file.
    pub rules: Vec<RuleStatus>,
    /// How long what the world says takes to be in force.
    pub facts: FactsStatus,
    /// The names of the rules.
    pub names: Vec<NameStatus>,
    /// Engine-wide figures: engine, figure, value.
    pub engines: BTreeMap<String, BTreeMap<String, u64>>,
    /// How full the ebpf engine's flow table is; nothing while it has none.
    pub flow_table: Option<Fill>,
    /// How full the ebpf engine's source ports are.
    pub source_ports: Vec<SourcePorts>,
    /// What the operator should know (a table of someone else that drops our traffic, a setting not set).
    pub warnings: Vec<String>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Its name.
    pub name: String,
    /// The engine that carries it.
    pub engine: String,
    /// Why that engine.
    pub reason: String,
    /// Where traffic comes in.
    pub listen: Vec<String>,
    /// Where it goes.
    pub forward: String,
    /// Its backends, a name with every address that it stands for now.
    pub backends: Vec<BackendStatus>,
    /// Which source address the backend sees.
    pub source: String,
    /// "forwarding"; "sorry" or "empty" while no backend is live, with and without a sorry backend; "missing" when the engine no longer holds the rule.
    pub state: String,
    /// How new flows are spread over the backends.
    pub balance: String,
    /// Flows begun per second, over the last seconds; nothing at the first reading, for a rate needs two.
    pub flows_per_second: Option<f64>,
    /// Packets that were not carried, by reason; the ebpf engine's only.
    pub drops: BTreeMap<String, u64>,
    /// The counters: `live`, `flows`, `packets_in`, `packets_out`, `bytes_in`, `bytes_out`, `failed`; null where the engine does not
    /// count.
    #[serde(flatten)]
    pub counters: RuleCounters,
}

/// One backend, or one address of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// The backend's name.
    pub name: String,
    /// Where it is; nothing while a name stands for no address.
    pub target: Option<String>,
    /// "up", "down", "checking" (up until the first check says otherwise), "draining", "disabled", "standby" (a backup
    /// that is not needed), "unresolved", "ejected" (by passive checks).
    pub state: String,
    /// The weight of the file, or the operator's.
    pub weight: u16,
    /// Its share of new flows now, in percent.
    pub share: f64,
    /// Used only while no other is live.
    pub backup: bool,
    /// What the last check said.
    pub reason: String,
    /// Seconds since the state began, where that is known.
    pub since_seconds: Option<u64>,
    /// The counters, as of a rule, `ejected`, and `drops`: what of the rule's had this backend.
    #[serde(flatten)]
    pub counters: MemberCounters,
    /// Who gave the order that holds, if any.
    pub by: Option<String>,
    /// When, in seconds since the Unix epoch.
    pub at: Option<u64>,
    /// Whether the order outlives the daemon.
    pub keep: bool,
}

/// One name that rules have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameStatus {
    /// The name, a service as the file writes it.
    pub name: String,
    /// What it stands for now; addresses, with their ports for a service.
    pub addresses: Vec<String>,
    /// How often it was asked for since the start.
    pub asked: u64,
    /// What was wrong with the last answer, if anything; the last good one is kept.
    pub error: Option<String>,
    /// Seconds until it is asked for again.
    pub next_seconds: Option<u64>,
}

/// How facts came into force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsStatus {
    /// How often changed facts were carried out.
    pub applied: u64,
    /// From the verdict to its being in force, in microseconds: the last time, and the longest.
    pub last_apply_us: u64,
    /// See there.
    pub max_apply_us: u64,
    /// Probes that are made.
    pub probes: u64,
    /// Names that are resolved.
    pub names: u64,
    /// Probes whose last check could not be made, for want of descriptors or memory here.
    pub checks_not_made: u64,
}
