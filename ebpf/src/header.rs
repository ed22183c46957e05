//! The headers of a packet as nearly all are: TCP or UDP, whole, IPv4 without options or IPv6 without extension headers, so
//! that every offset is a constant.
//!
//! Nothing that is read is kept. The programs have four registers that outlive a look-up, and reading the packet once more
//! costs less than putting a word on the stack and taking it back.
//!
//! Deliberately absent: all other packets ([`crate::parse`]).

use portway_datapath::abi::{Address, Record, SEEDS, Tuple};
use portway_datapath::checksum::Difference;
use portway_datapath::hash::hash;
use portway_datapath::record::Direction;
use portway_datapath::table::Key;

use crate::packet::{Packet, Window};
use crate::parse::{IPV4_HEADER, IPV6_HEADER, MORE, OFFSET, TCP, UDP};
use crate::rewrite::put_ipv6;
use crate::skb::Skb;

/// Version 4, and five words of header.
const WITHOUT_OPTIONS: u8 = 0x45;

/// An IP header of one family, and the ports behind it.
pub trait Header: Copy {
    /// The family: whether it is IPv4.
    const IPV4: bool;
    /// Where the transport's header begins.
    const LENGTH: u32;
    /// Both addresses, the sender's first.
    type Addresses: Copy;

    /// The header of a packet, `link` bytes from its beginning, if it is as said above.
    fn of<P: Packet>(packet: P, link: u32) -> Option<Self>;
    /// The bytes of the packet, with this header.
    fn length(self) -> u32;
    /// Time to live, or hop limit.
    fn lives(self) -> u8;
    /// The protocol's number.
    fn protocol(self) -> u8;
    /// Both ports as they lie in memory.
    fn ports(self) -> u32;
    /// Puts others there.
    fn set_ports(self, ports: u32);
    /// The tuple.
    fn tuple(self) -> Tuple;
    /// Whether it is a record's, in this direction.
    fn is_of(self, record: &Record, direction: Direction) -> bool;
    /// The addresses of what leaves when a packet of this direction arrives.
    fn leaving(record: &Record, direction: Direction) -> Self::Addresses;
    /// Each by itself.
    fn ends(addresses: Self::Addresses) -> [Address; 2];
    /// What it is to a sum over the addresses that they become these.
    fn difference(self, new: Self::Addresses) -> Difference;
    /// Makes them these, and takes one from the time to live; `difference` is that of the addresses.
    fn replace(self, new: Self::Addresses, difference: Difference);
    /// The same in a socket buffer, `link` bytes from its beginning, by the kernel's functions for it.
    fn replace_in(self, packet: Skb, link: u32, new: Self::Addresses, difference: Difference) -> bool;
    /// What the whole exchange, with that of the transport's header, is to a sum over the packet.
    fn of_whole(self, difference: Difference) -> Difference;
}

/// What a packet is looked up by.
#[derive(Clone, Copy)]
pub struct Arriving<H>(pub H);

impl<H: Header> Key for Arriving<H> {
    #[inline(always)]
    fn hash(&self, seeds: &[u64; SEEDS]) -> u64 {
        hash(&self.0.tuple(), seeds)
    }

    #[inline(always)]
    fn is_of(&self, record: &Record, direction: Direction) -> bool {
        self.0.is_of(record, direction)
    }
}

/// Of IPv4, with the first eight bytes of the transport's.
#[derive(Clone, Copy)]
pub struct Ipv4(Window<28>);

impl Header for Ipv4 {
    const IPV4: bool = true;
    const LENGTH: u32 = IPV4_HEADER;
    /// As they lie in memory.
    type Addresses = u64;

    #[inline(always)]
    fn of<P: Packet>(packet: P, link: u32) -> Option<Self> {
        let window = packet.window::<28>(link)?;
        let plain = window.get::<u8, 0>() == WITHOUT_OPTIONS && window.get::<u16, 6>() & (OFFSET | MORE) == 0;
        plain.then_some(Self(window))
    }

    #[inline(always)]
    fn length(self) -> u32 {
        u32::from(u16::from_be(self.0.get::<u16, 2>()))
    }

    #[inline(always)]
    fn lives(self) -> u8 {
        self.0.get::<u8, 8>()
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        self.0.get::<u8, 9>()
    }

    #[inline(always)]
    fn ports(self) -> u32 {
        self.0.get::<u32, 20>()
    }

    #[inline(always)]
    fn set_ports(self, ports: u32) {
        self.0.set::<u32, 20>(ports);
    }

    #[inline(always)]
    fn tuple(self) -> Tuple {
        let ports = self.ports();
        Tuple {
            source: Address::ipv4(self.0.get::<u32, 12>()),
            destination: Address::ipv4(self.0.get::<u32, 16>()),
            source_port: ports as u16,
            destination_port: (ports >> 16) as u16,
            protocol: u32::from(self.protocol()),
        }
    }

    #[inline(always)]
    fn is_of(self, record: &Record, direction: Direction) -> bool {
        record.has_ipv4(direction, self.0.get::<u64, 12>(), self.ports(), u32::from(self.protocol()))
    }

