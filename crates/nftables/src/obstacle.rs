//! Other tables in the way: base chains at the forward hook that would drop what Portway forwards.
//!
//! An accept in one table does not outweigh a drop in another, so such a chain needs a rule of its own that
//! lets Portway's mark pass. Deliberately absent: setting that rule, and iptables-legacy, whose tables nf_tables
//! cannot see.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use portway_core::engine::EngineError;
use portway_core::plan::nftables::table::TABLE;
use portway_core::plan::nftables::{MARK, MARK_MASK};
use portway_netlink::socket::Socket;
use portway_netlink::wire::{Attributes, Message, text};
use rustix::net::netlink::NETFILTER;

use crate::encode::kind;
use crate::refusal::failure;

/// `NF_INET_FORWARD`
const FORWARD: u32 = 2;
/// `IPS_DST_NAT` of a flow's status
const DESTINATION_NAT: u32 = 1 << 5;

/// A chain of another table that drops forwarded traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The table's family as nft names it (`ip`, `ip6`, `inet`).
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// What it does ("its policy is drop").
    pub why: String,
    /// The command that lets Portway's traffic pass.
    pub hint: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, why, hint } = self;
        write!(f, "table {family} {table}, chain {chain}: {why}; to let Portway's traffic pass: {hint}")
    }
}

/// What in the calling thread's network namespace would drop forwarded traffic. A table that accepts Portway's
/// mark, or every flow with a rewritten destination, is no obstacle.
///
/// # Errors
/// When the ruleset cannot be read.
pub fn forward_obstacles() -> Result<Vec<Obstacle>, EngineError> {
    let read = |error: io::Error| failure("read the other nf_tables tables", &error);
    let mut socket = Socket::open(Some(NETFILTER)).map_err(read)?;
    find(&mut socket).map_err(read)
}

fn find(socket: &mut Socket) -> io::Result<Vec<Obstacle>> {
    let chains = socket.dump(kind::GET_CHAIN, |w| w.nfgen(0, 0))?;
    let mut obstacles = Vec::new();
    for message in chains.messages().filter(|message| message.kind == kind::NEW_CHAIN) {
        let chain = message.nf();
        let (Some(family), Some(table), Some(name)) =
            (family_name(&message), chain.find_text(1), chain.find_text(3))
        else {
            continue;
        };
        let forwards = chain.inside(4).find_be32(1) == Some(FORWARD) && chain.find_text(7) == Some("filter");
        if !forwards || (family, table) == ("inet", TABLE) {
            continue;
        }
        let number = message.payload.first().copied().unwrap_or(0);
        let rules = rules_of(socket, number, table)?;
        if rules.values().flatten().any(Rule::lets_us_pass) {
            continue;
        }
        let last = rules.get(name).and_then(|rules| rules.last());
        let why = match last.filter(|rule| rule.unconditional).map(|rule| rule.verdict) {
            Some(Some(Verdict::Refuse)) => "its last rule refuses all that is left",
            Some(Some(Verdict::Accept)) => continue,
            // NF_DROP
            _ if chain.find_be32(5) == Some(0) => "its policy is drop",
            _ => continue,
        };
        // Docker's chain for the administrator's rules, which Docker itself leaves alone.
        let docker = chains.messages().any(|other| {
            let is = |kind, text| other.nf().find_text(kind) == Some(text);
            family_name(&other) == Some(family) && is(1, table) && is(3, "DOCKER-USER")
        });
        let hint = hint(family, table, name, docker);
        let (table, chain) = (table.to_owned(), name.to_owned());
        obstacles.push(Obstacle { family, table, chain, why: why.to_owned(), hint });
    }
    Ok(obstacles)
}

