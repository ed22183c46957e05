//! What the questions of one lookup came to, and what follows for it.
//!
//! Deliberately absent: the questions ([`super`]) and what the outcome changes ([`portway_core::names`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use portway_core::address::is_one_host;
use portway_core::facts::Resolved;
use portway_core::names::Outcome;

/// The most records of a service that are looked at.
const RECORDS: usize = 256;
/// When a lookup is made again of which a question has failed.
const PARTIAL_TTL: Duration = Duration::from_secs(30);

/// The last good answers of one lookup, by question: an empty one where there is no such record.
#[derive(Default)]
pub(crate) struct Kept(pub(super) BTreeMap<(Name, RecordType), Vec<RData>>);

/// What one question came to.
pub(super) enum Said {
    /// These records; none where there is no such name, or not of this type.
    Records(Vec<RData>, Option<Duration>),
    Failed(String),
}

/// What the questions of one lookup came to.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) fresh: BTreeMap<(Name, RecordType), Vec<RData>>,
    ttl: Option<Duration>,
    pub(super) trouble: Option<String>,
    /// Whether any question was answered now.
    answered: bool,
}

impl Answers {
    pub(super) fn take(&mut self, name: Name, kind: RecordType, said: Said, kept: &Kept) {
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
    pub(super) fn addresses(&self, host: &Name) -> impl Iterator<Item = IpAddr> {
        let records = [RecordType::A, RecordType::AAAA].map(|kind| self.fresh.get(&(host.clone(), kind)));
        let addresses = records.into_iter().flatten().flatten().filter_map(RData::ip_addr);
        addresses.filter(|address| is_one_host(*address))
    }

    /// The records of a service. A target of "." says that there is none (RFC 2782), and port 0 leads nowhere.
    pub(super) fn services(&self, name: &Name) -> Vec<SRV> {
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

    pub(super) fn outcome(&self, records: Vec<Resolved>) -> Outcome {
        match &self.trouble {
            Some(trouble) if !self.answered || records.is_empty() => Outcome::Failed(trouble.clone()),
            _ if records.is_empty() => Outcome::Absent { ttl: self.ttl },
            _ => Outcome::Answered { records, ttl: self.ttl.unwrap_or(PARTIAL_TTL) },
        }
    }
}

/// The records of the type that was asked for. The aliases on the way limit how long they hold, too.
pub(super) fn records(answers: &[Record], kind: RecordType) -> Said {
    let ttl = answers.iter().map(|record| record.ttl).min();
    let records = answers.iter().filter(|record| record.record_type() == kind);
    Said::Records(
        records.map(|record| record.data.clone()).collect(),
        ttl.map(|ttl| Duration::from_secs(ttl.into())),
    )
}
