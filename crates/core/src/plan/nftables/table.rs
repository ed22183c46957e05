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

use super::element::{DataShape, HelperObject, Set};
use super::ids::RuleId;
use super::pool::OwnChain;
use super::statement::{Field, Statement};

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
