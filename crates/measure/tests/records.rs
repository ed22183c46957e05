//! Records compared and asked for advice: factors that were put in come out, noise is not taken for a change, and whatever a
//! file holds, the answer is words.

mod made;

use made::Noise;
use portway_measure::advise::{self, Demand};
use portway_measure::compare::{Change, Comparison, Incomparable, compare};
use portway_measure::quantity::{Busy, Part, Quantity};
use portway_measure::record::{Cpu, Kind, Mode, Record};
use portway_measure::{read, report};
use proptest::prelude::*;

const CPU: Quantity = Quantity::Cpu(Part::Total);

/// The same record with a lane's CPU time multiplied.
fn slowed(record: &Record, lane: &str, factor: f64) -> Record {
    let mut record = record.clone();
    for run in record.runs.iter_mut().filter(|run| run.lane == lane) {
        run.figures.cpu =
            run.figures.cpu.map(|cpu| Cpu { user: cpu.user * factor, kernel: cpu.kernel * factor });
    }
    record
}

fn changes(comparison: &Comparison, change: Change) -> Vec<(&str, &str)> {
    let of = comparison.compared.iter().filter(|each| each.change == change && each.at.is_none());
    of.map(|each| (each.lane.as_str(), each.load.as_str())).collect()
}

#[test]
fn a_regression_of_one_lane_is_found_and_nothing_else() {
    let first = made::record(5, 0.01, 1);
    let second = slowed(&made::record(5, 0.01, 2), "portway-proxy", 1.2);
    let comparison = compare(&first, &second, None).unwrap();
    let worse = changes(&comparison, Change::Worse);
    assert_eq!(
        worse,
        [("portway-proxy", "connections"), ("portway-proxy", "bulk-up"), ("portway-proxy", "bulk-down")]
    );
    let found = comparison.regressions().next().unwrap();
    assert_eq!(found.quantity, CPU);
    assert!((found.interval.ratio - 1.2).abs() < 0.03, "{found:?}");
    let text = report::text(&report::changes(&comparison, false));
    assert!(text.contains("| portway-proxy ") && text.contains(" worse |"), "{text}");
    // The other way round it is a gain.
    assert_eq!(compare(&second, &first, None).unwrap().regressions().count(), 0);
}

#[test]
fn others_that_are_worse_are_no_regression_of_portway() {
    let first = made::record(5, 0.01, 1);
    let comparison = compare(&first, &slowed(&first, "haproxy", 1.5), None).unwrap();
    assert!(changes(&comparison, Change::Worse).contains(&("haproxy", "connections")));
    assert_eq!(comparison.regressions().count(), 0);
}

#[test]
fn a_slower_machine_is_no_regression() {
    let first = made::record(5, 0.01, 1);
    let lanes: Vec<String> = first.lanes.iter().map(|lane| lane.name.clone()).collect();
    let second = lanes.iter().fold(first.clone(), |record, lane| slowed(&record, lane, 1.4));
    let comparison = compare(&first, &second, None).unwrap();
    assert_eq!(comparison.regressions().count(), 0);
    assert!(changes(&comparison, Change::Worse).iter().all(|(lane, _)| *lane == "routing"));
}

#[test]
fn noise_is_no_change() {
    for seed in 0..20 {
        let [first, second] = [seed, seed + 100].map(|seed| made::record(5, 0.1, seed));
        let comparison = compare(&first, &second, None).unwrap();
        // The made machine's time has the noise of the participants': one figure that chance changes is not two.
        let figures =
            || comparison.compared.iter().filter(|each| !matches!(each.quantity, Quantity::MachineCpu(_)));
        // At a level of 99 % one of a hundred figures may be taken for changed.
        let changed = figures().filter(|each| each.change < Change::Same).count();
        let all = figures().count();
        assert!(changed * 50 <= all, "seed {seed}: {changed} of {all}");
    }
}

#[test]
fn few_rounds_say_perhaps_and_one_says_nothing() {
    let change = |rounds| {
        let first = made::record(rounds, 0.01, 1);
        let comparison = compare(&first, &slowed(&first, "portway-ebpf", 1.5), None).unwrap();
        comparison
            .compared
            .iter()
            .find(|each| each.lane == "portway-ebpf" && each.quantity == CPU)
            .map(|each| each.change)
    };
    assert_eq!(change(1), Some(Change::TooFew));
    assert_eq!(change(3), Some(Change::PerhapsWorse));
    assert_eq!(change(5), Some(Change::Worse));
}

