//! What the table stores: its sets and maps, and the typed values that are their keys and data. The bytes that
//! the kernel sees are the engine's business; the text is `text`'s.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::address::{Family, InterfaceName, PortRange, Protocol};
use crate::ruleset::Helper;

use super::table::Chain;

/// The sets and maps of the table, in the order in which they stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// IPv4 address, protocol, port to rule.
    Address4,
    /// The same for port ranges.
    Address4Ranges,
    /// IPv6 address, protocol, port to rule.
    Address6,
    /// The same for port ranges.
    Address6Ranges,
    /// Interface, family, protocol, port to rule.
    Interface,
    /// The same for port ranges.
    InterfaceRanges,
    /// Family, protocol, port to rule.
    Any,
    /// The same for port ranges.
    AnyRanges,
    /// The rules; each element counts the rule's new flows.
    Flows,
    /// The rules by direction; each element counts packets and bytes.
    Traffic,
    /// Rule and protocol to the chain that attaches a conntrack helper.
    Helpers,
    /// Rule to IPv4 address and port.
    Backend4,
    /// Rule to IPv4 address; the port stays.
    Backend4SamePort,
    /// Rule and listener port to IPv4 address and port.
    Backend4Shifted,
    /// Rule to IPv6 address and port.
    Backend6,
    /// Rule to IPv6 address; the port stays.
    Backend6SamePort,
    /// Rule and listener port to IPv6 address and port.
    Backend6Shifted,
    /// The rules that keep the client's source address.
    Preserve,
    /// Rule and slot (0 to 63, from a hash of the client) to IPv4 source address.
    Source4,
    /// Rule and slot to IPv6 source address.
    Source6,
    /// Rule and slot to IPv4 address and port of a member of the rule's pool; one of [`SHARDS`] maps, by the rule.
    Slots4(u8),
    /// Rule and slot to IPv4 address; the port stays.
    Slots4SamePort,
    /// Rule and slot to IPv6 address and port; one of [`SHARDS`] maps, by the rule.
    Slots6(u8),
    /// Rule and slot to IPv6 address; the port stays.
    Slots6SamePort,
    /// Rule and client to the IPv4 address and port that the client had last. Filled by the kernel.
    Persist4,
    /// Rule and client to the IPv4 address that the client had last; the port stays. Filled by the kernel.
    Persist4SamePort,
    /// Rule and client to the IPv6 address and port that the client had last. Filled by the kernel.
    Persist6,
    /// Rule and client to the IPv6 address that the client had last; the port stays. Filled by the kernel.
    Persist6SamePort,
    /// Rule to the chain that chooses a member of its pool.
    Pools,
    /// The rules that refuse new flows.
    Refused,
    /// The rules that take note of the member that was chosen.
    Noted,
    /// Rule to the chain that remembers the client.
    Remembered,
    /// Rule, IPv4 address and port of a member; each element counts the member's new flows.
    Members4,
    /// Rule and IPv4 address of a member; each element counts the member's new flows.
    Members4SamePort,
    /// Rule, IPv6 address and port of a member; each element counts the member's new flows.
    Members6,
    /// Rule and IPv6 address of a member; each element counts the member's new flows.
    Members6SamePort,
}

/// The type of one field of a key or of a map's data, by nft's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datatype {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `inet_proto`
    Protocol,
    /// `inet_service`
    Service,
    /// `ifname`
    Interface,
    /// `nf_proto`
    Family,
    /// `mark`
    Mark,
    /// `ct_dir`
    Direction,
    /// The number of a slot: what `numgen` and `jhash` give, which nft can only name as `typeof numgen inc mod 2`.
    Slot,
}

/// What the elements of a set lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataShape {
    /// A set: nothing.
    None,
    /// A map to these fields.
    Fields(&'static [Datatype]),
    /// A map to verdicts.
    Verdict,
}

/// How a set is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its name in the table.
    pub name: &'static str,
    /// The fields of its keys.
    pub key: &'static [Datatype],
    /// What its elements lead to.
    pub data: DataShape,
    /// Whether keys are ranges (in the last field).
    pub interval: bool,
    /// Whether each element counts packets and bytes.
    pub counter: bool,
    /// Whether the kernel fills it by itself, up to [`MOST_CLIENTS`] elements, each for a time. Such elements are no part
    /// of a plan.
    pub dynamic: bool,
}

/// Over how many maps the slots of members with ports are spread. The kernel checks every element that it adds to a map
/// against every rule that asks the map, and every pool has such a rule: with one map for all, ten thousand pools of
/// three took 22 seconds to set up.
pub const SHARDS: u8 = 8;

const SLOTS4: [&str; SHARDS as usize] =
    ["slots4_0", "slots4_1", "slots4_2", "slots4_3", "slots4_4", "slots4_5", "slots4_6", "slots4_7"];
const SLOTS6: [&str; SHARDS as usize] =
    ["slots6_0", "slots6_1", "slots6_2", "slots6_3", "slots6_4", "slots6_5", "slots6_6", "slots6_7"];

