//! The system's part in names: /etc/resolv.conf, /etc/hosts, and the servers that follow from them or from the
//! configuration.
//!
//! Deliberately absent: questions ([`super`]), /etc/nsswitch.conf.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use portway_core::ruleset::Dns;

/// The most servers that are asked.
const SERVERS: usize = 8;
/// The largest system file that is read, in bytes.
const FILE: u64 = 4 << 20;

/// The system's files.
pub(super) struct Files {
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
}

impl Files {
    /// Those of the system.
    pub(super) fn of_system() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }

    /// What they are known by now.
    pub(super) fn stamp(&self) -> Stamp {
        [&self.resolv_conf, &self.hosts].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

/// By what changed files are known.
pub(super) type Stamp = [Option<(SystemTime, u64)>; 2];

/// What was made from the settings and the files.
#[derive(Clone)]
pub(super) struct Made {
    /// Or why there is none, in words.
    pub(super) servers: Result<Arc<[TokioResolver]>, String>,
    pub(super) hosts: Arc<Hosts>,
    /// How long each may take to answer.
    pub(super) each: Duration,
}

/// What the file of hosts says; `None` where it does not know the name. A name that has only addresses of one family
/// there has none of the other.
pub(super) fn in_hosts(hosts: &Hosts, name: &Name, kind: RecordType) -> Option<Vec<RData>> {
    let of = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let other = match kind {
        RecordType::A => RecordType::AAAA,
        RecordType::AAAA => RecordType::A,
        _ => return None,
    };
    match of(kind) {
        Some(found) => Some(found.answers().iter().map(|record| record.data.clone()).collect()),
        None => of(other).map(|_| Vec::new()),
    }
}

/// Makes the servers anew.
pub(super) fn make(dns: &Dns, files: &Files) -> Made {
    let mut hosts = Hosts::default();
    if let Ok(text) = read(&files.hosts) {
        // A line that cannot be read is passed over there.
        _ = hosts.read_hosts_conf(&text[..]);
    }
    let system = read(&files.resolv_conf).and_then(|text| parse_resolv_conf(text).map_err(|e| e.to_string()));
    let (domain, search, servers, options) = match (system, dns.servers.is_empty()) {
        (Ok((config, options)), true) => {
            let (domain, search, servers) = config.into_parts();
            (domain, search, servers, options)
        }
        (Err(error), true) => {
            let path = files.resolv_conf.display();
            return Made {
                servers: Err(format!("{path}: {error}")),
                hosts: Arc::new(hosts),
                each: dns.timeout,
            };
        }
        (_, false) => {
            (None, Vec::new(), dns.servers.iter().copied().map(server).collect(), ResolverOpts::default())
        }
    };
    let count = u32::try_from(servers.len().min(SERVERS)).unwrap_or(1).max(1);
    let each = dns.timeout / count;
    let resolvers: Result<Arc<[TokioResolver]>, NetError> = servers
        .into_iter()
        .take(SERVERS)
        .map(|server| {
            let config = ResolverConfig::from_parts(domain.clone(), search.clone(), vec![server]);
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            *builder.options_mut() = options_for(options.clone(), each);
            builder.build()
        })
        .collect();
    Made { servers: resolvers.map_err(|error| error.to_string()), hosts: Arc::new(hosts), each }
}

fn options_for(mut options: ResolverOpts, each: Duration) -> ResolverOpts {
    options.timeout = each;
    options.attempts = 1;
    options.cache_size = 0;
    // Looked at here, for search lists hide names from hickory's own look.
    options.use_hosts_file = ResolveHosts::Never;
    options
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE).read_to_end(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}