#[test]
fn instructions_need_one_round_and_show_three_percent() {
    let mut first = made::record(1, 0.0, 1);
    first.mode = Mode::Exact;
    let comparison = compare(&first, &slowed(&first, "portway-nftables", 1.03), None).unwrap();
    let found: Vec<&str> = comparison.regressions().map(|each| each.lane.as_str()).collect();
    assert!(!found.is_empty() && found.iter().all(|lane| *lane == "portway-nftables"), "{found:?}");
    assert_eq!(
        compare(&first, &slowed(&first, "portway-nftables", 1.01), None).unwrap().regressions().count(),
        0
    );
}

/// Where instructions are counted so are packets: three in a hundred more for a connection are a regression, of Portway's lanes
/// only. Times say nothing of the kind, and neither do streams, nor what was sent again.
#[test]
fn more_packets_are_a_regression_where_instructions_are_counted() {
    let change = |mode, (lane, load): (&str, &str), factor: f64, retransmits| {
        let record = |factor: f64| {
            let mut record = Record { mode, ..made::record(5, 0.0, 1) };
            for run in record.runs.iter_mut().filter(|run| run.lane == lane && run.load == load) {
                run.figures.packets = Some((1_000_000.0 * factor) as u64);
                run.figures.retransmits = Some(retransmits);
            }
            record
        };
        let comparison = compare(&record(1.0), &record(factor), None).unwrap();
        let is_regression = comparison.regressions().any(|each| each.quantity == Quantity::Packets);
        assert_eq!(comparison.regressions().count() > 0, is_regression);
        let mut packets = comparison.compared.iter().filter(|each| each.quantity == Quantity::Packets);
        let found = packets
            .find(|each| (each.lane.as_str(), each.load.as_str()) == (lane, load) && each.at.is_none());
        (found.unwrap().change, is_regression)
    };
    let connections = ("portway-ebpf", "connections");
    assert_eq!(change(Mode::Exact, connections, 1.03, 0), (Change::Worse, true));
    assert_eq!(change(Mode::Exact, connections, 1.01, 0), (Change::Same, false));
    assert_eq!(change(Mode::Exact, connections, 0.9, 0), (Change::Better, false));
    assert_eq!(change(Mode::Exact, connections, 1.5, 3), (Change::Different, false));
    assert_eq!(change(Mode::Exact, ("haproxy", "connections"), 1.5, 0), (Change::Worse, false));
    assert_eq!(change(Mode::Exact, ("portway-ebpf", "bulk-up"), 1.5, 0), (Change::Different, false));
    assert_eq!(change(Mode::Time, connections, 1.5, 0), (Change::Different, false));
}

#[test]
fn a_report_of_instructions_says_that_they_are_not_divided() {
    let mut record = made::record(3, 0.0, 1);
    let said = |record: &Record| report::markdown(record).contains("not divided among kernel and programs");
    assert!(!said(&record));
    record.mode = Mode::Exact;
    assert!(said(&record));
}

/// A kernel that needs a tenth more for everything is no regression of what runs on it; one lane's own is.
#[test]
fn instructions_of_another_kernel_are_relative_to_its_base() {
    let mut first = made::record(1, 0.0, 1);
    first.mode = Mode::Exact;
    let mut later = first.clone();
    later.host.kernel = "7.0".into();
    for lane in first.lanes.iter().map(|lane| lane.name.clone()) {
        later = slowed(&later, &lane, 1.1);
    }
    assert_eq!(compare(&first, &later, None).unwrap().regressions().count(), 0);
    let worse = slowed(&later, "portway-nftables", 1.03);
    assert!(compare(&first, &worse, None).unwrap().regressions().count() > 0);
}

#[test]
fn what_does_not_run_any_more_is_not_better() {
    let first = made::record(5, 0.0, 1);
    let mut second = first.clone();
    second.runs.retain(|run| run.lane != "portway-nftables" || run.load != "connections");
    let why = compare(&first, &second, None).unwrap().cannot_tell().unwrap();
    assert!(why.contains("portway-nftables under connections"), "{why}");
    // What nobody was asked is not missed.
    second.runs.retain(|run| run.load != "connections");
    assert_eq!(compare(&first, &second, None).unwrap().cannot_tell(), None);
}

#[test]
fn what_cannot_be_compared_is_refused_by_name_and_hosts_that_differ_are_named() {
    let first = made::record(3, 0.01, 1);
    let exact = Record { mode: Mode::Exact, ..first.clone() };
    let refusal = compare(&first, &exact, None).unwrap_err();
    assert_eq!(refusal, Incomparable::Modes(Mode::Time, Mode::Exact));
    assert!(refusal.to_string().contains("exact"));
    let unoptimised = Record { optimised: false, ..first.clone() };
    assert_eq!(compare(&first, &unoptimised, None).unwrap_err(), Incomparable::Builds);
    let later = Record { version: 2, ..first.clone() };
    assert_eq!(
        compare(&first, &later, None).unwrap_err().to_string(),
        "the first record is of version 1, the second of version 2"
    );
    let mut moved = first.clone();
    moved.host.kernel = "7.0".into();
    moved.lanes.retain(|lane| lane.name != "socat");
    let warnings = compare(&first, &moved, None).unwrap().warnings;
    assert_eq!(warnings, ["the kernel differs: 6.12.0-made, then 7.0", "socat is in the first only"]);
}

