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

/// The largest and the middle time of some rounds of a backend that dies and comes back, in milliseconds.
fn dies_and_returns(farm: &mut Farm, portway: &Portway, rounds: usize) -> (f64, f64) {
    portway.until("a", "up");
    let times = farm.verdicts(portway, rounds);
    (times[times.len() - 1], times[times.len() / 2])
}

fn one_of(engine: Engine, rules: u16, rounds: usize) -> Row {
    let mut farm = Farm::new(Kind::Sign, 2);
    let portway = Portway::start(&farm.net.gateway, &file(engine, rules));
    let (most, middle) = dies_and_returns(&mut farm, &portway, rounds);
    let what = format!("verdict, 1 of {rules} rules concerned");
    row(engine, what, most, format!("largest of {}, median {middle:.2} ms", 2 * rounds))
}

/// Every rule has the backend in its pool, so one verdict changes all of them.
fn all_of(engine: Engine, rules: u16, rounds: usize) -> Row {
    let mut farm = Farm::new(Kind::Sign, 2);
    let pool = Farm::pool(engine, &["", ""], CHECKED);
    let others = others(rules)
        .map(|port| pool.replace("'pool'", &format!("'r{port}'")).replace(":8000", &format!(":{port}")));
    let file = HEAD.to_owned() + &others.collect::<String>() + &pool;
    let portway = Portway::start(&farm.net.gateway, &file.replace("tcp+udp/", ""));
    let (most, middle) = dies_and_returns(&mut farm, &portway, rounds.min(5));
    let what = format!("verdict, {rules} of {rules} rules concerned");
    // Ten thousand pools at once are no promise of the issue's; the figure is here to be known.
    let bound = if rules > 100 { 1000.0 } else { BOUND };
    Row { bound, ..row(engine, what, most, format!("median {middle:.2} ms")) }
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
