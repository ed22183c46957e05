//! Questions to the resolvers, by hickory: over UDP, and over TCP where an answer is too long for that.
//!
//! The servers are asked in turn, beginning with the one that answered last, each for its part of the time; one that
//! fails (SERVFAIL, REFUSED, silence) leaves the question to the next. /etc/hosts is asked first, as glibc does, and
//! /etc/resolv.conf is read again when it has changed. A question that fails keeps its last good answer, so that a
//! server which cannot say AAAA, or one host of a service, takes nothing away from the rest. Nothing is cached:
//! how long an answer holds is [`portway_core::names`]'s. Deliberately absent: DNSSEC, DNS over TLS and HTTPS,
//! /etc/nsswitch.conf.

mod answers;
mod system;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RecordType};
use portway_core::facts::{Lookup, Resolved};
use portway_core::names::Outcome;
use portway_core::ruleset::Dns;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::lock::locked;
pub(crate) use answers::Kept;
use answers::{Answers, Said, records};
use system::{Files, Made, Stamp, in_hosts, make};

/// The most questions of one lookup at the same time.
pub(crate) const QUESTIONS: usize = 16;
/// /etc/hosts has no TTL; it is looked at again after this time.
const HOSTS_TTL: Duration = Duration::from_secs(10);

/// Asks the resolvers of one configuration.
pub(crate) struct Resolver {
    dns: Dns,
    files: Files,
    made: Mutex<Option<(Stamp, Made)>>,
    /// The server that answered last.
    first: AtomicUsize,
}

impl Resolver {
    /// A resolver that has asked nothing and read nothing yet.
    pub(crate) fn new(dns: &Dns) -> Self {
        Self {
            dns: dns.clone(),
            files: Files::of_system(),
            made: Mutex::default(),
            first: AtomicUsize::new(0),
        }
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
        let mut answers = Answers::default();
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
        let stamp = self.files.stamp();
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

fn words(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::ResponseCode(code)) => code.to_str().to_owned(),
        NetError::Timeout => "no answer in time".to_owned(),
        error => error.to_string(),
    }
}
