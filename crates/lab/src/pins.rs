//! What the `ebpf` engine leaves in the BPF file system: its maps and links, in a directory for each network namespace.
//!
//! They are meant to outlive the daemon, so nothing but a tidy end takes them away, and the lab kills most of its daemons.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::{Namespace, netns, sys};

/// Where Portway keeps them, by the cookie of the namespace.
const ROOT: &str = "/sys/fs/bpf/portway";

/// The directory of a namespace, whether or not it exists.
///
/// # Panics
/// When the namespace cannot be entered.
pub fn directory(ns: &Namespace) -> PathBuf {
    directory_of(&ns.path()).unwrap_or_else(|e| panic!("the cookie of namespace {}: {e}", ns.name()))
}

/// The names of all that is pinned for a namespace.
///
/// # Panics
/// When the namespace cannot be entered.
pub fn of(ns: &Namespace) -> Vec<String> {
    let mut names = Vec::new();
    let mut next = vec![directory(ns)];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                next.push(entry.path());
            }
            names.push(entry.path().display().to_string());
        }
    }
    names
}

/// Removes all that is pinned for the namespace of a file in /run/netns.
///
/// # Errors
/// What the kernel says; that nothing is there is none.
pub(crate) fn remove(namespace: &Path) -> io::Result<()> {
    if !Path::new(ROOT).exists() {
        return Ok(());
    }
    match fs::remove_dir_all(directory_of(namespace)?) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn directory_of(namespace: &Path) -> io::Result<PathBuf> {
    let cookie = netns::enter(namespace, || UdpSocket::bind("0.0.0.0:0").and_then(sys::netns_cookie))??;
    Ok(Path::new(ROOT).join(cookie.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_has_a_directory_of_its_own() {
        let (a, b) = (Namespace::new("a"), Namespace::new("b"));
        assert_ne!(directory(&a), directory(&b));
        assert_eq!(directory(&a), directory(&a));
        assert!(of(&a).is_empty());
    }
}
