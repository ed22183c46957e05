//! A gateway that says what it likes: TCP connections to a server, from clients that do not exist, with any options in
//! the SYN and in the ACK that completes the handshake. It stands in for a gateway that tells clients by TCP option 254, and
//! for one that lies.
//!
//! It is a TUN device in the server's namespace and as little of TCP (RFC 9293) as a request and its answer need, on a wire
//! that loses nothing. Deliberately absent: retransmission, windows, anything that a socket does better.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{Namespace, sys};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Where our own numbers begin, and the window that a server may send without an answer.
const FIRST: u32 = 1_000_000;
const WINDOW: u16 = 60_000;

/// One connection.
#[derive(Clone, Debug)]
pub struct Call {
    /// Whom the server sees without more: the gateway.
    pub from: SocketAddr,
    /// The server.
    pub to: SocketAddr,
    /// TCP options of the SYN, any bytes, at most 40.
    pub syn: Vec<u8>,
    /// TCP options of the ACK that completes the handshake.
    pub ack: Vec<u8>,
    /// Whether that ACK is lost on the way.
    pub lost: bool,
    /// Whether another ACK goes before it, which whoever checks its sum throws away.
    pub broken: bool,
}

impl Call {
    /// One without options.
    ///
    /// # Panics
    /// When an address is none.
    pub fn new(from: &str, to: &str) -> Self {
        let parse = |word: &str| word.parse().unwrap_or_else(|_| panic!("{word} is no socket address"));
        Self {
            from: parse(from),
            to: parse(to),
            syn: Vec::new(),
            ack: Vec::new(),
            lost: false,
            broken: false,
        }
    }

    /// The same with these options in both segments.
    #[must_use]
    pub fn with(self, options: &[u8]) -> Self {
        Self { syn: options.to_vec(), ack: options.to_vec(), ..self }
    }

    /// The same with these options in the SYN.
    #[must_use]
    pub fn syn(self, options: &[u8]) -> Self {
        Self { syn: options.to_vec(), ..self }
    }

    /// The same with its ACK lost.
    #[must_use]
    pub fn without_ack(self) -> Self {
        Self { lost: true, ..self }
    }

    /// The same with a broken ACK before the good one.
    #[must_use]
    pub fn after_a_broken_ack(self) -> Self {
        Self { broken: true, ..self }
    }

    /// The same with these options in the ACK.
    #[must_use]
    pub fn ack(self, options: &[u8]) -> Self {
        Self { ack: options.to_vec(), ..self }
    }
}

/// TCP option 254 of a client.
///
/// # Panics
/// When that is no socket address.
pub fn option(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap_or_else(|_| panic!("{client} is no socket address"));
    let address = match client.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let length = u8::try_from(4 + address.len()).expect("8 or 20");
    [vec![254, length], client.port().to_be_bytes().to_vec(), address].concat()
}

/// The gateway's end of a wire to a server.
#[derive(Debug)]
pub struct Gateway(File);

/// A segment that has arrived.
struct Segment {
    flags: u8,
    sequence: u32,
    data: Vec<u8>,
}

