//! What of this host the engine follows: its interfaces and addresses, and which address it has on the way to another.
//!
//! Deliberately absent: being told of changes ([`crate::follow`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;

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
    /// Where to ask; nothing only when no socket could be had.
    route: Option<Route>,
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
        let addresses = route.addresses()?.into_iter().collect();
        Ok(Self { interfaces, addresses, route: Route::open().ok(), sources: BTreeMap::new() })
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
        let ask = || self.route.as_mut().and_then(|route| route.source(destination));
        *self.sources.entry(destination).or_insert_with(ask)
    }
}

/// Which address this host has on the way to each of these ([`Route::source`]). Asked by netlink rather than by connecting
/// sockets: those need an ephemeral port, and where `source-ports` has all of them there is none.
pub fn preferred_sources(
    route: &mut Route,
    destinations: BTreeSet<IpAddr>,
) -> BTreeMap<IpAddr, Option<IpAddr>> {
    destinations.into_iter().map(|destination| (destination, route.source(destination))).collect()
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