fn family_name(message: &Message<'_>) -> Option<&'static str> {
    match message.payload.first()? {
        1 => Some("inet"),
        2 => Some("ip"),
        10 => Some("ip6"),
        _ => None,
    }
}

fn hint(family: &str, table: &str, chain: &str, docker: bool) -> String {
    // The names under which the iptables programs keep their tables.
    if table == "filter" && chain == "FORWARD" && family != "inet" {
        let program = if family == "ip" { "iptables" } else { "ip6tables" };
        let chain = if docker { "DOCKER-USER" } else { "FORWARD" };
        return format!("{program} -I {chain} -m connmark --mark 0x{MARK:08x}/0x{MARK_MASK:08x} -j ACCEPT");
    }
    format!("nft insert rule {family} {table} {chain} 'ct mark and 0x{MARK_MASK:08x} == 0x{MARK:08x} accept'")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Refuse,
}

/// What of a rule matters here.
#[derive(Default)]
struct Rule {
    verdict: Option<Verdict>,
    unconditional: bool,
    /// It matches our mark, or any flow whose destination was rewritten.
    matches_us: bool,
}

impl Rule {
    fn lets_us_pass(&self) -> bool {
        self.matches_us && self.verdict == Some(Verdict::Accept)
    }
}

fn rules_of(socket: &mut Socket, family: u8, table: &str) -> io::Result<BTreeMap<String, Vec<Rule>>> {
    let dump = socket.dump(kind::GET_RULE, |w| {
        w.nfgen(family, 0);
        w.text(1, table);
    })?;
    let mut rules: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
    for message in dump.messages().filter(|message| message.kind == kind::NEW_RULE) {
        let attributes = message.nf();
        let here = message.payload.first() == Some(&family) && attributes.find_text(1) == Some(table);
        if let Some(chain) = attributes.find_text(2).filter(|_| here) {
            rules.entry(chain.to_owned()).or_default().push(read_rule(attributes.inside(4)));
        }
    }
    Ok(rules)
}

fn read_rule(expressions: Attributes<'_>) -> Rule {
    let mut rule = Rule { unconditional: true, ..Rule::default() };
    // The key that the last ct expression loaded, and the mask put over it.
    let (mut ct_key, mut mask) = (None, u32::MAX);
    let word = |attributes: Attributes<'_>| attributes.find(1)?.try_into().ok().map(u32::from_ne_bytes);
    for (_, expression) in expressions {
        let expression = Attributes::of(expression);
        let data = expression.inside(2);
        match expression.find_text(1) {
            Some("counter" | "log") => {}
            Some("immediate") => {
                rule.verdict = match data.inside(2).inside(2).find_be32(1) {
                    Some(0) => Some(Verdict::Refuse),
                    Some(1) => Some(Verdict::Accept),
                    _ => None,
                };
            }
            Some("reject") => rule.verdict = Some(Verdict::Refuse),
            Some("target") if data.find(1).and_then(text) == Some("REJECT") => {
                rule.verdict = Some(Verdict::Refuse);
            }
            Some("match") => {
                rule.unconditional = false;
                rule.matches_us |= data.find_text(1) == Some("connmark") && is_our_connmark(data.find(3));
            }
            Some("ct") => {
                rule.unconditional = false;
                (ct_key, mask) = (data.find_be32(2), u32::MAX);
            }
            Some("bitwise") => mask = word(data.inside(4)).unwrap_or(u32::MAX),
            Some("cmp") => {
                rule.unconditional = false;
                let (operator, value) = (data.find_be32(2), word(data.inside(3)));
                // NFT_CT_MARK == ours, NFT_CT_STATUS & dnat != 0
                rule.matches_us |=
                    ct_key == Some(3) && mask == MARK_MASK && operator == Some(0) && value == Some(MARK);
                rule.matches_us |=
                    ct_key == Some(2) && mask == DESTINATION_NAT && operator == Some(1) && value == Some(0);
            }
            _ => rule.unconditional = false,
        }
    }
    rule
}

/// Whether an xt match is `-m connmark` for our mark (`struct xt_connmark_mtinfo1`: mark, mask, invert).
fn is_our_connmark(info: Option<&[u8]>) -> bool {
    let Some(info) = info.and_then(|info| info.first_chunk::<9>()) else { return false };
    let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    word(0) == MARK && word(4) == MARK_MASK && info[8] == 0
}
