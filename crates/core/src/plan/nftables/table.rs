//! The chains and rules of the table as typed statements: the one description from which both the text that
//! people read and the expressions that the kernel gets are made. The rules never change with the ruleset,
//! only the elements of the maps do; the exceptions are the chain [`Chain::Guard`] and the chains that are a rule's
//! own ([`super::pool`]).
//!
//! The way of a new flow: prerouting or output finds the rule (most specific first) and writes it to the
//! conntrack mark; translate, keyed by that mark, counts the flow, attaches a helper and rewrites the destination;
//! where there is a choice, choose does that, by way of the pool's own chain; postrouting (input, where the backend is
//! this host), by the same mark, takes note of the choice and rewrites the source. Each step is one map look-up, so the cost
//! does not grow with the number of rules. Conntrack carries the later packets; the two account chains count
//! them, also by the mark.

use std::borrow::Cow;
use std::time::Duration;

use crate::address::{Family, Protocol};

use super::element::{DataShape, HelperObject, Set};
use super::ids::RuleId;
use super::pool::{Addressing, OwnChain};

/// The name of the table, in family `inet`.
pub const TABLE: &str = "portway";

/// The chains, in the order in which they stand in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// New flows that arrive.
    Prerouting,
    /// New flows of this host.
    Output,
    /// New flows that arrive, of rules with a pool.
    PoolsIn,
    /// New flows of this host, of rules with a pool.
    PoolsOut,
    /// The source address of new flows.
    Postrouting,
    /// New flows to a backend that is this host.
    Input,
    /// Counts packets that arrive.
    AccountIn,
    /// Counts packets of this host.
    AccountOut,
    /// Rewrites the destination where it is fixed; reached by goto.
    Translate,
    /// Rewrites the destination where there is a choice.
    Choose,
    /// Refuses the flow: no member of its pool is there.
    Refuse,
    /// Takes note of the member that was chosen: counts its flow, remembers the client.
    Note,
    /// Keeps 127.0.0.0/8 unreachable from outside while `route_localnet` is set.
    Guard,
    /// Attaches a conntrack helper.
    Attach(HelperObject),
    /// Chooses a member of one rule's pool.
    Pool(RuleId),
    /// Remembers which member a client of one rule has.
    Remember(RuleId),
}

/// Where and when the kernel calls a chain (`include/uapi/linux/netfilter.h`, `netfilter_ipv4.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// The hook's name.
    pub name: &'static str,
    /// The hook's number in the inet family.
    pub number: u32,
    /// Chains with lower numbers come first.
    pub priority: i32,
    /// The priority as nft lists it.
    pub priority_text: &'static str,
}

impl Chain {
    /// Every chain that follows from no rule, in order; the guard chain is there only when it is needed.
    pub const ALL: [Self; 13] = [
        Self::Prerouting,
        Self::Output,
        Self::PoolsIn,
        Self::PoolsOut,
        Self::Postrouting,
        Self::Input,
        Self::AccountIn,
        Self::AccountOut,
        Self::Translate,
        Self::Choose,
        Self::Refuse,
        Self::Note,
        Self::Guard,
    ];

