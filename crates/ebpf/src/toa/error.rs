//! Why servers of a cgroup cannot be shown their clients.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::words;

/// Why not.
#[derive(Debug)]
pub enum Error {
    /// No cgroup2 hierarchy is mounted here.
    NoHierarchy,
    /// The path leads to nothing.
    Nowhere(PathBuf, io::Error),
    /// The path leads to something else than a cgroup of the cgroup2 hierarchy.
    NotACgroup(PathBuf),
    /// The cgroup's path does not fit a file's name.
    LongName(String),
    /// Another process holds the cgroup.
    Held(String),
    /// More networks than the kernel was asked to have room for.
    Networks {
        /// How many were given.
        given: usize,
        /// How many there may be.
        most: usize,
    },
    /// The programs that are part of this one lack something; a mistake of the build.
    Object(&'static str),
    /// The host's refusal.
    Host {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        reason: String,
        /// What kind of refusal it was.
        kind: io::ErrorKind,
    },
}

impl Error {
    /// A refusal of a file operation.
    pub(super) fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Host { doing, kind: error.kind(), reason: error.to_string() }
    }

    /// A refusal that came through aya.
    pub(super) fn kernel<E: StdError + 'static>(doing: &'static str) -> impl Fn(E) -> Self {
        move |error| {
            let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
            let mut kind = io::ErrorKind::Other;
            while let Some(error) = cause {
                kind = error.downcast_ref().map_or(kind, io::Error::kind);
                cause = error.source();
            }
            Self::Host { doing, reason: words::of(&error), kind }
        }
    }

    /// Whether what was asked for is not there (any more).
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Host { kind: io::ErrorKind::NotFound, .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHierarchy => f.write_str(
                "no cgroup2 hierarchy is mounted here (mount -t cgroup2 none /sys/fs/cgroup; under `ip netns exec` \
                 it is hidden: enter the namespace by nsenter --net instead)",
            ),
            Self::Nowhere(path, error) => write!(f, "cgroup {}: {error}", path.display()),
            Self::NotACgroup(path) => write!(
                f,
                "{} is no directory of a cgroup2 hierarchy (version 1 hierarchies cannot hold these programs)",
                path.display()
            ),
            Self::LongName(name) => write!(f, "cgroup {name}: its path is too long for the name of a pin"),
            Self::Held(name) => write!(
                f,
                "cgroup {name}: another portway toa serves it; stop that first (Ctrl-C, or systemctl stop)"
            ),
            Self::Networks { given, most } => {
                write!(f, "{given} networks are trusted, and there is room for {most}; join some")
            }
            Self::Object(what) => write!(f, "the programs of this build lack {what}"),
            Self::Host { doing, reason, kind } => {
                write!(f, "could not {doing}: {reason}")?;
                if *kind == io::ErrorKind::PermissionDenied {
                    f.write_str(" (run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and access to /sys/fs/bpf)")?;
                }
                Ok(())
            }
        }
    }
}

impl StdError for Error {}
