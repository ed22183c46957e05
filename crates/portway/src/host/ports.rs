//! Who holds a port on this host: the sockets of /proc/net and the processes that own them.
//!
//! Deliberately absent: any judgement. Whether a held port is an error (the proxy cannot bind) or a warning
//! (nftables takes the traffic before the socket sees it) depends on the engine and is said in `in_use`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use portway_core::address::{Family, Protocol};
use portway_core::ruleset::{Listener, Scope};
use procfs::net::TcpState;
use procfs::process::FDTarget;

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Its process id.
    pub pid: i32,
    /// Its name (`comm`).
    pub name: String,
}

/// A bound socket.
#[derive(Clone, Debug)]
pub struct Held {
    /// TCP (listening) or UDP (not connected).
    pub protocol: Protocol,
    /// What it is bound to.
    pub address: SocketAddr,
    inode: u64,
}

/// Every listening TCP socket and unconnected UDP socket of this network namespace.
pub fn held() -> Vec<Held> {
    let mut held = Vec::new();
    // A family that the kernel does not have has no file: no sockets then.
    let tcp = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    held.extend(tcp.filter(|entry| entry.state == TcpState::Listen).map(|entry| Held {
        protocol: Protocol::Tcp,
        address: entry.local_address,
        inode: entry.inode,
    }));
    let udp = [procfs::net::udp(), procfs::net::udp6()].into_iter().flatten().flatten();
    held.extend(udp.filter(|entry| entry.remote_address.port() == 0).map(|entry| Held {
        protocol: Protocol::Udp,
        address: entry.local_address,
        inode: entry.inode,
    }));
    held
}

/// The processes that own these sockets, by socket; of several, the one with the lowest id, which is the server
/// rather than its workers. A process of another user is unknown without privilege.
pub fn owners<'a>(held: impl IntoIterator<Item = &'a Held>) -> BTreeMap<u64, Owner> {
    let wanted: std::collections::BTreeSet<u64> = held.into_iter().map(|held| held.inode).collect();
    let mut owners = BTreeMap::new();
    if wanted.is_empty() {
        return owners;
    }
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        let Ok(fds) = process.fd() else { continue };
        for fd in fds.flatten() {
            if let FDTarget::Socket(inode) = fd.target
                && wanted.contains(&inode)
            {
                let name = process.stat().map_or_else(|_| "?".to_owned(), |stat| stat.comm);
                let owner = Owner { pid: process.pid, name };
                owners
                    .entry(inode)
                    .and_modify(|known: &mut Owner| *known = known.clone().min(owner.clone()))
                    .or_insert(owner);
            }
        }
    }
    owners
}

impl Held {
    /// The key of [`owners`].
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether a socket for `listener` could not be bound beside this one.
    pub fn collides(&self, listener: &Listener) -> bool {
        if self.protocol != listener.protocol || !listener.ports.contains(self.address.port()) {
            return false;
        }
        // An IPv6 wildcard may or may not take IPv4 as well (IPV6_V6ONLY is not in /proc); only the same
        // family is certain, and only certain collisions are reported.
        let address = self.address.ip().to_canonical();
        if Family::of(address) != listener.scope.family() {
            return false;
        }
        match &listener.scope {
            Scope::Address(wanted) => address == *wanted || address.is_unspecified(),
            Scope::Any(_) => true,
            // Sockets bound to another interface do not collide, but /proc does not tell the interface.
            Scope::Interface(..) => address.is_unspecified(),
        }
    }
}

/// The text of a socket address for a sentence; the wildcard as people write it.
pub fn shown(held: &Held) -> String {
    match held.address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => format!("{}/*:{}", held.protocol, held.address.port()),
        _ => format!("{}/{}", held.protocol, held.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portway_core::address::PortRange;
    use std::net::{TcpListener, UdpSocket};

    fn listener(scope: Scope, protocol: Protocol, port: u16) -> Listener {
        Listener { protocol, scope, ports: PortRange::single(port).unwrap() }
    }

    #[test]
    fn a_held_port_names_its_process() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let held = held();
        let mine: Vec<_> = held
            .iter()
            .filter(|h| h.collides(&listener(Scope::Any(Family::V4), Protocol::Tcp, port)))
            .collect();
        assert_eq!(mine.len(), 1);
        let owner = &owners(mine.iter().copied())[&mine[0].inode()];
        assert_eq!(owner.pid as u32, std::process::id());
    }

    #[test]
    fn protocols_families_and_addresses_are_told_apart() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let held = held();
        let collides = |scope, protocol| {
            let listener = listener(scope, protocol, port);
            held.iter().any(|held| held.collides(&listener))
        };
        assert!(collides(Scope::Address("127.0.0.1".parse().unwrap()), Protocol::Udp));
        assert!(!collides(Scope::Address("127.0.0.2".parse().unwrap()), Protocol::Udp));
        assert!(!collides(Scope::Any(Family::V6), Protocol::Udp));
    }
}
