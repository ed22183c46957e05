//! Packets the slow and obvious way: as values that are changed by setting fields and written out whole, with every checksum
//! computed over all that it covers (RFC 791, 768, 792, 9293, 8200, 4443). What the data path does by differences is compared
//! with this.
//!
//! Deliberately absent: anything of the code that is tested.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses its part; tests may fail loudly")]

pub mod vector;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// SplitMix64: numbers that a test can repeat.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// TCP's flags.
pub mod flags {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
}

/// What an IP header says beyond the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub class: u8,
    /// Of IPv4.
    pub id: u16,
    /// Of IPv6.
    pub label: u32,
    /// Of IPv4.
    pub dont_fragment: bool,
    /// Of IPv4, in words of four bytes.
    pub options: Vec<u8>,
}

/// What IP carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp {
        ports: (u16, u16),
        sequence: u32,
        acknowledged: u32,
        flags: u8,
        window: u16,
        /// In words of four bytes.
        options: Vec<u8>,
        payload: Vec<u8>,
    },
    Udp {
        ports: (u16, u16),
        /// Over IPv4 it may have none.
        checksum: bool,
        payload: Vec<u8>,
    },
    /// An ICMP error of either family, and as many bytes of what it quotes.
    Error { kind: u8, code: u8, rest: u32, quoted: Box<Packet>, bytes: usize },
    /// Anything.
    Other { protocol: u8, bytes: Vec<u8> },
}

/// A packet from the IP header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub ip: Ip,
    pub body: Body,
}

/// The four ends of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub client: SocketAddr,
    pub listener: SocketAddr,
    pub source: SocketAddr,
    pub backend: SocketAddr,
}

impl Ends {
    /// Who sends to whom, on arrival.
    pub fn arriving(&self, forth: bool) -> (SocketAddr, SocketAddr) {
        if forth { (self.client, self.listener) } else { (self.backend, self.source) }
    }

    /// Who sends to whom, as it leaves.
    pub fn leaving(&self, forth: bool) -> (SocketAddr, SocketAddr) {
        if forth { (self.source, self.backend) } else { (self.listener, self.client) }
    }
}

/// RFC 1071 4.1, word by word.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The pseudo header of a transport's checksum (RFC 9293 3.1, RFC 8200 8.1).
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = octets(source);
    bytes.extend(octets(destination));
    if source.is_ipv4() {
        bytes.extend([0, protocol]);
        bytes.extend((length as u16).to_be_bytes());
    } else {
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
    }
    bytes
}

