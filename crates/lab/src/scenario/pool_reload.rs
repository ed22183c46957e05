//! Reloads of pools: what is added, removed and reweighted, and what the flows that are there do not notice.

use crate::client::{Held, Tally, name_from, names, tally, who_udp};
use crate::farm::{Farm, Kind, POOL};
use crate::load::Load;
use crate::{Engine, Portway};

const LISTEN: &str = "tcp+udp/0.0.0.0:8000";

/// Load that asks for a name and hangs up: one that gets none is lost.
fn load(farm: &Farm) -> Load {
    Load::asking(farm.net.client(), POOL, |stream| name_from(stream).map(|_| ()))
}

fn backends(nths: &[u8]) -> Vec<String> {
    nths.iter().map(|nth| Farm::backend(*nth, "")).collect()
}

/// Backends come, go and change their weight: every established flow lives on, those of the removed backend too, and new
/// flows go by the new pool.
pub fn flows_live_on(engine: Engine) {
    let farm = Farm::new(Kind::Echo, 4);
    let client = farm.net.client();
    let portway = Portway::start(&farm.net.gateway, &engine.pool(LISTEN, &backends(&[0, 1, 2]), ""));
    let mut held = Held::open_many(client, POOL, 9);
    let sockets: Vec<_> = (0..3).map(|_| client.dial(POOL)).collect();
    let ask = |socket| who_udp(socket).expect("a datagram is answered");
    let met: Vec<String> = sockets.iter().map(ask).collect();
    let mut live = |when: &str| {
        held.iter_mut().for_each(|held| held.lives(when));
        assert_eq!(sockets.iter().map(ask).collect::<Vec<_>>(), met, "datagrams, {when}");
    };
    live("before");
    portway.reload(&engine.pool(LISTEN, &backends(&[0, 2, 3]), ""));
    live("when b is removed and d added");
    assert_eq!(names(&tally(client, POOL, 30)), "acd");
    let weights = [Farm::backend(0, "weight = 5"), Farm::backend(2, ""), Farm::backend(3, "weight = 0")];
    portway.reload(&engine.pool(LISTEN, &weights, "balance = 'round-robin'"));
    live("when weights change");
    assert_eq!(tally(client, POOL, 60), Tally::from([("a".into(), 50), ("c".into(), 10)]));
    portway.reload(&engine.pool(LISTEN, &backends(&[3]), "balance = 'consistent-hash'"));
    live("when all but one are removed and the policy changes");
    assert_eq!(names(&tally(client, POOL, 10)), "d");
    portway.reload(&engine.pool(LISTEN, &backends(&[0, 1, 2]), ""));
    live("when all are back");
    assert_eq!(names(&tally(client, POOL, 10)), "abc");
}

/// The same under load, with every policy that all engines have: not one connection is lost.
pub fn under_load(engine: Engine) {
    let farm = Farm::new(Kind::Echo, 4);
    let portway = Portway::start(&farm.net.gateway, &engine.pool(LISTEN, &backends(&[0, 1, 2]), ""));
    let load = load(&farm);
    let policies = ["round-robin", "source-hash", "consistent-hash", "first"];
    for policy in policies {
        for pool in [&[0, 1, 2, 3][..], &[3, 1], &[2], &[0, 1, 2]] {
            load.pass(20);
            portway.reload(&engine.pool(LISTEN, &backends(pool), &format!("balance = '{policy}'")));
        }
    }
    load.pass(50);
    load.stop_without_loss();
    assert_eq!(names(&tally(farm.net.client(), POOL, 3)), "a", "the last pool and policy hold");
    portway.reload(&engine.pool(LISTEN, &backends(&[0, 1, 2]), ""));
    assert_eq!(names(&tally(farm.net.client(), POOL, 3)), "abc");
}

/// A pool moves to another engine and back under load: no connection is lost, and the held ones live on.
pub fn moves_between_engines(engine: Engine) {
    engine.others().iter().for_each(|other| moves_to(engine, *other));
}

fn moves_to(engine: Engine, other: Engine) {
    let farm = Farm::new(Kind::Echo, 3);
    let pool = |engine: Engine| engine.pool(LISTEN, &backends(&[0, 1, 2]), "");
    let portway = Portway::start(&farm.net.gateway, &pool(engine));
    let load = load(&farm);
    let mut held = Vec::new();
    for to in [other, engine, other, engine] {
        held.extend(Held::open_many(farm.net.client(), POOL, 3));
        load.pass(50);
        portway.reload(&pool(to));
        held.iter_mut().for_each(|held| held.lives(&format!("after the move to {to}")));
    }
    load.pass(50);
    load.stop_without_loss();
    // The load takes turns too, so the turns are looked at when it is over.
    for to in [other, engine] {
        portway.reload(&pool(to));
        assert_eq!(names(&tally(farm.net.client(), POOL, 12)), "abc", "{to}");
    }
}

/// A plain rule becomes a pool and a plain rule again: its flows and its counters live on.
pub fn one_becomes_many(engine: Engine) {
    let farm = Farm::new(Kind::Echo, 2);
    let plain = engine.rule(&format!("name = 'pool'\nlisten = '{LISTEN}'\nforward = '10.2.0.10:7000'"));
    let portway = Portway::start(&farm.net.gateway, &plain);
    let mut held = Held::open_many(farm.net.client(), POOL, 2);
    portway.reload(&engine.pool(LISTEN, &backends(&[0, 1]), ""));
    held.iter_mut().for_each(|held| held.lives("when its rule became a pool"));
    assert_eq!(names(&tally(farm.net.client(), POOL, 10)), "ab");
    let mut on_b = Held::open_many(farm.net.client(), POOL, 2);
    portway.reload(&plain);
    held.iter_mut().chain(&mut on_b).for_each(|held| held.lives("when the pool became one backend"));
    assert_eq!(names(&tally(farm.net.client(), POOL, 10)), "a");
    assert_eq!(portway.figure("pool", "flows"), 24);
}