impl Gateway {
    /// A wire to this host. The host has 10.3.0.1/16 and fd03::1/64 on it; all other addresses are the gateway's.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn to(server: &Namespace) -> Self {
        let tun = server.enter(|| sys::tun("gateway")).unwrap_or_else(|e| panic!("make a TUN device: {e}"));
        server.ip("link set gateway up\naddress add 10.3.0.1/16 dev gateway\naddress add fd03::1/64 dev gateway nodad");
        Self(tun)
    }

    /// Connects, sends the request and returns all that the server says until it closes.
    ///
    /// # Errors
    /// The server resets, or says nothing for long.
    pub fn call(&mut self, call: &Call, request: &str) -> io::Result<String> {
        let mut connection = self.connect(call)?;
        connection.send(request.as_bytes())?;
        connection.rest()
    }

    /// Connects.
    ///
    /// # Errors
    /// As of [`Self::call`].
    pub fn connect(&mut self, call: &Call) -> io::Result<Connection<'_>> {
        self.write(call, SYN, FIRST, 0, &call.syn, &[])?;
        let answer = self.read(call)?;
        if answer.flags & (SYN | ACK) != SYN | ACK {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "no SYN-ACK"));
        }
        let (next, expected) = (FIRST + 1, answer.sequence.wrapping_add(1));
        if call.broken {
            let mut packet = segment(call, ACK, next, expected, &[], &[])?;
            // A bare ACK's last four bytes are its checksum and its urgent pointer.
            let check = packet.len() - 4;
            packet[check] ^= 0x55;
            self.0.write_all(&packet)?;
        }
        if !call.lost {
            self.write(call, ACK, next, expected, &call.ack, &[])?;
        }
        Ok(Connection { gateway: self, call: call.clone(), next, expected })
    }

    fn write(
        &mut self,
        call: &Call,
        flags: u8,
        sequence: u32,
        acknowledgement: u32,
        options: &[u8],
        data: &[u8],
    ) -> io::Result<()> {
        let packet = segment(call, flags, sequence, acknowledgement, options, data)?;
        self.0.write_all(&packet)
    }

    /// The next segment of this connection.
    fn read(&self, call: &Call) -> io::Result<Segment> {
        let start = Instant::now();
        let mut buffer = [0; 65536];
        while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
            let mut waiting = [PollFd::new(&self.0, PollFlags::IN)];
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            if poll(&mut waiting, Some(&left))? == 0 {
                break;
            }
            let length = (&self.0).read(&mut buffer)?;
            if let Some(segment) = parse(&buffer[..length], call) {
                if segment.flags & RST != 0 {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                return Ok(segment);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// An established connection.
#[derive(Debug)]
pub struct Connection<'a> {
    gateway: &'a mut Gateway,
    call: Call,
    next: u32,
    expected: u32,
}

impl Connection<'_> {
    /// Sends some bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.send_with(&[], data)
    }

    /// Sends some bytes in a segment with these options.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send_with(&mut self, options: &[u8], data: &[u8]) -> io::Result<()> {
        self.gateway.write(&self.call, ACK, self.next, self.expected, options, data)?;
        self.next = self.next.wrapping_add(u32::try_from(data.len()).map_err(io::Error::other)?);
        Ok(())
    }

    /// What the server says next.
    ///
    /// # Errors
    /// As of [`Gateway::call`].
    pub fn answer(&mut self) -> io::Result<String> {
        loop {
            let (data, _) = self.receive()?;
            if !data.is_empty() {
                return String::from_utf8(data).map_err(io::Error::other);
            }
        }
    }

    /// All that the server says until it closes.
    ///
    /// # Errors
    /// As of [`Gateway::call`].
    pub fn rest(mut self) -> io::Result<String> {
        let mut all = Vec::new();
        loop {
            let (data, ended) = self.receive()?;
            all.extend(data);
            if ended {
                self.gateway.write(&self.call, FIN | ACK, self.next, self.expected, &[], &[])?;
                return String::from_utf8(all).map_err(io::Error::other);
            }
        }
    }

    fn receive(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let segment = self.gateway.read(&self.call)?;
        if segment.sequence != self.expected {
            return Ok((Vec::new(), false));
        }
        let ended = segment.flags & FIN != 0;
        let length = segment.data.len() + usize::from(ended);
        if length > 0 {
            self.expected = self.expected.wrapping_add(u32::try_from(length).map_err(io::Error::other)?);
            self.gateway.write(&self.call, ACK, self.next, self.expected, &[], &[])?;
        }
        Ok((segment.data, ended))
    }
}

/// A segment of the client's, as an IP packet.
fn segment(
    call: &Call,
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    options: &[u8],
    data: &[u8],
) -> io::Result<Vec<u8>> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let words = u8::try_from(5 + options.len() / 4).map_err(io::Error::other)?;
    assert!(words < 16, "too many options for a header");
    let mut segment = Vec::new();
    segment.extend(call.from.port().to_be_bytes());
    segment.extend(call.to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgement.to_be_bytes());
    segment.extend([words << 4, flags]);
    segment.extend(WINDOW.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(&options);
    segment.extend(data);
    Ok(packet(call.from.ip(), call.to.ip(), segment))
}

/// An IP packet around a segment, whose checksum is filled in.
fn packet(from: IpAddr, to: IpAddr, mut segment: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(segment.len()).expect("a short segment");
    let (addresses, mut header) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let total = (20 + length).to_be_bytes();
            let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
            header.extend(&addresses);
            let sum = checksum(&[&header]).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            (addresses, header)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let payload = length.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, payload[0], payload[1], 6, 64];
            header.extend(&addresses);
            (addresses, header)
        }
        _ => panic!("both addresses are of one family"),
    };
    // RFC 9293, section 3.1, and RFC 8200, section 8.1: addresses, protocol and length count as well.
    let [high, low] = length.to_be_bytes();
    let sum = checksum(&[&addresses, &[0, 6, high, low], &segment]).to_be_bytes();
    segment[16..18].copy_from_slice(&sum);
    header.extend(segment);
    header
}

/// RFC 1071, of parts of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A packet's segment, if it belongs to the connection.
fn parse(packet: &[u8], call: &Call) -> Option<Segment> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (protocol, addresses, segment) = match packet.first()? >> 4 {
        4 => {
            let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            (*packet.get(9)?, packet.get(12..20)?, packet.get(usize::from(packet[0] & 15) * 4..total)?)
        }
        _ => (*packet.get(6)?, packet.get(8..40)?, packet.get(40..)?),
    };
    let word = |at: usize| Some(u32::from_be_bytes(segment.get(at..at + 4)?.try_into().ok()?));
    let ports = u32::from(call.to.port()) << 16 | u32::from(call.from.port());
    let ours = [octets(call.to.ip()), octets(call.from.ip())].concat() == addresses && word(0)? == ports;
    let data = segment.get(usize::from(*segment.get(12)? >> 4) * 4..)?.to_vec();
    let found = Segment { flags: *segment.get(13)?, sequence: word(4)?, data };
    (protocol == 6 && ours).then_some(found)
}
