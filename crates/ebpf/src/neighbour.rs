//! Neighbours that flows use are confirmed by the kernel, as they would be if its own stack sent the packets.
//!
//! Packets that programs send on do not tell the kernel that it uses a neighbour: an entry that has become STALE stays so,
//! and one whose link address has changed without a word is sent to for ever. So once a second the entries are looked at
//! that are STALE and that the flows of late were sent to, and the kernel is told that they are in use
//! (`NTF_USE`: net/core/neighbour.c, `neigh_add`). It asks them by its own rules then (DELAY, PROBE), and an entry that has
//! FAILED is a change that the follower hears of ([`crate::follow`]).
//!
//! No entry is made, and none is changed but for that: those that somebody else keeps (`extern_learn`, `managed`,
//! permanent ones) are left alone. Deliberately absent: neighbours whose link address is not known, which the first packet
//! has the kernel ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use portway_datapath::abi::{Record, TICKS_PER_SECOND, phase, state};
use portway_netlink::Socket;
use portway_netlink::wire::Message;

use crate::route::ip;

/// Types of messages.
mod kind {
    pub const NEW: u16 = 28;
    pub const DELETE: u16 = 29;
    pub const GET: u16 = 30;
}

/// `AF_INET` and `AF_INET6`.
const INET: u8 = 2;
const INET6: u8 = 10;

/// `NUD_STALE`: known, and not heard of lately.
const STALE: u16 = 0x04;
/// States with a link address to send to: `NUD_VALID`.
const VALID: u16 = 0x02 | STALE | 0x08 | 0x10 | 0x40 | 0x80;

/// `NTF_USE`
const USE: u8 = 0x01;
/// `NTF_PROXY` and `NTF_EXT_LEARNED`: entries of another kind, and those that somebody else keeps.
const OTHERS: u8 = 0x08 | 0x10;

/// Entries whose use the kernel is told of in a second at most.
const MOST: usize = 64;

/// A flow uses a neighbour if it had a packet in this time: twice what a round of the sweep takes.
const RECENT: u32 = 10 * TICKS_PER_SECOND;

/// An interface's index, and a neighbour's address there.
type Place = (u32, IpAddr);

/// What an interface's neighbour is in the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    place: Place,
    /// Its link address as the flow table has it; nothing while none is valid, or of another length.
    link: Option<u64>,
    state: u16,
    /// Whether nobody but the kernel keeps it.
    own: bool,
}

/// `struct ndmsg`: family, pads, index, state, flags, type; then the attributes.
fn entry(message: &Message<'_>) -> Option<Entry> {
    let header: &[u8; 12] = message.payload.first_chunk()?;
    let attributes = message.attributes(12);
    let state = u16::from_ne_bytes([header[8], header[9]]);
    let extended = attributes.find(15).is_some_and(|flags| flags.iter().any(|byte| *byte != 0));
    let link = match attributes.find(2) {
        Some(&[a, b, c, d, e, f]) if state & VALID != 0 => Some(u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])),
        _ => None,
    };
    Some(Entry {
        place: (u32::from_ne_bytes([header[4], header[5], header[6], header[7]]), ip(attributes.find(1)?)?),
        link,
        state,
        own: header[10] & OTHERS == 0 && !extended,
    })
}

/// What the kernel has told of neighbours: to which link addresses packets go. Most of what it tells changes none.
#[derive(Default)]
pub struct Links(BTreeMap<Place, Option<u64>>);

impl Links {
    /// Takes note of a message about a neighbour; whether flows may be sent elsewhere by it.
    pub fn hear(&mut self, message: &Message<'_>) -> bool {
        let Some(Entry { place, link, .. }) = entry(message) else { return true };
        if message.kind == kind::DELETE {
            return self.0.remove(&place) != Some(None);
        }
        // Of one that was never told of, flows may know more.
        self.0.insert(place, link) != Some(link)
    }

    /// Forgets everything: some was lost.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// The neighbours that flows use, and who tells the kernel of it.
pub struct Neighbours {
    /// Where packets were sent in this round of the sweep, as records have it: a port's number, and a link address.
    used: BTreeSet<u64>,
    /// And in the one before.
    before: BTreeSet<u64>,
    socket: Socket,
    /// The one that the kernel was told of last: if there are too many, each has its turn.
    last: Option<Place>,
}

impl Neighbours {
    /// None yet.
    ///
    /// # Errors
    /// The kernel's: no netlink socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { used: BTreeSet::new(), before: BTreeSet::new(), socket: Socket::open(None)?, last: None })
    }

    /// Takes note of where a record's flow is sent.
    pub fn note(&mut self, record: &Record, now: u32) {
        let is_used = record.phase.load(Relaxed) == phase::LIVE
            && record.state.load(Relaxed) & state::ENDED == 0
            && now.wrapping_sub(record.seen.load(Relaxed)) <= RECENT;
        if is_used {
            let ways = [&record.forth, &record.back].map(|side| side.way.load(Relaxed));
            // Whatever has no link address has no neighbour either.
            self.used.extend(ways.into_iter().filter(|way| way << 16 != 0));
        }
    }

    /// All records have been noted.
    pub fn end_round(&mut self) {
        self.before = std::mem::take(&mut self.used);
    }

