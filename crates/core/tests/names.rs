//! One name over time: when it is asked, what is kept while resolvers fail, and what is said of a change.

use std::time::Duration;

use portway_core::facts::{Answer, Moment, Resolved};
use portway_core::names::{ABSENCE, Outcome, Resolution};
use portway_core::ruleset::{Dns, Pool};
use proptest::prelude::*;

const HALF: u64 = 1 << 63;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn address(last: u8) -> Resolved {
    Resolved { address: [192, 0, 2, last].into(), port: None, weight: 0, priority: 0 }
}

fn good(addresses: &[u8], ttl: u64) -> Outcome {
    Outcome::Answered { records: addresses.iter().map(|last| address(*last)).collect(), ttl: seconds(ttl) }
}

fn failed() -> Outcome {
    Outcome::Failed("timed out".to_owned())
}

const ABSENT: Outcome = Outcome::Absent { ttl: None };

/// A TTL of 60 s is believed as it is.
fn dns() -> Dns {
    Dns { ttl_min: seconds(5), ttl_max: seconds(300), ..Dns::default() }
}

#[test]
fn only_a_change_is_told() {
    let mut name = Resolution::new(&dns());
    assert_eq!((name.answer(), name.next(HALF)), (None, Moment::ZERO), "due at once");
    assert_eq!(name.answered(good(&[2, 1, 2], 60), seconds(1)), Some(vec![address(1), address(2)]));
    assert_eq!(name.answered(good(&[1, 2], 60), seconds(2)), None, "another order is the same answer");
    assert_eq!(name.answered(failed(), seconds(3)), None);
    assert_eq!(name.problem(), Some("timed out"));
    assert_eq!(name.answered(good(&[2, 1], 60), seconds(4)), None);
    assert_eq!(name.problem(), None);
    assert_eq!(name.answered(good(&[3], 60), seconds(5)), Some(vec![address(3)]));
    assert_eq!(name.answer(), Some(&vec![address(3)]));
}

#[test]
fn the_ttl_is_kept_between_its_bounds() {
    let next = |ttl: u64, random: u64| {
        let mut name = Resolution::new(&dns());
        name.answered(good(&[1], ttl), seconds(1000));
        name.next(random) - seconds(1000)
    };
    assert_eq!(next(60, 0), seconds(60), "never before the TTL is over");
    assert_eq!(next(60, HALF), seconds(63));
    assert_eq!(next(0, 0), seconds(5));
    assert_eq!(next(86_400, 0), seconds(300));
    assert_eq!(next(86_400, HALF), seconds(285), "spread, and not later than ttl-max");
    assert_eq!(next(300, HALF), seconds(285));
}

