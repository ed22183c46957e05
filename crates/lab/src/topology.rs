//! The network of a scenario: clients, a gateway, servers.
//!
//! ```text
//! clients 10.1.0.10+i  fd01::10+i ── lan [gateway 10.1.0.1 fd01::1 | 10.2.0.1 fd02::1] wan ── servers 10.2.0.10+i  fd02::10+i
//! ```
//!
//! No host has a route beyond its own network, so only what the gateway forwards can be answered. A side
//! with one host hangs on a veth pair; a side with several on a bridge in a namespace of its own.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::Namespace;
use crate::netns::wait_for;
use crate::wire::connect;

/// The gateway's addresses on the clients' network.
pub const LAN4: &str = "10.1.0.1";
/// The same, IPv6.
pub const LAN6: &str = "fd01::1";
/// The gateway's addresses on the servers' network.
pub const WAN4: &str = "10.2.0.1";
/// The same, IPv6.
pub const WAN6: &str = "fd02::1";
/// The first client.
pub const CLIENT4: &str = "10.1.0.10";
/// The first client, IPv6.
pub const CLIENT6: &str = "fd01::10";
/// The first server.
pub const SERVER4: &str = "10.2.0.10";
/// The first server, IPv6.
pub const SERVER6: &str = "fd02::10";
/// The network of [`Topology::crowd`].
pub const CROWD4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 0);
/// The same, IPv6.
pub const CROWD6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0);

/// Client, gateway and server hosts with their wires.
#[derive(Debug)]
pub struct Topology {
    /// 10.1.0.10, 10.1.0.11 ...
    pub clients: Vec<Namespace>,
    /// The host that forwards.
    pub gateway: Namespace,
    /// 10.2.0.10, 10.2.0.11 ...
    pub servers: Vec<Namespace>,
    _switches: Vec<Namespace>,
}

impl Topology {
    /// One client, one gateway, one server.
    ///
    /// # Panics
    /// Without root or iproute2.
    pub fn new() -> Self {
        Self::with(1, 1)
    }

    /// So many clients and servers, at least one of each.
    ///
    /// # Panics
    /// Without root or iproute2.
    pub fn with(clients: usize, servers: usize) -> Self {
        let gateway = Namespace::new("gateway");
        let clients: Vec<_> = (0..clients).map(|_| Namespace::new("client")).collect();
        let servers: Vec<_> = (0..servers).map(|_| Namespace::new("server")).collect();
        let mut switches = Vec::new();
        for (interface, network, hosts) in [("lan", 1, &clients), ("wan", 2, &servers)] {
            let (v4, v6) = (format!("10.{network}.0"), format!("fd0{network}:"));
            if let [host] = hosts.as_slice() {
                connect(&gateway, interface, host, "eth0");
            } else {
                let switch = Namespace::new("switch");
                switch.ip("link add name br0 type bridge\nlink set br0 up");
                connect(&gateway, interface, &switch, "uplink");
                switch.ip("link set uplink master br0");
                for (i, host) in hosts.iter().enumerate() {
                    connect(&switch, &format!("port{i}"), host, "eth0");
                    switch.ip(&format!("link set port{i} master br0"));
                }
                switches.push(switch);
            }
            gateway.ip(&format!(
                "address add {v4}.1/24 dev {interface}\naddress add {v6}:1/64 dev {interface} nodad"
            ));
            for (i, host) in hosts.iter().enumerate() {
                host.ip(&format!(
                    "address add {v4}.{}/24 dev eth0\naddress add {v6}:{}/64 dev eth0 nodad",
                    10 + i,
                    10 + i
                ));
            }
        }
        for (host, links) in clients.iter().chain(&servers).map(|host| (host, 1)).chain([(&gateway, 2)]) {
            // A link is up a moment after it was set up, and only then has its link-local address, without which a host does
            // not solicit neighbours for what it sends from an address of a route ([`Self::crowd`]; ndisc_solicit,
            // net/ipv6/ndisc.c).
            wait_for("links", || {
                host.run("ip -6 -oneline address show scope link -tentative").lines().count() >= links
            });
        }
        Self { clients, gateway, servers, _switches: switches }
    }

    /// The first client.
    pub fn client(&self) -> &Namespace {
        &self.clients[0]
    }

    /// The first server.
    pub fn server(&self) -> &Namespace {
        &self.servers[0]
    }

    /// Gives the servers a route to the clients through the gateway, which `source = "preserve"` asks for.
    pub fn route_servers_back(&self) {
        for server in &self.servers {
            server.ip(&format!("route add default via {WAN4}\nroute add ::/0 via {WAN6}"));
        }
    }

    /// Makes the first client a crowd: all of 10.9.0.0/16 and fd09::/64 are addresses of its own, without a command for
    /// each (a local route takes a whole prefix).
    pub fn crowd(&self) {
        self.client().ip(&format!("route add local {CROWD4}/16 dev lo\nroute add local {CROWD6}/64 dev lo"));
        // IPv6 lets a socket have an address of a local route only when it need not be local at all.
        self.client().sysctl("net.ipv6.ip_nonlocal_bind", "1");
        self.gateway.ip(&format!(
            "route add {CROWD4}/16 via {CLIENT4} dev lan\nroute add {CROWD6}/64 via {CLIENT6} dev lan"
        ));
    }

    /// Gives the clients a route to the servers through the gateway.
    pub fn route_clients(&self) {
        for client in &self.clients {
            client.ip(&format!("route add default via {LAN4}\nroute add ::/0 via {LAN6}"));
        }
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}