    /// Tells the kernel which of its STALE entries are in use; `interface` is that of a port's number.
    ///
    /// # Errors
    /// The kernel's.
    pub fn confirm(&mut self, interface: impl Fn(u32) -> Option<u32>) -> io::Result<()> {
        let ways = self.used.union(&self.before);
        let links: BTreeSet<(u32, u64)> =
            ways.filter_map(|way| Some((interface((way >> 48) as u32)?, way << 16 >> 16))).collect();
        if links.is_empty() {
            return Ok(());
        }
        let mut due = BTreeSet::new();
        let mut see = |message: Message<'_>| {
            if message.kind == kind::NEW
                && let Some(entry) = entry(&message)
                && is_due(&entry, &links)
            {
                due.insert(entry.place);
            }
        };
        self.socket.each(kind::GET, |w| w.raw(&[0; 12]), &mut see)?;
        for place in in_turn(&due, self.last) {
            self.last = Some(place);
            match tell(&mut self.socket, place) {
                // It has gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                told => told?,
            }
        }
        Ok(())
    }
}

/// Whether the kernel is to be told that an entry is in use.
fn is_due(entry: &Entry, links: &BTreeSet<(u32, u64)>) -> bool {
    entry.state == STALE && entry.own && entry.link.is_some_and(|link| links.contains(&(entry.place.0, link)))
}

/// At most [`MOST`], from the one behind `last` on.
fn in_turn(due: &BTreeSet<Place>, last: Option<Place>) -> Vec<Place> {
    let (before, behind): (Vec<Place>, Vec<Place>) = due.iter().partition(|place| Some(**place) <= last);
    behind.into_iter().chain(before).take(MOST).collect()
}

/// Tells the kernel that an entry is in use.
fn tell(socket: &mut Socket, (interface, address): Place) -> io::Result<()> {
    let [a, b, c, d] = interface.to_ne_bytes();
    let (family, octets) = match address {
        IpAddr::V4(address) => (INET, address.octets().to_vec()),
        IpAddr::V6(address) => (INET6, address.octets().to_vec()),
    };
    // Without the flag that would make one.
    socket.demand(kind::NEW, |w| {
        w.raw(&[family, 0, 0, 0, a, b, c, d, 0, 0, USE, 0]);
        w.put(1, &octets);
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use portway_netlink::wire::{Messages, Writer};

    use super::*;

    const LINK: [u8; 6] = [2, 0, 0, 0, 0, 7];

    /// A message about 10.2.0.10 on interface 3.
    fn message(kind: u16, state: u16, flags: u8, link: Option<[u8; 6]>, extended: u32) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.message(kind, 0, 0, |w| {
            let [low, high] = state.to_ne_bytes();
            w.raw(&[INET, 0, 0, 0, 3, 0, 0, 0, low, high, flags, 1]);
            w.put(1, &[10, 2, 0, 10]);
            link.iter().for_each(|link| w.put(2, link));
            if extended != 0 {
                w.put(15, &extended.to_ne_bytes());
            }
        });
        writer.bytes().to_vec()
    }

    #[test]
    fn only_what_changes_a_link_address_is_a_change() {
        let mut links = Links::default();
        let mut hear = |bytes: Vec<u8>| links.hear(&Messages::of(&bytes).next().unwrap());
        let new = |state, link| message(kind::NEW, state, 0, link, 0);
        assert!(hear(new(STALE, Some(LINK))), "never heard of");
        for state in [0x08, 0x10, 0x02, STALE] {
            assert!(!hear(new(state, Some(LINK))), "{state}: as it was");
        }
        assert!(hear(new(0x02, Some([2, 0, 0, 0, 0, 8]))), "another");
        assert!(hear(new(0x20, Some(LINK))), "failed");
        assert!(!hear(new(0x01, None)), "asked for");
        assert!(hear(new(0x02, Some(LINK))), "found");
        assert!(hear(message(kind::DELETE, 0x02, 0, Some(LINK), 0)), "gone");
        assert!(hear(message(kind::DELETE, 0x20, 0, None, 0)), "gone, and never heard of");
        links.forget();
        let bytes = new(STALE, Some(LINK));
        assert!(links.hear(&Messages::of(&bytes).next().unwrap()));
    }

    #[test]
    fn what_is_stale_used_and_the_kernels_own_is_due() {
        let used = BTreeSet::from([(3, u64::from_ne_bytes([2, 0, 0, 0, 0, 7, 0, 0]))]);
        let due = |bytes: Vec<u8>, used: &BTreeSet<(u32, u64)>| {
            is_due(&entry(&Messages::of(&bytes).next().unwrap()).unwrap(), used)
        };
        assert!(due(message(kind::NEW, STALE, 0x80, Some(LINK), 0), &used), "a router too");
        assert!(!due(
            message(kind::NEW, STALE, 0, Some(LINK), 0),
            &BTreeSet::from([(4, used.first().unwrap().1)])
        ));
        assert!(!due(message(kind::NEW, STALE, 0, Some([2, 0, 0, 0, 0, 8]), 0), &used));
        for state in [0x01, 0x02, 0x08, 0x10, 0x20, 0x40, 0x80] {
            assert!(!due(message(kind::NEW, state, 0, Some(LINK), 0), &used), "{state}");
        }
        for (flags, extended) in [(0x08, 0), (0x10, 0), (0, 1)] {
            assert!(!due(message(kind::NEW, STALE, flags, Some(LINK), extended), &used), "somebody else's");
        }
    }

    #[test]
    fn too_many_have_their_turns() {
        let due: BTreeSet<Place> = (0..100).map(|nth| (1, IpAddr::from([10, 0, 0, nth]))).collect();
        let mut told: Vec<Place> = Vec::new();
        for _ in 0..2 {
            told.extend(in_turn(&due, told.last().copied()));
        }
        assert_eq!(told.len(), 2 * MOST);
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), due.len());
    }
}
