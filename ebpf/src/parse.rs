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

/// The length of the header.
pub const IPV6_HEADER: u32 = 40;

/// More fragments, or not the first one: the bits of IPv4's third word, as they lie in memory.
const FRAGMENT: u16 = 0x3fff_u16.to_be();

/// Do not fragment.
const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();

/// What is asked about a whole TCP or UDP packet.
pub struct Headers {
    /// Its tuple.
    pub tuple: Tuple,
    /// Where the transport's header begins.
    pub transport: u32,
    /// The bytes from the IP header on.
    pub length: u32,
    /// Those of the headers among them.
    pub before_payload: u32,
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
            ipv4: false,
            tcp: false,
            flags: 0,
            ttl: 0,
            whole: false,
        }
    }
}

/// What a packet is.
pub enum Parsed {
    /// Whole TCP or UDP.
    Plain,
    /// Something of IP that may be about a flow.
    Special,
    /// None of our business.
    Other,
}

/// Reads the headers of a packet that begins with `LINK` bytes of link header.
#[inline(always)]
pub fn parse<P: Packet, const LINK: u32>(packet: P, headers: &mut Headers) -> Parsed {
    let Some(first) = packet.window::<20>(LINK) else { return Parsed::Other };
    let ipv4 = if LINK == 0 {
        match first.get::<u8, 0>() >> 4 {
            4 => true,
            6 => false,
            _ => return Parsed::Other,
        }
    } else {
        let Some(link) = packet.window::<14>(0) else { return Parsed::Other };
        match link.get::<u16, 12>() {
            IPV4 => true,
            IPV6 => false,
            _ => return Parsed::Other,
        }
    };
    headers.ipv4 = ipv4;
    let protocol = if ipv4 {
        let version = first.get::<u8, 0>();
        let fragment = first.get::<u16, 6>();
        if version >> 4 != 4 || version & 15 < 5 {
            return Parsed::Other;
        }
        headers.transport = LINK + u32::from(version & 15) * 4;
        headers.length = u32::from(u16::from_be(first.get::<u16, 2>()));
        headers.ttl = first.get::<u8, 8>();
        headers.whole = fragment & DONT_FRAGMENT != 0;
        headers.tuple.source = Address::ipv4(first.get::<u32, 12>());
        headers.tuple.destination = Address::ipv4(first.get::<u32, 16>());
        if fragment & FRAGMENT != 0 {
            return Parsed::Special;
        }
        first.get::<u8, 9>()
    } else {
        let Some(first) = packet.window::<40>(LINK) else { return Parsed::Other };
        headers.transport = LINK + IPV6_HEADER;
        headers.length = u32::from(u16::from_be(first.get::<u16, 4>())) + IPV6_HEADER;
        headers.ttl = first.get::<u8, 7>();
        headers.whole = true;
        headers.tuple.source = first.address::<8, 16>();
        headers.tuple.destination = first.address::<24, 32>();
        first.get::<u8, 6>()
    };
    headers.tuple.protocol = u32::from(protocol);
    match protocol {
        TCP => {
            let Some(transport) = packet.window::<20>(headers.transport) else { return Parsed::Other };
            headers.tuple.source_port = transport.get::<u16, 0>();
            headers.tuple.destination_port = transport.get::<u16, 2>();
            headers.flags = transport.get::<u8, 13>();
            headers.before_payload = headers.transport - LINK + u32::from(transport.get::<u8, 12>() >> 4) * 4;
            headers.tcp = true;
            Parsed::Plain
        }
        UDP => {
            let Some(transport) = packet.window::<8>(headers.transport) else { return Parsed::Other };
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
