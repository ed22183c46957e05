//! The state directory: the control socket, the record of host settings, and the lock that lets one daemon at
//! a time own the host's nf_tables table.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Where this user's daemon keeps its state when nothing else is said: /run/portway for root, the user's
/// runtime directory otherwise.
pub fn default_path() -> PathBuf {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return PathBuf::from("/run/portway");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) => Path::new(&dir).join("portway"),
        None => std::env::temp_dir().join(format!("portway-{}", uid.as_raw())),
    }
}

/// The control socket in a state directory.
pub fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// The locked state directory. The lock is the kernel's (flock(2)), so a killed daemon leaves none.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    lock: File,
}

/// Why the directory could not be had.
#[derive(Debug)]
pub enum LockError {
    /// Another daemon holds it; its process id where it is known.
    Held(Option<u32>),
    /// The directory or its lock file could not be made.
    Io(io::Error),
}

impl StateDir {
    /// Makes the directory where it is missing (mode 0755: the socket has its own mode) and takes its lock.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn lock(path: &Path) -> Result<Self, LockError> {
        fs::create_dir_all(path).map_err(LockError::Io)?;
        own(path).map_err(LockError::Io)?;
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock_file(path));
        let mut lock = open.map_err(LockError::Io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LockError::Held(read_pid(&mut lock))),
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(LockError::Io)?;
        write!(lock, "{}", std::process::id()).map_err(LockError::Io)?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what a daemon keeps here, and the directory when nothing else is in it.
    ///
    /// # Errors
    /// A file of ours that cannot be removed.
    pub fn remove(self) -> io::Result<()> {
        for file in [socket(&self.path), lock_file(&self.path)] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Someone else's file in it, or a directory that systemd made for us: theirs to remove.
        let _ = fs::remove_dir(&self.path);
        drop(self.lock);
        Ok(())
    }
}

/// The process that holds the lock of a state directory, if any does.
pub fn holder(path: &Path) -> Option<u32> {
    let mut lock = OpenOptions::new().read(true).open(lock_file(path)).ok()?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => read_pid(&mut lock),
        _ => None,
    }
}

/// Writes a file beside and renames it: a crash leaves the old content or the new one, never half of one.
///
/// # Errors
/// The file cannot be written.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    fs::write(&beside, content)?;
    fs::rename(&beside, path)
}

/// Refuses a directory that someone else made or may write to: under /tmp, whose names anyone can guess, a
/// planted link would have us truncate a file of its owner's choice.
fn own(dir: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(dir)?;
    let mine = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if mine && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a directory that only this user can write to"))
}

fn lock_file(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_at_a_time_and_nothing_left() {
        let path = std::env::temp_dir().join(format!("portway-state-{}", std::process::id()));
        let held = StateDir::lock(&path).unwrap();
        match StateDir::lock(&path) {
            Err(LockError::Held(Some(pid))) => assert_eq!(pid, std::process::id()),
            other => panic!("a second lock: {other:?}"),
        }
        assert_eq!(holder(&path), Some(std::process::id()));
        held.remove().unwrap();
        assert!(!path.exists());
        assert_eq!(holder(&path), None);
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("portway-planted-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let result = StateDir::lock(&path);
        fs::remove_dir_all(&path).unwrap();
        assert!(
            matches!(result, Err(LockError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied)
        );
    }
}
