//! Changes of maps as data: collected before, carried out in order, and taken back when one of them fails.

use std::io;

use portway_datapath::abi;

use crate::maps::Maps;
use crate::value::Key;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// What listens, after and before: a trie cannot be asked what was there, for it finds shorter prefixes too.
    Listener(Key, Option<abi::Listener>, Option<abi::Listener>),
    /// A rule by its id; nothing removes it, as below.
    Rule(u32, Option<abi::Rule>),
    /// A member by its id.
    Member(u32, Option<abi::Member>),
    /// The name of a rule's id.
    Name(u32, Option<[u64; 8]>),
    /// Slots from there on. Only where no rule looks.
    Slots(u32, Vec<u32>),
    /// Source addresses from there on. Only where no member looks.
    Sources(u32, Vec<abi::Address>),
    /// The counters of a rule's id begin anew.
    FreshRule(u32),
    /// The counters of a member's id begin anew.
    FreshMember(u32),
}

/// Carries out changes in order. When one fails, those before it are taken back.
///
/// # Errors
/// The kernel's.
pub fn carry_out(maps: &Maps, writes: &[Write]) -> io::Result<()> {
    let mut undo = Vec::new();
    for write in writes {
        match one(maps, write) {
            Ok(before) => undo.extend(before),
            Err(error) => {
                take_back(maps, undo);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Takes changes back, the last first, as far as it goes.
fn take_back(maps: &Maps, undo: Vec<Write>) {
    for write in undo.into_iter().rev() {
        let _ = one(maps, &write);
    }
}

/// Carries out one change, and returns what takes it back where something could be looking.
fn one(maps: &Maps, write: &Write) -> io::Result<Option<Write>> {
    macro_rules! element {
        ($map:expr, $key:expr, $value:expr, $back:expr) => {{
            let before = $map.get($key)?;
            match $value {
                Some(value) => $map.set($key, value)?,
                None => _ = $map.remove($key)?,
            }
            Some($back(before))
        }};
    }
    Ok(match write {
        Write::Listener(key, after, before) => {
            match (key, after) {
                (Key::One(one), Some(value)) => maps.listeners.set(one, value)?,
                (Key::One(one), None) => _ = maps.listeners.remove(one)?,
                (Key::Range(range), Some(value)) => maps.ranges.set(range, value)?,
                (Key::Range(range), None) => _ = maps.ranges.remove(range)?,
            }
            Some(Write::Listener(*key, *before, *after))
        }
        Write::Rule(id, value) => element!(maps.rules, id, value, |before| Write::Rule(*id, before)),
        Write::Member(id, value) => element!(maps.members, id, value, |before| Write::Member(*id, before)),
        Write::Name(id, value) => element!(maps.names, id, value, |before| Write::Name(*id, before)),
        Write::Slots(first, slots) => {
            maps.slots.set_all(*first, slots)?;
            None
        }
        Write::Sources(first, addresses) => {
            maps.sources.set_all(*first, addresses)?;
            None
        }
        Write::FreshRule(id) => {
            maps.refusals.set(*id, abi::Refusals::default())?;
            maps.turns.set(id, &0)?;
            maps.rates.set(id, &[0; 3])?;
            None
        }
        Write::FreshMember(id) => {
            maps.legs.set(*id, abi::Leg::default())?;
            None
        }
    })
}
