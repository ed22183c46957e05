//! What the plan says, in the words of the maps: addresses, keys of listeners, times. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use portway_core::address::{Family, PortRange};
use portway_core::ruleset::{Listener, RuleName, Scope, Target, TargetPorts};
use portway_datapath::abi::{self, RANGE_PREFIX, TICK_SHIFT, member_flags};

/// An address as the maps have it.
pub fn address(address: IpAddr) -> abi::Address {
    let bytes = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    abi::Address { high: u64::from_ne_bytes([a, b, c, d, e, f, g, h]), low: u64::from_ne_bytes(rest) }
}

/// The bytes of an address in memory order.
fn octets(address: abi::Address) -> [u8; 16] {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&address.high.to_ne_bytes());
    octets[8..].copy_from_slice(&address.low.to_ne_bytes());
    octets
}

/// An address of the maps as std has it.
pub fn ip(address: abi::Address) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(octets(address))).to_canonical()
}

/// An address and a port of a record.
pub fn socket(address: abi::Address, port_be: u16) -> SocketAddr {
    SocketAddr::new(ip(address), u16::from_be(port_be))
}

/// A rule's name as the maps have it: its bytes, zeros behind.
pub fn name(name: &RuleName) -> [u64; 8] {
    let mut bytes = [0u8; RuleName::MAX];
    bytes[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// The rule's name that these are the words of.
pub fn rule_name(words: [u64; 8]) -> Option<RuleName> {
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    RuleName::new(std::str::from_utf8(&bytes).ok()?)
}

/// A duration in ticks, rounded up, and at least one.
pub fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1 << TICK_SHIFT)).unwrap_or(u32::MAX).max(1)
}

/// Ticks as a duration.
pub fn duration(ticks: u32) -> Duration {
    Duration::from_nanos(u64::from(ticks) << TICK_SHIFT)
}

/// The key of one thing that is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// In `listeners`.
    One(abi::ListenerKey),
    /// In `ranges`.
    Range(abi::RangeKey),
}

/// The keys of a listener that is the rule's with this id. One for an interface that is not there has none.
pub fn keys(
    listener: &Listener,
    rule: u32,
    interface: impl Fn(&str) -> Option<u32>,
) -> Vec<(Key, abi::Listener)> {
    let any = |family| match family {
        Family::V4 => address(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        Family::V6 => address(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let (address, interface) = match &listener.scope {
        Scope::Address(one) => (address(*one), 0),
        Scope::Any(family) => (any(*family), 0),
        Scope::Interface(name, family) => match interface(name.as_str()) {
            Some(index) => (any(*family), index),
            None => return Vec::new(),
        },
    };
    let value = abi::Listener { rule, first_port: listener.ports.first(), reserved: 0 };
    let protocol = listener.protocol.number();
    if listener.ports.is_single() {
        let port = listener.ports.first().to_be();
        return vec![(Key::One(abi::ListenerKey { address, interface, port, protocol, reserved: 0 }), value)];
    }
    let key = |(port, bits): (u16, u32)| {
        Key::Range(abi::RangeKey {
            prefix: RANGE_PREFIX + bits,
            protocol: protocol.into(),
            interface,
            address: octets(address),
            port: port.to_be(),
            reserved: 0,
        })
    };
    prefixes(listener.ports).into_iter().map(|prefix| (key(prefix), value)).collect()
}

/// The fewest prefixes that make up a range: the first port of each and how many of its bits count.
pub fn prefixes(ports: PortRange) -> Vec<(u16, u32)> {
    let (mut first, last) = (u32::from(ports.first()), u32::from(ports.last()));
    let mut prefixes = Vec::new();
    while first <= last {
        // As many ports as `first` is aligned to, and no more than are left.
        let mut free = first.trailing_zeros().min(16);
        while first + (1 << free) - 1 > last {
            free -= 1;
        }
        // `first` is a port: it never passes `last`.
        prefixes.push((first as u16, 16 - free));
        first += 1 << free;
    }
    prefixes
}

/// What a member is known by over restarts: its place, as far as the maps tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Where it is.
    pub address: abi::Address,
    /// Its port, the first of a shifted range, or 0 for the port that the client called.
    pub port: u16,
    /// [`member_flags::SAME_PORT`], [`member_flags::SHIFTED`] or neither.
    pub flags: u16,
}

impl Place {
    /// Of a target.
    pub fn of(target: &Target) -> Self {
        let (port, flags) = match target.ports {
            TargetPorts::Same => (0, member_flags::SAME_PORT),
            TargetPorts::One(port) => (port, 0),
            TargetPorts::Shifted(range) => (range.first(), member_flags::SHIFTED),
        };
        Self { address: address(target.address), port, flags }
    }

    /// Of a member as the maps have it.
    pub fn of_member(member: &abi::Member) -> Self {
        let flags = member.flags & (member_flags::SAME_PORT | member_flags::SHIFTED);
        Self { address: member.address, port: member.port, flags }
    }
}

impl fmt::Display for Place {
    /// As a target is displayed, as far as it is known: of a shifted range the first port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = ip(self.address);
        match (self.port, address) {
            (0, IpAddr::V4(address)) => write!(f, "{address}"),
            (0, IpAddr::V6(address)) => write!(f, "[{address}]"),
            (port, address) => write!(f, "{}", SocketAddr::new(address, port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_made_up_of_its_prefixes() {
        for (first, last) in [(1, 65_535), (80, 80), (1000, 1999), (1, 2), (32_768, 65_535), (65_535, 65_535)]
        {
            let range = PortRange::new(first, last).unwrap();
            let prefixes = prefixes(range);
            assert!(prefixes.len() <= 30, "{first}-{last}: {}", prefixes.len());
            let covered: Vec<u32> = prefixes
                .iter()
                .flat_map(|(port, bits)| (u32::from(*port)..).take(1 << (16 - bits)))
                .collect();
            assert_eq!(covered, (u32::from(first)..=u32::from(last)).collect::<Vec<_>>(), "{first}-{last}");
        }
    }

    #[test]
    fn names_and_addresses_come_back() {
        for text in ["a", "web-1", &"x".repeat(64)] {
            let rule = RuleName::new(text).unwrap();
            assert_eq!(rule_name(name(&rule)), Some(rule));
        }
        for text in ["192.0.2.1", "fd00::1", "::1"] {
            let one: IpAddr = text.parse().unwrap();
            assert_eq!(ip(address(one)), one);
        }
        assert_eq!(octets(address("192.0.2.1".parse().unwrap()))[10..], [0xff, 0xff, 192, 0, 2, 1]);
    }

    #[test]
    fn times_are_rounded_up() {
        assert_eq!((ticks(Duration::ZERO), ticks(Duration::from_secs(1))), (1, 60));
        assert!(duration(ticks(Duration::from_secs(60))) >= Duration::from_secs(60));
    }
}
