//! Packets as no socket would send them: segments of connections that do not exist and datagrams, from clients that do not
//! exist; and what comes back, as it is on the wire. IPv4 (of IPv6 there is [`crate::raw_v6`]).
//!
//! Deliberately absent: any state of a connection. Whoever wants a conversation uses a socket.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with,
};

use crate::Namespace;

/// Flags of a TCP segment (RFC 9293, section 3.1).
pub mod flags {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Opens.
    pub const SYN: u8 = 2;
    /// Resets.
    pub const RST: u8 = 4;
    /// Acknowledges.
    pub const ACK: u8 = 16;
}

/// A TCP segment without options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who sends, truly or not.
    pub source: SocketAddrV4,
    /// To whom.
    pub destination: SocketAddrV4,
    /// [`flags`].
    pub flags: u8,
    /// The sequence number.
    pub sequence: u32,
    /// The acknowledgement number.
    pub acknowledgement: u32,
}

impl Segment {
    /// The first segment of a connection.
    pub fn syn(source: SocketAddrV4, destination: SocketAddrV4) -> Self {
        Self { source, destination, flags: flags::SYN, sequence: 1_000_000, acknowledgement: 0 }
    }

    /// One out of the middle of a connection.
    pub fn ack(source: SocketAddrV4, destination: SocketAddrV4) -> Self {
        Self { source, destination, flags: flags::ACK, sequence: 1_000_000, acknowledgement: 2_000_000 }
    }

    /// The whole IPv4 packet. The kernel fills in the header's checksum and identification (raw(7)).
    fn packet(&self) -> [u8; 40] {
        let mut packet = [0; 40];
        packet[..4].copy_from_slice(&[0x45, 0, 0, 40]);
        packet[8..10].copy_from_slice(&[64, 6]);
        packet[12..16].copy_from_slice(&self.source.ip().octets());
        packet[16..20].copy_from_slice(&self.destination.ip().octets());
        packet[20..22].copy_from_slice(&self.source.port().to_be_bytes());
        packet[22..24].copy_from_slice(&self.destination.port().to_be_bytes());
        packet[24..28].copy_from_slice(&self.sequence.to_be_bytes());
        packet[28..32].copy_from_slice(&self.acknowledgement.to_be_bytes());
        packet[32..36].copy_from_slice(&[5 << 4, self.flags, 0xff, 0xff]);
        // RFC 9293, section 3.1: addresses, protocol and length count as well.
        let sum = checksum(&[&packet[12..], &[0, 6, 0, 20]]);
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn parse(packet: &[u8]) -> Option<Self> {
        let (source, destination, transport) = header(packet)?;
        let word = |at: usize| Some(u32::from_be_bytes(transport.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            source: SocketAddrV4::new(source, port(transport, 0)?),
            destination: SocketAddrV4::new(destination, port(transport, 2)?),
            flags: *transport.get(13)?,
            sequence: word(4)?,
            acknowledgement: word(8)?,
        })
    }
}

/// A UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sends, truly or not.
    pub source: SocketAddrV4,
    /// To whom.
    pub destination: SocketAddrV4,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// The whole IPv4 packet, with a checksum of its own: without one (RFC 768) a forwarder would be spared to change it.
    fn packet(&self) -> Vec<u8> {
        let length = 8 + self.payload.len() as u16;
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(20 + length).to_be_bytes());
        packet[8..10].copy_from_slice(&[64, 17]);
        packet[12..16].copy_from_slice(&self.source.ip().octets());
        packet[16..20].copy_from_slice(&self.destination.ip().octets());
        packet[20..22].copy_from_slice(&self.source.port().to_be_bytes());
        packet[22..24].copy_from_slice(&self.destination.port().to_be_bytes());
        packet[24..26].copy_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(self.payload);
        let checksum = match checksum(&[&packet[12..], &[0, 17], &length.to_be_bytes()]) {
            // None would mean that there is none.
            0 => 0xffff,
            sum => sum,
        };
        packet[26..28].copy_from_slice(&checksum.to_be_bytes());
        packet
    }
}

/// The Internet checksum of parts, each of which is padded to whole words (RFC 1071).
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let word = |word: &[u8]| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0));
    let sum: u64 = parts.iter().flat_map(|part| part.chunks(2)).map(word).sum();
    // One's complement: the sum modulo 0xffff, where nothing but zero is zero.
    let sum = if sum == 0 { 0 } else { (sum - 1) % 0xffff + 1 };
    !sum as u16
}

/// An ICMP error (RFC 792) and which packet it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Who sent it.
    pub from: Ipv4Addr,
    /// Its type: 3 unreachable, 11 time exceeded.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Whose packet it was.
    pub source: SocketAddrV4,
    /// Where it was going.
    pub destination: SocketAddrV4,
}

impl IcmpError {
    fn parse(packet: &[u8]) -> Option<Self> {
        let (from, _, icmp) = header(packet)?;
        let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
        let (source, destination, transport) = header(icmp.get(8..)?)?;
        Some(Self {
            from,
            kind,
            code,
            source: SocketAddrV4::new(source, port(transport, 0)?),
            destination: SocketAddrV4::new(destination, port(transport, 2)?),
        })
    }
}

