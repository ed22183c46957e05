//! A netlink socket: one request, one dump, or one batch at a time. The kernel answers a batch before the send
//! returns, so nothing here waits for anybody but the kernel. Or a socket that only listens ([`Listener`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::wire::{DONE, ERROR, Message, Messages, Writer, flag};

/// The largest batch that is sent, in bytes. 10,000 rules need about 4 MB.
const MAX_BATCH: usize = 256 << 20;
/// Room for the largest answer: an error carries the message it is about, at most a full attribute list.
const ANSWER: usize = 256 << 10;
/// How often a dump is read again because the ruleset changed meanwhile.
const DUMP_TRIES: usize = 20;

/// A netlink socket of one protocol, in the network namespace of the thread that opened it.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    answer: Vec<u8>,
}

/// What a dump returned: the messages one behind the other.
pub struct Dump(Vec<u8>);

impl Dump {
    /// The messages.
    pub fn messages(&self) -> Messages<'_> {
        Messages::of(&self.0)
    }
}

/// The kernel's word on one message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The message's sequence number.
    pub sequence: u32,
    /// The error.
    pub error: Errno,
}

impl Socket {
    /// Opens a socket of a netlink protocol; `None` is routing (number 0).
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        // Without CAP_NET_ADMIN the size stays at the default; every request would fail anyway, with a better
        // error than this one.
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, 16 << 20);
        sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(Duration::from_secs(30)))?;
        Ok(Self { fd, sequence: 1, answer: vec![0; ANSWER] })
    }

    /// Reserves `count` sequence numbers and returns the first.
    pub fn sequences(&mut self, count: u32) -> u32 {
        let first = self.sequence;
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Asks for a list. `body` writes what follows the netlink header.
    ///
    /// # Errors
    /// The kernel's, or `Interrupted` when the ruleset never held still.
    pub fn dump(&mut self, kind: u16, body: impl Fn(&mut Writer)) -> io::Result<Dump> {
        for _ in 0..DUMP_TRIES {
            let sequence = self.sequences(1);
            let mut writer = Writer::default();
            writer.message(kind, flag::REQUEST | flag::DUMP, sequence, &body);
            if let Some(dump) = self.dump_once(writer.bytes(), sequence)? {
                return Ok(dump);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the kernel's state kept changing while it was read"))
    }

    fn dump_once(&mut self, request: &[u8], sequence: u32) -> io::Result<Option<Dump>> {
        self.send(request)?;
        let (mut all, mut disturbed) = (Vec::new(), false);
        loop {
            let length = self.receive(RecvFlags::empty())?;
            let bytes = self.answer.get(..length).unwrap_or(&self.answer);
            let mut plain = true;
            for message in Messages::of(bytes).filter(|message| message.sequence == sequence) {
                disturbed |= message.flags & flag::DUMP_INTR != 0;
                match message.kind {
                    ERROR | DONE if message.error() != 0 => return Err(errno(&message).into()),
                    DONE => {
                        // What stands before the end belongs to the dump; the end itself is skipped by type.
                        all.extend_from_slice(bytes);
                        return Ok((!disturbed).then_some(Dump(all)));
                    }
                    ERROR => plain = false,
                    _ => {}
                }
            }
            if plain {
                all.extend_from_slice(bytes);
            }
        }
    }

    /// Asks for a list and sees each message of it as it comes, so that a long list is never held. Only for lists that
    /// have no generation: this one is not read again when it changes meanwhile.
    ///
    /// # Errors
    /// The kernel's.
    pub fn each(
        &mut self,
        kind: u16,
        body: impl Fn(&mut Writer),
        see: &mut dyn FnMut(Message<'_>),
    ) -> io::Result<()> {
        let sequence = self.sequences(1);
        let mut writer = Writer::default();
        writer.message(kind, flag::REQUEST | flag::DUMP, sequence, body);
        self.send(writer.bytes())?;
        loop {
            let length = self.receive(RecvFlags::empty())?;
            let bytes = self.answer.get(..length).unwrap_or(&self.answer);
            for message in Messages::of(bytes).filter(|message| message.sequence == sequence) {
                match message.kind {
                    ERROR | DONE if message.error() != 0 => return Err(errno(&message).into()),
                    DONE => return Ok(()),
                    ERROR => {}
                    _ => see(message),
                }
            }
        }
    }

    /// Asks for one thing, and gets it or an error. The answer's payload (behind the netlink header).
    ///
    /// # Errors
    /// The kernel's (`NotFound` when it does not exist).
    pub fn get(&mut self, kind: u16, body: impl FnOnce(&mut Writer)) -> io::Result<Vec<u8>> {
        self.request(kind, flag::REQUEST, body)
    }

    /// Demands something of the kernel that is acknowledged.
    ///
    /// # Errors
    /// The kernel's.
    pub fn demand(&mut self, kind: u16, body: impl FnOnce(&mut Writer)) -> io::Result<()> {
        self.demand_with(kind, flag::REQUEST | flag::ACK, body)
    }

    /// As [`Self::demand`], with these flags.
    ///
    /// # Errors
    /// The kernel's.
    pub fn demand_with(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Writer)) -> io::Result<()> {
        self.request(kind, flags, body).map(drop)
    }

    fn request(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Writer)) -> io::Result<Vec<u8>> {
        let sequence = self.sequences(1);
        let mut writer = Writer::default();
        writer.message(kind, flags, sequence, body);
        self.send(writer.bytes())?;
        loop {
            let length = self.receive(RecvFlags::empty())?;
            let bytes = self.answer.get(..length).unwrap_or(&self.answer);
            if let Some(message) = Messages::of(bytes).find(|message| message.sequence == sequence) {
                return match message.kind {
                    ERROR if message.error() != 0 => Err(errno(&message).into()),
                    ERROR => Ok(Vec::new()),
                    _ => Ok(message.payload.to_vec()),
                };
            }
        }
    }

    /// Sends a batch whose messages have the sequence numbers from `first` on, and collects what the kernel
    /// refused; nothing when it took all of it.
    ///
    /// # Errors
    /// When the batch could not be delivered at all.
    pub fn batch(&mut self, bytes: &[u8], first: u32) -> io::Result<Vec<Refusal>> {
        if bytes.len() > MAX_BATCH {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more rules than one batch carries (256 MiB)",
            ));
        }
        // The kernel counts its own overhead against the buffer and doubles what it is told.
        let _ = sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len() + (64 << 10));
        self.send(bytes)?;
        let mut refusals = Vec::new();
        loop {
            let length = match self.receive(RecvFlags::DONTWAIT) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(refusals),
                Err(error) => return Err(error),
            };
            let bytes = self.answer.get(..length).unwrap_or(&self.answer);
            let errors = Messages::of(bytes).filter(|message| message.kind == ERROR && message.error() != 0);
            refusals.extend(
                errors
                    .filter(|message| message.sequence >= first)
                    .map(|message| Refusal { sequence: message.sequence, error: errno(&message) }),
            );
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::io::retry_on_intr(|| net::send(&self.fd, bytes, SendFlags::empty()))?;
        Ok(())
    }

    fn receive(&mut self, flags: RecvFlags) -> io::Result<usize> {
        let (_, length) = rustix::io::retry_on_intr(|| net::recv(&self.fd, &mut self.answer[..], flags))?;
        Ok(length)
    }
}

/// A socket that hears what the kernel tells to groups of listeners.
pub struct Listener {
    fd: OwnedFd,
    heard: Vec<u8>,
}

impl Listener {
    /// Listens to the groups whose bits are set (`RTMGRP_*` of `include/uapi/linux/rtnetlink.h`), in the network
    /// namespace of the calling thread. `None` is routing (number 0).
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        // As above: without the capability the default must do.
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, 4 << 20);
        net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { fd, heard: vec![0; ANSWER] })
    }

    /// What has been told since, one datagram of it; nothing when that was all. Never waits.
    ///
    /// # Errors
    /// The kernel's: no buffer space (`ENOBUFS`) when more was told than the socket holds, and some of it is lost.
    pub fn hear(&mut self) -> io::Result<Option<Messages<'_>>> {
        match rustix::io::retry_on_intr(|| net::recv(&self.fd, &mut self.heard[..], RecvFlags::empty())) {
            Ok((_, length)) => Ok(self.heard.get(..length).map(Messages::of)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn errno(message: &Message<'_>) -> Errno {
    Errno::from_raw_os_error(message.error())
}
