//! Sockets: towards backends, and the listening ones: one per worker and port, in one SO_REUSEPORT group, so that the kernel spreads
//! connections over the workers and the most specific socket wins (address, then interface, then any).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;

use portway_core::address::{Family, Protocol};
use portway_core::engine::EngineError;
use portway_core::plan::proxy::Socket;
use portway_core::ruleset::{EngineKind, RuleName, Scope};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};

use crate::sys;

/// The accept queue's length; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;
/// Bytes of kernel memory for datagrams that wait in a busy UDP socket.
const UDP_BUFFER: usize = 2 << 20;

/// Opens `workers` sockets for one listener, bound and (TCP) listening. `shared`: this engine has another
/// socket on the same port already.
pub fn open(
    socket: &Socket,
    rule: &RuleName,
    workers: usize,
    shared: bool,
) -> Result<Vec<OwnedFd>, EngineError> {
    let failed = |error: std::io::Error| EngineError {
        engine: EngineKind::Proxy,
        rule: Some(rule.clone()),
        doing: format!("listen on {socket}"),
        reason: error.to_string(),
        hint: hint(socket, &error),
    };
    let mut group: Vec<OwnedFd> = Vec::with_capacity(workers);
    for worker in 0..workers {
        let opened = match open_one(socket, worker > 0) {
            // Our own socket of another scope stands in the way: sharing is meant.
            Err(error) if worker == 0 && shared && error.raw_os_error() == Some(libc::EADDRINUSE) => {
                open_one(socket, true)
            }
            other => other,
        };
        group.push(opened.map_err(failed)?);
    }
    Ok(group)
}

fn hint(socket: &Socket, error: &std::io::Error) -> Option<String> {
    let port = socket.port;
    match Errno::from_io_error(error)? {
        Errno::ADDRINUSE => Some(format!("see who holds the port: ss -lnp 'sport = :{port}'")),
        Errno::ACCESS | Errno::PERM => Some(
            "ports below net.ipv4.ip_unprivileged_port_start need root or CAP_NET_BIND_SERVICE".to_owned(),
        ),
        Errno::ADDRNOTAVAIL => Some("the address is not on this host: see ip address".to_owned()),
        Errno::NODEV => Some("there is no such interface: see ip link".to_owned()),
        Errno::MFILE | Errno::NFILE => {
            Some("raise the open-file limit (ulimit -Hn, LimitNOFILE=)".to_owned())
        }
        _ => None,
    }
}

/// Makes room for bursts: one socket takes in the datagrams of many clients between two turns of its worker.
pub fn deepen(fd: &OwnedFd) {
    if sockopt::set_socket_recv_buffer_size_force(fd, UDP_BUFFER).is_err() {
        _ = sockopt::set_socket_recv_buffer_size(fd, UDP_BUFFER);
    }
}

fn open_one(socket: &Socket, share: bool) -> std::io::Result<OwnedFd> {
    let family = socket.scope.family();
    let (domain, any): (_, IpAddr) = match family {
        Family::V4 => (AddressFamily::INET, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let kind = match socket.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let fd = socket_with(domain, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    if family == Family::V6 {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    let address = match &socket.scope {
        Scope::Address(address) => *address,
        Scope::Any(_) => any,
        Scope::Interface(name, _) => {
            sys::bind_to_device(&fd, name.as_str())?;
            any
        }
    };
    match socket.protocol {
        Protocol::Tcp => {
            // Binds beside connections of an earlier run in TIME_WAIT, never beside another listener.
            sockopt::set_socket_reuseaddr(&fd, true)?;
            // Accepted sockets inherit both.
            sockopt::set_tcp_nodelay(&fd, true)?;
            sockopt::set_socket_oobinline(&fd, true)?;
        }
        Protocol::Udp => {
            sys::receive_destination(&fd, family == Family::V6)?;
            // Only optimisations: GRO is missing before Linux 5.0, and without CAP_NET_ADMIN a buffer ends at
            // net.core.rmem_max.
            _ = sys::udp_gro(&fd);
            deepen(&fd);
        }
    }
    // The first socket of a group is bound alone, so that a port that any other process holds is an error, even
    // when that process shares its port with everyone; then the group is opened for our own workers.
    if share {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    let address = match address {
        IpAddr::V6(a) => SocketAddrV6::new(a, socket.port, 0, 0).into(),
        IpAddr::V4(_) => SocketAddr::new(address, socket.port),
    };
    bind(&fd, &address)?;
    if !share {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    if socket.protocol == Protocol::Tcp {
        listen(&fd, BACKLOG)?;
    }
    Ok(fd)
}

/// Begins to connect; also used by UDP, where it only fixes the peer.
pub(crate) fn connect_from(
    socket: &OwnedFd,
    source: Option<IpAddr>,
    target: SocketAddr,
) -> Result<(), Errno> {
    if let Some(source) = source {
        bind_source(socket, source)?;
    }
    match connect(socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(error) => Err(error),
    }
}

fn bind_source(socket: &OwnedFd, source: IpAddr) -> Result<(), Errno> {
    // Without it every bind would take a port of its own, whatever the destination.
    sys::bind_address_no_port(socket).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::INVAL))?;
    bind(socket, &SocketAddr::new(source, 0))
}
