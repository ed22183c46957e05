//! Jitter: what is done again and again is spread, so that a thousand checks or questions that began together do not
//! stay together. Random numbers are arguments; deliberately absent: where they come from.

use std::time::Duration;

/// No wait is shorter: what is due again at once would be done without a pause.
const LEAST: Duration = Duration::from_millis(1);

/// A part of a tenth of `period`: nothing for 0, nearly all of it for the highest `random`.
pub(crate) fn of_a_tenth(period: Duration, random: u64) -> Duration {
    let part = ((period.as_nanos() / 10) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

/// `period` and up to a tenth more or less, at least 1 ms.
pub(crate) fn around(period: Duration, random: u64) -> Duration {
    (period - period / 10).saturating_add(of_a_tenth(period, random) * 2).max(LEAST)
}

/// The longest that [`around`] gives.
pub(crate) fn longest(period: Duration) -> Duration {
    period.saturating_add(period / 10).max(LEAST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_ends_and_the_middle() {
        let second = Duration::from_secs(1);
        assert_eq!(around(second, 0), Duration::from_millis(900));
        assert_eq!(around(second, 1 << 63), second);
        assert!(around(second, u64::MAX) > Duration::from_millis(1099));
        assert_eq!(around(Duration::ZERO, 7), LEAST);
        assert_eq!(of_a_tenth(second, 0), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn never_more_than_a_tenth_away(millis in 0..10_000_000_u64, random in any::<u64>()) {
            let period = Duration::from_millis(millis);
            let jittered = around(period, random);
            prop_assert!(jittered >= LEAST && jittered <= longest(period));
            prop_assert!(jittered >= period - period / 10);
        }

        /// Random numbers that are spread give waits that are spread: each tenth of the range gets its tenth.
        #[test]
        fn spread_evenly(start in any::<u64>()) {
            let step = u64::MAX / 1000;
            let mut tenths = [0; 10];
            for nth in 0..1000_u64 {
                let jitter = around(Duration::from_secs(10), start.wrapping_add(nth * step)) - Duration::from_secs(9);
                tenths[usize::try_from(jitter.as_millis() / 200).unwrap().min(9)] += 1;
            }
            prop_assert!(tenths.iter().all(|count| (98..=102).contains(count)), "{tenths:?}");
        }
    }
}