#[test]
fn failures_keep_the_answer_and_are_asked_again_with_backoff() {
    let mut name = Resolution::new(&dns());
    name.answered(good(&[1], 60), seconds(0));
    let mut waits = Vec::new();
    let mut now = seconds(100);
    for _ in 0..8 {
        assert_eq!(name.answered(failed(), now), None);
        waits.push((name.next(HALF) - now).as_secs());
        now = name.next(HALF);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    assert_eq!(name.answer(), Some(&vec![address(1)]));
    name.answered(good(&[1], 60), now);
    name.answered(failed(), now);
    assert_eq!(name.next(HALF) - now, seconds(1), "from the beginning after an answer");
}

#[test]
fn a_name_that_is_gone_is_given_up_after_a_while() {
    let mut name = Resolution::new(&dns());
    name.answered(good(&[1], 60), seconds(0));
    let gone = seconds(100);
    let mut now = gone;
    let mut asked = 0;
    let emptied = loop {
        asked += 1;
        if let Some(answer) = name.answered(ABSENT, now) {
            break answer;
        }
        assert_eq!(name.answer(), Some(&vec![address(1)]), "kept at {now:?}");
        now = name.next(HALF);
        assert!(now <= gone + ABSENCE && asked < 10, "asked {asked} times by {now:?}");
    };
    assert_eq!((emptied, now, asked), (Answer::new(), gone + ABSENCE, 6), "at 0, 1, 3, 7, 15 and 30 s");
    assert_eq!(name.answered(ABSENT, now + seconds(30)), None, "told once");
    assert_eq!(name.answered(good(&[1], 60), now + seconds(60)), Some(vec![address(1)]), "and it is back");
}

#[test]
fn a_good_answer_between_begins_the_time_anew() {
    let mut name = Resolution::new(&dns());
    name.answered(good(&[1], 60), seconds(0));
    name.answered(ABSENT, seconds(10));
    name.answered(good(&[1], 60), seconds(39));
    assert_eq!(name.answered(ABSENT, seconds(41)), None);
    assert_eq!(name.answered(failed(), seconds(50)), None, "a failure does not");
    assert_eq!(name.answered(ABSENT, seconds(71)), Some(Answer::new()));
}

#[test]
fn a_name_that_never_was_is_empty_at_once() {
    for outcome in [ABSENT, good(&[], 60)] {
        let mut name = Resolution::new(&dns());
        assert_eq!(name.answered(failed(), seconds(1)), None);
        assert_eq!(name.answer(), None, "a failure says nothing about the name");
        assert_eq!(name.answered(outcome, seconds(2)), Some(Answer::new()));
        assert_eq!(name.next(0), seconds(32), "asked again as after failures");
    }
}

#[test]
fn a_negative_ttl_is_believed_only_so_long() {
    for (ttl, expected) in [(1, 5), (10, 10), (3600, 30)] {
        let mut name = Resolution::new(&dns());
        name.answered(Outcome::Absent { ttl: Some(seconds(ttl)) }, seconds(0));
        assert_eq!(name.next(0), seconds(expected), "{ttl}");
    }
}

#[test]
fn the_answer_of_an_earlier_run_holds_until_there_is_another() {
    let mut name = Resolution::known(&dns(), vec![address(2), address(1)]);
    assert_eq!((name.answer(), name.next(HALF)), (Some(&vec![address(1), address(2)]), Moment::ZERO));
    assert_eq!(name.answered(failed(), seconds(0)), None);
    assert_eq!(name.answered(ABSENT, seconds(1)), None);
    assert_eq!(name.answered(good(&[1, 2], 60), seconds(2)), None);
    assert_eq!(name.answered(good(&[1], 60), seconds(3)), Some(vec![address(1)]));
}

#[test]
fn of_too_many_records_the_preferred_ones_are_kept() {
    let record = |nth: u16| Resolved {
        address: [10, 0, (nth >> 8) as u8, nth as u8].into(),
        port: Some(80),
        weight: 1,
        priority: 3000 - nth,
    };
    let mut name = Resolution::new(&dns());
    let records: Vec<Resolved> = (0..3000).map(record).collect();
    let answer = name.answered(Outcome::Answered { records, ttl: seconds(1) }, seconds(0)).unwrap();
    let expected: Vec<Resolved> = (3000 - Pool::MOST_MEMBERS as u16..3000).map(record).collect();
    assert_eq!(answer, expected);
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (proptest::collection::vec(1..4_u8, 0..4), 0..1000_u64).prop_map(|(last, ttl)| good(&last, ttl)),
        proptest::option::of(0..1000_u64).prop_map(|ttl| Outcome::Absent { ttl: ttl.map(seconds) }),
        Just(failed()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The definition, over the whole history.
    #[test]
    fn agrees_with_the_definition(history in proptest::collection::vec((outcomes(), 0..40_u64), 0..40)) {
        let mut name = Resolution::new(&dns());
        let mut told: Option<Answer> = None;
        let mut now = Moment::ZERO;
        let mut moments = Vec::new();
        for (nth, (outcome, wait)) in history.iter().enumerate() {
            now += seconds(*wait);
            moments.push(now);
            if let Some(answer) = name.answered(outcome.clone(), now) {
                prop_assert_ne!(Some(&answer), told.as_ref(), "only a change is told");
                told = Some(answer);
            }
            prop_assert_eq!(name.answer(), told.as_ref());
            prop_assert!(name.next(u64::MAX) > now && name.next(0) > now);
            prop_assert!(name.next(u64::MAX) <= now + seconds(300));

            let records = |outcome: &Outcome| match outcome {
                Outcome::Answered { records, .. } if !records.is_empty() => Some(records.clone()),
                _ => None,
            };
            let last_good = history[..=nth].iter().rposition(|(outcome, _)| records(outcome).is_some());
            let after = last_good.map_or(0, |at| at + 1);
            let no_such = |at: &usize| !matches!(history[*at].0, Outcome::Failed(_));
            let mut absent = (after..=nth).filter(no_such);
            let first = absent.next();
            let last = absent.next_back().or(first);
            let given_up = match (last_good, first.zip(last)) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(_), Some((first, last))) => moments[last] - moments[first] >= ABSENCE,
            };
            let expected = match last_good {
                _ if given_up => Some(Answer::new()),
                None => None,
                Some(at) => records(&history[at].0).map(|mut records| {
                    records.sort();
                    records.dedup();
                    records
                }),
            };
            prop_assert_eq!(name.answer(), expected.as_ref(), "after {} of {:?}", nth + 1, &history);
        }
    }
}
