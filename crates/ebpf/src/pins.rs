//! Where maps and links are kept while no daemon runs: a directory of a BPF file system for each network namespace.
//!
//! `/sys/fs/bpf/portway/<cookie of the namespace>/{maps,links}`. A BPF file system that was not there is mounted with
//! `portway` for its source, so that `clear` knows it again. Deliberately absent: what is kept, and
//! the directory of `portway toa` beside these ([`crate::toa`]).

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{AddressFamily, SocketType};

use crate::sys;

/// Where a BPF file system is mounted by custom.
pub const MOUNT: &str = "/sys/fs/bpf";
/// What is ours in it, and the source that our mount has.
const OURS: &str = "portway";
/// `BPF_FS_MAGIC` (`include/uapi/linux/magic.h`).
const MAGIC: u64 = 0xcafe_4a11;

/// The directory of one network namespace.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// The directory of the calling thread's network namespace; makes nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn here() -> io::Result<Self> {
        Ok(Self { directory: Path::new(MOUNT).join(OURS).join(cookie()?.to_string()) })
    }

    /// Where maps are pinned by name.
    pub fn maps(&self) -> PathBuf {
        self.directory.join("maps")
    }

    /// Where a set of maps is made ready to take the place of the first.
    pub fn next(&self) -> PathBuf {
        self.directory.join("next")
    }

    /// Where links are pinned.
    pub fn links(&self) -> PathBuf {
        self.directory.join("links")
    }

    /// Mounts the file system where it is not and makes the directories.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make(&self) -> io::Result<()> {
        // Held open, the root keeps a `clear` in another namespace from unmounting what it takes for empty.
        let _root = mounted()?;
        let _ = remove(&self.next());
        fs::create_dir_all(self.maps())?;
        fs::create_dir_all(self.links())
    }

    /// Removes everything that is pinned, which detaches the programs, and the mount if it is ours and nobody else's.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(&self) -> io::Result<()> {
        if !is_mounted() {
            return Ok(());
        }
        remove(&self.links())?;
        remove(&self.directory)?;
        // Those of other namespaces, and other programs' pins, stay, and with them what holds them.
        let _ = fs::remove_dir(Path::new(MOUNT).join(OURS));
        release();
        Ok(())
    }

    /// The names in a directory of this one.
    pub fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// The number of the calling thread's network namespace.
pub fn cookie() -> io::Result<u64> {
    // Any socket will do, and every namespace has these.
    let socket: OwnedFd = match UdpSocket::bind(("127.0.0.1", 0)) {
        Ok(socket) => socket.into(),
        Err(_) => rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?,
    };
    sys::namespace_cookie(&socket)
}

fn is_mounted() -> bool {
    rustix::fs::statfs(MOUNT).is_ok_and(|found| found.f_type as u64 == MAGIC)
}

fn is_our_mount() -> bool {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    // The last one hides those before it.
    let last = mounts.lines().rev().find(|line| line.split(' ').nth(1) == Some(MOUNT));
    last.is_some_and(|line| line.starts_with("portway "))
}

/// The root of the file system, which is mounted if it is not. Two who come at the same time mount it once.
pub fn mounted() -> io::Result<OwnedFd> {
    let open =
        || rustix::fs::open(MOUNT, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let below = open()?;
    if is_mounted() {
        return Ok(open()?);
    }
    rustix::fs::flock(&below, FlockOperation::LockExclusive)?;
    if !is_mounted() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount(OURS, MOUNT, "bpf", flags, Some(c"mode=0700"))?;
    }
    Ok(open()?)
}

/// Unmounts the file system if it is ours and nothing is pinned in it any more. Somebody who has it open keeps it.
pub fn release() {
    // The kernel's own listings come with every such file system (`kernel/bpf/preload`).
    let others = |name: &String| !name.ends_with(".debug");
    if is_mounted() && is_our_mount() && !Pins::names(Path::new(MOUNT)).iter().any(others) {
        let _ = rustix::mount::unmount(MOUNT, UnmountFlags::empty());
    }
}

/// Removes a directory with what is in it; that there is none is no error.
pub fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
