//! Flows as every engine lists them, and the filter that picks some: for `portway conns` and `portway kill`, and for
//! ending the flows of a backend that is down.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
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
    /// What the client called.
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
        let number = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
            IpAddr::V6(v6) => (u128::from(v6), false),
        };
        let ((mine, v4), (other, other_v4)) = (number(self.address), number(address.to_canonical()));
        v4 == other_v4 && (mine ^ other).checked_shr(128 - u32::from(self.prefix.min(128))).unwrap_or(0) == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A network, and a port where one is meant, as people write them: `192.0.2.7`, `192.0.2.0/24`, `192.0.2.7:40000`,
/// `fd00::/8`, `[fd00::7]:40000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The network; one address is a network of its own.
    pub network: Network,
    /// The port.
    pub port: Option<u16>,
}

impl Place {
    /// The address, when it is one.
    pub fn address(&self) -> Option<IpAddr> {
        (self.network.prefix == bits(self.network.address)).then_some(self.network.address)
    }
}

/// How many bits an address has.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = |address: IpAddr| Network { address, prefix: bits(address) };
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Self { network: whole(address), port: None });
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self { network: whole(socket.ip()), port: Some(socket.port()) });
        }
        let network = text.split_once('/').and_then(|(address, prefix)| {
            let address: IpAddr = address.parse().ok()?;
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= bits(address))?;
            Some(Network { address, prefix })
        });
        let place = network.map(|network| Self { network, port: None });
        place.ok_or_else(|| {
            "an address, a network or address:port: 192.0.2.7, 192.0.2.0/24, [fd00::7]:80".to_owned()
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn places_are_read_as_people_write_them() {
        for (text, network, port) in [
            ("192.0.2.7", "192.0.2.7/32", None),
            ("192.0.2.0/24", "192.0.2.0/24", None),
            ("192.0.2.7:40000", "192.0.2.7/32", Some(40_000)),
            ("fd00::7", "fd00::7/128", None),
            ("[fd00::7]", "fd00::7/128", None),
            ("[fd00::7]:80", "fd00::7/128", Some(80)),
            ("fd00::/8", "fd00::/8", None),
            ("0.0.0.0/0", "0.0.0.0/0", None),
        ] {
            let place = place(text);
            assert_eq!((place.network.to_string().as_str(), place.port), (network, port), "{text}");
        }
        for wrong in ["", "web", "192.0.2.7/33", "192.0.2.7:70000", "fd00::/129", "1.2.3.4/", "/8"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_contain_what_they_should() {
        let contains =
            |network: &str, address: &str| place(network).network.contains(address.parse().unwrap());
        assert!(contains("192.0.2.0/24", "192.0.2.255") && !contains("192.0.2.0/24", "192.0.3.0"));
        assert!(contains("0.0.0.0/0", "255.255.255.255") && !contains("0.0.0.0/0", "::1"));
        assert!(
            contains("::/0", "fd00::1")
                && contains("fd00::/8", "fd00::1")
                && !contains("fd00::/8", "fe00::1")
        );
        assert!(contains("192.0.2.7", "::ffff:192.0.2.7"), "a mapped address is the IPv4 address");
    }

    #[test]
    fn a_filter_means_what_matches_everything_given() {
        let flow = Flow {
            engine: "proxy".to_owned(),
            rule: "web".to_owned(),
            protocol: "tcp".to_owned(),
            client: "192.0.2.7:40000".parse().unwrap(),
            listener: "198.51.100.1:80".parse().unwrap(),
            backend: Some("10.0.0.1:8080".parse().unwrap()),
            state: "established".to_owned(),
            age_seconds: Some(60),
            bytes_in: None,
            bytes_out: None,
        };
        let all = FlowFilter::default();
        assert!(all.matches(&flow));
        let web = RuleName::new("web").unwrap();
        let backend = "10.0.0.1".parse().unwrap();
        assert!(FlowFilter::of_backend(&web, backend, Some(8080), Some(Protocol::Tcp)).matches(&flow));
        assert!(!FlowFilter::of_backend(&web, backend, Some(80), None).matches(&flow));
        assert!(!FlowFilter::of_backend(&web, backend, None, Some(Protocol::Udp)).matches(&flow));
        assert!(!FlowFilter { rule: Some("mail".to_owned()), ..all.clone() }.matches(&flow));
        let older =
            |secs| FlowFilter { older_than: Some(Duration::from_secs(secs)), ..FlowFilter::default() };
        assert!(older(60).matches(&flow) && !older(61).matches(&flow));
        let unknown = Flow { age_seconds: None, backend: None, ..flow.clone() };
        assert!(
            !older(1).matches(&unknown)
                && !FlowFilter::of_backend(&web, backend, None, None).matches(&unknown)
        );
        assert!(FlowFilter { client: Some(place("192.0.2.0/24").network), ..all.clone() }.matches(&flow));
        assert!(!FlowFilter { client_port: Some(1), ..all }.matches(&flow));
    }
}
