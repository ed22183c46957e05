//! Active health checks: what is asked of a backend, how often, and what counts as well.
//!
//! Deliberately absent: the bytes of each protocol ([`crate::check`]), when a check is due and what follows from its
//! outcome ([`crate::health`]), and sockets (the `portway-watch` crate).

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::backend::HostName;

/// A check. The same check of the same address is made once, however many rules ask for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// From the start of one check to the next, while the backend is up.
    pub interval: Duration,
    /// The same while it is down or on its way there; never longer than `interval`.
    pub interval_down: Duration,
    /// How long a check may take in all.
    pub timeout: Duration,
    /// Good checks in a row that bring a backend up.
    pub rise: u32,
    /// Failed checks in a row that take it down.
    pub fall: u32,
    /// The address to check, where it is not the backend's.
    pub address: Option<IpAddr>,
    /// The port to check, where it is not the backend's.
    pub port: Option<u16>,
    /// The address to check from, where the file names one; used for addresses of its family. Else it is the first of
    /// the rule's source pool ([`crate::members`]).
    pub source: Option<IpAddr>,
}

impl Check {
    /// A check of this kind with the defaults of the file.
    pub fn new(kind: CheckKind) -> Self {
        Self {
            kind,
            interval: Duration::from_secs(2),
            interval_down: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            address: None,
            port: None,
            source: None,
        }
    }
}

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckKind {
    /// A TCP connection; bytes to send, and what must come back, where given.
    Tcp {
        /// Sent once connected.
        send: Option<Vec<u8>>,
        /// What the answer must hold.
        expect: Option<Expect>,
    },
    /// An HTTP/1.1 request.
    Http {
        /// Over TLS.
        tls: Option<Tls>,
        /// GET, HEAD, OPTIONS or another token.
        method: String,
        /// The request target, beginning with `/`.
        path: String,
        /// The Host header; the backend's name or address where not given.
        host: Option<String>,
        /// The status codes that count as well, as ranges; never empty.
        status: Vec<(u16, u16)>,
        /// What the body must hold.
        body: Option<Expect>,
    },
    /// A whole TLS handshake.
    Tls(Tls),
    /// PostgreSQL's start-up: the server asks for a password, or lets in.
    Postgresql {
        /// The user to name.
        user: String,
        /// The database to name; the user's where not given.
        database: Option<String>,
    },
    /// MySQL's and MariaDB's handshake, to the answer to a log-in without a password.
    Mysql {
        /// The user whose log-in must succeed; without one it is enough that the server answers.
        user: Option<String>,
    },
    /// Redis: PING is answered by PONG.
    Redis {
        /// Sent with AUTH first.
        password: Option<String>,
    },
    /// SMTP: greeting, EHLO, QUIT (RFC 5321).
    Smtp {
        /// The name to say.
        hello: String,
    },
    /// A DNS query over UDP (RFC 1035): answered without an error.
    Dns {
        /// The name to ask for; the root where not given.
        name: Option<HostName>,
    },
    /// A UDP datagram and the answer that must come.
    Udp {
        /// The datagram.
        send: Vec<u8>,
        /// What the answer must hold.
        expect: Option<Expect>,
    },
    /// A program, run without a shell: it ends with status 0 in time. PORTWAY_ADDRESS and PORTWAY_PORT say whom to
    /// look at.
    Command {
        /// The program and its arguments; never empty.
        words: Vec<String>,
    },
}

impl CheckKind {
    /// The words of the file for `type`, in the order of the reference.
    pub const WORDS: [&'static str; 11] =
        ["tcp", "http", "https", "tls", "postgresql", "mysql", "redis", "smtp", "dns", "udp", "command"];

    /// The word of the file.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Http { tls: None, .. } => "http",
            Self::Http { tls: Some(_), .. } => "https",
            Self::Tls(_) => "tls",
            Self::Postgresql { .. } => "postgresql",
            Self::Mysql { .. } => "mysql",
            Self::Redis { .. } => "redis",
            Self::Smtp { .. } => "smtp",
            Self::Dns { .. } => "dns",
            Self::Udp { .. } => "udp",
            Self::Command { .. } => "command",
        }
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How a check speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tls {
    /// The server name to ask for; the backend's name where not given, none for an address.
    pub server_name: Option<HostName>,
    /// A PEM file of authorities that the certificate must come from. Without one it is not verified: a check asks
    /// whether the server answers, not who it is.
    pub ca: Option<PathBuf>,
}

/// What an answer must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expect {
    /// These bytes, anywhere.
    Bytes(Vec<u8>),
    /// A match of this regular expression (the `regex` crate's syntax, over bytes); [`crate::build`] has compiled it.
    Regex(String),
}