/// The most clients that are remembered in one map; further ones are served without being remembered.
pub const MOST_CLIENTS: u32 = 65_536;

impl Set {
    /// Every set, in order.
    pub const ALL: [Self; 50] = [
        Self::Address4,
        Self::Address4Ranges,
        Self::Address6,
        Self::Address6Ranges,
        Self::Interface,
        Self::InterfaceRanges,
        Self::Any,
        Self::AnyRanges,
        Self::Flows,
        Self::Traffic,
        Self::Helpers,
        Self::Backend4,
        Self::Backend4SamePort,
        Self::Backend4Shifted,
        Self::Backend6,
        Self::Backend6SamePort,
        Self::Backend6Shifted,
        Self::Preserve,
        Self::Source4,
        Self::Source6,
        Self::Slots4(0),
        Self::Slots4(1),
        Self::Slots4(2),
        Self::Slots4(3),
        Self::Slots4(4),
        Self::Slots4(5),
        Self::Slots4(6),
        Self::Slots4(7),
        Self::Slots4SamePort,
        Self::Slots6(0),
        Self::Slots6(1),
        Self::Slots6(2),
        Self::Slots6(3),
        Self::Slots6(4),
        Self::Slots6(5),
        Self::Slots6(6),
        Self::Slots6(7),
        Self::Slots6SamePort,
        Self::Persist4,
        Self::Persist4SamePort,
        Self::Persist6,
        Self::Persist6SamePort,
        Self::Pools,
        Self::Refused,
        Self::Noted,
        Self::Remembered,
        Self::Members4,
        Self::Members4SamePort,
        Self::Members6,
        Self::Members6SamePort,
    ];

    /// The maps in which the kernel remembers clients.
    pub const PERSIST: [Self; 4] =
        [Self::Persist4, Self::Persist4SamePort, Self::Persist6, Self::Persist6SamePort];

    /// The sets that count the new flows of members.
    pub const MEMBERS: [Self; 4] =
        [Self::Members4, Self::Members4SamePort, Self::Members6, Self::Members6SamePort];

    /// How the set is declared.
    pub const fn shape(self) -> Shape {
        use DataShape::{Fields, None, Verdict};
        use Datatype::{Direction, Family, Interface, Ipv4, Ipv6, Mark, Protocol, Service, Slot};
        const ADDRESS4: &[Datatype] = &[Ipv4, Protocol, Service];
        const ADDRESS6: &[Datatype] = &[Ipv6, Protocol, Service];
        const INTERFACE: &[Datatype] = &[Interface, Family, Protocol, Service];
        const ANY: &[Datatype] = &[Family, Protocol, Service];
        const RULE: DataShape = Fields(&[Mark]);
        let (name, key, data): (_, &'static [Datatype], _) = match self {
            Self::Address4 => ("address4", ADDRESS4, RULE),
            Self::Address4Ranges => ("address4_ranges", ADDRESS4, RULE),
            Self::Address6 => ("address6", ADDRESS6, RULE),
            Self::Address6Ranges => ("address6_ranges", ADDRESS6, RULE),
            Self::Interface => ("interface", INTERFACE, RULE),
            Self::InterfaceRanges => ("interface_ranges", INTERFACE, RULE),
            Self::Any => ("any", ANY, RULE),
            Self::AnyRanges => ("any_ranges", ANY, RULE),
            Self::Flows => ("flows", &[Mark], None),
            Self::Traffic => ("traffic", &[Mark, Direction], None),
            Self::Helpers => ("helpers", &[Mark, Protocol], Verdict),
            Self::Backend4 => ("backend4", &[Mark], Fields(&[Ipv4, Service])),
            Self::Backend4SamePort => ("backend4_same_port", &[Mark], Fields(&[Ipv4])),
            Self::Backend4Shifted => ("backend4_shifted", &[Mark, Service], Fields(&[Ipv4, Service])),
            Self::Backend6 => ("backend6", &[Mark], Fields(&[Ipv6, Service])),
            Self::Backend6SamePort => ("backend6_same_port", &[Mark], Fields(&[Ipv6])),
            Self::Backend6Shifted => ("backend6_shifted", &[Mark, Service], Fields(&[Ipv6, Service])),
            Self::Preserve => ("preserve", &[Mark], None),
            Self::Source4 => ("source4", &[Mark, Slot], Fields(&[Ipv4])),
            Self::Source6 => ("source6", &[Mark, Slot], Fields(&[Ipv6])),
            Self::Slots4(shard) => (SLOTS4[shard as usize], &[Mark, Slot], Fields(&[Ipv4, Service])),
            Self::Slots4SamePort => ("slots4_same_port", &[Mark, Slot], Fields(&[Ipv4])),
            Self::Slots6(shard) => (SLOTS6[shard as usize], &[Mark, Slot], Fields(&[Ipv6, Service])),
            Self::Slots6SamePort => ("slots6_same_port", &[Mark, Slot], Fields(&[Ipv6])),
            Self::Persist4 => ("persist4", &[Mark, Ipv4], Fields(&[Ipv4, Service])),
            Self::Persist4SamePort => ("persist4_same_port", &[Mark, Ipv4], Fields(&[Ipv4])),
            Self::Persist6 => ("persist6", &[Mark, Ipv6], Fields(&[Ipv6, Service])),
            Self::Persist6SamePort => ("persist6_same_port", &[Mark, Ipv6], Fields(&[Ipv6])),
            Self::Pools => ("pools", &[Mark], Verdict),
            Self::Refused => ("refused", &[Mark], None),
            Self::Noted => ("noted", &[Mark], None),
            Self::Remembered => ("remembered", &[Mark], Verdict),
            Self::Members4 => ("members4", &[Mark, Ipv4, Service], None),
            Self::Members4SamePort => ("members4_same_port", &[Mark, Ipv4], None),
            Self::Members6 => ("members6", &[Mark, Ipv6, Service], None),
            Self::Members6SamePort => ("members6_same_port", &[Mark, Ipv6], None),
        };
        let interval = matches!(
            self,
            Self::Address4Ranges | Self::Address6Ranges | Self::InterfaceRanges | Self::AnyRanges
        );
        let counter = matches!(
            self,
            Self::Flows
                | Self::Traffic
                | Self::Members4
                | Self::Members4SamePort
                | Self::Members6
                | Self::Members6SamePort
        );
        let dynamic =
            matches!(self, Self::Persist4 | Self::Persist4SamePort | Self::Persist6 | Self::Persist6SamePort);
        Shape { name, key, data, interval, counter, dynamic }
    }

