//! Passive checks: when a member is left out, for how long, and how many may be.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::time::Duration;

use portway_core::facts::Moment;
use portway_core::outlier::Outliers;
use portway_core::ruleset::Passive;
use proptest::prelude::*;

const fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn passive(max_fails: u32, max_ejected: u8) -> Passive {
    Passive { max_fails, fail_timeout: at(10), max_ejected }
}

#[test]
fn so_many_failures_within_the_window_eject() {
    let mut outliers = Outliers::new(3, passive(3, 50));
    for (seconds, expected) in [(0, None), (5, None), (11, None), (12, Some(at(22))), (13, None)] {
        assert_eq!(outliers.failure(0, at(seconds)), expected, "{seconds}: the first has left at 11");
    }
    assert!(!outliers.is_ejected(1, at(12)) && !outliers.is_ejected(2, at(12)));
    assert!(
        outliers.is_ejected(0, at(12)) && outliers.is_ejected(0, at(21)) && !outliers.is_ejected(0, at(22))
    );
    assert_eq!((outliers.returns(at(12)), outliers.returns(at(22))), (Some(at(22)), None));
}

#[test]
fn the_window_includes_its_ends() {
    let mut outliers = Outliers::new(3, passive(2, 50));
    assert_eq!(outliers.failure(0, at(1)), None);
    assert_eq!(outliers.failure(0, at(11)), Some(at(21)));
    assert_eq!(outliers.failure(1, at(1)), None);
    assert_eq!(outliers.failure(1, at(12)), None);
}

#[test]
fn each_member_has_its_own_count() {
    let mut outliers = Outliers::new(3, passive(2, 50));
    assert_eq!((outliers.failure(0, at(0)), outliers.failure(1, at(0))), (None, None));
    assert_eq!(outliers.failure(1, at(1)), Some(at(11)));
    assert_eq!(outliers.failure(7, at(1)), None, "nobody");
}

#[test]
fn a_flow_taken_ends_the_row() {
    let mut outliers = Outliers::new(3, passive(3, 50));
    for _ in 0..10 {
        assert_eq!((outliers.failure(0, at(0)), outliers.failure(0, at(0))), (None, None));
        outliers.success(0);
    }
}

#[test]
fn each_further_ejection_in_a_row_is_twice_as_long_up_to_32_times() {
    let mut outliers = Outliers::new(2, passive(1, 50));
    let mut now = at(0);
    for times in [1, 2, 4, 8, 16, 32, 32, 32] {
        let until = outliers.failure(0, now).unwrap();
        assert_eq!(until - now, at(10) * times);
        now = until;
    }
    outliers.success(0);
    assert_eq!(outliers.failure(0, now), Some(now + at(10)));
}

#[test]
fn how_many_may_be_left_out() {
    let most = |members: usize, max_ejected: u8| {
        let mut outliers = Outliers::new(members, passive(1, max_ejected));
        (0..members).filter(|member| outliers.failure(*member, at(0)).is_some()).count()
    };
    assert_eq!(most(1, 100), 0, "never the last");
    assert_eq!(most(2, 100), 1);
    assert_eq!(most(10, 100), 9);
    assert_eq!(most(10, 50), 5);
    assert_eq!(most(9, 50), 4);
    assert_eq!(most(10, 9), 1, "one may always be");
    assert_eq!(most(10, 0), 1);
    assert_eq!(most(1024, 255), 1023);
}

/// One that fails while no more may be ejected is the next when there is room.
#[test]
fn who_had_no_room_is_next() {
    let mut outliers = Outliers::new(2, passive(2, 50));
    for _ in 0..2 {
        outliers.failure(0, at(0));
    }
    assert_eq!((outliers.failure(1, at(9)), outliers.failure(1, at(9))), (None, None));
    assert_eq!(outliers.failure(1, at(10)), Some(at(20)));
}