    /// The chain's name in the table.
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
            Self::PoolsIn => "pools_in",
            Self::PoolsOut => "pools_out",
            Self::Postrouting => "postrouting",
            Self::Input => "input",
            Self::AccountIn => "account_in",
            Self::AccountOut => "account_out",
            Self::Translate => "translate",
            Self::Choose => "choose",
            Self::Refuse => "refuse",
            Self::Note => "note",
            Self::Guard => "guard",
            Self::Attach(object) => return format!("attach_{}", object.name()).into(),
            Self::Pool(id) => return format!("pool_{id}").into(),
            Self::Remember(id) => return format!("remember_{id}").into(),
        })
    }

    /// The chain with this name.
    pub fn named(name: &str) -> Option<Self> {
        let own = |prefix: &str| RuleId::new(name.strip_prefix(prefix)?.parse().ok()?);
        let own = own("pool_").map(Self::Pool).or_else(|| own("remember_").map(Self::Remember));
        let attach = HelperObject::ALL.map(Self::Attach);
        let mut all = Self::ALL.into_iter().chain(attach).chain(own);
        all.find(|chain| chain.name() == name)
    }

    /// The chain's hook; `None` for a chain that only a goto reaches.
    ///
    /// The NAT chains stand five before the customary priorities, so that Portway's rules win over Docker's or
    /// an administrator's at `dstnat` and `srcnat`: the first chain that translates a flow decides.
    pub const fn hook(self) -> Option<Hook> {
        const fn hook(
            kind: &'static str,
            name: &'static str,
            number: u32,
            priority: i32,
            priority_text: &'static str,
        ) -> Option<Hook> {
            Some(Hook { kind, name, number, priority, priority_text })
        }
        match self {
            Self::Prerouting => hook("nat", "prerouting", 0, -105, "dstnat - 5"),
            Self::Output => hook("nat", "output", 3, -105, "-105"),
            Self::PoolsIn => hook("nat", "prerouting", 0, -104, "dstnat - 4"),
            Self::PoolsOut => hook("nat", "output", 3, -104, "-104"),
            Self::Postrouting => hook("nat", "postrouting", 4, 95, "srcnat - 5"),
            Self::Input => hook("nat", "input", 1, 95, "95"),
            Self::AccountIn => hook("filter", "prerouting", 0, -95, "dstnat + 5"),
            Self::AccountOut => hook("filter", "output", 3, -95, "-95"),
            Self::Guard => hook("filter", "prerouting", 0, -300, "raw"),
            Self::Translate | Self::Choose | Self::Refuse | Self::Note => None,
            Self::Attach(_) | Self::Pool(_) | Self::Remember(_) => None,
        }
    }

    /// The rules of a rule's own chain, which is `own`.
    pub fn own_rules(self, own: &OwnChain) -> Vec<Vec<Statement>> {
        match self {
            Self::Pool(id) | Self::Remember(id) => own.rules(id),
            _ => Vec::new(),
        }
    }

    /// The chain's rules, each a list of statements; none for a rule's own chain, which the plan has.
    pub fn rules(self) -> Vec<Vec<Statement>> {
        use Statement::{
            Accept, Drop, FromLoopback, MarkIsOurs, Masquerade, Nat, NotToThisHost, Return, ToLoopback,
        };
        match self {
            Self::Prerouting => {
                let mut rules = by_address();
                rules.push(vec![NotToThisHost, Return]);
                rules.extend([Set::Interface, Set::InterfaceRanges, Set::Any, Set::AnyRanges].map(find_rule));
                rules
            }
            Self::Output => {
                let mut rules = by_address();
                rules.push(vec![NotToThisHost, Return]);
                // The kernel lets no packet from ::1 leave the host, whatever NAT says (IPv4 has route_localnet
                // for this). Without this rule a connection to ::1 would hang rather than be refused.
                rules.push(vec![Statement::ToLoopbackAddress6, Return]);
                rules.extend([Set::Any, Set::AnyRanges].map(find_rule));
                rules
            }
            Self::Translate => {
                let head = [vec![Statement::Lookup(Set::Flows)], vec![Statement::Dispatch(Set::Helpers)]];
                head.into_iter().chain(BACKENDS.map(destination)).collect()
            }
            // Chains of their own, which a flow that translate has sent somewhere does not meet: the kernel asks no
            // further. They also lead to choose once each: the kernel checks every way through the chains when a pool's
            // rules change, and fourteen ways would take it fourteen times as long.
            Self::PoolsIn | Self::PoolsOut => {
                vec![vec![MarkIsOurs(false), Return], vec![Statement::Goto(Chain::Choose)]]
            }
            Self::Choose => {
                let mut rules: Vec<_> = Set::PERSIST.map(destination).into();
                rules.push(vec![Statement::Dispatch(Set::Pools)]);
                rules.push(vec![Statement::Lookup(Set::Refused), Statement::Goto(Chain::Refuse)]);
                // Rules that are silent without members; and a packet that meets the table in the middle of a change
                // may find neither the old nor the new: its client tries again.
                rules.push(vec![Drop]);
                rules
            }
            Self::Postrouting => vec![
                vec![MarkIsOurs(false), Return],
                vec![Statement::Lookup(Set::Noted), Statement::Jump(Chain::Note)],
                // A backend on this host: the client's address is the honest one, and it routes.
                vec![ToLoopback, Return],
                // A client on this host that called 127.0.0.1 has no source address that could leave the host.
                vec![Statement::LoopbackAddress4(Field::Source), Masquerade],
                vec![Statement::Lookup(Set::Preserve), Accept],
                vec![Nat(Set::Source4)],
                vec![Nat(Set::Source6)],
                vec![Masquerade],
            ],
            // The kernel asks either postrouting or this, once for a flow.
            Self::Input => {
                vec![vec![Statement::Lookup(Set::Noted), Statement::Jump(Chain::Note)]]
            }
            // The answer belongs to the flow and passes these chains as well: without the mark they leave it alone.
            Self::Refuse => {
                vec![vec![Statement::ClearMark], vec![Statement::RejectTcp], vec![Statement::Reject]]
            }
            Self::Note => {
                let counted = Set::MEMBERS.map(|set| vec![Statement::Lookup(set)]);
                counted.into_iter().chain([vec![Statement::Dispatch(Set::Remembered)]]).collect()
            }
            Self::Attach(object) => vec![vec![Statement::Attach(object)]],
            Self::Pool(_) | Self::Remember(_) => Vec::new(),
            // Over lo every packet is seen twice; the output side counts it.
            Self::AccountIn => vec![vec![FromLoopback(false), Statement::Lookup(Set::Traffic)]],
            Self::AccountOut => vec![vec![Statement::Lookup(Set::Traffic)]],
            Self::Guard => [Field::Destination, Field::Source]
                .map(|field| vec![FromLoopback(false), Statement::LoopbackAddress4(field), Drop])
                .into(),
        }
    }
}

/// The maps from rule to its one backend, in the order in which they are asked.
const BACKENDS: [Set; 6] = [
    Set::Backend4,
    Set::Backend4SamePort,
    Set::Backend4Shifted,
    Set::Backend6,
    Set::Backend6SamePort,
    Set::Backend6Shifted,
];

/// The rule that rewrites the destination to what a map leads to.
fn destination(set: Set) -> Vec<Statement> {
    match set.shape().data {
        DataShape::Fields([_, _]) => vec![Statement::TcpOrUdp, Statement::Nat(set)],
        _ => vec![Statement::Nat(set)],
    }
}

/// What both ways in begin with. A connection that conntrack meets in its middle is somebody else's: the
/// proxy's, when a rule moves to this engine and the table's hooks make the kernel track connections.
fn by_address() -> Vec<Vec<Statement>> {
    let mut rules = vec![vec![Statement::TcpWithoutHandshake, Statement::Return]];
    rules.extend([Set::Address4, Set::Address6, Set::Address4Ranges, Set::Address6Ranges].map(find_rule));
    rules
}

fn find_rule(set: Set) -> Vec<Statement> {
    vec![Statement::SetMark(set), Statement::Goto(Chain::Translate)]
}

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
