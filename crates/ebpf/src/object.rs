//! The programs: taken out of the object that is part of this program, bound to maps, and given to the kernel's verifier.
//!
//! Deliberately absent: attaching them ([`crate::attach`]).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::ProgramError;
use aya::{Ebpf, EbpfError, EbpfLoader};

use crate::{summed, words};

/// What `ebpf/build` made of `ebpf/src`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../object/portway.o");

/// Programs by the kind of interface that they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// TC on an interface whose frames have an Ethernet header.
    Ethernet,
    /// TC on an interface whose packets begin with the IP header.
    Ip,
    /// XDP on an interface with an Ethernet header.
    Xdp,
}

impl Kind {
    /// The program's name in the object.
    const fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "tc_ethernet",
            Self::Ip => "tc_ip",
            Self::Xdp => "xdp_ethernet",
        }
    }
}

/// The programs on one set of maps. Each is loaded when it is first wanted: checking one takes the kernel a part of a second.
pub struct Programs {
    object: Ebpf,
    loaded: BTreeMap<Kind, OwnedFd>,
    /// The same as it was built, where `object` was made to fit this kernel.
    plain: Option<Plain>,
}

/// What it takes to bind the programs to their maps.
struct Plain {
    directory: PathBuf,
    entries: BTreeMap<&'static str, u32>,
}

impl Programs {
    /// Binds the programs to the maps that are pinned in `directory`; those that are not there are made with these sizes and
    /// pinned.
    ///
    /// # Errors
    /// Aya's and the kernel's, in words.
    pub fn new(directory: &Path, entries: &BTreeMap<&'static str, u32>) -> Result<Self, String> {
        let tailored = summed::tailored(OBJECT);
        let object = bind(tailored.as_deref().unwrap_or(OBJECT), directory, entries)?;
        let plain = tailored.map(|_| Plain { directory: directory.to_owned(), entries: entries.clone() });
        Ok(Self { object, loaded: BTreeMap::new(), plain })
    }

    /// The maps are found there from now on.
    pub fn moved(&mut self, directory: &Path) {
        if let Some(plain) = &mut self.plain {
            directory.clone_into(&mut plain.directory);
        }
    }

    /// The program for a kind of interface.
    ///
    /// # Errors
    /// The verifier's, in words.
    pub fn get(&mut self, kind: Kind) -> Result<BorrowedFd<'_>, String> {
        if !self.loaded.contains_key(&kind) {
            let mut fd = load(&mut self.object, kind);
            if fd.is_err()
                && let Some(Plain { directory, entries }) = self.plain.take()
            {
                // A kernel without a compiler for programs, for one, has no functions for them.
                self.object = bind(OBJECT, &directory, &entries)?;
                fd = load(&mut self.object, kind);
            }
            self.loaded.insert(kind, fd.map_err(|error| words::of(&error))?);
        }
        Ok(self.loaded[&kind].as_fd())
    }
}

/// Binds an object's programs to the maps that are pinned in `directory`; those that are not there are made.
fn bind(object: &[u8], directory: &Path, entries: &BTreeMap<&'static str, u32>) -> Result<Ebpf, String> {
    let paths: Vec<(&str, PathBuf)> = entries.keys().map(|name| (*name, directory.join(name))).collect();
    let mut loader = EbpfLoader::new();
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    for (name, count) in entries {
        loader.map_max_entries(name, *count);
    }
    loader.load(object).map_err(|error| words::of(&error))
}

fn load(object: &mut Ebpf, kind: Kind) -> Result<OwnedFd, EbpfError> {
    let missing = || EbpfError::ProgramError(ProgramError::InvalidName { name: kind.name().to_owned() });
    let program = object.program_mut(kind.name()).ok_or_else(missing)?;
    match program {
        aya::programs::Program::Xdp(xdp) => xdp.load()?,
        aya::programs::Program::SchedClassifier(tc) => tc.load()?,
        _ => return Err(ProgramError::UnexpectedProgramType.into()),
    }
    let fd = program.fd()?.as_fd().try_clone_to_owned();
    fd.map_err(|error| EbpfError::ProgramError(ProgramError::IOError(error)))
}
