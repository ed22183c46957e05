//! What a report says against its own figures: failures, lanes that are short of rounds, spreads that tell nothing, rounds that
//! stand out. In made records, in which each of these was put.

mod made;

use made::more::{self, fail};
use portway_measure::advise::{self, Demand};
use portway_measure::record::{Cpu, Record};
use portway_measure::report::{self, document::Block};

/// The warnings that hold these words.
fn warnings(record: &Record, words: &str) -> Vec<String> {
    let all = report::warnings(record).into_iter();
    let text = |block| match block {
        Block::Warning(text) => text,
        other => panic!("no warning: {other:?}"),
    };
    all.map(text).filter(|text| text.contains(words)).collect()
}

/// The cells of a lane's row in the table that follows these words, the lane's name first.
fn row(markdown: &str, after: &str, lane: &str) -> Vec<String> {
    let (_, rest) = markdown.split_once(after).unwrap_or_else(|| panic!("{after:?} is not in\n{markdown}"));
    let rows =
        rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let mut rows = rows.map(cells).filter(|cells: &Vec<String>| cells[0] == lane);
    rows.next().unwrap_or_else(|| panic!("no row of {lane} after {after:?} in\n{markdown}"))
}

#[test]
fn failures_of_one_round_stand_beside_the_cost_along_a_series_and_in_its_drawing() {
    let mut record = made::record(3, 0.0, 1);
    let failing = more::runs(&mut record, "haproxy", "connections", Some(("rules", 1000)));
    failing.filter(|run| run.round == 2).for_each(|run| fail(run, 1323));
    // Few enough to pass.
    more::runs(&mut record, "nft", "connections", Some(("rules", 10))).for_each(|run| fail(run, 39));
    let markdown = report::markdown(&record);
    let cells = row(&markdown, "New connections by rules", "haproxy");
    assert!(cells[4].ends_with("), 3.2 % failed"), "{cells:?}");
    assert_eq!(cells.iter().filter(|cell| cell.contains("failed")).count(), 1, "{cells:?}");
    assert!(!row(&markdown, "New connections by rules", "nft").concat().contains("failed"));
    assert!(markdown.contains("Some failed: haproxy 3.2 % at 1,000."), "{markdown}");
    assert!(markdown.contains("in the worst round"), "{markdown}");
    let html = report::html(&record);
    assert!(html.contains("<title>haproxy, 1000: 3.2 % failed</title>"));
    assert_eq!(html.matches("class=\"ring\"").count(), 2, "the point's, and the one that is explained");
    let sound = report::html(&made::record(3, 0.0, 1));
    assert!(!sound.contains("class=\"ring\"") && !sound.contains("% failed"));
}

#[test]
fn where_nothing_succeeded_the_series_says_so_instead_of_nothing() {
    let mut record = made::record(3, 0.0, 1);
    for run in more::runs(&mut record, "socat", "connections", Some(("rules", 100_000))) {
        run.figures.done = 0;
        fail(run, 10);
    }
    let cells = row(&report::markdown(&record), "New connections by rules", "socat");
    assert_eq!(cells.last().unwrap(), "100 % failed");
    // Of a series that failed as a whole there is no line, but a table.
    record.runs.iter_mut().filter(|run| run.at.is_some()).for_each(|run| run.figures.done = 0);
    let markdown = report::markdown(&record);
    assert!(!markdown.contains("series-rules"), "{markdown}");
    assert!(
        row(&markdown, "New connections by rules", "nft").iter().skip(1).all(|cell| cell == "100 % failed")
    );
}

#[test]
fn lanes_that_failed_are_named_with_load_and_share() {
    assert_eq!(warnings(&made::record(3, 0.0, 1), "failed"), [""; 0]);
    let mut record = made::record(3, 0.0, 1);
    more::runs(&mut record, "haproxy", "connections", None).take(1).for_each(|run| fail(run, 1000));
    more::runs(&mut record, "nft", "connections", None).for_each(|run| fail(run, 39));
    more::runs(&mut record, "socat", "connections", None).for_each(|run| fail(run, 100));
    let place = Some(("rules", 10_000));
    more::runs(&mut record, "iptables", "connections", place).take(1).for_each(|run| run.figures.done = 0);
    assert_eq!(
        warnings(&record, "failed"),
        [
            "more than 0.1 % failed, here in the worst round, and costs are divided by what succeeded: under connections \
          haproxy 2.4 %, socat 0.25 %; under connections at rules 10,000 iptables 100 %."
        ]
    );
}

