//! Sends the SYN to a backend again, of connections that a SYN cookie opened and whose backend has not answered.
//!
//! The client of such a connection has done its part and may wait for the server to speak first, so nothing comes that the
//! kernel's programs could turn into that SYN once more (`opening.rs` of the programs). The sweep comes by every few
//! seconds and does it, until the flow expires (`timeouts.opening`).
//!
//! Only the cookie knew the client's segment size, and its secret is the kernel's, so the smallest that a cookie stands for
//! is named. Deliberately absent: a clock for each connection, and any of it while no daemon runs.

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

/// Bytes of a TCP header without options, and of the option of the segment size.
const TCP: usize = 20;
/// See [`TCP`].
const SIZE: usize = 4;

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
    pub fn send(&self, record: &Record) -> io::Result<()> {
        let to = value::ip(record.flow().backend);
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        sendto(socket, &packet(record), SendFlags::empty(), &SocketAddr::new(to, 0))?;
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

/// The SYN that the programs send of the same record, from the IP header on.
fn packet(record: &Record) -> Vec<u8> {
    let (flow, bits) = (record.flow(), record.state.load(Relaxed));
    let ipv4 = flow.backend.is_ipv4();
    let mut tcp = Vec::with_capacity(TCP + SIZE);
    tcp.extend(flow.source_port.to_ne_bytes());
    tcp.extend(flow.backend_port.to_ne_bytes());
    tcp.extend(record.initial.load(Relaxed).to_be_bytes());
    tcp.extend([0; 4]);
    let option = Client { address: flow.client, port: flow.client_port, reserved: [0; 3] }.option();
    let told = if bits & state::TOA == 0 { &[][..] } else { &option.0[..option.1 / 4] };
    tcp.extend([((TCP + SIZE) / 4 + told.len()) as u8 * 16, flags::SYN]);
    tcp.extend(((bits >> state::WINDOW_SHIFT) as u16).to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend([2, 4]);
    tcp.extend(size(&flow).to_be_bytes());
    tcp.extend(told.iter().flat_map(|word| word.to_ne_bytes()));
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
