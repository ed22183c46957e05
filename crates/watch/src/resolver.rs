//! Questions to the resolvers, by hickory: over UDP, and over TCP where an answer is too long for that.
//!
//! The servers are asked in turn, beginning with the one that answered last, each for its part of the time; one that
//! fails (SERVFAIL, REFUSED, silence) leaves the question to the next. /etc/hosts is asked first, as glibc does, and
//! /etc/resolv.conf is read again when it has changed. A question that fails keeps its last good answer, so that a
//! server which cannot say AAAA, or one host of a service, takes nothing away from the rest. Nothing is cached:
//! how long an answer holds is [`portway_core::names`]'s. Deliberately absent: DNSSEC, DNS over TLS and HTTPS,
//! /etc/nsswitch.conf.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use portway_core::facts::{Lookup, Resolved};
use portway_core::names::Outcome;
use portway_core::ruleset::Dns;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::thread::locked;

/// The most questions of one lookup at the same time.
pub(crate) const QUESTIONS: usize = 16;
/// The most records of a service that are looked at.
const RECORDS: usize = 256;
/// The most servers that are asked.
const SERVERS: usize = 8;
/// /etc/hosts has no TTL; it is looked at again after this time.
const HOSTS_TTL: Duration = Duration::from_secs(10);
/// When a lookup is made again of which a question has failed.
const PARTIAL_TTL: Duration = Duration::from_secs(30);
/// The largest system file that is read, in bytes.
const FILE: u64 = 4 << 20;

/// The system's files.
struct Files {
    resolv_conf: PathBuf,
    hosts: PathBuf,
}

/// By what a changed file is known.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// What was made from the settings and the files.
#[derive(Clone)]
struct Made {
    /// Or why there is none, in words.
    servers: Result<Arc<[TokioResolver]>, String>,
    hosts: Arc<Hosts>,
    each: Duration,
}

/// Asks the resolvers of one configuration.
pub(crate) struct Resolver {
    dns: Dns,
    files: Files,
    made: Mutex<Option<(Stamp, Made)>>,
    /// The server that answered last.
    first: AtomicUsize,
}

/// The last good answers of one lookup, by question: an empty one where there is no such record.
#[derive(Default)]
pub(crate) struct Kept(BTreeMap<(Name, RecordType), Vec<RData>>);

/// What one question came to.
enum Said {
    /// These records; none where there is no such name, or not of this type.
    Records(Vec<RData>, Option<Duration>),
    Failed(String),
}

impl Resolver {
    /// A resolver that has asked nothing and read nothing yet.
    pub(crate) fn new(dns: &Dns) -> Self {
        let files = Files { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() };
        Self { dns: dns.clone(), files, made: Mutex::default(), first: AtomicUsize::new(0) }
    }

    /// The settings that it asks by.
    pub(crate) fn dns(&self) -> &Dns {
        &self.dns
    }

    /// What a lookup comes to now, and what went wrong with a part of it. `kept` is of the same lookup, and holds
    /// what its questions came to.
    pub(crate) async fn resolve(
        self: &Arc<Self>,
        lookup: &Lookup,
        kept: &mut Kept,
    ) -> (Outcome, Option<String>) {
        let mut answers = Answers { fresh: BTreeMap::new(), ttl: None, trouble: None, answered: false };
        let outcome = match lookup {
            Lookup::Addresses(name) => match parsed(name) {
                Ok(name) => {
                    self.ask_all(addresses_of([&name]), kept, &mut answers).await;
                    let addresses = answers.addresses(&name).map(resolved);
                    answers.outcome(addresses.collect())
                }
                Err(error) => Outcome::Failed(error),
            },
            Lookup::Service(name) => match parsed(name) {
                Ok(name) => {
                    self.ask_all(vec![(name.clone(), RecordType::SRV)], kept, &mut answers).await;
                    let records = answers.services(&name);
                    let hosts: BTreeSet<&Name> = records.iter().map(|record| &record.target).collect();
                    self.ask_all(addresses_of(hosts), kept, &mut answers).await;
                    let members = records.iter().flat_map(|record| {
                        answers.addresses(&record.target).map(|address| Resolved {
                            address,
                            port: Some(record.port),
                            weight: record.weight,
                            priority: record.priority,
                        })
                    });
                    answers.outcome(members.collect())
                }
                Err(error) => Outcome::Failed(error),
            },
        };
        let Answers { fresh, trouble, .. } = answers;
        kept.0 = fresh;
        (outcome, trouble)
    }

