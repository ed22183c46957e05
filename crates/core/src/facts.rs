//! Facts: what the world says now. Resolved names, verdicts of health checks, the operator's orders.
//!
//! Facts never edit the Ruleset: together with it they give the members that new flows meet ([`crate::members`]).
//! A change of a fact is an event; what did not change is not applied. Deliberately absent: how facts are found
//! (the `portway-watch` crate) and what the proxy sees for itself (passive checks, [`crate::outlier`]).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ruleset::{BackendName, Check, HostName, RuleName};

/// A point in time: how long after a start of the caller's choice (the daemon's). Never goes backwards.
pub type Moment = Duration;

/// One thing to check: the check and the address it is made to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    /// Where to, the check's own address and port already put in.
    pub address: SocketAddr,
    /// What and how often.
    pub check: Arc<Check>,
    /// The name that the backend has in the file, where it has one: for Host headers and server names.
    pub host: Option<HostName>,
}

/// The verdict on a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether new flows may go there.
    pub up: bool,
    /// Since when.
    pub since: Moment,
    /// Whether it was down before it came up: slow start is for those.
    pub recovered: bool,
    /// What the last check said, for people ("connect: Connection refused").
    pub reason: String,
}

/// What is asked of a resolver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lookup {
    /// The A and AAAA records of a name.
    Addresses(String),
    /// The SRV records of a service, and the addresses of the hosts that they name.
    Service(String),
}

impl fmt::Display for Lookup {
    /// The name, a service as the file writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(name) => f.write_str(name),
            Self::Service(name) => write!(f, "srv/{name}"),
        }
    }
}

/// One address of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resolved {
    /// The address.
    pub address: IpAddr,
    /// The record's port, for a service.
    pub port: Option<u16>,
    /// The record's weight, for a service: 0 to 65,535 (RFC 2782).
    pub weight: u16,
    /// The record's priority, for a service: a higher number is used only when all lower ones are down.
    pub priority: u16,
}

impl fmt::Display for Resolved {
    /// The address, with the port of a service's record.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => self.address.fmt(f),
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
        }
    }
}

/// What a resolver said last: sorted, without doubles. Empty when it said that there is no such name.
pub type Answer = Vec<Resolved>;

/// What the operator has said about a backend's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// No new flows; the present ones end by themselves.
    Drain,
    /// As if it were down: `on-down` says what happens to its flows.
    Disable,
}

/// The operator's orders for one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The state, where one was ordered.
    pub admin: Option<Admin>,
    /// The weight, where one was ordered: 0 to 256.
    pub weight: Option<u16>,
    /// Who said it last ("root", "uid 1000").
    pub by: String,
    /// When, in seconds since the Unix epoch.
    pub at: u64,
    /// Whether it survives the daemon; once given, until all of it is taken back.
    pub keep: bool,
}

/// The orders by rule and backend: the backend's name, or one address of a name ("10.0.0.1:80").
pub type Orders = BTreeMap<(RuleName, BackendName), Order>;

/// What the world says now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Verdicts. A probe without one counts as up: the first check decides.
    pub health: BTreeMap<Probe, Health>,
    /// Answers. A name without one was never resolved.
    pub names: BTreeMap<Lookup, Answer>,
    /// The operator's orders.
    pub orders: Orders,
}
