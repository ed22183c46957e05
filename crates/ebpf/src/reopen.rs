//! What the daemon sends to backends: the SYN again, of connections that a SYN cookie opened and whose backend has not
//! answered; and a question, whether a connection is there still that somebody seems to have reset.
//!
//! The client of such a connection has done its part and may wait for the server to speak first, so nothing comes that the
//! kernel's programs could turn into that SYN once more (`opening.rs` of the programs). The sweep comes by every few
//! seconds and does it, until the flow expires (`timeouts.opening`).
//!
//! Only the cookie knew the client's segment size, and its secret is the kernel's, so the smallest that a cookie stands for
//! is named.
//!
//! A RST may be forged, and the programs do not look at sequence numbers. Who would have believed it is the backend, and TCP
//! has it say so: a segment out of its window is answered by an acknowledgement as long as there is a connection (RFC 9293
//! 3.10.7.4), and by a RST when there is none. The acknowledgement passes the programs, and whoever still sends has not been
//! reset. Each connection is asked about once for a RST, and only if it had lived for a while, so that what is opened and
//! reset by the thousands costs nothing.
//!
//! Deliberately absent: a clock for each connection, and any of it while no daemon runs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;

use portway_datapath::abi::{Address, Config, Record, TICKS_PER_SECOND, phase, state};
use portway_datapath::checksum::Difference;
use portway_datapath::cookie::{SIZES_V4, SIZES_V6};
use portway_datapath::record::Flow;
use portway_datapath::tcp::flags;
use portway_datapath::toa::Client;
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use crate::value;

/// Not sooner after the last packet (RFC 6298, section 2).
const WAIT: u32 = TICKS_PER_SECOND;

/// A connection that was reset before it had lived so long is not asked about.
const LIVED: u32 = 2 * TICKS_PER_SECOND;

/// Bytes of a TCP header without options.
const TCP: usize = 20;

/// The protocol's number.
const PROTOCOL: u8 = 6;

/// The time that what this host sends may live (RFC 1700).
const LIVES: u8 = 64;

/// The sockets that whole IP packets are sent by.
pub struct Sockets {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl Sockets {
    /// Opens them, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's: it takes CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        // `IPPROTO_RAW`: the IP header is ours (raw(7)).
        let raw = Protocol::from_raw(std::num::NonZeroU32::new(255).expect("invariant: not zero"));
        let open = |family| {
            socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(raw))
        };
        Ok(Self { v4: open(AddressFamily::INET)?, v6: open(AddressFamily::INET6)? })
    }

    /// Sends the SYN of a record's flow.
    ///
    /// # Errors
    /// The kernel's: no route, or its queue is full.
    pub fn send_syn(&self, record: &Record) -> io::Result<()> {
        self.send(record.flow().backend, &syn(record))
    }

    /// Asks the backend of a record's flow whether the connection is there still.
    ///
    /// # Errors
    /// As above.
    pub fn send_question(&self, record: &Record) -> io::Result<()> {
        // Any numbers do: where they happen to be within the window, so does the acknowledgement of nothing new.
        let what = Segment { sequence: 0, flags: flags::ACK, window: 0, options: &[] };
        self.send(record.flow().backend, &packet(&record.flow(), &what))
    }

    fn send(&self, backend: Address, packet: &[u8]) -> io::Result<()> {
        let to = value::ip(backend);
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        sendto(socket, packet, SendFlags::empty(), &SocketAddr::new(to, 0))?;
        Ok(())
    }
}

/// Whether a record's backend is to hear of the connection again.
pub fn is_due(record: &Record, config: &Config, now: u32) -> bool {
    let bits = record.state.load(Relaxed);
    bits & (state::COOKIE | state::RST | state::ENDED | state::ORPHAN) == state::COOKIE
        && record.phase.load(Relaxed) == phase::LIVE
        && now.wrapping_sub(record.seen.load(Relaxed)) >= WAIT
        && !record.is_expired(config, now)
}

