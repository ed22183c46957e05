//! Checks by a program: what it is given, how long it may run, and what is left of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use portway_core::facts::Probe;
use portway_core::ruleset::CheckKind;
use support::programs::Directory;
use support::*;

fn command(words: &[&str]) -> Probe {
    let words = words.iter().map(|&word| word.to_owned()).collect();
    let address = "10.0.0.1:5432".parse().unwrap();
    with(probe(address, CheckKind::Command { words }), |check| check.timeout = Duration::from_secs(1))
}

fn shell(script: &str) -> Probe {
    command(&["/bin/sh", "-c", script])
}

/// Processes with `mark` among their arguments.
fn marked(mark: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(mark.len().max(1)).any(|part| part == mark.as_bytes())).count()
}

/// The states of the children of this process ('Z' for one that has ended and was not reaped), each with whether it
/// has `mark` among its arguments.
fn children(mark: &str) -> Vec<(String, bool)> {
    let parent = std::process::id().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|process| process.path());
    let mut children = Vec::new();
    for path in processes {
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        let mut fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
        let (state, its_parent) = (fields.next(), fields.next());
        if its_parent == Some(parent.as_str()) {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let is_marked = line.windows(mark.len().max(1)).any(|part| part == mark.as_bytes());
            children.push((state.unwrap_or("").to_owned(), is_marked));
        }
    }
    children
}

fn zombies() -> usize {
    children("").iter().filter(|(state, _)| state == "Z").count()
}

#[test]
fn the_status_is_the_verdict() {
    assert_up(command(&["/bin/true"]), "ended with status 0");
    // Found in PATH, and without a shell.
    assert_up(command(&["test", "$HOME", "=", "$HOME"]), "ended with status 0");
    assert_down(shell("exit 3"), "ended with status 3");
    assert_down(shell("kill -9 $$"), "ended by signal 9");
    assert_down(command(&["/nonexistent/program"]), "/nonexistent/program: No such file or directory");
    assert_down(command(&["/etc/passwd"]), "/etc/passwd: Permission denied");
}

#[test]
fn the_environment_is_small() {
    let directory = Directory::new();
    let path = directory.join("environment");
    // The shell adds PWD and nothing else that env would not show.
    let script = format!(
        "cat /proc/$$/environ | tr '\\0' '\\n' | sort > {0}.new; pwd >> {0}.new; mv {0}.new {0}",
        path.display()
    );
    assert_up(shell(&script), "status 0");
    let text = fs::read_to_string(path).unwrap();
    let expected = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPORTWAY_ADDRESS=10.0.0.1\n\
                    PORTWAY_PORT=5432\n/\n";
    assert_eq!(text, expected);
}

#[test]
fn what_it_prints_and_reads_is_nothing() {
    let script = "for fd in 0 1 2; do [ $(readlink /proc/$$/fd/$fd) = /dev/null ] || exit 1; done\n\
                  # Nothing of the watch comes along: sockets, events, processes.\n\
                  for fd in /proc/$$/fd/*; do case $(readlink $fd) in socket:*|anon_inode:*) exit 2;; esac; done\n\
                  yes | head -c 10000000";
    assert_up(shell(script), "status 0");
}

#[test]
fn the_group_is_killed_at_the_limit_and_at_the_end() {
    let mark = format!("portway-mark-{}-limit", std::process::id());
    let begun = Instant::now();
    // A child that would outlive its parent, and a parent that will not be asked to go.
    let stubborn = format!("trap '' TERM; sh -c 'sleep 100' {mark} & sleep 100");
    assert_down(shell(&stubborn), "not ended in time");
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
    eventually("all of the group is gone", || marked(&mark) == 0);
    let mark = format!("portway-mark-{}-end", std::process::id());
    assert_up(shell(&format!("sh -c 'sleep 100' {mark} & exit 0")), "status 0");
    eventually("what was left behind is gone", || marked(&mark) == 0);
}

#[test]
fn few_run_at_the_same_time_and_none_stays_a_zombie() {
    let directory = Directory::new();
    let mark = format!("portway-mark-{}-many", std::process::id());
    let probes: Vec<Probe> = (0..40)
        .map(|nth| shell(&format!("sleep 0.1; echo >> {}/{nth}", directory.path().display())))
        .map(|mut probe| {
            let CheckKind::Command { words } = &mut std::sync::Arc::make_mut(&mut probe.check).kind else {
                unreachable!()
            };
            words.push(mark.clone());
            probe
        })
        .collect();
    let watching = Watching::start();
    watching.set_probes(probes.clone());
    let (mut most, mut verdicts) = (0, 0);
    let end = Instant::now() + SOON;
    while verdicts < probes.len() {
        assert!(Instant::now() < end, "{verdicts} verdicts");
        most = most.max(children(&mark).iter().filter(|(_, is_marked)| *is_marked).count());
        if watching.events.recv_timeout(Duration::from_millis(5)).is_ok() {
            verdicts += 1;
        }
    }
    assert!((2..=8).contains(&most), "{most} at the same time");
    drop(watching.watch);
    eventually("none is left", || marked(&mark) == 0 && zombies() == 0);
}

#[test]
fn a_watch_that_ends_takes_its_programs_along() {
    let mark = format!("portway-mark-{}-drop", std::process::id());
    let slow = with(command(&["/bin/sh", "-c", "sleep 100; true", &mark]), |check| {
        check.timeout = Duration::from_secs(60);
    });
    let watching = Watching::start();
    watching.set_probes([slow.clone()]);
    eventually("it runs", || marked(&mark) == 1);
    // Gone from what is watched: killed as well.
    watching.set_probes([]);
    eventually("it is gone", || marked(&mark) == 0);
    watching.set_probes([slow]);
    eventually("it runs again", || marked(&mark) == 1);
    let begun = Instant::now();
    drop(watching);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    eventually("it is gone again", || marked(&mark) == 0);
    eventually("none stays a zombie", || zombies() == 0);
}