    /// Asks several questions at the same time.
    async fn ask_all(
        self: &Arc<Self>,
        questions: Vec<(Name, RecordType)>,
        kept: &Kept,
        answers: &mut Answers,
    ) {
        let mut questions = questions.into_iter();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < QUESTIONS
                && let Some((name, kind)) = questions.next()
            {
                let resolver = Arc::clone(self);
                asked.spawn(async move {
                    let said = resolver.ask(&name, kind).await;
                    (name, kind, said)
                });
            }
            match asked.join_next().await {
                None => return,
                Some(Ok((name, kind, said))) => answers.take(name, kind, said, kept),
                // A panic, which has been printed; the question is one that failed.
                Some(Err(_)) => answers.trouble = Some("a question was not answered".to_owned()),
            }
        }
    }

    /// Asks one question of one server after the other.
    async fn ask(&self, name: &Name, kind: RecordType) -> Said {
        let made = self.made();
        if let Some(records) = in_hosts(&made.hosts, name, kind) {
            return Said::Records(records, Some(HOSTS_TTL));
        }
        let servers = match made.servers {
            Ok(servers) => servers,
            Err(error) => return Said::Failed(error),
        };
        let mut trouble = String::new();
        let first = self.first.load(Ordering::Relaxed);
        for nth in 0..servers.len() {
            let index = (first + nth) % servers.len();
            let asked = timeout(made.each, servers[index].lookup(name.clone(), kind)).await;
            let said = match asked {
                Ok(Ok(lookup)) => records(lookup.answers(), kind),
                Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                    Said::Records(Vec::new(), none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())))
                }
                Ok(Err(error)) => Said::Failed(words(&error)),
                Err(_) => Said::Failed("no answer in time".to_owned()),
            };
            match said {
                Said::Failed(words) => trouble = words,
                said => {
                    self.first.store(index, Ordering::Relaxed);
                    return said;
                }
            }
        }
        Said::Failed(format!("{name} {kind}: {trouble}"))
    }

    /// The servers and the hosts of now.
    fn made(&self) -> Made {
        let stamp = [stamp(&self.files.resolv_conf), stamp(&self.files.hosts)];
        let mut made = locked(&self.made);
        match &*made {
            Some((then, made)) if *then == stamp => made.clone(),
            _ => {
                let fresh = make(&self.dns, &self.files);
                *made = Some((stamp, fresh.clone()));
                fresh
            }
        }
    }
}

/// What the questions of one lookup came to.
struct Answers {
    fresh: BTreeMap<(Name, RecordType), Vec<RData>>,
    ttl: Option<Duration>,
    trouble: Option<String>,
    /// Whether any question was answered now.
    answered: bool,
}

impl Answers {
    fn take(&mut self, name: Name, kind: RecordType, said: Said, kept: &Kept) {
        let (records, ttl) = match said {
            Said::Records(records, ttl) => {
                self.answered = true;
                (Some(records), ttl)
            }
            Said::Failed(trouble) => {
                self.trouble.get_or_insert(trouble);
                (kept.0.get(&(name.clone(), kind)).cloned(), Some(PARTIAL_TTL))
            }
        };
        self.ttl = self.ttl.into_iter().chain(ttl).min();
        if let Some(records) = records {
            self.fresh.insert((name, kind), records);
        }
    }

    /// The addresses of a host that traffic can go to.
    fn addresses(&self, host: &Name) -> impl Iterator<Item = IpAddr> {
        let records = [RecordType::A, RecordType::AAAA].map(|kind| self.fresh.get(&(host.clone(), kind)));
        let addresses = records.into_iter().flatten().flatten().filter_map(RData::ip_addr);
        addresses.filter(|address| match address {
            IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
            IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast()),
        })
    }

    /// The records of a service. A target of "." says that there is none (RFC 2782), and port 0 leads nowhere.
    fn services(&self, name: &Name) -> Vec<SRV> {
        let records = self.fresh.get(&(name.clone(), RecordType::SRV)).into_iter().flatten();
        let records = records.filter_map(|record| match record {
            RData::SRV(record) => Some(record.clone()),
            _ => None,
        });
        let mut records: Vec<SRV> =
            records.filter(|record| !record.target.is_root() && record.port != 0).collect();
        records.sort_by_key(|record| record.priority);
        records.truncate(RECORDS);
        records
    }

    fn outcome(&self, records: Vec<Resolved>) -> Outcome {
        match &self.trouble {
            Some(trouble) if !self.answered || records.is_empty() => Outcome::Failed(trouble.clone()),
            _ if records.is_empty() => Outcome::Absent { ttl: self.ttl },
            _ => Outcome::Answered { records, ttl: self.ttl.unwrap_or(PARTIAL_TTL) },
        }
    }
}

fn resolved(address: IpAddr) -> Resolved {
    Resolved { address, port: None, weight: 0, priority: 0 }
}

fn addresses_of<'a>(hosts: impl IntoIterator<Item = &'a Name>) -> Vec<(Name, RecordType)> {
    let both = |host: &Name| [(host.clone(), RecordType::A), (host.clone(), RecordType::AAAA)];
    hosts.into_iter().flat_map(both).collect()
}

fn parsed(name: &str) -> Result<Name, String> {
    Name::from_utf8(name).map_err(|error| format!("{name}: {error}"))
}

/// The records of the type that was asked for. The aliases on the way limit how long they hold, too.
fn records(answers: &[Record], kind: RecordType) -> Said {
    let ttl = answers.iter().map(|record| record.ttl).min();
    let records = answers.iter().filter(|record| record.record_type() == kind);
    Said::Records(
        records.map(|record| record.data.clone()).collect(),
        ttl.map(|ttl| Duration::from_secs(ttl.into())),
    )
}

/// What the file of hosts says; `None` where it does not know the name. A name that has only addresses of one family
/// there has none of the other.
fn in_hosts(hosts: &Hosts, name: &Name, kind: RecordType) -> Option<Vec<RData>> {
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

fn words(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::ResponseCode(code)) => code.to_str().to_owned(),
        NetError::Timeout => "no answer in time".to_owned(),
        error => error.to_string(),
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn make(dns: &Dns, files: &Files) -> Made {
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
    use std::io::Read;
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE).read_to_end(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}
