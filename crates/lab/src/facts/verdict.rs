//! How soon a verdict is in force, by the number of rules: where it concerns one of them, and where it concerns all.

use std::time::Instant;

use portway_lab::client::{names, tally};
use portway_lab::farm::{CHECKED, Farm, Kind, POOL};
use portway_lab::{Engine, Portway};

use crate::row::Row;

/// The bound on nftables; held against the proxy as well.
const BOUND: f64 = 50.0;

pub fn measure(engine: Engine, quick: bool) -> Vec<Row> {
    let (sizes, rounds) = if quick { (&[1, 100][..], 2) } else { (&[1, 100, 10_000][..], 20) };
    let mut rows = Vec::new();
    for &rules in sizes {
        rows.push(one_of(engine, rules, rounds));
        rows.push(ordered(engine, rules, rounds));
        if rules > 1 {
            rows.push(all_of(engine, rules, rounds));
        }
    }
    rows
}

/// The proxy with one worker: 10,000 sockets fit into the usual limit of descriptors, 20,000 do not.
const HEAD: &str = "[proxy]\nworkers = 1\n";

fn others(rules: u16) -> impl Iterator<Item = u16> {
    (1..rules).map(|nth| 10_000 + nth)
}

/// So many rules, of which one has the pool.
fn file(engine: Engine, rules: u16) -> String {
    let others = others(rules).map(|port| engine.forward(&format!("0.0.0.0:{port}"), "10.2.0.10:7000"));
    HEAD.to_owned() + &others.collect::<String>() + &Farm::pool(engine, &["", ""], CHECKED)
}

/// Some rounds of a backend that dies and comes back: the time that 19 of 20 verdicts kept, in milliseconds, and more
/// about them in words.
fn dies_and_returns(farm: &mut Farm, portway: &Portway, rounds: usize) -> (f64, String) {
    portway.until("a", "up");
    let [deaths, returns] = farm.verdicts(portway, rounds);
    let mut all = [deaths.clone(), returns.clone()].concat();
    all.sort_by(f64::total_cmp);
    let middle = |times: &[f64]| times[times.len() / 2];
    let remark = format!(
        "19 in 20 of {}; median {:.2} ms of deaths, which end UDP flows too, {:.2} ms of returns; largest {:.2} ms",
        all.len(),
        middle(&deaths),
        middle(&returns),
        all[all.len() - 1]
    );
    (all[all.len() * 19 / 20 - 1], remark)
}

fn one_of(engine: Engine, rules: u16, rounds: usize) -> Row {
    let mut farm = Farm::new(Kind::Sign, 2);
    let portway = Portway::start(&farm.net.gateway, &file(engine, rules));
    let (found, remark) = dies_and_returns(&mut farm, &portway, rounds);
    row(engine, format!("verdict, 1 of {rules} rules concerned"), found, remark)
}

/// Every rule has the backend in its pool, so one verdict changes all of them.
fn all_of(engine: Engine, rules: u16, rounds: usize) -> Row {
    let mut farm = Farm::new(Kind::Sign, 2);
    let pool = Farm::pool(engine, &["", ""], CHECKED);
    let others = others(rules)
        .map(|port| pool.replace("'pool'", &format!("'r{port}'")).replace(":8000", &format!(":{port}")));
    let file = HEAD.to_owned() + &others.collect::<String>() + &pool;
    let portway = Portway::start(&farm.net.gateway, &file.replace("tcp+udp/", ""));
    let (found, remark) = dies_and_returns(&mut farm, &portway, rounds.min(10));
    // A budget of 0.2 ms a rule: that many pools at once are more than the issue promises 50 ms for.
    let bound = BOUND.max(0.2 * f64::from(rules));
    let what = format!("verdict, {rules} of {rules} rules concerned");
    Row { bound, ..row(engine, what, found, format!("{remark}; TCP only")) }
}

/// An operator's order, from the start of the command to its end, seen from outside: then it is in force. Not the
/// issue's promise, but what checks that the daemon's own figure is not all there is to it.
fn ordered(engine: Engine, rules: u16, rounds: usize) -> Row {
    let farm = Farm::new(Kind::Sign, 2);
    let portway = Portway::start(&farm.net.gateway, &file(engine, rules));
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        portway.order("disable pool/a");
        times.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(names(&tally(farm.net.client(), POOL, 10)), "b", "in force means in force");
        portway.order("enable pool/a");
    }
    times.sort_by(f64::total_cmp);
    let middle = times[times.len() / 2];
    let remark = format!("median of {rounds}, largest {:.2} ms", times[times.len() - 1]);
    let what = format!("`portway disable`, {rules} rules, the whole command");
    // Four programs are started for it, which is most of the time; a person waits for it.
    Row { bound: 500.0, ..row(engine, what, middle, remark) }
}

fn row(engine: Engine, what: String, found: f64, remark: String) -> Row {
    Row { what, engine, found, bound: BOUND, unit: "ms", remark }
}