/// Whether a record's backend is to be asked if the connection is there still.
pub fn is_doubted(record: &Record, config: &Config, now: u32) -> bool {
    let (bits, seen) = (record.state.load(Relaxed), record.seen.load(Relaxed));
    is_reset(record)
        && bits & state::ESTABLISHED != 0
        && now.wrapping_sub(seen) >= WAIT
        && seen.wrapping_sub(record.begun.load(Relaxed)) >= LIVED
        && !record.is_expired(config, now)
}

/// Whether a record's connection is one that seems to have been reset.
pub fn is_reset(record: &Record) -> bool {
    const OTHERS: u32 = state::ENDED | state::ORPHAN | state::COOKIE | state::UDP;
    record.state.load(Relaxed) & (state::RST | OTHERS) == state::RST
        && record.phase.load(Relaxed) == phase::LIVE
}

/// The SYN that the programs send of the same record, from the IP header on.
fn syn(record: &Record) -> Vec<u8> {
    let (flow, bits) = (record.flow(), record.state.load(Relaxed));
    let option = Client { address: flow.client, port: flow.client_port, reserved: [0; 3] }.option();
    let told = if bits & state::TOA == 0 { &[][..] } else { &option.0[..option.1 / 4] };
    let mut options = vec![2, 4];
    options.extend(size(&flow).to_be_bytes());
    options.extend(told.iter().flat_map(|word| word.to_ne_bytes()));
    let what = Segment {
        sequence: record.initial.load(Relaxed),
        flags: flags::SYN,
        window: (bits >> state::WINDOW_SHIFT) as u16,
        options: &options,
    };
    packet(&flow, &what)
}

/// A segment without payload that acknowledges nothing new.
struct Segment<'a> {
    sequence: u32,
    flags: u8,
    window: u16,
    /// A multiple of four bytes.
    options: &'a [u8],
}

/// A segment of a flow to its backend, from the IP header on.
fn packet(flow: &Flow, what: &Segment<'_>) -> Vec<u8> {
    let ipv4 = flow.backend.is_ipv4();
    let length = TCP + what.options.len();
    let mut tcp = Vec::with_capacity(length);
    tcp.extend(flow.source_port.to_ne_bytes());
    tcp.extend(flow.backend_port.to_ne_bytes());
    tcp.extend(what.sequence.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend([(length / 4) as u8 * 16, what.flags]);
    tcp.extend(what.window.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(what.options);
    let pseudo = Difference::NONE
        .plus(u32::from((tcp.len() as u16).to_be()))
        .plus(u32::from(u16::from(PROTOCOL).to_be()))
        .plus_address(flow.source)
        .plus_address(flow.backend);
    let words = tcp.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    let check = words.fold(pseudo, Difference::plus).check();
    tcp[16..18].copy_from_slice(&check.to_ne_bytes());
    let mut ip = if ipv4 {
        // Length, identification and checksum are filled in by the kernel (raw(7)).
        vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, LIVES, PROTOCOL, 0, 0]
    } else {
        let [high, low] = (tcp.len() as u16).to_be_bytes();
        vec![0x60, 0, 0, 0, high, low, PROTOCOL, LIVES]
    };
    ip.extend(octets(flow.source));
    ip.extend(octets(flow.backend));
    ip.extend(tcp);
    ip
}

/// The smallest segment size that a cookie of the client's family stands for, less the longer header of the other one.
fn size(flow: &Flow) -> u16 {
    /// How much longer the header of IPv6 is.
    const LONGER: u16 = 20;
    match (flow.client.is_ipv4(), flow.backend.is_ipv4()) {
        (true, true) => SIZES_V4[3],
        (true, false) => SIZES_V4[3] - LONGER,
        (false, _) => SIZES_V6[3],
    }
}

/// An address as it stands in a header.
fn octets(address: Address) -> Vec<u8> {
    match value::ip(address) {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
