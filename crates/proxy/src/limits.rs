//! How many connections, flows and pipes fit in the open-file limit.
//!
//! The soft limit is raised to the hard one first. Where the file names a number it is taken as it is: running
//! out of descriptors all the same pauses accept and harms nothing else.

use portway_core::plan::proxy::Settings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept back for everything else in the process: the control socket, netlink, logs, spare sockets.
const RESERVE: usize = 256;
/// The most pipes, whatever the limit: each may pin 512 KiB of kernel memory while a receiver is slow.
const MOST_PIPES: usize = 128;

/// The limits in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The open-file limit they were made from.
    pub files: usize,
    /// The most TCP connections (two descriptors each).
    pub connections: usize,
    /// The most UDP flows (one descriptor each).
    pub flows: usize,
    /// The most pipes (two descriptors each).
    pub pipes: usize,
}

impl Limits {
    /// The limits for `files` descriptors of which listeners take `listeners`.
    pub fn new(files: usize, listeners: usize, settings: &Settings) -> Self {
        let pipes = (files / 64).min(MOST_PIPES);
        let rest = files.saturating_sub(RESERVE + listeners + 2 * pipes);
        let flows = settings.max_flows.map_or_else(|| (rest / 16).max(16), |max| max.get() as usize);
        let connections = settings
            .max_connections
            .map_or_else(|| (rest.saturating_sub(flows) / 2).max(16), |max| max.get() as usize);
        Self { files, connections, flows, pipes }
    }

    /// Whether all of it together passes the open-file limit.
    pub fn exceed_files(&self, listeners: usize) -> bool {
        2 * self.connections + self.flows + 2 * self.pipes + listeners + RESERVE > self.files
    }
}

/// Raises the soft open-file limit to the hard one and returns it.
pub fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused only when the hard limit fell meanwhile; the answer below is what counts.
        _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok()).unwrap_or(1 << 20)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn twenty_thousand_files_hold_nine_thousand_connections() {
        let limits = Limits::new(20_000, 20, &Settings::default());
        assert!(limits.connections >= 8_900, "{limits:?}");
        assert!(!limits.exceed_files(20), "{limits:?}");
        let settings = Settings { max_connections: NonZeroU32::new(9000), ..Settings::default() };
        assert_eq!(Limits::new(20_000, 20, &settings).connections, 9000);
    }

    #[test]
    fn what_the_file_asks_for_may_be_too_much() {
        let settings = Settings { max_connections: NonZeroU32::new(1000), ..Settings::default() };
        assert!(Limits::new(1024, 2, &settings).exceed_files(2));
        assert!(Limits::new(64, 2, &Settings::default()).connections >= 16);
    }
}
