//! What passes on a host's wire, as packets with their times: a packet socket (packet(7)) on its interface.
//!
//! Deliberately absent: what the packets are ([`super::kinds`]) and where they go ([`super::pcapng`]).

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::{ReceiveTimeout, ReceiveTimestampns, RxqOvfl};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg,
    setsockopt, socket,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};
use portway_lab::Namespace;

/// Bytes that are kept of each packet: its headers and the beginning of what it carries.
pub const KEPT: usize = 160;
/// Room for packets that have not been read yet, in bytes: those of a whole sample, should the reader not get a CPU.
const ROOM: usize = 32 << 20;
/// The interface of a client's or a server's host.
const INTERFACE: &str = "eth0";
/// How long a silent wire is waited for before it is asked whether all is over.
const WAIT: i64 = 20;

/// A packet as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When, since 1970.
    pub at: Duration,
    /// How many bytes it has.
    pub length: usize,
    /// The first [`KEPT`] of them, from the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// Who sees the packets of a wire.
#[derive(Debug)]
pub struct Tap(OwnedFd);

impl Tap {
    /// On the wire of a client's or a server's host. What a program at XDP forwards is seen here, and not at the host that forwards.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(host: &Namespace) -> Result<Self, String> {
        host.enter(Self::here).map_err(|error| format!("a packet socket: {error}"))
    }

    fn here() -> Result<Self, Errno> {
        let all = Some(SockProtocol::EthAll);
        let tap = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)?;
        let named = getifaddrs()?.filter(|each| each.interface_name == INTERFACE);
        let address =
            named.filter_map(|each| each.address?.as_link_addr().copied()).next().ok_or(Errno::ENODEV)?;
        bind(tap.as_raw_fd(), &address)?;
        let room = rustix::net::sockopt::set_socket_recv_buffer_size_force(&tap, ROOM);
        room.map_err(|error| Errno::from_raw(error.raw_os_error()))?;
        setsockopt(&tap, ReceiveTimestampns, &true)?;
        setsockopt(&tap, RxqOvfl, &1)?;
        setsockopt(&tap, ReceiveTimeout, &TimeVal::milliseconds(WAIT))?;
        Ok(Self(tap))
    }

    /// Reads what passes until all is over and the wire is silent. How many packets there was no room for before the last one that
    /// was read: the kernel says it with each (`SO_RXQ_OVFL`, socket(7)).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self, over: &AtomicBool, mut take: impl FnMut(Frame)) -> Result<u32, String> {
        let mut missed = 0;
        let mut control = cmsg_space!(TimeSpec, u32);
        let mut bytes = [0; KEPT];
        loop {
            let was_over = over.load(Ordering::Relaxed);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            // With this flag it says how long the packet is, not how much of it fitted.
            let said = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_TRUNC);
            match said {
                Ok(said) => {
                    let mut at = Duration::ZERO;
                    for message in said.cmsgs().into_iter().flatten() {
                        match message {
                            ControlMessageOwned::ScmTimestampns(stamp) => at = stamp.into(),
                            ControlMessageOwned::RxqOvfl(count) => missed = count,
                            _ => (),
                        }
                    }
                    let length = said.bytes;
                    take(Frame { at, length, bytes: bytes[..length.min(KEPT)].to_vec() });
                }
                Err(Errno::EAGAIN) if was_over => return Ok(missed),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(format!("read packets: {error}")),
            }
        }
    }
}
