//! The other side of the loads: one server, TCP and UDP, whose client says with its first bytes what it wants.
//!
//! - `GET /` of HTTP/1.1: a page of the size that the server was started with; `GET /N`: a page of N bytes.
//! - A stamp (`stamp.rs`): an echo, a sink or a source.
//!
//! Over UDP it returns datagrams that carry a stamp, and no others: two servers that return everything can be set upon each
//! other by one forged datagram. Deliberately absent: everything else of HTTP.

mod conversation;
mod worker;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::{io, mem};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};

use worker::{Sockets, Worker};

/// The accept queue's length; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;
/// Bytes of kernel memory for datagrams that wait, if the kernel allows it (`net.core.rmem_max`).
const UDP_BUFFER: usize = 2 << 20;

/// What to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where; a port of 0 takes a free one. A UDP answer comes from the address that routes choose, so on a host with
    /// several addresses the one that is asked must be named here.
    pub listen: Vec<SocketAddr>,
    /// Bytes of the page.
    pub page: u64,
    /// Threads, each with its own sockets (SO_REUSEPORT).
    pub threads: u32,
}

/// A server on threads of its own. Ends when dropped.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    wakers: Vec<Arc<OwnedFd>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Server {
    /// Binds all addresses and serves, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's, with the address.
    pub fn start(options: &Options) -> io::Result<Self> {
        let mut server =
            Self { addresses: Vec::new(), stop: Arc::default(), wakers: Vec::new(), threads: Vec::new() };
        let threads = options.threads.max(1);
        let mut sockets: Vec<Vec<Sockets>> = (0..threads).map(|_| Vec::new()).collect();
        for wanted in &options.listen {
            let mut address = *wanted;
            for own in &mut sockets {
                let opened = open(address).map_err(|error| {
                    io::Error::new(io::Error::from(error).kind(), format!("listen on {address}: {error}"))
                })?;
                address = opened.address;
                own.push(opened);
            }
            server.addresses.push(address);
        }
        for (index, own) in sockets.into_iter().enumerate() {
            let waker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            let worker = Worker::new(own, options.page, waker.clone(), server.stop.clone())?;
            let builder = thread::Builder::new().name(format!("serve-{index}"));
            server.threads.push(builder.spawn(move || worker.run())?);
            server.wakers.push(waker);
        }
        Ok(server)
    }

    /// Where it listens, as asked for, with the ports that were taken.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until it ends, which it does when something is wrong with its sockets.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(mut self) -> io::Result<()> {
        mem::take(&mut self.threads)
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for waker in &self.wakers {
            // It can only fail when it is full, and then the thread is awake.
            _ = rustix::io::write(waker, &1u64.to_ne_bytes());
        }
        for thread in self.threads.drain(..) {
            // A thread that has failed has said so.
            _ = thread.join();
        }
    }
}

/// The sockets of one thread on one address. TCP comes first, so that a free port is free for both nearly always; where it
/// is not, that is an error.
fn open(address: SocketAddr) -> Result<Sockets, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = |kind, address: SocketAddr| {
        let socket = socket_with(family, kind, flags, None)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if kind == SocketType::STREAM {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            // Accepted sockets inherit it.
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
        bind(&socket, &address)?;
        Ok::<_, Errno>(socket)
    };
    let tcp = socket(SocketType::STREAM, address)?;
    listen(&tcp, BACKLOG)?;
    let bound: SocketAddr = getsockname(&tcp)?.try_into()?;
    let udp = socket(SocketType::DGRAM, bound)?;
    if sockopt::set_socket_recv_buffer_size_force(&udp, UDP_BUFFER).is_err() {
        // Without CAP_NET_ADMIN the kernel's own bound holds.
        _ = sockopt::set_socket_recv_buffer_size(&udp, UDP_BUFFER);
    }
    Ok(Sockets { address: bound, tcp, udp })
}
