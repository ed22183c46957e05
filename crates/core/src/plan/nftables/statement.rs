//! What the rules of the table are made of: statements, and what they load from a packet. Deliberately absent: which
//! rules there are ([`super::table`], [`super::pool`]) and how nft writes them (`super::text`).

use std::time::Duration;

use super::element::{HelperObject, Set};
use super::pool::Addressing;
use super::table::Chain;
use crate::address::{Family, Protocol};

/// One side of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The source address.
    Source,
    /// The destination address.
    Destination,
}

/// What is loaded into one field of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// `ip daddr` or `ip6 daddr`; a rule that loads it matches that family only.
    Destination(Family),
    /// `ip saddr` or `ip6 saddr`; a rule that loads it matches that family only.
    Source(Family),
    /// `meta l4proto`
    Protocol,
    /// `th dport`
    Port,
    /// `iifname`
    Interface,
    /// `meta nfproto`
    Family,
    /// `ct mark`
    Mark,
    /// `ct direction`
    Direction,
    /// A slot, each in its turn, of so many.
    Turn(u32),
    /// A slot by a hash of the client.
    Hash(Hashed),
}

/// What a hash is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The family of the client's address.
    pub family: Family,
    /// The header whose source port is hashed behind the address (`th`, or the protocol that the rule has matched).
    pub port: Option<&'static str>,
    /// How many slots there are.
    pub slots: u32,
    /// The seed; without one the kernel draws one.
    pub seed: Option<u32>,
}

/// The slot of a source address.
const fn source_slot(family: Family) -> Load {
    Load::Hash(Hashed { family, port: Some("th"), slots: SLOTS, seed: None })
}

/// How many slots a pool of source addresses is spread over.
pub const SLOTS: u32 = 64;

/// What a set's key is made of, for a packet in hand. The slots of pools are found as the pool's own chain says.
pub const fn key_of(set: Set) -> &'static [Load] {
    const SOURCE4: &[Load] = &[Load::Mark, source_slot(Family::V4)];
    const SOURCE6: &[Load] = &[Load::Mark, source_slot(Family::V6)];
    match set {
        Set::Address4 | Set::Address4Ranges => &[Load::Destination(Family::V4), Load::Protocol, Load::Port],
        Set::Address6 | Set::Address6Ranges => &[Load::Destination(Family::V6), Load::Protocol, Load::Port],
        Set::Interface | Set::InterfaceRanges => &[Load::Interface, Load::Family, Load::Protocol, Load::Port],
        Set::Any | Set::AnyRanges => &[Load::Family, Load::Protocol, Load::Port],
        Set::Traffic => &[Load::Mark, Load::Direction],
        Set::Helpers => &[Load::Mark, Load::Protocol],
        Set::Backend4Shifted | Set::Backend6Shifted => &[Load::Mark, Load::Port],
        Set::Source4 => SOURCE4,
        Set::Source6 => SOURCE6,
        Set::Persist4 | Set::Persist4SamePort => &[Load::Mark, Load::Source(Family::V4)],
        Set::Persist6 | Set::Persist6SamePort => &[Load::Mark, Load::Source(Family::V6)],
        Set::Members4 => &[Load::Mark, Load::Destination(Family::V4), Load::Port],
        Set::Members4SamePort => &[Load::Mark, Load::Destination(Family::V4)],
        Set::Members6 => &[Load::Mark, Load::Destination(Family::V6), Load::Port],
        Set::Members6SamePort => &[Load::Mark, Load::Destination(Family::V6)],
        Set::Flows
        | Set::Backend4
        | Set::Backend4SamePort
        | Set::Backend6
        | Set::Backend6SamePort
        | Set::Preserve
        | Set::Slots4(_)
        | Set::Slots4SamePort
        | Set::Slots6(_)
        | Set::Slots6SamePort
        | Set::Pools
        | Set::Refused
        | Set::Noted
        | Set::Remembered => &[Load::Mark],
    }
}

/// A statement of a rule. One that does not match ends the rule, the next rule goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The key is in the set; its element counts the packet where the set counts.
    Lookup(Set),
    /// Writes the rule that the map leads to into the conntrack mark.
    SetMark(Set),
    /// Attaches a conntrack helper.
    Attach(HelperObject),
    /// Rewrites the destination (backend maps) or the source (source maps) to what the map leads to.
    Nat(Set),
    /// Rewrites the destination to the member in the slot that `by` gives, for packets of the protocol where one is
    /// named.
    Choose {
        /// The map with the slots.
        slots: Set,
        /// How the slot is found.
        by: Load,
        /// The protocol.
        protocol: Option<Protocol>,
    },
    /// Remembers the destination for the client, as long as this after its last new flow. Without effect when the map is
    /// full.
    Remember(Addressing, Duration),
    /// Does what the verdict map says for the rule.
    Dispatch(Set),
    /// A packet with ports. Every packet here is one; nft reads a rule that writes ports back only with this.
    TcpOrUdp,
    /// The flow is not Portway's any more.
    ClearMark,
    /// Answers a TCP segment with a reset.
    RejectTcp,
    /// Answers with ICMP port unreachable.
    Reject,
    /// Rewrites the source to the address of this host on the way out.
    Masquerade,
    /// The conntrack mark is (not) Portway's.
    MarkIsOurs(bool),
    /// A TCP segment that does not open a connection.
    TcpWithoutHandshake,
    /// The destination is no address of this host.
    NotToThisHost,
    /// The packet leaves over lo.
    ToLoopback,
    /// The packet did (not) arrive over lo.
    FromLoopback(bool),
    /// The address is in 127.0.0.0/8.
    LoopbackAddress4(Field),
    /// The destination is ::1.
    ToLoopbackAddress6,
    /// Goes on in another chain, without return.
    Goto(Chain),
    /// Goes on in another chain, and here again at its end.
    Jump(Chain),
    /// Ends the chain.
    Return,
    /// Ends the chain and lets the packet go on.
    Accept,
    /// Drops the packet.
    Drop,
}

/// What a map look-up rewrites: the family and whether the source.
pub const fn nat_of(set: Set) -> Option<(Family, Field)> {
    match set {
        Set::Backend4
        | Set::Backend4SamePort
        | Set::Backend4Shifted
        | Set::Slots4(_)
        | Set::Slots4SamePort
        | Set::Persist4
        | Set::Persist4SamePort => Some((Family::V4, Field::Destination)),
        Set::Backend6
        | Set::Backend6SamePort
        | Set::Backend6Shifted
        | Set::Slots6(_)
        | Set::Slots6SamePort
        | Set::Persist6
        | Set::Persist6SamePort => Some((Family::V6, Field::Destination)),
        Set::Source4 => Some((Family::V4, Field::Source)),
        Set::Source6 => Some((Family::V6, Field::Source)),
        _ => None,
    }
}
