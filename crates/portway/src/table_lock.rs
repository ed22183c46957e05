//! The lock on what Portway has in the kernel: table `inet portway`, and the maps and programs of the ebpf engine. Both
//! are one per network namespace, whatever the state directory; so is the lock: a socket with an abstract name (unix(7)), which the kernel frees when its process ends.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// The name, seen by `ss -xl` as `@portway-table`.
const NAME: &str = "portway-table";

/// Held for as long as this process may change them.
#[derive(Debug)]
pub struct TableLock {
    _socket: UnixListener,
}

impl TableLock {
    /// Takes the lock of the calling thread's network namespace.
    ///
    /// # Errors
    /// Somebody holds it; a sentence for the user.
    pub fn take() -> Result<Self, String> {
        SocketAddr::from_abstract_name(NAME)
            .and_then(|name| UnixListener::bind_addr(&name))
            .map(|socket| Self { _socket: socket })
            .map_err(|error| {
                format!(
                    "another portway owns table inet portway and the eBPF programs in this network namespace \
                     ({error}; `ss -xlp` shows who holds @{NAME})"
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let held = TableLock::take().unwrap();
        assert!(TableLock::take().unwrap_err().contains("another portway"));
        drop(held);
        TableLock::take().unwrap();
    }
}
