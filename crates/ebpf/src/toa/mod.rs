//! The backend's half of TOA: programs on a cgroup by which its servers see clients rather than the gateway.
//!
//! What the programs do is `ebpf/toa`; the option's bytes are `portway_datapath::toa`. Here they are loaded, attached, and
//! kept by pins, so that they serve on while no process of ours runs. Deliberately absent: words for people and the
//! foreground (`portway toa`), and everything of the engine: a backend runs none.

mod cgroup;
mod error;
mod kept;
mod programs;

use aya::maps::{LpmTrie, Map, MapData, PerCpuArray, lpm_trie::Key};
use portway_core::flow::Network;
use portway_datapath::toa::{COUNTS, Count, TRUSTED, names};

use crate::pins;
pub use cgroup::Cgroup;
pub use error::Error;
use kept::{Kept, Lock};

/// What was counted since the programs were first attached to the cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; COUNTS]);

impl Counts {
    /// One of them.
    pub fn of(&self, what: Count) -> u64 {
        self.0[what as usize]
    }
}

/// A cgroup that programs were attached to, as its pins tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The cgroup's path in its hierarchy.
    pub cgroup: String,
    /// Whether they serve: not if the cgroup has been removed since, or made anew.
    pub attached: bool,
    /// Whether a process holds them, and will remove them at its end.
    pub held: bool,
    /// Whose word is taken.
    pub trusted: Vec<Network>,
    /// What was counted.
    pub counts: Counts,
}

/// Attached programs, held by this process: nobody else changes them meanwhile. They stay when this is dropped.
#[derive(Debug)]
pub struct Attachment {
    kept: Kept,
    _lock: Lock,
}

/// Attaches the programs to a cgroup, in place of those that are there. What they know of open connections, and what they
/// have counted, is taken over.
///
/// # Errors
/// Too many networks, another process holds the cgroup, or the kernel's.
pub fn attach(cgroup: &Cgroup, trusted: &[Network]) -> Result<Attachment, Error> {
    if trusted.len() > TRUSTED {
        return Err(Error::Networks { given: trusted.len(), most: TRUSTED });
    }
    let _root = pins::mounted().map_err(Error::io("mount the BPF file system"))?;
    let kept = Kept::of(cgroup.name())?;
    let lock = kept.make()?;
    if let Err(error) = attach_kept(&kept, cgroup, trusted) {
        // What was there before is left; what was made for nothing is not.
        if kept.generations().is_empty() {
            let _ = kept.remove();
        }
        return Err(error);
    }
    Ok(Attachment { kept, _lock: lock })
}

fn attach_kept(kept: &Kept, cgroup: &Cgroup, trusted: &[Network]) -> Result<(), Error> {
    let mut object = programs::load(kept)?;
    let map = object.map_mut(names::TRUSTED).ok_or(Error::Object(names::TRUSTED))?;
    let mut trie =
        LpmTrie::<&mut MapData, [u8; 16], u32>::try_from(map).map_err(Error::kernel("use a map"))?;
    for network in trusted {
        trie.insert(&key(network), 1, 0).map_err(Error::kernel("trust a network"))?;
    }
    let links = programs::attach(&mut object, cgroup)?;
    let map = object.map(names::TRUSTED).ok_or(Error::Object(names::TRUSTED))?;
    kept.keep(cgroup.id(), links, map)
}

impl Attachment {
    /// What was counted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn counts(&self) -> Result<Counts, Error> {
        counts(&self.kept)
    }

    /// Attaches the programs to the same cgroup made anew.
    ///
    /// # Errors
    /// As of [`attach`].
    pub fn follow(&self, cgroup: &Cgroup, trusted: &[Network]) -> Result<(), Error> {
        attach_kept(&self.kept, cgroup, trusted)
    }

    /// Detaches the programs and removes every trace of them. Connections that are open then have the gateway for their
    /// peer again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(self) -> Result<(), Error> {
        self.kept.remove()?;
        pins::release();
        Ok(())
    }
}

/// All cgroups that programs were attached to, by their paths.
///
/// # Errors
/// The kernel's.
pub fn served() -> Result<Vec<Served>, Error> {
    let mut all = Vec::new();
    for kept in kept::all()? {
        match look(&kept) {
            Ok(served) => all.push(served),
            // Another process is just making or removing it.
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn look(kept: &Kept) -> Result<Served, Error> {
    let here = Cgroup::in_hierarchy(kept.cgroup()).ok();
    Ok(Served {
        cgroup: kept.cgroup().to_owned(),
        attached: here.is_some_and(|cgroup| kept.generations().contains(&cgroup.id())),
        held: kept.is_held(),
        trusted: trusted(kept)?,
        counts: counts(kept)?,
    })
}

/// Detaches the programs from one cgroup, or from all, and removes every trace of them: from which cgroups.
///
/// # Errors
/// A process holds one, or the kernel's.
pub fn clear(cgroup: Option<&str>) -> Result<Vec<String>, Error> {
    let mut cleared = Vec::new();
    for kept in kept::all()? {
        if cgroup.is_some_and(|wanted| wanted != kept.cgroup()) {
            continue;
        }
        let _lock = kept.lock()?;
        kept.remove()?;
        cleared.push(kept.cgroup().to_owned());
    }
    pins::release();
    Ok(cleared)
}

/// A network as the trie has it: IPv4 mapped into IPv6.
fn key(network: &Network) -> Key<[u8; 16]> {
    match network.address {
        std::net::IpAddr::V4(v4) => Key::new(96 + u32::from(network.prefix), v4.to_ipv6_mapped().octets()),
        std::net::IpAddr::V6(v6) => Key::new(u32::from(network.prefix), v6.octets()),
    }
}

fn counts(kept: &Kept) -> Result<Counts, Error> {
    let map = kept.map(names::COUNTS)?;
    let counters =
        PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(map)).map_err(Error::kernel("read counters"))?;
    let mut counts = Counts::default();
    for (at, count) in (0..).zip(&mut counts.0) {
        let values = counters.get(&at, 0).map_err(Error::kernel("read counters"))?;
        *count = values.iter().sum();
    }
    Ok(counts)
}

fn trusted(kept: &Kept) -> Result<Vec<Network>, Error> {
    let map = kept.map(names::TRUSTED)?;
    let trie = LpmTrie::<_, [u8; 16], u32>::try_from(Map::LpmTrie(map))
        .map_err(Error::kernel("read the networks"))?;
    let mut networks = Vec::new();
    for key in trie.keys() {
        let key = key.map_err(Error::kernel("read the networks"))?;
        let address = std::net::Ipv6Addr::from(key.data());
        let network = match (address.to_ipv4_mapped(), key.prefix_len()) {
            (Some(v4), prefix @ 96..=128) => Network { address: v4.into(), prefix: low_byte(prefix - 96) },
            (_, prefix) => Network { address: address.into(), prefix: low_byte(prefix) },
        };
        networks.push(network);
    }
    networks.sort_by_key(|network| (network.address, network.prefix));
    Ok(networks)
}

/// A prefix, which is at most 128.
fn low_byte(prefix: u32) -> u8 {
    prefix.to_le_bytes()[0]
}
