//! What the kernel holds, read back: for adoption after a restart, for verification and for counters. Bytes
//! that make no sense are a table that is not ours.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use portway_core::plan::nftables::element::{DataShape, Shape};
use portway_core::plan::nftables::table::{Chain, TABLE};
use portway_core::plan::nftables::{Data, Entry, HelperObject, Key, Plan, Set, layout_comment};
use portway_netlink::socket::{Dump, Socket};
use portway_netlink::wire::{Attributes, Messages, text, user_data};

use crate::chain;
use crate::encode::{INET, kind};
use crate::primitive::{CT_HELPER, JUMP};
use crate::value::values;

/// How often the table is read again because it changed meanwhile.
const TRIES: u64 = 20;

/// What stands under our table's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// A table of another layout: of another version of Portway, or edited by hand.
    Other,
    /// A table of our layout, with this content.
    Ours(Plan),
}

/// Packets and bytes of an element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub packets: u64,
    pub bytes: u64,
}

/// The generation of the kernel's ruleset: it changes with every change by anybody.
pub fn generation(socket: &mut Socket) -> io::Result<u32> {
    let answer = socket.get(kind::GET_GENERATION, |w| w.nfgen(0, 0))?;
    Attributes::of(answer.get(4..).unwrap_or(&[]))
        .find_be32(1)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the ruleset's generation is missing"))
}

/// Reads the table, and the generation in which it stood so.
pub fn read(socket: &mut Socket) -> io::Result<(u32, Held)> {
    for _ in 0..TRIES {
        let before = generation(socket)?;
        let held = match read_table(socket) {
            // Deleted while it was read: the generation has changed as well.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Held::Other,
            other => other?,
        };
        if generation(socket)? == before {
            return Ok((before, held));
        }
    }
    Err(io::Error::new(io::ErrorKind::Interrupted, "the nf_tables ruleset kept changing while it was read"))
}

fn read_table(socket: &mut Socket) -> io::Result<Held> {
    let table = socket.get(kind::GET_TABLE, |w| {
        w.nfgen(INET, 0);
        w.text(1, TABLE);
    });
    let table = match table {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Held::Nothing),
        other => other?,
    };
    let attributes = Attributes::of(table.get(4..).unwrap_or(&[]));
    let comment = attributes.find(6).and_then(|data| user_data(data, 0)).and_then(text);
    if comment != Some(&layout_comment()) {
        return Ok(Held::Other);
    }
    let mut plan = Plan::default();
    let Some(chains) = chain::read(socket)? else { return Ok(Held::Other) };
    (plan.guard, plan.chains) = (chains.guard, chains.own);
    let Some(helpers) = read_helpers(socket)? else { return Ok(Held::Other) };
    if helpers != chains.helpers {
        return Ok(Held::Other);
    }
    plan.helpers = helpers;
    for set in Set::ALL.into_iter().filter(|set| !set.shape().dynamic) {
        let Some(found) = read_elements(socket, set)? else { return Ok(Held::Other) };
        if !found.is_empty() {
            plan.elements.insert(set, found.into_iter().map(|(key, (entry, _))| (key, entry)).collect());
        }
    }
    Ok(Held::Ours(plan))
}

fn read_helpers(socket: &mut Socket) -> io::Result<Option<std::collections::BTreeSet<HelperObject>>> {
    let dump = socket.dump(kind::GET_OBJECT, |w| {
        w.nfgen(INET, 0);
        w.text(1, TABLE);
    })?;
    let ours = dump
        .messages()
        .filter(|message| message.kind == kind::NEW_OBJECT && message.nf().find_text(1) == Some(TABLE));
    Ok(ours.map(|message| helper(message.nf())).collect())
}

fn helper(attributes: Attributes<'_>) -> Option<HelperObject> {
    let name = attributes.find_text(2)?;
    let kind = attributes.find_be32(3)?;
    HelperObject::ALL.into_iter().find(|object| kind == CT_HELPER && object.name() == name)
}

/// The elements of a set with their counters.
pub fn counters(socket: &mut Socket, set: Set) -> io::Result<Vec<(Key, Option<String>, Counter)>> {
    let found = read_elements(socket, set)?.unwrap_or_default();
    Ok(found.into_iter().map(|(key, (entry, counter))| (key, entry.comment, counter)).collect())
}

