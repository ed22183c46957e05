//! The chains of the table, read back: whether those that every table has are there, and what those do that are a
//! rule's own. Bytes that make no sense are a table that is not ours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::time::Duration;

use portway_core::address::{Family, Protocol};
use portway_core::balance;
use portway_core::plan::nftables::pool::{Addressing, Draw, OwnChain};
use portway_core::plan::nftables::table::{Chain, TABLE};
use portway_core::plan::nftables::{HelperObject, RuleId};
use portway_netlink::socket::Socket;
use portway_netlink::wire::Attributes;

use crate::encode::{INET, kind};
use crate::primitive::META_L4PROTO;

/// The chains of a table that is ours.
pub struct Chains {
    /// Whether the guard chain is there.
    pub guard: bool,
    /// The helpers that chains attach.
    pub helpers: BTreeSet<HelperObject>,
    /// The chains that are a rule's own.
    pub own: BTreeMap<Chain, OwnChain>,
}

/// Reads the chains, or `None` when they or the numbers of their rules are not ours.
pub fn read(socket: &mut Socket) -> io::Result<Option<Chains>> {
    let dump = socket.dump(kind::GET_CHAIN, |w| w.nfgen(INET, 0))?;
    let names = dump
        .messages()
        .filter(|message| message.kind == kind::NEW_CHAIN && message.nf().find_text(1) == Some(TABLE))
        .map(|message| message.nf().find_text(3).and_then(Chain::named));
    let Some(names) = names.collect::<Option<Vec<Chain>>>() else { return Ok(None) };
    let dump = socket.dump(kind::GET_RULE, |w| {
        w.nfgen(INET, 0);
        w.text(1, TABLE);
    })?;
    let mut rules: HashMap<&str, Vec<Attributes<'_>>> = HashMap::new();
    for message in dump.messages().filter(|message| message.kind == kind::NEW_RULE) {
        let rule = message.nf();
        if let (Some(TABLE), Some(chain)) = (rule.find_text(1), rule.find_text(2)) {
            rules.entry(chain).or_default().push(rule.inside(4));
        }
    }
    let guard = names.contains(&Chain::Guard);
    let mut chains = Chains { guard, helpers: BTreeSet::new(), own: BTreeMap::new() };
    let mut fixed = 0;
    for chain in names {
        let rules = rules.get(chain.name().as_ref()).map_or(&[][..], Vec::as_slice);
        let expected = match chain {
            Chain::Pool(_) | Chain::Remember(_) => {
                let Some(own) = own(chain, rules) else { return Ok(None) };
                let expected = chain.own_rules(&own).len();
                chains.own.insert(chain, own);
                expected
            }
            Chain::Attach(object) => {
                chains.helpers.insert(object);
                chain.rules().len()
            }
            _ => {
                fixed += 1;
                chain.rules().len()
            }
        };
        if rules.len() != expected {
            return Ok(None);
        }
    }
    let all = Chain::ALL.len() - usize::from(!chains.guard);
    Ok((fixed == all).then_some(chains))
}

/// What a rule's own chain does.
fn own(chain: Chain, rules: &[Attributes<'_>]) -> Option<OwnChain> {
    if let Chain::Remember(_) = chain {
        let update = expression(rules.first()?, "dynset")?;
        let map = update.find_text(1)?;
        let addressing = Addressing::ALL.into_iter().find(|one| one.persist().shape().name == map)?;
        let timeout = Duration::from_millis(update.find_be64(6)?);
        return Some(OwnChain::Remember { addressing, timeout });
    }
    let Chain::Pool(id) = chain else { return None };
    let mut found = rules.iter().map(|rule| choice(rule, id));
    let (addressing, draw, slots) = found.next()??;
    if !found.all(|other| other == Some((addressing, draw, slots))) {
        return None;
    }
    let protocols = rules.iter().filter(|_| addressing.port).map(protocol).collect::<Option<_>>()?;
    Some(OwnChain::Choose { addressing, draw, slots, protocols })
}

/// The protocol that a rule matches.
fn protocol(rule: &Attributes<'_>) -> Option<Protocol> {
    let mut loaded = None;
    for (_, expression) in rule.clone() {
        let expression = Attributes::of(expression);
        let data = expression.inside(2);
        match expression.find_text(1)? {
            "meta" => loaded = data.find_be32(2),
            "cmp" if loaded == Some(META_L4PROTO) => {
                return match data.inside(3).find(1)? {
                    [6] => Some(Protocol::Tcp),
                    [17] => Some(Protocol::Udp),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    None
}

/// How a rule of this rule's chain chooses.
fn choice(rule: &Attributes<'_>, id: RuleId) -> Option<(Addressing, Draw, u32)> {
    let map = expression(rule, "lookup")?.find_text(1)?.to_owned();
    let addressing = Addressing::ALL.into_iter().find(|one| one.slots(id).shape().name == map)?;
    if let Some(turn) = expression(rule, "numgen") {
        // NFT_NG_INCREMENTAL
        return (turn.find_be32(3) == Some(0)).then_some((addressing, Draw::Turn, turn.find_be32(2)?));
    }
    let hash = expression(rule, "hash")?;
    let address = if addressing.family == Family::V4 { 4 } else { 16 };
    let port = hash.find_be32(3)? > address;
    (hash.find_be32(5) == Some(balance::SEED)).then_some((
        addressing,
        Draw::Hash { port },
        hash.find_be32(4)?,
    ))
}

/// The attributes of the first expression with this name.
fn expression<'a>(rule: &Attributes<'a>, name: &str) -> Option<Attributes<'a>> {
    let mut expressions = rule.clone().map(|(_, expression)| Attributes::of(expression));
    expressions.find(|expression| expression.find_text(1) == Some(name)).map(|found| found.inside(2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::expression;
    use portway_netlink::wire::Writer;

    fn written(own: &OwnChain) -> Vec<Vec<u8>> {
        let write = |rule: Vec<_>| {
            let mut writer = Writer::default();
            expression::rule(&mut writer, &rule, 0);
            writer.bytes().to_vec()
        };
        name(own).own_rules(own).into_iter().map(write).collect()
    }

    fn read(chain: Chain, rules: &[Vec<u8>]) -> Option<OwnChain> {
        own(chain, &rules.iter().map(|rule| Attributes::of(rule)).collect::<Vec<_>>())
    }

    fn name(own: &OwnChain) -> Chain {
        let id = RuleId::new(1).unwrap();
        match own {
            OwnChain::Choose { .. } => Chain::Pool(id),
            OwnChain::Remember { .. } => Chain::Remember(id),
        }
    }

    #[test]
    fn chains_are_read_back() {
        for own in OwnChain::samples() {
            let own = match own {
                // Only chains that write ports match protocols.
                OwnChain::Choose { addressing, draw, slots, .. } if !addressing.port => {
                    OwnChain::Choose { addressing, draw, slots, protocols: [].into() }
                }
                own => own,
            };
            assert_eq!(read(name(&own), &written(&own)), Some(own));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            sample in 0..16_usize,
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let own = OwnChain::samples().nth(sample).unwrap();
            let mut rules = written(&own);
            let rule = &mut rules[0];
            let at = at.index(rule.len());
            rule[at] = byte;
            read(name(&own), &rules);
            read(name(&own), &[bytes.clone(), bytes]);
        }
    }
}
