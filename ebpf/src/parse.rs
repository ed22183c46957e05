//! What a packet is: its tuple, and where its headers are.
//!
//! Deliberately absent: fragments, extension headers and ICMP, which come in other files because most packets are none.

use portway_datapath::abi::{Address, Tuple};

use crate::packet::Packet;

/// The protocols.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;

/// Ethernet types, as they lie in memory.
pub const IPV4: u16 = 0x0800_u16.to_be();
/// See [`IPV4`].
pub const IPV6: u16 = 0x86dd_u16.to_be();

/// The length of the header without options.
pub const IPV4_HEADER: u32 = 20;

/// The length of the header.
pub const IPV6_HEADER: u32 = 40;

/// Which fragment of a datagram an IPv4 packet is, in eight bytes from its beginning: the bits of the fourth half word, as
/// they lie in memory.
pub const OFFSET: u16 = 0x1fff_u16.to_be();

/// More fragments follow.
pub const MORE: u16 = 0x2000_u16.to_be();

/// Do not fragment.
const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();

/// The extension header of fragments (RFC 8200 4.5).
pub const FRAGMENT: u8 = 44;

/// The length of that header.
pub const FRAGMENT_HEADER: u32 = 8;

/// What is asked about a TCP or UDP packet.
pub struct Headers {
    /// Its tuple.
    pub tuple: Tuple,
    /// Where the transport's header begins.
    pub transport: u32,
    /// The bytes from the IP header on.
    pub length: u32,
    /// Those of the headers among them.
    pub before_payload: u32,
    /// The datagram's identification, if it is a fragment.
    pub id: u32,
    /// Whether it is IPv4.
    pub ipv4: bool,
    /// Whether it is TCP.
    pub tcp: bool,
    /// The flags of TCP; 0 of UDP.
    pub flags: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Whether it may not be fragmented on the way.
    pub whole: bool,
    /// Whether it is a fragment.
    pub fragment: bool,
}

impl Headers {
    /// Of no packet yet.
    #[inline(always)]
    pub const fn new() -> Self {
        Self {
            tuple: Tuple {
                source: Address { high: 0, low: 0 },
                destination: Address { high: 0, low: 0 },
                source_port: 0,
                destination_port: 0,
                protocol: 0,
            },
            transport: 0,
            length: 0,
            before_payload: 0,
            id: 0,
            ipv4: false,
            tcp: false,
            flags: 0,
            ttl: 0,
            whole: false,
            fragment: false,
        }
    }
}

impl Headers {
    /// The flags of TCP; nothing of UDP.
    #[inline(always)]
    pub fn tcp_flags(&self) -> Option<u8> {
        self.tcp.then_some(self.flags)
    }
}

/// What a packet is.
pub enum Parsed {
    /// TCP or UDP with the transport's header: whole, or a first fragment.
    Plain,
    /// A fragment without the transport's header. Of the headers there are the addresses and what is said of fragments.
    Later,
    /// Something else of IP that may be about a flow.
    Special,
    /// Its headers are beyond what can be reached directly.
    Short,
    /// None of our business.
    Other,
}

/// The family of a packet that begins with `LINK` bytes of link header: whether it is IPv4.
#[inline(always)]
pub fn family<P: Packet, const LINK: u32>(packet: P) -> Option<bool> {
    if LINK == 0 {
        return match packet.window::<1>(0)?.get::<u8, 0>() >> 4 {
            4 => Some(true),
            6 => Some(false),
            _ => None,
        };
    }
    match packet.window::<14>(0)?.get::<u16, 12>() {
        IPV4 => Some(true),
        IPV6 => Some(false),
        _ => None,
    }
}

/// Reads the headers of a packet that begins with `LINK` bytes of link header.
#[inline(always)]
pub fn parse<P: Packet, const LINK: u32>(packet: P, headers: &mut Headers) -> Parsed {
    let Some(ipv4) = family::<P, LINK>(packet) else { return Parsed::Other };
    headers.ipv4 = ipv4;
    headers.fragment = false;
    let mut later = false;
    let mut protocol: u8;
    if ipv4 {
        let Some(first) = packet.window::<20>(LINK) else { return Parsed::Short };
        let version = first.get::<u8, 0>();
        let fragment = first.get::<u16, 6>();
        if version >> 4 != 4 || version & 15 < 5 {
            return Parsed::Other;
        }
        if fragment & (OFFSET | MORE) != 0 {
            headers.fragment = true;
            headers.id = u32::from(first.get::<u16, 4>());
            later = fragment & OFFSET != 0;
        }
        headers.transport = LINK + u32::from(version & 15) * 4;
        headers.length = u32::from(u16::from_be(first.get::<u16, 2>()));
        headers.ttl = first.get::<u8, 8>();
        headers.whole = fragment & DONT_FRAGMENT != 0;
        headers.tuple.source = Address::ipv4(first.get::<u32, 12>());
        headers.tuple.destination = Address::ipv4(first.get::<u32, 16>());
        protocol = first.get::<u8, 9>();
    } else {
        let Some(first) = packet.window::<40>(LINK) else { return Parsed::Short };
        if first.get::<u8, 0>() >> 4 != 6 {
            return Parsed::Other;
        }
        headers.transport = LINK + IPV6_HEADER;
        headers.length = u32::from(u16::from_be(first.get::<u16, 4>())) + IPV6_HEADER;
        headers.ttl = first.get::<u8, 7>();
        headers.whole = true;
        headers.tuple.source = first.address::<8, 16>();
        headers.tuple.destination = first.address::<24, 32>();
        protocol = first.get::<u8, 6>();
        if protocol == FRAGMENT {
            let Some(header) = packet.window::<8>(LINK + IPV6_HEADER) else { return Parsed::Short };
            headers.fragment = true;
            headers.id = header.get::<u32, 4>();
            headers.transport = LINK + IPV6_HEADER + FRAGMENT_HEADER;
            later = u16::from_be(header.get::<u16, 2>()) >> 3 != 0;
            protocol = header.get::<u8, 0>();
        }
    }
    // The kernel drops what says that it is longer than it is, or shorter than its headers, and IPv6 between mapped addresses,
    // which would be the tuple of an IPv4 flow (`ip_rcv_core`, `ip6_rcv_core`).
    let mapped = headers.tuple.source.is_ipv4() || headers.tuple.destination.is_ipv4();
    if !packet.has(LINK + headers.length) || LINK + headers.length < headers.transport || mapped != ipv4 {
        return Parsed::Other;
    }
    headers.tuple.protocol = u32::from(protocol);
    if later {
        return Parsed::Later;
    }
    match protocol {
        TCP => {
            let Some(transport) = packet.window::<20>(headers.transport) else { return Parsed::Short };
            headers.tuple.source_port = transport.get::<u16, 0>();
            headers.tuple.destination_port = transport.get::<u16, 2>();
            headers.flags = transport.get::<u8, 13>();
            headers.before_payload = headers.transport - LINK + u32::from(transport.get::<u8, 12>() >> 4) * 4;
            headers.tcp = true;
            Parsed::Plain
        }
        UDP => {
            let Some(transport) = packet.window::<8>(headers.transport) else { return Parsed::Short };
            headers.tuple.source_port = transport.get::<u16, 0>();
            headers.tuple.destination_port = transport.get::<u16, 2>();
            headers.before_payload = headers.transport - LINK + 8;
            headers.flags = 0;
            headers.tcp = false;
            Parsed::Plain
        }
        _ => Parsed::Special,
    }
}
