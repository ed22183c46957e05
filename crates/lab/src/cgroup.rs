//! Control groups of the lab: made in the machine's cgroup2 hierarchy, removed with all that runs in them.
//!
//! Deliberately absent: limits of any kind. Groups are here for programs that are attached to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::netns::wait_for;
use crate::process;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A control group, removed on drop.
#[derive(Debug)]
pub struct Cgroup {
    root: PathBuf,
    name: String,
}

impl Cgroup {
    /// Makes one, at the top of the hierarchy.
    ///
    /// # Panics
    /// Without root or cgroup2.
    pub fn new() -> Self {
        let name = format!("pwlab-{}-{}.test", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let cgroup = Self { root: hierarchy(), name };
        cgroup.make();
        cgroup
    }

    /// Its directory.
    pub fn path(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// Its path in the hierarchy.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it again after [`Self::remove`], as a service manager does when a service starts.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn make(&self) {
        let path = self.path();
        fs::create_dir(&path).unwrap_or_else(|e| panic!("make cgroup {}: {e}", path.display()));
    }

    /// Kills all that runs in it.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn kill(&self) {
        fs::write(self.path().join("cgroup.kill"), "1").expect("root may kill a cgroup");
    }

    /// Removes it, as soon as the last process in it has ended.
    ///
    /// # Panics
    /// When one does not end.
    pub fn remove(&self) {
        wait_for("the end of all processes of a cgroup", || fs::remove_dir(self.path()).is_ok());
    }
}

impl Default for Cgroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let path = self.path();
        // A test that fails drops in any order: what still runs in here ends with the group.
        if path.exists() {
            self.kill();
        }
        for _ in 0..200 {
            if !path.exists() || fs::remove_dir(&path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// Where cgroup2 is mounted.
///
/// # Panics
/// When it is not.
fn hierarchy() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let found = mounts.lines().find_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        (words.get(2) == Some(&"cgroup2")).then(|| Path::new(words[1]).to_owned())
    });
    found.expect("cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

/// A command that runs another in the group of this directory, under its own process id.
pub(crate) fn within(directory: &Path) -> Vec<PathBuf> {
    let enter = format!("echo 0 > {}/cgroup.procs && exec \"$@\"", directory.display());
    vec![process::find(Path::new("sh")), "-ec".into(), enter.into(), "sh".into()]
}