#[test]
fn a_changed_pool_keeps_what_is_held_against_those_who_stay() {
    let mut outliers = Outliers::new(4, passive(1, 50));
    outliers.failure(1, at(0)).unwrap();
    outliers.failure(3, at(1)).unwrap();
    let mut outliers = outliers.changed(&[Some(3), None, Some(0), Some(1)], passive(1, 50));
    assert_eq!([0, 1, 2, 3].map(|member| outliers.is_ejected(member, at(2))), [true, false, false, true]);
    assert_eq!(outliers.release(at(2)), [], "two of four may be");
    assert_eq!(outliers.failure(0, at(11)), Some(at(31)), "the second in a row");
    // Two that are left, both ejected: one too many, and it is the one that is nearest to its end.
    outliers.failure(3, at(12)).unwrap();
    let mut outliers = outliers.changed(&[Some(3), Some(0)], passive(1, 50));
    assert_eq!(outliers.release(at(13)), [1]);
    assert_eq!((outliers.is_ejected(0, at(13)), outliers.is_ejected(1, at(13))), (true, false));
    assert_eq!(outliers.release(at(13)), []);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Failure(usize),
    Success(usize),
}

fn events(members: usize) -> impl Strategy<Value = Vec<(Event, u64)>> {
    let event = prop_oneof![
        4 => (0..members).prop_map(Event::Failure),
        1 => (0..members).prop_map(Event::Success),
    ];
    proptest::collection::vec((event, 0..8_u64), 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The definition, over each member's whole history.
    #[test]
    fn agrees_with_the_definition(
        events in events(6),
        members in 1..6_usize,
        max_fails in 1..4_u32,
        max_ejected in 0..=100_u8,
    ) {
        let passive = passive(max_fails, max_ejected);
        let mut outliers = Outliers::new(members, passive);
        // Failures since the last flow taken or ejection; ejections since the last flow taken; when the last one ends.
        let mut model = vec![(Vec::new(), 0_u32, at(0)); members];
        let mut now = at(0);
        for (event, later) in events {
            now += at(later);
            match event {
                Event::Success(member) => {
                    outliers.success(member);
                    if let Some((failures, in_a_row, _)) = model.get_mut(member) {
                        failures.clear();
                        *in_a_row = 0;
                    }
                }
                Event::Failure(member) => {
                    let out = model.iter().filter(|(_, _, until)| *until > now).count();
                    let allowed = (members * usize::from(max_ejected) / 100).max(1).min(members - 1);
                    let expected = model.get_mut(member).and_then(|(failures, in_a_row, until)| {
                        if *until > now {
                            return None;
                        }
                        failures.push(now);
                        let recent = failures.iter().filter(|failure| **failure + at(10) >= now).count();
                        if recent < max_fails as usize || out >= allowed {
                            return None;
                        }
                        *until = now + at(10) * 2_u32.pow(*in_a_row).min(32);
                        *in_a_row += 1;
                        failures.clear();
                        Some(*until)
                    });
                    prop_assert_eq!(outliers.failure(member, now), expected);
                }
            }
            let ejected: Vec<bool> = (0..members).map(|member| outliers.is_ejected(member, now)).collect();
            prop_assert_eq!(&ejected, &model.iter().map(|(_, _, until)| *until > now).collect::<Vec<_>>());
            let ends = model.iter().map(|(_, _, until)| *until).filter(|until| *until > now).min();
            prop_assert_eq!(outliers.returns(now), ends);
        }
    }

    /// Whatever fails, and however the pool changes: never more are out than the file says, and never all.
    #[test]
    fn the_bound_holds(
        rounds in proptest::collection::vec((events(12), 1..12_usize, any::<proptest::sample::Index>()), 1..6),
        max_ejected in 0..=100_u8,
    ) {
        let passive = passive(1, max_ejected);
        let mut members = 12;
        let mut outliers = Outliers::new(members, passive);
        let mut now = at(0);
        for (events, left, first) in rounds {
            for (event, later) in events {
                now += at(later);
                match event {
                    Event::Failure(member) => _ = outliers.failure(member, now),
                    Event::Success(member) => outliers.success(member),
                }
                let out = (0..members).filter(|member| outliers.is_ejected(*member, now)).count();
                let most = (members * usize::from(max_ejected) / 100).max(1).min(members - 1);
                prop_assert!(out <= most, "{out} of {members}");
            }
            // Some of those that are there stay, others come.
            let start = first.index(members);
            let before: Vec<Option<usize>> =
                (0..left).map(|nth| Some(start + nth).filter(|place| *place < members)).collect();
            outliers = outliers.changed(&before, passive);
            outliers.release(now);
            members = left;
            let out = (0..members).filter(|member| outliers.is_ejected(*member, now)).count();
            prop_assert!(out <= (members * usize::from(max_ejected) / 100).max(1).min(members - 1));
        }
    }
}
