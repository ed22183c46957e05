//! What reports say of times: under which loads they count from when a request was due, and under which from when it was sent.
//!
//! Deliberately absent: the times themselves.

mod made;

use portway_measure::record::Record;
use portway_measure::report;

/// A record with new connections in a closed loop, and with `also` the same figures under that load.
fn record(also: Option<&str>) -> Record {
    let mut record = made::record(3, 0.02, 7);
    let under = |load: &str| {
        let runs = record.runs.iter().filter(|run| run.load == "connections" && run.at.is_none()).cloned();
        runs.map(|run| portway_measure::record::Run { load: load.to_owned(), ..run }).collect::<Vec<_>>()
    };
    let more = also.map(under).unwrap_or_default();
    record.runs.extend(more);
    record
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no line {start:?} in {text}"))
}

#[test]
fn each_table_of_times_says_from_when_they_count() {
    let text = report::markdown(&record(Some("paced")));
    assert_eq!(
        line(&text, "New connections at a rate: times"),
        "New connections at a rate: times, from when one was due:"
    );
    assert_eq!(
        line(&text, "New connections: times"),
        "New connections: times, from when one was sent; a lane that stalls is asked less meanwhile:"
    );
    // Of a load of a later version nobody knows.
    let text = report::markdown(&record(Some("quic")));
    assert_eq!(line(&text, "quic: times"), "quic: times:");
}

#[test]
fn how_to_read_it_names_the_loads_of_either_kind() {
    let due = "- Times under paced count from when one was due,";
    let sent = "- Times under connections count from when one was sent;";
    let text = report::markdown(&record(Some("paced")));
    assert!(line(&text, due).ends_with("(no coordinated omission)."));
    assert!(line(&text, sent).ends_with("(coordinated omission)."));
    let text = report::markdown(&record(None));
    assert!(!text.contains(due) && text.contains(sent), "{text}");
}

#[test]
fn at_a_glance_there_is_no_p99_of_a_closed_loop() {
    let head = |record: &Record| line(&report::brief(record), "| lane ").to_owned();
    assert!(head(&record(Some("paced"))).contains("p99 of new connections at a rate"));
    assert!(!head(&record(None)).contains("p99"));
}