    #[inline(always)]
    fn leaving(record: &Record, direction: Direction) -> u64 {
        record.side(direction.other()).addresses_of_answer()
    }

    #[inline(always)]
    fn ends(addresses: u64) -> [Address; 2] {
        [Address::ipv4(addresses as u32), Address::ipv4((addresses >> 32) as u32)]
    }

    #[inline(always)]
    fn difference(self, new: u64) -> Difference {
        Difference::NONE.minus_two(self.0.get::<u64, 12>()).plus_two(new)
    }

    #[inline(always)]
    fn replace(self, new: u64, difference: Difference) {
        let lives = self.0.get::<u16, 8>();
        // Time to live is the first byte of its word.
        let less = lives.wrapping_sub(u16::from_ne_bytes([1, 0]));
        self.0.set::<u16, 8>(less);
        let change = difference.minus(u32::from(lives)).plus(u32::from(less));
        self.0.set::<u16, 10>(change.apply(self.0.get::<u16, 10>()));
        self.0.set::<u64, 12>(new);
    }

    #[inline(always)]
    fn replace_in(self, _packet: Skb, _link: u32, new: u64, difference: Difference) -> bool {
        // A sum over the whole packet stays: the header's own checksum makes up for what changes.
        self.replace(new, difference);
        true
    }

    #[inline(always)]
    fn of_whole(self, difference: Difference) -> Difference {
        // The header's checksum makes up for what changes in it. The transport's does for its ports; it has changed by the
        // addresses, which are not among what it is summed with.
        difference.negated()
    }
}

/// Of IPv6, with the first eight bytes of the transport's.
#[derive(Clone, Copy)]
pub struct Ipv6(Window<48>);

impl Header for Ipv6 {
    const IPV4: bool = false;
    const LENGTH: u32 = IPV6_HEADER;
    type Addresses = [Address; 2];

    #[inline(always)]
    fn of<P: Packet>(packet: P, link: u32) -> Option<Self> {
        let window = packet.window::<48>(link)?;
        // Addresses that begin with 64 zeros may be mapped ones, which no packet may have.
        let plain =
            window.get::<u8, 0>() >> 4 == 6 && window.get::<u64, 8>() != 0 && window.get::<u64, 24>() != 0;
        plain.then_some(Self(window))
    }

    #[inline(always)]
    fn length(self) -> u32 {
        u32::from(u16::from_be(self.0.get::<u16, 4>())) + IPV6_HEADER
    }

    #[inline(always)]
    fn lives(self) -> u8 {
        self.0.get::<u8, 7>()
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        self.0.get::<u8, 6>()
    }

    #[inline(always)]
    fn ports(self) -> u32 {
        self.0.get::<u32, 40>()
    }

    #[inline(always)]
    fn set_ports(self, ports: u32) {
        self.0.set::<u32, 40>(ports);
    }

    #[inline(always)]
    fn tuple(self) -> Tuple {
        let ports = self.ports();
        Tuple {
            source: self.0.address::<8, 16>(),
            destination: self.0.address::<24, 32>(),
            source_port: ports as u16,
            destination_port: (ports >> 16) as u16,
            protocol: u32::from(self.protocol()),
        }
    }

    #[inline(always)]
    fn is_of(self, record: &Record, direction: Direction) -> bool {
        record.has(direction, &self.tuple())
    }

    #[inline(always)]
    fn leaving(record: &Record, direction: Direction) -> [Address; 2] {
        let answered = record.tuple(direction.other());
        [answered.destination, answered.source]
    }

    #[inline(always)]
    fn ends(addresses: [Address; 2]) -> [Address; 2] {
        addresses
    }

    #[inline(always)]
    fn difference(self, [source, destination]: [Address; 2]) -> Difference {
        Difference::NONE
            .minus_address(self.0.address::<8, 16>())
            .minus_address(self.0.address::<24, 32>())
            .plus_address(source)
            .plus_address(destination)
    }

    #[inline(always)]
    fn replace(self, [source, destination]: [Address; 2], _difference: Difference) {
        self.0.set::<u8, 7>(self.lives().wrapping_sub(1));
        self.0.set_address::<8, 16>(source);
        self.0.set_address::<24, 32>(destination);
    }

    #[inline(always)]
    fn replace_in(
        self,
        packet: Skb,
        link: u32,
        [source, destination]: [Address; 2],
        _difference: Difference,
    ) -> bool {
        put_ipv6(packet, link, self.protocol(), self.lives().wrapping_sub(1), source, destination)
    }

    #[inline(always)]
    fn of_whole(self, _difference: Difference) -> Difference {
        // The transport's checksum makes up for the addresses: what is left is the hop limit, the second byte of its word.
        Difference::NONE.minus(u32::from(u16::from_ne_bytes([0, 1])))
    }
}

/// Whether a packet of this protocol and length is all there, and so is the transport's header.
#[inline(always)]
pub fn is_whole<P: Packet, H: Header>(packet: P, link: u32, protocol: u8, length: u32) -> bool {
    let transport = match protocol {
        TCP => packet.window::<20>(link + H::LENGTH).is_some(),
        protocol => protocol == UDP,
    };
    transport && length >= H::LENGTH && packet.has(link + length)
}