#[test]
fn where_all_lanes_fail_the_warning_stays_short() {
    let mut record = made::record(3, 0.0, 1);
    let failing = record.runs.iter_mut().filter(|run| run.load == "idle");
    failing.enumerate().for_each(|(place, run)| fail(run, 100 * (place as u64 + 1)));
    let [warning] = <[String; 1]>::try_from(warnings(&record, "failed")).unwrap();
    assert!(warning.ends_with(": under idle all 9 lanes 16 % to 21 %."), "{warning}");
    record.runs.iter_mut().filter(|run| run.load == "idle").for_each(|run| run.figures.done = 0);
    let [warning] = <[String; 1]>::try_from(warnings(&record, "failed")).unwrap();
    assert!(warning.ends_with(": under idle all 9 lanes 100 %."), "{warning}");
}

#[test]
fn failures_are_what_churn_and_flood_are_for_but_rounds_are_not() {
    let mut record = made::record(3, 0.0, 1);
    let plain = record.runs.iter().filter(|run| run.load == "connections" && run.at.is_none());
    let mut apart: Vec<_> = plain.cloned().collect();
    apart.iter_mut().for_each(|run| {
        run.load = if run.lane == "nft" { "flood" } else { "churn" }.to_owned();
        fail(run, 9000);
    });
    apart.retain(|run| run.lane != "haproxy" || run.round != 3);
    record.runs.extend(apart);
    assert_eq!(warnings(&record, "failed"), [""; 0]);
    assert_eq!(
        warnings(&record, "rounds"),
        ["not all lanes were measured in all rounds of a load: under churn haproxy 2 of 3."]
    );
}

#[test]
fn lanes_of_fewer_rounds_are_named_by_load() {
    assert_eq!(warnings(&made::record(3, 0.0, 1), "rounds"), [""; 0]);
    let mut record = made::record(3, 0.0, 1);
    record.runs.retain(|run| {
        let lost = match (run.lane.as_str(), run.load.as_str(), &run.at) {
            ("socat" | "haproxy", "connections", None) => run.round > 1,
            ("nft", "connections", None) => run.round > 2,
            ("nft", _, Some(at)) => at.count == 100_000 && run.round > 2,
            _ => false,
        };
        !lost
    });
    assert_eq!(
        warnings(&record, "rounds"),
        [
            "not all lanes were measured in all rounds of a load: under connections haproxy, socat 1, nft 2 of 3; under \
          connections at rules 100,000 nft 2 of 3."
        ]
    );
    // A load that takes part in a third of the rounds is not short of any.
    record.runs.retain(|run| run.load == "idle" && run.round == 1 || run.load == "bulk-up");
    assert_eq!(warnings(&record, "rounds"), [""; 0]);
}

/// A lane that adds something in one round and saves as much in another.
fn with_a_wide_lane(mut record: Record) -> Record {
    for load in ["connections", "bulk-up"] {
        for (run, factor) in more::runs(&mut record, "portway-ebpf", load, None).zip([0.7, 1.0, 1.4]) {
            more::stretch(run, factor);
        }
    }
    for (run, factor) in more::runs(&mut record, "portway-ebpf", "idle", None).zip([0.8, 1.0, 1.2]) {
        run.figures.kernel_memory = run.figures.kernel_memory.map(|bytes| (bytes as f64 * factor) as i64);
    }
    record
}

#[test]
fn a_spread_that_is_too_wide_says_so_wherever_something_is_added() {
    let record = with_a_wide_lane(made::record(3, 0.0, 1));
    let markdown = report::markdown(&record);
    let marked = |after: &str, lane: &str| -> Vec<usize> {
        let cells = row(&markdown, after, lane);
        (0..cells.len()).filter(|place| cells[*place].ends_with(" ?")).collect()
    };
    assert_eq!(marked("## At a glance", "portway-ebpf"), [1, 2]);
    // Added, and of it kernel and programs.
    assert_eq!(marked("New connections: median of", "portway-ebpf"), [3, 4, 5]);
    assert_eq!(marked("Memory per held connection, in bytes", "portway-ebpf"), [2]);
    for after in ["## At a glance", "New connections: median of", "Memory per held connection, in bytes"] {
        assert_eq!(marked(after, "haproxy"), [0; 0]);
        let (_, rest) = markdown.split_once(after).unwrap();
        let note = rest
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .find(|line| !line.starts_with('|') && !line.is_empty());
        assert!(note.unwrap().starts_with("?: too wide to tell"), "{after}: {note:?}");
    }
    let html = report::html(&record);
    assert!(html.contains("<p class=\"note\">?: too wide to tell"));
    // The mark stays on the line of the brackets.
    assert!(html.contains(") ?</span></td>") && !html.contains("</span> ?"), "{html}");
    // The drawing has the mark, and its description the words.
    assert!(html.contains(" µs ?</text>"));
    assert!(markdown.contains(" µs, too wide to tell; portway-proxy"), "{markdown}");
    let (_, advice) = markdown.split_once("## Which engine fits this host").unwrap();
    assert!(advice.contains("portway-ebpf adds the least CPU per connection"), "{advice}");
    assert!(advice.contains(" µs, too wide to tell; portway-nftables"), "{advice}");
    let sound = report::html(&made::record(3, 0.0, 1));
    assert!(!sound.contains(" ?<") && !sound.contains("class=\"note\""));
}

