//! Flows as every engine lists them, and the filter that picks some: for `portway conns` and `portway kill`, and for
//! ending the flows of a backend that is down.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Protocol;
use crate::ruleset::RuleName;

/// A live flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The engine that carries it.
    pub engine: String,
    /// Its rule.
    pub rule: String,
    /// "tcp" or "udp".
    pub protocol: String,
    /// Who called.
    pub client: SocketAddr,
    /// What the client called; not known to the proxy for TCP on wildcard sockets without asking the kernel, which it does.
    pub listener: SocketAddr,
    /// Where it leads; nothing while a proxied connection waits for a backend.
    pub backend: Option<SocketAddr>,
    /// "connecting", "established", "closing", for UDP "unanswered" or "answered".
    pub state: String,
    /// Seconds since it began, where the engine knows.
    pub age_seconds: Option<u64>,
    /// Bytes from the client, where the engine knows.
    pub bytes_in: Option<u64>,
    /// Bytes to the client, where the engine knows.
    pub bytes_out: Option<u64>,
}

/// Which flows are meant: those that match everything given. Nothing given is every flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFilter {
    /// The rule.
    pub rule: Option<String>,
    /// TCP or UDP.
    pub protocol: Option<String>,
    /// Clients in this network.
    pub client: Option<Network>,
    /// The client's port.
    pub client_port: Option<u16>,
    /// The backend's address.
    pub backend: Option<IpAddr>,
    /// The backend's port.
    pub backend_port: Option<u16>,
    /// At least this old; a flow whose age is not known does not match.
    pub older_than: Option<Duration>,
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The address.
    pub address: IpAddr,
    /// 0 to 32, or to 128.
    pub prefix: u8,
}

impl Network {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
            IpAddr::V6(v6) => (u128::from(v6), false),
        };
        let ((mine, v4), (other, other_v4)) = (bits(self.address), bits(address.to_canonical()));
        v4 == other_v4 && (mine ^ other).checked_shr(128 - u32::from(self.prefix.min(128))).unwrap_or(0) == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FlowFilter {
    /// The flows of one backend of a rule.
    pub fn of_backend(
        rule: &RuleName,
        address: IpAddr,
        port: Option<u16>,
        protocol: Option<Protocol>,
    ) -> Self {
        Self {
            rule: Some(rule.to_string()),
            protocol: protocol.map(|protocol| protocol.to_string()),
            backend: Some(address),
            backend_port: port,
            ..Self::default()
        }
    }

    /// Whether a flow is meant.
    pub fn matches(&self, flow: &Flow) -> bool {
        let same =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        same(&self.rule, &flow.rule)
            && same(&self.protocol, &flow.protocol)
            && self.client.is_none_or(|network| network.contains(flow.client.ip()))
            && self.client_port.is_none_or(|port| port == flow.client.port())
            && self.backend.is_none_or(|address| flow.backend.is_some_and(|backend| backend.ip() == address))
            && self.backend_port.is_none_or(|port| flow.backend.is_some_and(|backend| backend.port() == port))
            && self.older_than.is_none_or(|least| flow.age_seconds.is_some_and(|age| age >= least.as_secs()))
    }
}

/// What a listing of flows came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// The flows, at most as many as were asked for.
    pub flows: Vec<Flow>,
    /// How many match in all.
    pub total: u64,
}
