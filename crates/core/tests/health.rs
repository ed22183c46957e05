//! The state machine of health checks, against a slow model and against the times that it states.

use std::sync::Arc;
use std::time::Duration;

use portway_core::facts::Moment;
use portway_core::health::{Monitor, Outcome, Transition, detection_time, recovery_time};
use portway_core::ruleset::{Check, CheckKind};
use proptest::prelude::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn check() -> Check {
    Check::new(CheckKind::Tcp { send: None, expect: None })
}

fn outcome(passed: bool) -> Outcome {
    if passed { Outcome::Passed("connected".to_owned()) } else { Outcome::Failed("refused".to_owned()) }
}

/// The transitions of outcomes that come one second apart.
fn transitions(monitor: &mut Monitor, outcomes: &str) -> String {
    let one = |(nth, letter): (u64, char)| match monitor.observe(outcome(letter == '+'), ms(nth * 1000)) {
        None => '.',
        Some(Transition::Up) => 'U',
        Some(Transition::Down) => 'D',
    };
    (0..).zip(outcomes.chars()).map(one).collect()
}

#[test]
fn the_first_outcome_decides_and_then_rise_and_fall_do() {
    for (outcomes, expected) in [
        ("+", "U"),
        ("-", "D"),
        ("+++++", "U...."),
        ("-----", "D...."),
        // fall = 3
        ("+---", "U..D"),
        ("+--+--+---", "U........D"),
        // rise = 2
        ("-++", "D.U"),
        ("-+-+-++", "D.....U"),
        ("-++---++", "D.U..D.U"),
    ] {
        assert_eq!(transitions(&mut Monitor::new(Arc::new(check())), outcomes), expected, "{outcomes}");
    }
}

#[test]
fn one_check_suffices_where_the_file_says_so() {
    let once = Check { rise: 1, fall: 1, ..check() };
    assert_eq!(transitions(&mut Monitor::new(Arc::new(once)), "+-+--++"), "UDUD.U.");
}

#[test]
fn the_verdict_tells_since_when_and_why() {
    let mut monitor = Monitor::new(Arc::new(check()));
    assert_eq!(monitor.verdict(), None);
    monitor.observe(Outcome::Passed("HTTP 200".to_owned()), ms(5));
    let verdict = monitor.verdict().unwrap();
    assert_eq!((verdict.up, verdict.since, verdict.recovered), (true, ms(5), false));
    monitor.observe(Outcome::Failed("HTTP 500".to_owned()), ms(6));
    let verdict = monitor.verdict().unwrap();
    assert_eq!((verdict.up, verdict.since, verdict.reason.as_str()), (true, ms(5), "HTTP 500"));
    transitions(&mut monitor, "--");
    let verdict = monitor.verdict().unwrap();
    assert_eq!((verdict.up, verdict.since, verdict.recovered), (false, ms(1000), false));
    transitions(&mut monitor, "-++");
    let verdict = monitor.verdict().unwrap();
    assert_eq!((verdict.up, verdict.since, verdict.recovered), (true, ms(2000), true));
}

/// A backend that was never up recovers as well: clients were kept from it, and come all at once.
#[test]
fn up_after_a_first_failure_is_a_recovery() {
    let mut monitor = Monitor::new(Arc::new(check()));
    assert_eq!(transitions(&mut monitor, "-++"), "D.U");
    assert!(monitor.verdict().unwrap().recovered);
}

#[test]
fn the_interval_follows_the_state() {
    let check = Check { interval: ms(10_000), interval_down: ms(1000), ..check() };
    let mut monitor = Monitor::new(Arc::new(check));
    // Half of the random numbers is the middle of the jitter.
    let mut wait = |outcomes: &str| {
        transitions(&mut monitor, outcomes);
        monitor.next(ms(7), 1 << 63) - ms(7)
    };
    assert_eq!(wait(""), ms(1000), "not known yet");
    assert_eq!(wait("+"), ms(10_000), "up");
    assert_eq!(wait("-"), ms(1000), "on its way down");
    assert_eq!(wait("+"), ms(10_000), "up again");
    assert_eq!(wait("---"), ms(1000), "down");
    assert_eq!(wait("+"), ms(1000), "on its way up");
    assert_eq!(wait("+"), ms(10_000), "up");
}

