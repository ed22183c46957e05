//! The ground the stage stands on: mounts of its own, so that whatever happens on it is gone with it.
//!
//! The stage is the first process of a PID namespace, in a mount and a network namespace of its own (see [`crate::stage`]).
//! When it ends, however it ends, the kernel kills every process of the PID namespace; with the last of them go the mounts,
//! and with those the pinned BPF objects and the network namespaces that were bound to files. Here is what is mounted, and
//! what is made read-only because it belongs to the whole machine: settings of the kernel that are not a network
//! namespace's.
//!
//! /tmp stays as it is: programs that the user names may lie there. Our own files go to [`TEMPORARY`] by TMPDIR.

use std::path::Path;
use std::{fs, io};

use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

/// The machine's /proc. Its kernel threads, which do the packets' work, cannot be seen in the /proc of a PID namespace.
pub const MACHINE_PROC: &str = "/run/machine-proc";
/// Temporary files, as TMPDIR.
pub const TEMPORARY: &str = "/run/tmp";

/// Mounts what the stage needs.
///
/// # Errors
/// What was to be mounted, and what the kernel says.
pub fn lay() -> Result<(), String> {
    let said = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("mount {what} on the stage: {error}")
    };
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", "/run", "tmpfs", quiet, c"mode=755").map_err(|e| said("/run")(e.into()))?;
    for directory in [MACHINE_PROC, TEMPORARY] {
        fs::create_dir(directory).map_err(said(directory))?;
    }
    mount_bind("/proc", MACHINE_PROC).map_err(|e| said(MACHINE_PROC)(e.into()))?;
    mount("proc", "/proc", "proc", quiet | MountFlags::NOEXEC, None).map_err(|e| said("/proc")(e.into()))?;
    for entry in fs::read_dir("/proc/sys").map_err(said("/proc/sys"))?.flatten() {
        if entry.file_name() != "net" {
            read_only(&entry.path()).map_err(said(&entry.path().display().to_string()))?;
        }
    }
    read_only(Path::new("/sys")).map_err(said("/sys"))?;
    // A kernel without it has no ebpf engine either, which says so when its lane is set up.
    let _ = mount("bpf", "/sys/fs/bpf", "bpf", quiet | MountFlags::NOEXEC, c"mode=700");
    Ok(())
}

/// Lets nobody write there: the directory is bound to itself, and the new mount is read-only.
fn read_only(directory: &Path) -> io::Result<()> {
    mount_bind(directory, directory)?;
    Ok(mount_remount(directory, MountFlags::BIND | MountFlags::RDONLY, c"")?)
}