#[test]
fn a_figure_of_fewer_rounds_than_decide_says_of_how_many() {
    let mut record = made::record(3, 0.0, 1);
    record.runs.retain(|run| match (run.lane.as_str(), run.load.as_str()) {
        ("socat", "connections") => run.round == 1,
        ("haproxy", "connections") => run.round < 3,
        (_, "idle") => run.round == 1,
        _ => true,
    });
    let markdown = report::markdown(&record);
    let cost = row(&markdown, "New connections: median of", "socat");
    assert!(cost.iter().skip(1).all(|cell| cell.ends_with(", one round")), "{cost:?}");
    let cost = row(&markdown, "New connections: median of", "haproxy");
    assert!(cost.iter().skip(1).all(|cell| cell.ends_with("), 2 rounds")), "{cost:?}");
    let cost = row(&markdown, "New connections: median of", "nft");
    assert!(cost.iter().all(|cell| !cell.contains("round")), "{cost:?}");
    let glance = row(&markdown, "## At a glance", "socat");
    let few: Vec<bool> = glance.iter().map(|cell| cell.ends_with(", one round")).collect();
    // Under connections: added and memory; bulk has all rounds.
    assert_eq!(few, [false, true, false, false, false, true], "{glance:?}");
    let series = row(&markdown, "New connections by rules", "socat");
    assert!(series.iter().skip(1).all(|cell| cell.ends_with(", one round")), "{series:?}");
    assert!(markdown.contains("Fewer than 3 rounds decide nothing."));
    // A load of one round: said once, not in each cell.
    let held = row(&markdown, "Memory per held connection, in bytes", "haproxy");
    assert!(held.iter().all(|cell| !cell.contains("round")), "{held:?}");
    let (_, after) = markdown.split_once("Memory per held connection, in bytes").unwrap();
    let (table, _) = after.split_once("\n## ").unwrap();
    assert!(table.contains("\nAll of one round: it takes 3 to decide anything.\n"), "{table}");
    assert!(report::html(&record).contains(" bytes, one round</text>"));
    // Instructions of one round are as sure as those of many.
    record.mode = portway_measure::record::Mode::Exact;
    let markdown = report::markdown(&record);
    assert!(!markdown.contains("one round") && !markdown.contains("to decide anything"), "{markdown}");
}

#[test]
fn failures_are_shown_by_kind() {
    let mut record = made::record(3, 0.0, 1);
    more::runs(&mut record, "haproxy", "connections", None).for_each(|run| fail(run, 7));
    let rest = "New connections: what else was measured";
    let markdown = report::markdown(&record);
    let (_, table) = markdown.split_once(rest).unwrap();
    let head = table.lines().find(|line| line.starts_with('|')).unwrap();
    assert!(head.ends_with(" failures by kind |"), "{head}");
    // Three and four in each of three rounds.
    assert_eq!(row(&markdown, rest, "haproxy").last().unwrap(), "reset 9, timeout 12");
    assert_eq!(row(&markdown, rest, "nft").last().unwrap(), "–");
    // Without any there is no such column.
    assert!(!report::markdown(&made::record(3, 0.0, 1)).contains("failures by kind"));
}

#[test]
fn a_round_that_is_spoilt_is_listed_drawn_and_kept() {
    let mut record = made::record(5, 0.0, 1);
    for run in record.runs.iter_mut().filter(|run| run.load == "connections" && run.at.is_none()) {
        // A hundred microseconds a connection and one more in each round.
        let seconds = f64::from(100 + run.round) * run.figures.done as f64 / 1e6;
        run.figures.cpu = Some(Cpu { user: 0.0, kernel: seconds });
    }
    assert!(!report::markdown(&record).contains("Rounds that stand out\n"));
    let spoilt = more::runs(&mut record, "nft", "connections", None).filter(|run| run.round == 4);
    spoilt.for_each(|run| more::stretch(run, 3.0));
    let markdown = report::markdown(&record);
    let (_, section) = markdown.split_once("## Rounds that stand out\n\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    assert_eq!(
        section.trim(),
        "- nft, connections, round 4: 312 µs per connection, where the median is 103."
    );
    // It is among the rounds of the table, whose median does not mind, and at the edge of the drawing.
    assert_eq!(row(&markdown, "New connections: median of", "nft")[2], "103 (102–105)");
    let html = report::html(&record);
    let far = html.lines().find(|line| line.contains("class=\"far\"")).unwrap();
    assert!(far.contains("<title>nft, round 4: 208 µs</title>"), "{far}");
}