/// The clients in a map that the kernel fills, and what they are remembered for.
pub fn clients(socket: &mut Socket, set: Set) -> io::Result<Vec<(Key, Data)>> {
    match read_elements(socket, set) {
        // There is no table.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => {
            Ok(found?.unwrap_or_default().into_iter().map(|(key, (entry, _))| (key, entry.data)).collect())
        }
    }
}

/// The elements of a set by key; `None` when they make no sense.
///
/// The kernel lists a hash table piece by piece and counts its way to the next. When the table grows in between, which
/// happens in the background after a large change, it lists some elements twice and leaves out as many, and no flag
/// says so (`nft_rhash_walk`). So a list with an element twice is read again.
fn read_elements(socket: &mut Socket, set: Set) -> io::Result<Option<BTreeMap<Key, (Entry, Counter)>>> {
    let shape = set.shape();
    for attempt in 0..TRIES {
        let dump = socket.dump(kind::GET_ELEMENT, |w| {
            w.nfgen(INET, 0);
            w.text(1, TABLE);
            w.text(2, shape.name);
        })?;
        let (mut found, mut twice) = (BTreeMap::new(), false);
        for attributes in elements(&dump) {
            let Some((key, entry)) = element(&shape, &attributes) else { return Ok(None) };
            twice |= found.insert(key, (entry, counter(&attributes))).is_some();
        }
        if !twice {
            return Ok(Some(found));
        }
        std::thread::sleep(Duration::from_millis(attempt));
    }
    Err(io::Error::new(io::ErrorKind::Interrupted, "a set kept growing while it was read"))
}

fn elements(dump: &Dump) -> impl Iterator<Item = Attributes<'_>> {
    let messages = dump.messages().filter(|message| message.kind == kind::NEW_ELEMENT);
    messages.flat_map(|message| message.nf().inside(3)).map(|(_, element)| Attributes::of(element))
}

fn element(shape: &Shape, attributes: &Attributes<'_>) -> Option<(Key, Entry)> {
    let first = attributes.inside(1).find(1)?;
    let last = attributes.inside(10).find(1);
    let key = values(shape.key, first, last.filter(|_| shape.interval))?;
    let data = match shape.data {
        DataShape::None => Data::None,
        DataShape::Fields(fields) => Data::Fields(values(fields, attributes.inside(2).find(1)?, None)?),
        DataShape::Verdict => Data::Jump(jump(&attributes.inside(2).inside(2))?),
    };
    let comment = attributes.find(6).and_then(|data| user_data(data, 0)).and_then(text).map(str::to_owned);
    Some((key, Entry { data, comment }))
}

/// The chain of a verdict that goes there and back.
fn jump(verdict: &Attributes<'_>) -> Option<Chain> {
    let code = i32::from_be_bytes(verdict.find(1)?.try_into().ok()?);
    Chain::named(verdict.find_text(2)?).filter(|_| code == JUMP)
}

/// Reads any bytes as a dump of every set in turn and says how many elements it found: the fuzz target's and
/// the property test's way in, without a socket.
pub fn elements_in(bytes: &[u8]) -> usize {
    let read = |set: Set| {
        let shape = set.shape();
        let messages = Messages::of(bytes);
        let lists =
            messages.flat_map(|message| message.nf().inside(3)).map(|(_, found)| Attributes::of(found));
        lists.filter(|found| element(&shape, found).is_some() && counter(found).packets < u64::MAX).count()
    };
    Set::ALL.into_iter().map(read).sum()
}

/// The counter among an element's expressions: one alone, or a list of them.
fn counter(attributes: &Attributes<'_>) -> Counter {
    let listed = attributes.inside(11).map(|(_, expression)| Attributes::of(expression));
    let all = std::iter::once(attributes.inside(7)).chain(listed);
    let mut counters = all.filter(|expression| expression.find_text(1) == Some("counter"));
    counters.next().map_or_else(Counter::default, |expression| {
        let data = expression.inside(2);
        let number = |kind| data.find_be64(kind).unwrap_or(0);
        Counter { bytes: number(1), packets: number(2) }
    })
}