/// An address's bytes.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl Packet {
    /// From the IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        let ip = &self.ip;
        let transport = self.transport();
        let protocol = self.protocol();
        let mut bytes = Vec::new();
        match (ip.source, ip.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = 20 + ip.options.len();
                bytes.extend([0x40 | (header / 4) as u8, ip.class]);
                bytes.extend(((header + transport.len()) as u16).to_be_bytes());
                bytes.extend(ip.id.to_be_bytes());
                bytes.extend([u8::from(ip.dont_fragment) << 6, 0, ip.ttl, protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(&ip.options);
                let check = checksum(&[&bytes]);
                bytes[10..12].copy_from_slice(&check.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend((6 << 28 | u32::from(ip.class) << 20 | ip.label & 0xf_ffff).to_be_bytes());
                bytes.extend((transport.len() as u16).to_be_bytes());
                bytes.extend([protocol, ip.ttl]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            _ => panic!("two families"),
        }
        bytes.extend(transport);
        bytes
    }

    /// The protocol's number.
    pub fn protocol(&self) -> u8 {
        match &self.body {
            Body::Tcp { .. } => 6,
            Body::Udp { .. } => 17,
            Body::Error { .. } if self.ip.source.is_ipv4() => 1,
            Body::Error { .. } => 58,
            Body::Other { protocol, .. } => *protocol,
        }
    }

    /// What is behind the IP header.
    pub fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let at = match &self.body {
            Body::Tcp { ports, sequence, acknowledged, flags, window, options, payload } => {
                bytes.extend(ports.0.to_be_bytes());
                bytes.extend(ports.1.to_be_bytes());
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledged.to_be_bytes());
                bytes.extend([((20 + options.len()) / 4) as u8 * 16, *flags]);
                bytes.extend(window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(options);
                bytes.extend(payload);
                16
            }
            Body::Udp { ports, checksum, payload } => {
                bytes.extend(ports.0.to_be_bytes());
                bytes.extend(ports.1.to_be_bytes());
                bytes.extend((8 + payload.len() as u16).to_be_bytes());
                bytes.extend([0; 2]);
                bytes.extend(payload);
                if !checksum {
                    return bytes;
                }
                6
            }
            Body::Error { kind, code, rest, quoted, bytes: length } => {
                let quoted = quoted.bytes();
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(rest.to_be_bytes());
                bytes.extend(&quoted[..quoted.len().min(*length)]);
                2
            }
            Body::Other { bytes, .. } => return bytes.clone(),
        };
        let pseudo = pseudo(self.ip.source, self.ip.destination, self.protocol(), bytes.len());
        // ICMP of IPv4 has no pseudo header (RFC 792).
        let parts: [&[u8]; 2] = [if self.protocol() == 1 { &[] } else { &pseudo }, &bytes];
        let check = match checksum(&parts) {
            0 if matches!(self.body, Body::Udp { .. }) => 0xffff,
            check => check,
        };
        bytes[at..at + 2].copy_from_slice(&check.to_be_bytes());
        bytes
    }

    /// The packet with other ends.
    pub fn between(&self, (source, destination): (SocketAddr, SocketAddr)) -> Self {
        let mut packet = self.clone();
        packet.ip.source = source.ip();
        packet.ip.destination = destination.ip();
        if let Body::Tcp { ports, .. } | Body::Udp { ports, .. } = &mut packet.body {
            *ports = (source.port(), destination.port());
        }
        packet
    }

    /// What a packet of the flow, which arrives in one direction, leaves as.
    pub fn carried(&self, ends: &Ends, forth: bool) -> Self {
        let mut packet = self.between(ends.leaving(forth));
        packet.ip.ttl -= 1;
        if let Body::Error { quoted, .. } = &mut packet.body {
            // What the receiver has sent is what arrived from there.
            **quoted = quoted.between(ends.arriving(!forth));
        }
        packet
    }

    /// What a packet of a flow between the families leaves as (RFC 7915 4.1, 5.1), without the fragmentation that this data
    /// path does not do: nothing but the class is kept of the header, IPv4 has the identification 0 and is never fragmented,
    /// and a SYN that gets the longer header promises so much less of a segment.
    pub fn crossed(&self, ends: &Ends, forth: bool) -> Self {
        let mut packet = self.carried(ends, forth);
        packet.ip.options.clear();
        (packet.ip.id, packet.ip.label, packet.ip.dont_fragment) = (0, 0, true);
        if let (true, Body::Tcp { flags, options, .. }) = (self.ip.source.is_ipv4(), &mut packet.body)
            && *flags & flags::SYN != 0
        {
            clamp(options, 20);
        }
        packet
    }

    /// What an error about a flow between the families leaves as, which says `said` there: type, code and second word. It
    /// quotes eight bytes behind the header of the packet as its sender sent it, without what of that header is not known.
    pub fn crossed_error(&self, ends: &Ends, forth: bool, said: (u8, u8, u32)) -> Self {
        let mut packet = self.carried(ends, forth);
        let Body::Error { kind, code, rest, quoted, bytes } = &mut packet.body else { return packet };
        (*kind, *code, *rest) = said;
        for ip in [&mut packet.ip, &mut quoted.ip] {
            ip.options.clear();
            (ip.id, ip.label, ip.dont_fragment) = (0, 0, true);
        }
        *bytes = if quoted.ip.source.is_ipv4() { 20 } else { 40 } + 8;
        packet
    }

    /// Without what a client has told by TCP option 254 itself, and without an end of the options that others could not be put
    /// behind: there are NOPs.
    pub fn disarmed(&self) -> Self {
        let mut packet = self.clone();
        let Body::Tcp { options, .. } = &mut packet.body else { return packet };
        let mut at = 0;
        while at < options.len() {
            let size = match options[at] {
                0 => options.len() - at,
                1 => 1,
                _ => usize::from(options[at + 1]),
            };
            if options[at] == 0 || options[at] == 254 && [8, 20].contains(&size) {
                options[at..at + size].fill(1);
            }
            at += size;
        }
        packet
    }

    /// With the client's address and port as TCP option 254 behind the other options, if there is room, and no option of IP.
    pub fn told(mut self, client: SocketAddr) -> Self {
        let alone = self.ip.options.is_empty();
        let Body::Tcp { options, payload, .. } = &mut self.body else { return self };
        let address = octets(client.ip());
        if alone && payload.is_empty() && options.len() + 4 + address.len() <= 40 {
            options.extend([254, 4 + address.len() as u8]);
            options.extend(client.port().to_be_bytes());
            options.extend(address);
        }
        self
    }

    /// With two bytes of the payload changed so that the transport's checksum becomes that of a sum of all ones, where
    /// there are two ways to write it.
    pub fn tuned(mut self) -> Self {
        let at = match &self.body {
            Body::Tcp { payload, .. } if payload.len() >= 2 => 16,
            Body::Udp { payload, checksum: true, .. } if payload.len() >= 2 => 6,
            _ => return self,
        };
        self.set_first(0);
        let bytes = self.transport();
        let check = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        // The sum is the complement; what lacks to all ones is the check itself.
        self.set_first(check);
        self
    }

    fn set_first(&mut self, word: u16) {
        if let Body::Tcp { payload, .. } | Body::Udp { payload, .. } = &mut self.body {
            payload[..2].copy_from_slice(&word.to_be_bytes());
        }
    }
}

/// Takes from the maximum segment size among TCP's options.
fn clamp(options: &mut [u8], less: u16) {
    let mut at = 0;
    while at < options.len() && options[at] != 0 {
        if options[at] == 1 {
            at += 1;
            continue;
        }
        if options[at] == 2 {
            let value = u16::from_be_bytes([options[at + 2], options[at + 3]]).saturating_sub(less);
            options[at + 2..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        at += usize::from(options[at + 1]);
    }
}

/// The options of a SYN: a maximum segment size, at an even or odd place.
pub fn syn_options(random: &mut Random) -> Vec<u8> {
    let value = (random.next() as u16).max(60).to_be_bytes();
    let size = [2, 4, value[0], value[1]];
    match random.below(4) {
        0 => size.to_vec(),
        1 => [&[1][..], &size, &[1, 1, 1]].concat(),
        2 => [&size[..], &[4, 2, 8, 10], &random.bytes(8), &[1, 3, 3, 7]].concat(),
        _ => [&[1, 3, 3, 7][..], &[1], &size, &[4, 2, 1]].concat(),
    }
}

/// Some IP header.
pub fn any_ip(random: &mut Random, ipv4: bool) -> Ip {
    let (source, destination) = if ipv4 {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into())
    };
    let words = if random.once_in(4) { random.below(10) } else { 0 };
    Ip {
        source,
        destination,
        ttl: 2 + random.below(254) as u8,
        class: random.next() as u8,
        id: random.next() as u16,
        label: random.next() as u32,
        dont_fragment: random.once_in(2),
        // No-operations (RFC 791 3.1).
        options: if ipv4 { vec![1; words * 4] } else { Vec::new() },
    }
}

/// Some payload: often nothing, rarely much.
fn any_payload(random: &mut Random) -> Vec<u8> {
    let length = match random.below(4) {
        0 => 0,
        1 => random.below(20),
        2 => random.below(300),
        _ => random.below(1300),
    };
    random.bytes(length)
}

/// Some TCP segment.
pub fn any_tcp(random: &mut Random, ipv4: bool, flags: u8) -> Packet {
    let options = match random.below(4) {
        // Timestamps, as nearly every segment has them.
        0 | 1 => [&[1, 1, 8, 10], random.bytes(8).as_slice()].concat(),
        2 => vec![1; random.below(11) * 4],
        _ => Vec::new(),
    };
    Packet {
        ip: any_ip(random, ipv4),
        body: Body::Tcp {
            ports: (0, 0),
            sequence: random.next() as u32,
            acknowledged: random.next() as u32,
            flags,
            window: random.next() as u16,
            options,
            payload: if flags & flags::SYN != 0 { Vec::new() } else { any_payload(random) },
        },
    }
}

/// Some UDP datagram.
pub fn any_udp(random: &mut Random, ipv4: bool) -> Packet {
    Packet {
        ip: any_ip(random, ipv4),
        body: Body::Udp {
            ports: (0, 0),
            checksum: !ipv4 || !random.once_in(4),
            payload: any_payload(random),
        },
    }
}

/// An error about `quoted`, which the sender has sent: kinds that tell of a flow.
pub fn any_error(random: &mut Random, quoted: Packet) -> Packet {
    let ipv4 = quoted.ip.source.is_ipv4();
    let (kind, code, rest) = if ipv4 {
        [(3, 1, 0), (3, 3, 0), (3, 4, 1280), (11, 0, 0), (12, 0, 5 << 24)][random.below(5)]
    } else {
        [(1, 0, 0), (1, 4, 0), (2, 0, 1280), (3, 0, 0), (4, 1, 40)][random.below(5)]
    };
    let header = if ipv4 { 20 + quoted.ip.options.len() } else { 40 };
    let bytes = header + [8, 20, 32, 128][random.below(4)];
    Packet {
        ip: any_ip(random, ipv4),
        body: Body::Error { kind, code, rest, quoted: Box::new(quoted), bytes },
    }
}
