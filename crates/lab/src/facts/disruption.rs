//! What the removal of one of N backends moves: the clients of that backend, and of the others what Maglev's table costs.

use std::net::SocketAddr;

use portway_lab::chance::stray;
use portway_lab::client::{crowd, crowd4, who_each};
use portway_lab::farm::{Farm, Kind, POOL, name};
use portway_lab::{Engine, Portway};

use crate::row::Row;

/// What may move without need, in per cent of all clients.
const WITHOUT_NEED: f64 = 2.0;

pub fn measure(engine: Engine, quick: bool) -> Vec<Row> {
    let (clients, sizes) = if quick { (200, &[5][..]) } else { (4000, &[2, 3, 5, 10, 20][..]) };
    sizes.iter().flat_map(|backends| removal(engine, *backends, &crowd(clients, crowd4))).collect()
}

fn removal(engine: Engine, backends: u8, clients: &[SocketAddr]) -> Vec<Row> {
    let farm = Farm::new(Kind::Sign, backends);
    farm.net.crowd();
    let file = |left_out: Option<u8>| {
        let kept = (0..backends).filter(|nth| Some(*nth) != left_out);
        let backends: Vec<String> = kept.map(|nth| Farm::backend(nth, "")).collect();
        engine.pool("0.0.0.0:8000", &backends, "balance = 'consistent-hash'")
    };
    let portway = Portway::start(&farm.net.gateway, &file(None));
    let before = who_each(farm.net.client(), clients, POOL);
    // One from the middle: neither the first nor the last of any order.
    let removed = backends / 2;
    portway.reload(&file(Some(removed)));
    let after = who_each(farm.net.client(), clients, POOL);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    let (theirs, others): (Vec<_>, Vec<_>) = moved.partition(|(before, _)| **before == name(removed));
    let percent = |count: usize| count as f64 * 100.0 / clients.len() as f64;
    let ideal = 100.0 / f64::from(backends);
    let moved = percent(theirs.len() + others.len());
    let chance = 100.0 * stray(1.0 / f64::from(backends), clients.len());
    let row = |what: &str, found, bound, remark| Row {
        what: format!("{what}, N = {backends}"),
        engine,
        found,
        bound,
        unit: "%",
        remark,
    };
    vec![
        row(
            "clients moved",
            moved,
            ideal + WITHOUT_NEED + chance,
            format!(
                "{:.3} of 1/N, {:.3} of those that had to; the bound is 1/N + {WITHOUT_NEED} % + {chance:.1} % chance",
                moved / ideal,
                moved / percent(theirs.len())
            ),
        ),
        row(
            "moved without need",
            percent(others.len()),
            WITHOUT_NEED,
            format!("of {} clients", clients.len()),
        ),
    ]
}
