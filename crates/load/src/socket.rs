//! Sockets towards the target, from the addresses given in turn.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

/// Where connections and datagrams of a thread come from and go to.
pub(crate) struct Route {
    target: SocketAddr,
    from: Vec<IpAddr>,
    turn: usize,
}

impl Route {
    /// `index` has threads begin with different addresses.
    pub(crate) fn new(target: SocketAddr, from: &[IpAddr], index: u32) -> Self {
        Self { target, from: from.to_vec(), turn: index as usize }
    }

    /// A TCP connection that is being made.
    pub(crate) fn stream(&mut self) -> Result<OwnedFd, Errno> {
        let socket = self.socket(SocketType::STREAM)?;
        // Requests are written whole: nothing is won by waiting for more of them.
        sockopt::set_tcp_nodelay(&socket, true)?;
        self.connect(&socket)?;
        Ok(socket)
    }

    /// A UDP socket with a port of its own that hears the target only.
    pub(crate) fn datagrams(&mut self) -> Result<OwnedFd, Errno> {
        let socket = self.socket(SocketType::DGRAM)?;
        self.connect(&socket)?;
        Ok(socket)
    }

    fn socket(&self, kind: SocketType) -> Result<OwnedFd, Errno> {
        let family = if self.target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
    }

    fn connect(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        if !self.from.is_empty() {
            let source = self.from[self.turn % self.from.len()];
            self.turn = self.turn.wrapping_add(1);
            // Without it bind() takes a port for itself, whatever the target, and half as many are to be had.
            setsockopt(socket, IpBindAddressNoPort, &true).map_err(|e| Errno::from_raw_os_error(e as i32))?;
            bind(socket, &SocketAddr::new(source, 0))?;
        }
        match connect(socket, &self.target) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
            // A UDP socket or a loopback target says at once that no port is left.
            Err(Errno::AGAIN) => Err(Errno::ADDRNOTAVAIL),
            Err(error) => Err(error),
        }
    }
}
