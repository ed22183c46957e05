//! The control socket: one JSON request per line, one JSON answer per line, over a unix socket that only its
//! owner can open (and a group, where the file names one).
//!
//! Deliberately absent: a network listener and authentication of its own. The socket's file mode is the lock.

pub mod client;
pub mod server;

use std::collections::BTreeMap;

use portway_core::snapshot::RuleCounters;
use serde::{Deserialize, Serialize};

/// The longest request, in bytes: every request is a few words.
pub const MAX_REQUEST: u64 = 4096;

/// What a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// What runs and how it does.
    Status,
    /// Read the file again and apply it.
    Reload,
    /// The text that is applied now, for a comparison with another.
    Applied,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Reload`]: what changed, a line each.
    Reloaded(Vec<String>),
    /// To [`Request::Applied`].
    Applied {
        /// The file's path, or "<command line>".
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
    /// The file's path, or "<command line>".
    pub config: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Seconds since the last change was applied.
    pub applied_seconds: u64,
    /// The rules, in the order of the file.
    pub rules: Vec<RuleStatus>,
    /// Engine-wide figures: engine, figure, value.
    pub engines: BTreeMap<String, BTreeMap<String, u64>>,
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
    /// Which source address the backend sees.
    pub source: String,
    /// "forwarding", or "missing" when the engine no longer holds the rule.
    pub state: String,
    /// Flows begun per second, over the last seconds.
    pub flows_per_second: f64,
    /// The counters.
    #[serde(flatten)]
    pub counters: RuleCounters,
}
