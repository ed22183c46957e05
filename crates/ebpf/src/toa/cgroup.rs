//! Cgroups: found by path, and told apart from later ones of the same path.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Error;

/// `CGROUP2_SUPER_MAGIC` (`include/uapi/linux/magic.h`).
const MAGIC: u64 = 0x6367_7270;

/// A cgroup of the cgroup2 hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    path: PathBuf,
    id: u64,
    directory: File,
}

impl Cgroup {
    /// By the path of its directory, or by its path in the hierarchy (`system.slice/nginx.service`).
    ///
    /// # Errors
    /// There is no such cgroup.
    pub fn open(path: &Path) -> Result<Self, Error> {
        match fs::canonicalize(path) {
            Ok(found) if is_cgroup2(&found) => Self::at(found),
            // A path in the hierarchy that is also one of the file system is meant as the first.
            found => Self::in_hierarchy_at(path).map_err(|error| match (found, error) {
                (Ok(found), Error::Nowhere(..)) => Error::NotACgroup(found),
                (_, error) => error,
            }),
        }
    }

    /// By its path in the hierarchy.
    ///
    /// # Errors
    /// There is no such cgroup.
    pub fn in_hierarchy(name: &str) -> Result<Self, Error> {
        Self::in_hierarchy_at(Path::new(name))
    }

    fn in_hierarchy_at(path: &Path) -> Result<Self, Error> {
        let root = mounts()?.into_iter().next().ok_or(Error::NoHierarchy)?;
        let below = root.join(path.strip_prefix("/").unwrap_or(path));
        let found = fs::canonicalize(&below).map_err(|error| Error::Nowhere(below.clone(), error))?;
        if is_cgroup2(&found) { Self::at(found) } else { Err(Error::NotACgroup(below)) }
    }

    fn at(path: PathBuf) -> Result<Self, Error> {
        let nowhere = |error| Error::Nowhere(path.clone(), error);
        let directory = File::open(&path).map_err(nowhere)?;
        let metadata = directory.metadata().map_err(nowhere)?;
        if !metadata.is_dir() {
            return Err(Error::NotACgroup(path));
        }
        let within = mounts()?.into_iter().find_map(|root| path.strip_prefix(root).ok().map(PathBuf::from));
        let name = within.as_deref().and_then(Path::to_str).ok_or_else(|| Error::NotACgroup(path.clone()))?;
        let name = format!("/{name}");
        Ok(Self { name, id: metadata.ino(), path, directory })
    }

    /// Its path in the hierarchy: `/system.slice/nginx.service`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id: the number of its directory's inode, which no later cgroup gets again.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether its path still leads to it. A service manager removes a service's cgroup when it stops and makes another one
    /// when it starts; programs that were attached went with the first.
    pub fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.id)
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == MAGIC)
}

/// Where cgroup2 is mounted, the longest paths first: one mount may lie within another.
fn mounts() -> Result<Vec<PathBuf>, Error> {
    let text =
        fs::read_to_string("/proc/thread-self/mounts").map_err(Error::io("read the list of mounts"))?;
    let mut found: Vec<PathBuf> = text.lines().filter_map(mount_point).collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    Ok(found)
}

/// The mount point of a line of proc_pid_mounts(5), if it is of cgroup2.
fn mount_point(line: &str) -> Option<PathBuf> {
    let mut words = line.split(' ');
    let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
    (kind == "cgroup2").then(|| PathBuf::from(place.replace("\\040", " ").replace("\\134", "\\")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points() {
        let of = |line| mount_point(line);
        assert_eq!(of("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0"), Some("/sys/fs/cgroup".into()));
        assert_eq!(of("none /a\\040b cgroup2 rw 0 0"), Some("/a b".into()));
        assert_eq!(of("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn what_is_no_cgroup_is_refused_by_name() {
        let said = |path: &str| Cgroup::open(Path::new(path)).unwrap_err().to_string();
        assert!(said("/proc").contains("/proc is no directory of a cgroup2 hierarchy"), "{}", said("/proc"));
        let missing = said("no/such.slice");
        assert!(missing.contains("no/such.slice: No such file or directory"), "{missing}");
    }
}
