//! The ratios between lanes that Portway promises, and whether a record shows them.
//!
//! Ratios are of figures of the same round. Deliberately absent: absolute figures, which are a machine's.

use crate::quantity::{Part, Quantity};
use crate::record::{Point, Record};
use crate::rounds::{Rounds, Verdict};

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The lane that promises, and its number of rules if they count.
    pub lane: (&'static str, Option<u64>),
    /// The lane that it is held against.
    pub against: (&'static str, Option<u64>),
    /// The load.
    pub load: &'static str,
    /// Of what.
    pub of: Of,
    /// The ratio is at most this.
    pub most: f64,
}

/// What of the two lanes is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// CPU over the base's, for one of the load's units.
    Added,
    /// All CPU for one of the load's units.
    All,
    /// CPU of the forwarder's processes for one of the load's units.
    Forwarder,
    /// Time for the same payload.
    Time,
}

/// What is promised.
pub const TARGETS: [Target; 7] = [
    target(("portway-ebpf", None), ("nft", None), "connections", Of::Added, 0.5),
    target(("portway-xdp", None), ("nft", None), "connections", Of::Added, 0.5),
    target(("portway-ebpf", None), ("routing", None), "bulk-up", Of::Time, 1.0),
    target(("portway-nftables", None), ("nft", None), "connections", Of::All, 1.05),
    target(("portway-nftables", Some(10_000)), ("portway-nftables", Some(1)), "connections", Of::All, 1.05),
    target(("portway-proxy", None), ("haproxy", None), "connections", Of::Added, 0.7),
    target(("portway-proxy", None), ("haproxy", None), "bulk-up", Of::Forwarder, 0.5),
];

const fn target(
    lane: (&'static str, Option<u64>),
    against: (&'static str, Option<u64>),
    load: &'static str,
    of: Of,
    most: f64,
) -> Target {
    Target { lane, against, load, of, most }
}

impl Target {
    /// What is compared, in words.
    pub fn title(&self) -> String {
        let lane = |(name, rules): (&str, Option<u64>)| match rules {
            Some(rules) => format!("{name} with {rules} rules"),
            None => name.to_owned(),
        };
        let unit = crate::subject::subject(self.load).unit;
        let of = match self.of {
            Of::Added => format!("added CPU per {}", unit.word()),
            Of::All => format!("CPU per {}", unit.word()),
            Of::Forwarder => format!("CPU of the forwarder per {}", unit.word()),
            Of::Time => "time for the same bytes".to_owned(),
        };
        format!("{} / {}, {of}", lane(self.lane), lane(self.against))
    }

    /// The ratio, by round.
    pub fn ratio(&self, record: &Record) -> Rounds {
        let [lane, against] = [self.lane, self.against].map(|(name, rules)| {
            let at = rules.map(|count| Point { of: "rules".to_owned(), count });
            let rounds = |quantity| record.rounds(name, self.load, at.as_ref(), quantity);
            match self.of {
                Of::All => rounds(Quantity::Cpu(Part::Total)),
                Of::Forwarder => rounds(Quantity::ForwarderCpu),
                Of::Time => rounds(Quantity::Throughput),
                Of::Added => record.lane(name).map_or_else(Rounds::default, |lane| {
                    record.added(lane, self.load, at.as_ref(), Quantity::Cpu(Part::Total))
                }),
            }
        });
        // The same bytes take a time that is the inverse of throughput. Added cost that is lost in the noise may be below
        // zero, and says still that there is little of it.
        match self.of {
            Of::Time => against.over(&lane),
            Of::Added => lane.with(&against, |a, b| if b > 0.0 { a / b } else { f64::NAN }),
            Of::All | Of::Forwarder => lane.over(&against),
        }
    }

    /// Whether it is kept.
    pub fn verdict(&self, record: &Record) -> Verdict {
        Verdict::at_most(&self.ratio(record), self.most, record.least_rounds())
    }
}
