//! What is kept of a cgroup while no process of ours runs: pins in a directory of the BPF file system.
//!
//! ```text
//! /sys/fs/bpf/portway-toa/<the cgroup's path, escaped>/{clients,counts,trusted}    maps
//! /sys/fs/bpf/portway-toa/<the cgroup's path, escaped>/<the cgroup's id>/          links
//! ```
//!
//! The links of a cgroup that has been removed lead nowhere; the maps serve the next one of the same path.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use aya::maps::{Map, MapData};
use aya::programs::links::FdLink;
use portway_datapath::toa::names;
use rustix::fs::FlockOperation;

use super::Error;
use crate::{pins, sys};

/// What is ours in the BPF file system.
const OURS: &str = "portway-toa";

/// The most bytes of a file's name (`NAME_MAX`).
const LONGEST: usize = 255;

/// How often, and how far apart, a directory is asked for that another process holds.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(30);

/// The directory of a cgroup.
#[derive(Debug)]
pub(super) struct Kept {
    cgroup: String,
    directory: PathBuf,
}

/// As long as this lives nobody else changes what is kept of the cgroup.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held open")] File);

impl Kept {
    /// Of the cgroup with this path in the hierarchy; makes nothing.
    pub(super) fn of(cgroup: &str) -> Result<Self, Error> {
        let name = escaped(cgroup);
        if name.len() > LONGEST {
            return Err(Error::LongName(cgroup.to_owned()));
        }
        Ok(Self { cgroup: cgroup.to_owned(), directory: root().join(name) })
    }

    /// The cgroup's path in the hierarchy.
    pub(super) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Where something is pinned.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes the directory and holds it.
    pub(super) fn make(&self) -> Result<Lock, Error> {
        fs::create_dir_all(&self.directory).map_err(Error::io("make a directory for pins"))?;
        self.lock()
    }

    /// Holds the directory.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        // Whoever only looks at it holds it for a moment.
        for _ in 0..LOOKS {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            thread::sleep(LOOK);
        }
        Err(Error::Held(self.cgroup.clone()))
    }

    fn try_lock(&self) -> Result<Option<Lock>, Error> {
        let file = File::open(&self.directory).map_err(Error::io("open the directory of pins"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Error::io("lock the directory of pins")(error.into())),
        }
    }

    /// Whether a process holds it.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.try_lock(), Ok(None))
    }

    /// The ids of the cgroups of this path that links were made for.
    pub(super) fn generations(&self) -> Vec<u64> {
        entries(&self.directory).iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Pins the links to the cgroup with an id, and what they trust, in place of all that were pinned.
    pub(super) fn keep(
        &self,
        id: u64,
        links: Vec<(&'static str, FdLink)>,
        trusted: &Map,
    ) -> Result<(), Error> {
        let doing = "pin what was attached";
        let directory = self.path(&id.to_string());
        fs::create_dir_all(&directory).map_err(Error::io(doing))?;
        // The new ones under names of their own first: where both are attached they say the same, and there is no
        // moment without any.
        let fresh = |path: &Path| path.with_file_name(format!("{}-next", name_of(path)));
        let replace = |path: &Path| fs::rename(fresh(path), path).map_err(Error::io(doing));
        let trusted_at = self.path(names::TRUSTED);
        let _ = fs::remove_file(fresh(&trusted_at));
        trusted.pin(fresh(&trusted_at)).map_err(Error::kernel(doing))?;
        let mut paths = Vec::new();
        for (name, link) in links {
            let path = directory.join(name);
            let _ = fs::remove_file(fresh(&path));
            link.pin(fresh(&path)).map_err(Error::kernel(doing))?;
            paths.push(path);
        }
        replace(&trusted_at)?;
        for path in &paths {
            let former = sys::get(path);
            replace(path)?;
            let _ = former.and_then(|link| detach(&link));
        }
        for old in self.generations().into_iter().filter(|old| *old != id) {
            let links = self.path(&old.to_string());
            pins::remove(&links).map_err(Error::io("remove links that lead nowhere"))?;
        }
        Ok(())
    }

    /// A map that is kept.
    pub(super) fn map(&self, name: &str) -> Result<MapData, Error> {
        MapData::from_pin(self.path(name)).map_err(Error::kernel("open what is pinned"))
    }

    /// Removes everything, which detaches the programs.
    pub(super) fn remove(&self) -> Result<(), Error> {
        // Links first: a program without its maps' pins still has its maps, but nobody could ask what it does.
        for id in self.generations() {
            let links = self.path(&id.to_string());
            for name in entries(&links) {
                // That of a cgroup that has gone leads nowhere.
                let _ = sys::get(&links.join(name)).and_then(|link| detach(&link));
            }
            pins::remove(&links).map_err(Error::io("detach the programs"))?;
        }
        pins::remove(&self.directory).map_err(Error::io("remove the pins"))?;
        // Those of other cgroups stay, and with them the directory.
        let _ = fs::remove_dir(root());
        Ok(())
    }
}

/// Detaches a program at once. Without its last pin a link is let go by the kernel as well, but a little later, and until then the
/// program runs: beside its successor it would count a connection twice.
fn detach(link: &OwnedFd) -> io::Result<()> {
    sys::link_detach(link.as_fd())
}

/// All that is kept, by the cgroups' paths.
pub(super) fn all() -> Result<Vec<Kept>, Error> {
    match fs::read_dir(root()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read the directory of pins")(error)),
        Ok(_) => {}
    }
    let mut all: Vec<Kept> = entries(&root())
        .into_iter()
        .filter_map(|name| Some(Kept { cgroup: plain(&name)?, directory: root().join(name) }))
        .collect();
    all.sort_by(|a, b| a.cgroup.cmp(&b.cgroup));
    Ok(all)
}

fn root() -> PathBuf {
    Path::new(pins::MOUNT).join(OURS)
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn entries(directory: &Path) -> Vec<String> {
    pins::Pins::names(directory)
}

/// A path as one name: the BPF file system has no names with dots.
fn escaped(path: &str) -> String {
    let mut name = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'@' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

/// The path again; nothing if the name is none of ours.
fn plain(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_names_and_paths_again() {
        assert_eq!(escaped("/system.slice/nginx.service"), "%2fsystem%2eslice%2fnginx%2eservice");
        for path in ["/", "/a b/ü", "/user.slice/user-1000.slice", "/%2f"] {
            assert!(!escaped(path).contains(['.', '/']));
            assert_eq!(plain(&escaped(path)).as_deref(), Some(path));
        }
        assert_eq!(plain("%2"), None);
        assert_eq!(plain("%zz"), None);
    }

    #[test]
    fn a_path_too_long_for_a_name_is_said() {
        let long = format!("/{}", ".".repeat(100));
        assert!(Kept::of(&long).unwrap_err().to_string().contains("too long"));
    }
}
