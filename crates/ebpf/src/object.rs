//! The programs: taken out of the object that is part of this program, bound to maps, and given to the kernel's verifier.
//!
//! Deliberately absent: attaching them ([`crate::attach`]).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::ProgramError;
use aya::{Ebpf, EbpfError, EbpfLoader};

use crate::words;

/// What `ebpf/build` made of `ebpf/src`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../object/portway.o");

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
}

impl Programs {
    /// Binds the programs to the maps that are pinned in `directory`; those that are not there are made with these sizes and
    /// pinned.
    ///
    /// # Errors
    /// Aya's and the kernel's, in words.
    pub fn new(directory: &Path, entries: &BTreeMap<&'static str, u32>) -> Result<Self, String> {
        let paths: Vec<(&str, PathBuf)> = entries.keys().map(|name| (*name, directory.join(name))).collect();
        let mut loader = EbpfLoader::new();
        for (name, path) in &paths {
            loader.map_pin_path(name, path.as_path());
        }
        for (name, count) in entries {
            loader.map_max_entries(name, *count);
        }
        let object = loader.load(OBJECT).map_err(|error| words::of(&error))?;
        Ok(Self { object, loaded: BTreeMap::new() })
    }

    /// The program for a kind of interface.
    ///
    /// # Errors
    /// The verifier's, in words.
    pub fn get(&mut self, kind: Kind) -> Result<BorrowedFd<'_>, String> {
        if !self.loaded.contains_key(&kind) {
            let fd = load(&mut self.object, kind).map_err(|error| words::of(&error))?;
            self.loaded.insert(kind, fd);
        }
        Ok(self.loaded[&kind].as_fd())
    }
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
