//! How exact the shares are: the backend that is furthest off its weight, relative to it.

use portway_lab::chance::stray;
use portway_lab::client::{Tally, count, crowd, crowd4, share, tally, who_each};
use portway_lab::farm::{Farm, Kind, POOL, name};
use portway_lab::{Engine, Portway};

use crate::row::Row;

const WEIGHTS: [f64; 3] = [5.0, 3.0, 2.0];

pub fn measure(engine: Engine, quick: bool) -> Vec<Row> {
    let connections = if quick { 500 } else { 10_000 };
    let mut rows = vec![
        in_turn(engine, connections, &[5, 3, 2]),
        in_turn(engine, connections, &[1; 7]),
        in_turn(engine, connections, &[256, 100, 1]),
    ];
    rows.extend(["source-hash", "consistent-hash"].map(|balance| hashed(engine, balance, connections)));
    if engine == Engine::Proxy {
        rows.push(by_chance(engine, connections));
    }
    rows
}

/// The largest error of a share, in per cent of it.
fn error(met: &Tally, weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    let off = |(nth, weight): (u8, &f64)| (share(met, &name(nth)) / (weight / total) - 1.0).abs();
    (0..).zip(weights).map(off).fold(0.0, f64::max) * 100.0
}

fn start(engine: Engine, weights: &[f64], settings: &str) -> (Farm, Portway) {
    let count = u8::try_from(weights.len()).expect("a few backends");
    let farm = Farm::new(Kind::Sign, count);
    farm.net.crowd();
    let keys: Vec<String> = weights.iter().map(|weight| format!("weight = {weight}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let portway = Portway::start(&farm.net.gateway, &Farm::pool(engine, &keys, settings));
    (farm, portway)
}

/// A whole number of rounds is exact, so the bound is what a round that is not finished can cost; 1 % at most is the
/// issue's.
fn in_turn(engine: Engine, connections: usize, weights: &[u16]) -> Row {
    let weights: Vec<f64> = weights.iter().copied().map(f64::from).collect();
    let (farm, _portway) = start(engine, &weights, "balance = 'round-robin'");
    let round = weights.iter().sum::<f64>() as usize;
    let connections = (connections / round).max(1) * round;
    let met = tally(farm.net.client(), POOL, connections);
    let written: Vec<String> = weights.iter().map(f64::to_string).collect();
    Row {
        what: format!("round-robin, weights {}", written.join(":")),
        engine,
        found: error(&met, &weights),
        bound: 1.0,
        unit: "%",
        remark: format!("{connections} connections, one after the other"),
    }
}

/// A hash spreads by chance: the bound is that of as many draws, for the smallest share.
fn hashed(engine: Engine, balance: &str, clients: usize) -> Row {
    let (farm, _portway) = start(engine, &WEIGHTS, &format!("balance = '{balance}'"));
    let count_of_clients = u32::try_from(clients).expect("a crowd");
    let met = count(&who_each(farm.net.client(), &crowd(count_of_clients, crowd4), POOL));
    by_lot(engine, balance, &met, clients)
}

fn by_chance(engine: Engine, connections: usize) -> Row {
    let (farm, _portway) = start(engine, &[1.0; 3], "balance = 'random'");
    let met = tally(farm.net.client(), POOL, connections);
    let (found, bound) = (error(&met, &[1.0; 3]), 300.0 * stray(1.0 / 3.0, connections));
    Row {
        what: "random, equal weights".to_owned(),
        engine,
        found,
        bound,
        unit: "%",
        remark: format!("{connections} connections; the bound is chance"),
    }
}

fn by_lot(engine: Engine, balance: &str, met: &Tally, clients: usize) -> Row {
    // 1 % for the table's own rounding.
    let bound = 100.0 * stray(0.2, clients) / 0.2 + 1.0;
    Row {
        what: format!("{balance}, weights 5:3:2"),
        engine,
        found: error(met, &WEIGHTS),
        bound,
        unit: "%",
        remark: format!("{clients} clients; the bound is chance"),
    }
}