#[test]
fn advice_is_cost_times_demand() {
    let record = made::record(5, 0.0, 1);
    let rounds = |lane: &str, load: &str| {
        record.added(record.lane(lane).unwrap(), load, None, CPU).summary().unwrap().median
    };
    let demand = Demand { connections: Some(20_000.0), gbit: Some(4.0), rules: None };
    let needs = advise::needs(&record, &demand);
    let need = needs.iter().find(|need| need.lane == "portway-proxy").unwrap();
    let bulk = (rounds("portway-proxy", "bulk-up") + rounds("portway-proxy", "bulk-down")) / 2.0;
    let least = 20_000.0 * rounds("portway-proxy", "connections") / 1e6 + 0.5 * bulk / 1e3;
    assert!((need.cpus().unwrap().0 - least).abs() < 1e-9, "{need:?} {least}");
    assert!(need.extrapolated[0].starts_with("20,000 connections/s, where "), "{need:?}");
    assert_eq!(needs[0].lane, "portway-ebpf");
    let text = report::text(&advise::answer(&record, &demand));
    assert!(text.contains("Of Portway's engines portway-ebpf takes the fewest CPUs"), "{text}");
    assert!(text.contains("beyond this host"), "{text}");
}

#[test]
fn advice_grows_with_rules_and_says_where_it_guesses() {
    let record = made::record(5, 0.0, 1);
    let need = |lane: &str, rules| {
        let demand = Demand { connections: Some(1e6), gbit: None, rules: Some(rules) };
        advise::needs(&record, &demand).into_iter().find(|need| need.lane == lane).unwrap()
    };
    let (few, many) = (need("iptables", 1), need("iptables", 5000));
    // 0.025 µs for each rule, times the rounds' pace, which lies between 1 and 1.2.
    let grown = (many.cpus().unwrap().0 - few.cpus().unwrap().0) / 4999.0;
    assert!((0.025..0.03).contains(&grown), "{grown}");
    assert!(need("iptables", 1_000_000).extrapolated.iter().any(|what| what.contains("1,000,000 rules")));
    let without = Record {
        runs: record.runs.iter().filter(|run| run.at.is_none()).cloned().collect(),
        ..record.clone()
    };
    let needs = advise::needs(&without, &Demand { connections: Some(1.0), gbit: None, rules: Some(5) });
    assert!(needs.iter().all(|need| need.unknown == ["growth with rules"]));
}

#[test]
fn a_report_ends_with_advice() {
    let text = report::markdown(&made::record(5, 0.01, 1));
    let (_, advice) = text.split_once("## Which engine fits this host").unwrap();
    assert!(
        !advice.contains("\n## ") && advice.contains("portway-ebpf adds the least CPU per connection"),
        "{advice}"
    );
}

#[test]
fn what_a_lane_adds_is_what_was_put_in() {
    let record = made::record(5, 0.0, 3);
    let rounds = |lane: &str, part| {
        let quantity = Quantity::Cpu(part);
        let all = record.rounds("routing", "connections", None, quantity);
        record.added(record.lane(lane).unwrap(), "connections", None, quantity).over(&all)
    };
    // Over the base of the same round the pace of the round falls out: 17 µs and 0.5 µs beside routing's 92 and 16.
    for (part, share) in [(Part::Kernel, 17.0 / 92.0), (Part::User, 0.5 / 16.0), (Part::Total, 17.5 / 108.0)]
    {
        let shares = rounds("nft", part);
        assert_eq!(shares.len(), 5);
        assert!(shares.figures().all(|each| (each - share).abs() < 1e-9), "{part:?}: {shares:?}");
    }
}

/// The made machine is busy a hundredth more than the participants, and so is what a lane adds to it.
#[test]
fn what_a_lane_adds_to_the_machine_is_what_was_put_in() {
    let record = made::record(5, 0.0, 3);
    let nft = record.lane("nft").unwrap();
    let added = |quantity| record.added(nft, "connections", None, quantity);
    for (part, busy, share) in [
        (Part::Total, Busy::All, 1.01),
        (Part::User, Busy::Programs, 1.01),
        (Part::Kernel, Busy::Kernel, 1.01),
        (Part::Kernel, Busy::Interrupts, 0.4 * 1.01),
    ] {
        let shares = added(Quantity::MachineCpu(busy)).over(&added(Quantity::Cpu(part)));
        assert_eq!(shares.len(), 5);
        assert!(shares.figures().all(|each| (each - share).abs() < 1e-6), "{busy:?}: {shares:?}");
    }
}

