//! What is done with records of the lab, as a person meets it: exit statuses and words. Nothing is measured and root is not
//! needed; that the lab measures is the conformance of `portway-measure`.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails where it stands.

#[path = "../../measure/tests/made/mod.rs"]
mod made;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use portway_measure::record::{Mode, Record};

/// A directory of the test's own with records in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("lab-{name}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn record(&self, name: &str, record: &Record) {
        let dir = self.0.join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("record.json"), serde_json::to_vec(record).unwrap()).unwrap();
    }

    fn lab(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
        let Output { status, stdout, stderr } =
            command.arg("lab").args(words).current_dir(&self.0).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }
}

#[test]
fn compare_fails_on_a_regression_when_told_to() {
    let scratch = Scratch::new("compare");
    let first = made::record(5, 0.01, 1);
    let mut second = first.clone();
    for run in second.runs.iter_mut().filter(|run| run.lane == "portway-nftables") {
        run.figures.cpu = run.figures.cpu.map(|mut cpu| {
            cpu.kernel *= 1.3;
            cpu
        });
    }
    scratch.record("a", &first);
    scratch.record("b", &second);
    let (status, said, _) = scratch.lab(&["compare", "a", "b/record.json"]);
    assert_eq!(status, Some(0));
    assert!(said.contains("portway-nftables") && said.contains("worse"), "{said}");
    let (status, _, complaint) = scratch.lab(&["compare", "a", "b", "--fail-on-regression"]);
    assert_eq!(status, Some(1));
    assert!(complaint.contains("worse"), "{complaint}");
    assert_eq!(scratch.lab(&["compare", "b", "a", "--fail-on-regression"]).0, Some(0));
    assert_eq!(scratch.lab(&["compare", "a", "b", "--fail-on-regression", "--least", "50"]).0, Some(0));
}

#[test]
fn too_few_rounds_to_fail_are_a_failure_when_told_to() {
    let scratch = Scratch::new("rounds");
    scratch.record("a", &made::record(3, 0.01, 1));
    scratch.record("b", &made::record(4, 0.01, 2));
    let (status, said, _) = scratch.lab(&["compare", "a", "a"]);
    assert!(status == Some(0) && said.contains("--rounds 4"), "{said}");
    let (status, _, complaint) = scratch.lab(&["compare", "a", "a", "--fail-on-regression"]);
    assert!(status == Some(1) && complaint.contains("cannot be told"), "{complaint}");
    assert_eq!(scratch.lab(&["compare", "b", "b", "--fail-on-regression"]).0, Some(0));
}

#[test]
fn reports_of_a_record_are_written_again() {
    let scratch = Scratch::new("report");
    scratch.record("a", &made::record(1, 0.0, 1));
    let (status, said, complaint) = scratch.lab(&["report", "a", "--out", "b"]);
    assert_eq!((status, said.as_str()), (Some(0), "written: b/report.html\n"), "{complaint}");
    let [old, new] = ["a", "b"].map(|dir| fs::read(scratch.0.join(dir).join("record.json")).unwrap());
    let [old, new]: [Record; 2] = [old, new].map(|bytes| serde_json::from_slice(&bytes).unwrap());
    assert!(old == new, "the record is another one");
    // Again, but not over those of another.
    assert_eq!(scratch.lab(&["report", "a", "--out", "b"]).0, Some(0));
    scratch.record("c", &made::record(2, 0.0, 1));
    let before = fs::read(scratch.0.join("b/report.md")).unwrap();
    for words in [&["report", "c", "--out", "b"][..], &["--quick", "--out", "b"]] {
        let (status, _, complaint) = scratch.lab(words);
        assert_eq!(status, Some(1), "{words:?}");
        assert!(complaint.contains("b holds another run"), "{complaint}");
    }
    assert_eq!(fs::read(scratch.0.join("b/report.md")).unwrap(), before);
}

#[test]
fn what_is_no_record_is_refused_with_its_name_and_why() {
    let scratch = Scratch::new("refused");
    scratch.record("a", &made::record(1, 0.0, 1));
    scratch.record("exact", &Record { mode: Mode::Exact, ..made::record(1, 0.0, 1) });
    scratch.record("later", &Record { version: 9, ..made::record(1, 0.0, 1) });
    fs::write(scratch.0.join("text"), "no JSON").unwrap();
    for (file, why) in [
        ("text", "text: it is no record of the lab"),
        ("nowhere", "nowhere: No such file"),
        ("later", "later: it is a record of version 9; this program reads version 1"),
        ("exact", "the second's is exact (instructions)"),
    ] {
        let (status, _, complaint) = scratch.lab(&["compare", "a", file]);
        assert_eq!(status, Some(1), "{file}");
        assert!(complaint.contains(why), "{complaint}");
    }
}

#[test]
fn advice_is_from_the_last_run_here_unless_told() {
    let scratch = Scratch::new("advise");
    let (status, _, complaint) = scratch.lab(&["advise", "--gbit", "4"]);
    assert_eq!(status, Some(1));
    assert!(complaint.contains("run `portway lab` first"), "{complaint}");
    scratch.record(
        "portway-lab-2026-11-25T1000",
        &Record { lanes: Vec::new(), runs: Vec::new(), ..made::record(1, 0.0, 1) },
    );
    scratch.record("portway-lab-2026-11-26T1000", &made::record(5, 0.01, 1));
    let demand = ["advise", "--connections-per-second", "20000", "--gbit", "4", "--rules", "500"];
    let (status, said, complaint) = scratch.lab(&demand);
    assert_eq!(status, Some(0), "{complaint}");
    assert!(said.contains("CPUs for 20,000 new connections/s, 4 Gbit/s, 500 rules, of 2 here"), "{said}");
    assert!(said.contains("Of Portway's engines portway-ebpf takes the fewest CPUs"), "{said}");
    assert_eq!(scratch.lab(&["advise", "--gbit", "-1"]).0, Some(2));
}