#[test]
fn a_base_that_carried_nothing_is_named_where_it_was_asked() {
    let words = "has carried nothing under connections";
    let mut record = made::record(3, 0.0, 1);
    assert_eq!(warnings(&record, words), [] as [String; 0]);
    more::runs(&mut record, "routing", "connections", None).take(2).for_each(|run| run.figures.done = 0);
    assert_eq!(warnings(&record, words), [] as [String; 0], "one round has something");
    more::runs(&mut record, "routing", "connections", None).for_each(|run| run.figures.done = 0);
    assert_eq!(warnings(&record, words).len(), 1);
}

#[test]
fn advice_has_the_marks_of_the_figures_that_it_is_reckoned_from() {
    let demand = Demand { connections: Some(1000.0), gbit: None, rules: None };
    let answer = |record: &Record| report::text(&advise::answer(record, &demand));
    let after = "CPUs for 1,000 new connections/s";
    let sound = answer(&made::record(3, 0.02, 1));
    assert!(!sound.contains('?') && !sound.contains("failed") && !sound.contains("one round"), "{sound}");
    let mut record = made::record(3, 0.0, 1);
    for (run, factor) in more::runs(&mut record, "nft", "connections", None).zip([0.7, 1.0, 1.4]) {
        more::stretch(run, factor);
    }
    more::runs(&mut record, "haproxy", "connections", None).take(1).for_each(|run| fail(run, 1000));
    record.runs.retain(|run| run.lane != "socat" || run.round == 2);
    let text = answer(&record);
    assert!(row(&text, after, "nft")[1].ends_with(" ?"), "{text}");
    assert!(row(&text, after, "haproxy")[2].ends_with(", 2.4 % failed"), "{text}");
    assert!(row(&text, after, "socat")[1].ends_with(", one round"), "{text}");
    assert!(
        text.contains("?: too wide to tell") && text.contains("Fewer than 3 rounds decide nothing."),
        "{text}"
    );
}

#[test]
fn the_whole_machine_has_marks_of_its_own() {
    let after = "New connections: CPU of the whole machine";
    let mut record = made::record(3, 0.0, 1);
    // Somebody else was at work under one lane in one round.
    for (run, factor) in more::runs(&mut record, "nft", "connections", None).zip([0.7, 1.0, 1.4]) {
        run.figures.machine_cpu = run.figures.machine_cpu.map(|cpu| cpu * factor);
    }
    let markdown = report::markdown(&record);
    assert!(row(&markdown, after, "nft")[2].ends_with(" ?"), "{markdown}");
    assert!(!row(&markdown, "New connections: median of", "nft").concat().contains('?'), "{markdown}");
    assert!(row(&markdown, "Added CPU of the whole machine", "nft")[1].ends_with(" ?"), "{markdown}");
    assert_eq!(markdown.matches("it is the figure to go by").count(), 1);
}

#[test]
fn what_an_older_record_does_not_know_of_the_machine_has_no_column() {
    let mut record = made::record(3, 0.0, 1);
    record.runs.iter_mut().for_each(|run| run.figures.machine_parts = None);
    let markdown = report::markdown(&record);
    assert_eq!(row(&markdown, "New connections: CPU of the whole machine", "nft").len(), 3);
    assert!(!markdown.contains("(steal)"));
    record.runs.iter_mut().for_each(|run| run.figures.machine_cpu = None);
    assert!(!report::markdown(&record).contains("the whole machine"));
}

#[test]
fn what_the_hypervisor_took_is_told_and_much_of_it_is_a_warning() {
    let mut record = made::record(3, 0.0, 1);
    assert!(report::markdown(&record).contains("(steal) is not in it: 0.010 CPUs"));
    assert_eq!(warnings(&record, "steal"), [""; 0]);
    for run in &mut record.runs {
        if let Some(parts) = &mut run.figures.machine_parts {
            parts.stolen = 0.3 * run.figures.seconds;
        }
    }
    let [warning] = <[String; 1]>::try_from(warnings(&record, "steal")).unwrap();
    assert!(warning.starts_with("the hypervisor gave 0.300 CPUs to others"), "{warning}");
}

#[test]
fn a_flood_is_as_strong_as_the_report_says() {
    let mut record = made::record(3, 0.0, 1);
    let plain = record.runs.iter().filter(|run| run.load == "connections" && run.at.is_none());
    let mut flooded: Vec<_> = plain.cloned().collect();
    for run in &mut flooded {
        run.load = "flood".to_owned();
        run.figures.flood = Some(19_800.0);
    }
    record.runs.extend(flooded);
    let markdown = report::markdown(&record);
    let cells = row(&markdown, "A SYN flood: what else was measured", "nft");
    assert!(cells.contains(&"19,800 (19,800–19,800)".to_owned()), "{cells:?}");
    assert_eq!(markdown.matches("SYNs of nobody's/s").count(), 1);
}