/// What others did meanwhile makes no lane worse; that it is another figure is said all the same.
#[test]
fn a_busier_machine_is_no_regression() {
    let first = made::record(5, 0.01, 1);
    let mut second = first.clone();
    for run in second.runs.iter_mut().filter(|run| run.lane == "portway-proxy") {
        run.figures.machine_cpu = run.figures.machine_cpu.map(|cpu| cpu * 1.5);
    }
    let comparison = compare(&first, &second, None).unwrap();
    assert_eq!(comparison.regressions().count(), 0);
    assert_eq!(changes(&comparison, Change::Different), [("portway-proxy", "connections")]);
}

/// A value of JSON of any form.
fn value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(serde_json::json!([])),
        Just(serde_json::json!({})),
        Just(serde_json::json!([[5.0, 1], [2.0, 0]])),
    ]
}

/// Replaces the value at a place, counted through all of the tree.
fn replace(tree: &mut serde_json::Value, place: &mut usize, by: &serde_json::Value) -> bool {
    if *place == 0 {
        *tree = by.clone();
        return true;
    }
    *place -= 1;
    match tree {
        serde_json::Value::Array(items) => items.iter_mut().any(|item| replace(item, place, by)),
        serde_json::Value::Object(items) => items.values_mut().any(|item| replace(item, place, by)),
        _ => false,
    }
}

/// A small record in which everything is there once.
fn small() -> Record {
    let mut record = made::record(3, 0.05, 1);
    record.lanes.retain(|lane| ["routing", "portway-proxy", "nft"].contains(&lane.name.as_str()));
    let kept: Vec<String> = record.lanes.iter().map(|lane| lane.name.clone()).collect();
    record.runs.retain(|run| kept.contains(&run.lane) && run.at.as_ref().is_none_or(|at| at.count < 100));
    for run in &mut record.runs {
        run.moments.truncate(2);
        if let Some(latency) = &mut run.figures.latency {
            latency.steps.truncate(3);
        }
    }
    record
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// A record of which some values are others is refused in words or makes a report without a figure that is no number.
    #[test]
    fn a_hostile_record_is_refused_or_harmless(changes in prop::collection::vec((0_usize..3000, value()), 1..4)) {
        let mut tree = serde_json::to_value(small()).unwrap();
        for (place, value) in changes {
            replace(&mut tree, &mut place.clone(), &value);
        }
        match read::parse(tree.to_string().as_bytes()) {
            Err(reason) => prop_assert!(!reason.to_string().is_empty()),
            Ok(record) => {
                let html = report::html(&record);
                prop_assert!(!html.contains("NaN") && !html.contains("\"inf") && !html.contains("\"-inf"));
                let _ = compare(&small(), &record, None).map(|comparison| report::text(&report::changes(&comparison, true)));
                let demand = Demand { connections: Some(1e4), gbit: Some(1.0), rules: Some(100) };
                report::text(&advise::answer(&record, &demand));
            }
        }
    }

    /// Bytes of any kind are refused in words.
    #[test]
    fn bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!read::parse(&bytes).unwrap_err().to_string().is_empty());
    }

    /// In which order runs were written does not matter.
    #[test]
    fn the_order_of_runs_does_not_matter(seed in any::<u64>()) {
        let record = small();
        let mut shuffled = record.clone();
        let mut chance = Noise::new(seed);
        for place in (1..shuffled.runs.len()).rev() {
            shuffled.runs.swap(place, (chance.next().abs() * (place + 1) as f64) as usize % (place + 1));
        }
        prop_assert_eq!(report::markdown(&record), report::markdown(&shuffled));
    }

    /// A factor on one lane is that lane's ratio, whatever else the noise does.
    #[test]
    fn a_factor_is_its_ratio(factor in 1.1_f64..5.0, seed in 0_u64..1000) {
        let first = made::record(5, 0.0, seed);
        let comparison = compare(&first, &slowed(&first, "portway-ebpf", factor), None).unwrap();
        let found: Vec<_> = comparison.compared.iter().filter(|each| each.change == Change::Worse).collect();
        prop_assert!(!found.is_empty());
        for each in found {
            prop_assert_eq!(each.lane.as_str(), "portway-ebpf");
            prop_assert_eq!(each.kind, Kind::Portway);
            prop_assert!((each.interval.ratio / factor - 1.0).abs() < 1e-6, "{:?}", each);
        }
    }
}