/// Source, destination and what follows the header of an IPv4 packet.
fn header(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, &[u8])> {
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let length = usize::from(packet.first()? & 15) * 4;
    Some((address(12)?, address(16)?, packet.get(length..)?))
}

fn port(transport: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(transport.get(at..at + 2)?.try_into().ok()?))
}

/// A host's raw sockets: one that sends whole packets, one that sees what arrives of a protocol.
#[derive(Debug)]
pub struct Raw {
    sends: OwnedFd,
    sees: Option<OwnedFd>,
}

impl Raw {
    /// One that sees TCP segments.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn tcp(ns: &Namespace) -> Self {
        Self::new(ns, ipproto::TCP)
    }

    /// One that sees ICMP.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn icmp(ns: &Namespace) -> Self {
        Self::new(ns, ipproto::ICMP)
    }

    /// One that sees nothing, in the network namespace of the calling thread: the kernel copies no packet for it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        Ok(Self { sends: socket(ipproto::RAW)?, sees: None })
    }

    fn new(ns: &Namespace, sees: Protocol) -> Self {
        let made = ns.enter(|| {
            let (only_sends, sees) = (Self::open()?, socket(sees)?);
            sockopt::set_socket_timeout(&sees, Timeout::Recv, Some(Duration::from_millis(100)))?;
            Ok::<_, io::Error>(Self { sees: Some(sees), ..only_sends })
        });
        made.unwrap_or_else(|e| panic!("raw sockets in {}: {e}", ns.name()))
    }

    /// Sends a segment.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, segment: &Segment) -> io::Result<()> {
        sendto(&self.sends, &segment.packet(), SendFlags::empty(), &segment.destination)?;
        Ok(())
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send_datagram(&self, datagram: &Datagram<'_>) -> io::Result<()> {
        sendto(&self.sends, &datagram.packet(), SendFlags::empty(), &datagram.destination)?;
        Ok(())
    }

    /// The first segment that arrives within `limit` and that is `wanted`.
    pub fn segment(&self, limit: Duration, wanted: impl Fn(&Segment) -> bool) -> Option<Segment> {
        self.first(limit, |packet| Segment::parse(packet).filter(&wanted))
    }

    /// The first ICMP error that arrives within `limit` and that is `wanted`.
    pub fn icmp_error(&self, limit: Duration, wanted: impl Fn(&IcmpError) -> bool) -> Option<IcmpError> {
        self.first(limit, |packet| IcmpError::parse(packet).filter(&wanted))
    }

    fn first<T>(&self, limit: Duration, parse: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let (start, mut packet) = (Instant::now(), [0_u8; 2048]);
        let sees = self.sees.as_ref()?;
        while start.elapsed() < limit {
            if let Ok((length, _)) = recv(sees, &mut packet, RecvFlags::empty())
                && let Some(found) = parse(&packet[..length])
            {
                return Some(found);
            }
        }
        None
    }
}

fn socket(protocol: Protocol) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topology;

    /// The kernel takes the packets for good ones: it answers a segment of no connection by a reset with the numbers that
    /// RFC 9293, section 3.10.7.1 asks for, and a SYN to a closed port likewise.
    #[test]
    fn a_host_answers() {
        let net = Topology::new();
        let raw = Raw::tcp(net.client());
        let client = "10.1.0.10:20000".parse().unwrap();
        let host = "10.1.0.1:8000".parse().unwrap();
        raw.send(&Segment::ack(client, host)).unwrap();
        let reset = |segment: &Segment| segment.source == host && segment.flags & flags::RST != 0;
        let answer = raw.segment(Duration::from_secs(2), reset).expect("a reset");
        assert_eq!((answer.destination, answer.sequence), (client, 2_000_000));
        raw.send(&Segment::syn(client, host)).unwrap();
        let answer = raw.segment(Duration::from_secs(2), reset).expect("a reset");
        assert_eq!(answer.acknowledgement, 1_000_001);
        let icmp = Raw::icmp(net.client());
        net.client().dial("10.1.0.1:8001").send(b"?").unwrap();
        let unreachable = icmp.icmp_error(Duration::from_secs(2), |error| error.kind == 3).expect("an error");
        assert_eq!(unreachable.code, 3);
        assert_eq!(unreachable.destination, "10.1.0.1:8001".parse().unwrap());
    }

    #[test]
    fn a_datagram_of_odd_length_arrives() {
        let net = Topology::new();
        let socket = net.gateway.bind("10.1.0.1:8000");
        let raw = Raw::tcp(net.client());
        let (source, destination) = ("198.18.0.1:20000".parse().unwrap(), "10.1.0.1:8000".parse().unwrap());
        net.gateway.ip("route add 198.18.0.0/15 via 10.1.0.10 dev lan");
        raw.send_datagram(&Datagram { source, destination, payload: b"hello" }).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut bytes = [0; 9];
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..length], from), (&b"hello"[..], source.into()));
    }
}
