//! What of this host the engine follows: its interfaces and addresses, and which address it has on the way to another.
//!
//! Deliberately absent: being told of changes ([`crate::follow`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::choice::Known;
use crate::netdev;
use crate::route::Route;
use crate::state::World;

/// The host as it was when it was last looked at.
#[derive(Default)]
pub struct Host {
    /// Its interfaces, by index.
    pub interfaces: BTreeMap<u32, Known>,
    /// Its addresses, and an interface that has each.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// Asked already.
    sources: BTreeMap<IpAddr, Option<IpAddr>>,
}

impl Host {
    /// Looks at the host.
    ///
    /// # Errors
    /// The kernel's.
    pub fn look(route: &mut Route) -> io::Result<Self> {
        // Before Linux 6.3 nobody tells, and no driver is taken to have XDP.
        let features = netdev::features().unwrap_or_default();
        let known = route.interfaces()?.into_iter().map(|interface| {
            let features = features.get(&interface.index).copied().unwrap_or_default();
            (interface.index, Known::new(interface, features))
        });
        let interfaces = known.collect();
        Ok(Self { interfaces, addresses: route.addresses()?.into_iter().collect(), sources: BTreeMap::new() })
    }

    /// Forgets which addresses it has on the way to others.
    pub fn forget_sources(&mut self) {
        self.sources.clear();
    }

    /// Takes note of which addresses it has on the way to others, as [`preferred_sources`] found out.
    pub fn learn_sources(&mut self, sources: BTreeMap<IpAddr, Option<IpAddr>>) {
        self.sources = sources;
    }
}

impl World for Host {
    fn interface(&self, name: &str) -> Option<u32> {
        self.interfaces.values().find(|known| known.interface.name == name).map(|known| known.interface.index)
    }

    fn source(&mut self, destination: IpAddr) -> Option<IpAddr> {
        *self.sources.entry(destination).or_insert_with(|| preferred_source(destination))
    }
}

/// The address that the kernel would give a packet of this host to `destination`: the route's preferred one. Asked by
/// connecting a socket, which sends nothing; nothing when there is no route.
fn preferred_source(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // The port of discard: any would do.
    socket.connect((destination, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// The same to several.
pub fn preferred_sources(destinations: BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Option<IpAddr>> {
    destinations.into_iter().map(|destination| (destination, preferred_source(destination))).collect()
}

/// The range that the kernel takes ephemeral ports from, in this network namespace (`ip_local_port_range`).
pub fn ephemeral_ports() -> (u16, u16) {
    // The kernel's defaults, where there is no /proc.
    let default = (32_768, 60_999);
    let Ok(text) = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") else { return default };
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first, last),
        _ => default,
    }
}
