//! How much of a load a run asks for: seconds, connections, how many at a time, by how much time there is and by what is
//! measured.

use super::{ARTICLE_AT_A_TIME, Load, at_a_time};
use crate::lane::setup::{self, Lane, UDP};
use crate::options::Scale;
use crate::record::Mode;
use crate::{actor, flows};

impl Load {
    /// How many seconds a run takes that no [`Self::count`] ends.
    pub fn seconds(self, scale: Scale, mode: Mode) -> f64 {
        let usual = match (mode, scale) {
            (Mode::Time, Scale::Quick) => 0.4,
            (Mode::Time, Scale::Usual) => 0.8,
            (Mode::Time, Scale::Long) => 3.0,
            (Mode::Exact, Scale::Quick) => 0.2,
            (Mode::Exact, Scale::Usual) => 0.3,
            (Mode::Exact, Scale::Long) => 2.0,
        };
        match self {
            // Health checks take their time.
            Self::Churn => f64::max(usual * 2.0, 3.0),
            // So many requests; about so long.
            Self::Article => 12.0,
            // Of one stream a shorter time says as much, and the usual run stays below its five minutes.
            Self::BulkUp | Self::BulkDown if (mode, scale) == (Mode::Time, Scale::Usual) => 0.6,
            _ => usual,
        }
    }

    /// How many a run asks for, where that and not time ends it. Instructions are counted for as many on every lane: what
    /// is begun and not done when time is up would be counted and have no figure.
    pub fn count(self, scale: Scale, mode: Mode) -> Option<u64> {
        let usual = match scale {
            Scale::Quick => 500,
            Scale::Usual => 1000,
            Scale::Long => 10_000,
        };
        match (self, mode) {
            (Self::Article, Mode::Exact) => Some(usual * 5),
            (Self::Article, Mode::Time) => Some(100_000),
            (Self::Connections, Mode::Exact) => Some(usual),
            (Self::Keepalive | Self::UdpSmall | Self::UdpLarge, Mode::Exact) => Some(usual * 2),
            _ => None,
        }
    }

    /// How many bytes of a stream a run asks for, where these and not time end it: where instructions are counted, for the
    /// same reason. What was on its way when time was up was a tenth of what a slow lane had carried.
    pub fn bytes(self, scale: Scale, mode: Mode) -> Option<u64> {
        let usual = match scale {
            Scale::Quick => 20_000_000,
            Scale::Usual => 40_000_000,
            Scale::Long => 250_000_000,
        };
        (matches!(self, Self::BulkUp | Self::BulkDown) && mode == Mode::Exact).then_some(usual)
    }
}

/// Bytes of a stream in the warm-up, where bytes end it.
pub const WARM_UP_BYTES: u64 = 4_000_000;

/// Connections that are held, at most: with the six descriptors of each that realm has, within 20,000.
pub(super) const MOST_HELD: u64 = 3000;

/// What a load is, besides its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// How long, in seconds.
    pub seconds: f64,
    /// How many at a time, if not as many as usual.
    pub concurrency: Option<u32>,
    /// How many in all, if not as many as there is time for.
    pub count: Option<u64>,
    /// How many bytes of each stream, if not as many as there is time for.
    pub bytes: Option<u64>,
    /// Whether the pool is called.
    pub pooled: bool,
    /// How many flows are there beside it.
    pub flows: u64,
}

impl Terms {
    /// As a load has them in the rounds.
    pub fn of(load: Load, scale: Scale, mode: Mode) -> Self {
        let concurrency = match (load, scale) {
            (Load::Idle, Scale::Quick) => Some(200),
            (Load::Idle, Scale::Usual) => Some(1000),
            (Load::Idle, Scale::Long) => Some(MOST_HELD as u32),
            (Load::Article, _) => Some(at_a_time().min(ARTICLE_AT_A_TIME) as u32),
            _ => None,
        };
        Self {
            seconds: load.seconds(scale, mode),
            count: load.count(scale, mode),
            bytes: load.bytes(scale, mode),
            concurrency,
            pooled: load == Load::Churn,
            ..Self::default()
        }
    }

    /// Makes the flows, which whoever forwards them remembers for an hour.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn make_flows(self, lane: &Lane) {
        if self.flows > 0 {
            flows::fit_memory(self.flows).unwrap_or_else(|why| panic!("{why}"));
            let (host, port) = lane.address(UDP);
            let made = actor::flows(&lane.net, setup::address(host, port), self.flows);
            assert!(made * 100 >= self.flows * 99, "of {} flows only {made} were made", self.flows);
        }
    }
}