    /// Whether elements depend on facts, all keyed by the rule first; those of all other sets follow from the rule alone.
    pub const fn is_of_members(self) -> bool {
        let follows_from_the_rule = matches!(
            self,
            Self::Flows | Self::Traffic | Self::Helpers | Self::Preserve | Self::Source4 | Self::Source6
        );
        // The kernel's own memory of clients is no part of a plan.
        !(self.is_listener() || follows_from_the_rule || self.shape().dynamic)
    }

    /// Whether the set says which traffic is a rule's: its keys end in protocol and port.
    pub const fn is_listener(self) -> bool {
        matches!(
            self,
            Self::Address4
                | Self::Address4Ranges
                | Self::Address6
                | Self::Address6Ranges
                | Self::Interface
                | Self::InterfaceRanges
                | Self::Any
                | Self::AnyRanges
        )
    }
}

/// The direction of a packet in its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the client.
    Original,
    /// To the client.
    Reply,
}

/// One field of a key or of data; its [`Datatype`] is the set's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// `ipv4_addr`
    Ipv4(Ipv4Addr),
    /// `ipv6_addr`
    Ipv6(Ipv6Addr),
    /// `inet_proto`
    Protocol(Protocol),
    /// `inet_service`; a range of several ports only in interval sets.
    Service(PortRange),
    /// `ifname`
    Interface(InterfaceName),
    /// `nf_proto`
    Family(Family),
    /// `mark`
    Mark(u32),
    /// `ct_dir`
    Direction(Direction),
    /// The number of a slot.
    Slot(u32),
}

/// A conntrack helper object of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HelperObject {
    /// The kernel's helper.
    pub helper: Helper,
    /// The protocol it is attached for.
    pub protocol: Protocol,
}

impl HelperObject {
    /// Every helper object that a plan can use.
    pub const ALL: [Self; 4] = [
        Self { helper: Helper::Ftp, protocol: Protocol::Tcp },
        Self { helper: Helper::Tftp, protocol: Protocol::Udp },
        Self { helper: Helper::Sip, protocol: Protocol::Tcp },
        Self { helper: Helper::Sip, protocol: Protocol::Udp },
    ];

    /// The object's name in the table.
    pub const fn name(self) -> &'static str {
        match (self.helper, self.protocol) {
            (Helper::Ftp, Protocol::Tcp) => "ftp_tcp",
            (Helper::Ftp, Protocol::Udp) => "ftp_udp",
            (Helper::Tftp, Protocol::Tcp) => "tftp_tcp",
            (Helper::Tftp, Protocol::Udp) => "tftp_udp",
            (Helper::Sip, Protocol::Tcp) => "sip_tcp",
            (Helper::Sip, Protocol::Udp) => "sip_udp",
        }
    }
}

/// The key of an element: one value per field.
pub type Key = Vec<Value>;

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// Nothing: the element of a set.
    None,
    /// One value per field.
    Fields(Vec<Value>),
    /// A chain, and back.
    Jump(Chain),
}

/// An element without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it leads to.
    pub data: Data,
    /// A remark for people, the rule's name; the daemon reads it back from [`Set::Flows`].
    pub comment: Option<String>,
}