#[test]
fn the_times_of_the_defaults() {
    // 2.2 s, then two more checks 1.1 s apart, the last of which takes its second.
    assert_eq!(detection_time(&check()), ms(2200 + 2 * 1100 + 1000));
    assert_eq!(recovery_time(&check()), ms(2 * 1100 + 1000));
    // A timeout that is longer than the intervals: one check at a time.
    let slow = Check { timeout: ms(5000), ..check() };
    assert_eq!(detection_time(&slow), ms(5000 + 2 * 5000 + 5000));
    assert_eq!(recovery_time(&slow), ms(2 * 5000 + 5000));
}

/// The definition, over the whole history: the verdict is the kind of the last run of outcomes that was long enough to
/// turn it.
fn slow_verdict(history: &[bool], rise: usize, fall: usize) -> Option<bool> {
    let mut verdict = *history.first()?;
    for end in 1..=history.len() {
        let run = history[..end].iter().rev().take_while(|passed| **passed != verdict).count();
        if run >= if verdict { fall } else { rise } {
            verdict = !verdict;
        }
    }
    Some(verdict)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_definition(
        history in proptest::collection::vec(proptest::bool::weighted(0.5), 0..60),
        rise in 1..5_u32,
        fall in 1..5_u32,
    ) {
        let mut monitor = Monitor::new(Arc::new(Check { rise, fall, ..check() }));
        let mut before = None;
        for (nth, passed) in history.iter().enumerate() {
            let now = ms(nth as u64);
            let transition = monitor.observe(outcome(*passed), now);
            let expected = slow_verdict(&history[..=nth], rise as usize, fall as usize);
            let verdict = monitor.verdict().unwrap();
            prop_assert_eq!(Some(verdict.up), expected);
            prop_assert_eq!(transition.is_some(), expected != before);
            if let Some(transition) = transition {
                prop_assert_eq!(transition == Transition::Up, verdict.up);
                prop_assert_eq!(verdict.since, now);
                prop_assert_eq!(verdict.recovered, verdict.up && before == Some(false));
            }
            before = expected;
        }
    }

    #[test]
    fn the_next_check_is_never_at_once(
        interval in 0..100_000_u64,
        started in 0..100_000_u64,
        random in any::<u64>(),
    ) {
        let monitor = Monitor::new(Arc::new(Check { interval_down: ms(interval), ..check() }));
        let wait = monitor.next(ms(started), random) - ms(started);
        prop_assert!(wait >= ms(1).max(ms(interval * 9 / 10)) && wait <= ms(1).max(ms(interval) * 11 / 10));
    }

    /// A backend that fails and comes back at any moment, with checks that take any part of their timeout, late or
    /// early by any jitter: both verdicts come within the times stated.
    #[test]
    fn verdicts_come_in_the_time_stated(
        interval in 1..5000_u64, faster in 1..=100_u64, timeout in 1..5000_u64, rise in 1..5_u32, fall in 1..5_u32,
        fails_at in 0..60_000_u64, back_after in 0..60_000_u64,
        chances in proptest::collection::vec((any::<u64>(), 0..=1000_u64), 16),
    ) {
        let check = Check {
            interval: ms(interval),
            interval_down: ms((interval * faster / 100).max(1)),
            timeout: ms(timeout),
            rise,
            fall,
            ..check()
        };
        let failed = ms(fails_at);
        let back = failed + detection_time(&check) + ms(back_after);
        let mut monitor = Monitor::new(Arc::new(check.clone()));
        let mut told: Vec<(Transition, Moment)> = Vec::new();
        let mut started = Moment::ZERO;
        for (random, part) in chances.iter().cycle() {
            let ended = started + ms(timeout * part / 1000);
            // Alive when it is asked and when it answers.
            let alive = |at: Moment| at < failed || at >= back;
            let passed = alive(started) && alive(ended) && !(started < failed && ended >= failed);
            // Frozen, it lets the check run into its timeout.
            let ended = if passed { ended } else { started + check.timeout };
            told.extend(monitor.observe(outcome(passed), ended).map(|transition| (transition, ended)));
            started = monitor.next(started, *random).max(ended);
            if started > back + recovery_time(&check) * 2 {
                break;
            }
        }
        // A check that was on its way when the backend failed may be the first: then it was never up.
        let after = |at: Moment| told.iter().find(|(_, when)| *when >= at).copied();
        let down = after(failed);
        prop_assert!(
            matches!(down, Some((Transition::Down, when)) if when <= failed + detection_time(&check)),
            "{told:?}"
        );
        let up = after(back);
        prop_assert!(
            matches!(up, Some((Transition::Up, when)) if when <= back + recovery_time(&check)),
            "{told:?}"
        );
    }
}
