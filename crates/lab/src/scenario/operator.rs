//! The operator's hand: drain, disable, weight, and what outlives what.

use std::time::Duration;

use crate::client::{Held, Tally, crowd, crowd4, names, tally, who_each, who_udp};
use crate::farm::{Farm, Kind, POOL};
use crate::{Engine, Portway};

fn start(engine: Engine, settings: &str) -> (Farm, Portway) {
    let farm = Farm::new(Kind::Echo, 3);
    let portway = Portway::start(&farm.net.gateway, &Farm::pool(engine, &["", "", ""], settings));
    (farm, portway)
}

fn meet(farm: &Farm) -> String {
    names(&tally(farm.net.client(), POOL, 30))
}

/// `drain`: no new flow, and the present ones end by themselves, whatever `on-down` says. The status says who did it.
pub fn drain(engine: Engine) {
    let (farm, portway) = start(engine, "on-down = 'reset'");
    let mut held = Held::open_many(farm.net.client(), POOL, 6);
    let socket =
        (0..4).map(|_| farm.net.client().dial(POOL)).find(|s| who_udp(s).is_ok_and(|name| name == "b"));
    let socket = socket.expect("flows take turns");
    portway.order("drain pool/b");
    assert_eq!(meet(&farm), "ac");
    let found = portway.backend("pool", "b");
    assert_eq!(found["state"], "draining", "{found:#}");
    assert_eq!(found["by"], "root", "{found:#}");
    assert!(found["at"].as_u64().is_some_and(|at| at > 1_700_000_000), "{found:#}");
    held.iter_mut().for_each(|held| held.lives("when one backend drains"));
    assert_eq!(who_udp(&socket).expect("a datagram is answered"), "b", "a flow ends by itself");
    assert_eq!(portway.backend("pool", "b")["live"].as_u64().map(|live| live >= 2), Some(true));
    portway.order("undrain pool/b");
    assert_eq!(portway.state("b"), "up");
    assert_eq!(meet(&farm), "abc");
}

/// `disable`: as if the backend were down, so `on-down` decides about its flows, and theirs alone.
pub fn disable(engine: Engine) {
    let (farm, portway) = start(engine, "on-down = 'reset'");
    let mut held = Held::open_many(farm.net.client(), POOL, 6);
    portway.order("disable pool/b");
    assert_eq!(meet(&farm), "ac");
    assert_eq!(portway.state("b"), "disabled");
    for held in &mut held {
        if held.backend == "b" {
            held.is_reset(Duration::from_millis(500));
        } else {
            held.lives("when another backend is disabled");
        }
    }
    portway.order("enable pool/b");
    assert_eq!(portway.state("b"), "up");
    assert_eq!(meet(&farm), "abc");
}

/// A drained backend gets no new flows of the clients that persistence remembers either.
pub fn drain_beats_persistence(engine: Engine) {
    let (farm, portway) = start(engine, "persist = '10m'");
    farm.net.crowd();
    let clients = crowd(12, crowd4);
    let before = who_each(farm.net.client(), &clients, POOL);
    assert_eq!(who_each(farm.net.client(), &clients, POOL), before);
    assert!(before.iter().any(|met| met == "b"));
    portway.order("drain pool/b");
    let after = who_each(farm.net.client(), &clients, POOL);
    for (before, after) in before.iter().zip(&after) {
        assert!(after != "b" && (before == after || before == "b"), "{before} became {after}");
    }
}

/// `weight`: exactly, at once; 0 is no new flow; `default` is the file's.
pub fn weight(engine: Engine) {
    let (farm, portway) = start(engine, "");
    let meet = |a, b, c| {
        let wanted = [("a", a), ("b", b), ("c", c)].into_iter().filter(|(_, count)| *count > 0);
        let wanted: Tally = wanted.map(|(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(tally(farm.net.client(), POOL, wanted.values().sum()), wanted);
    };
    meet(10, 10, 10);
    portway.order("weight pool/a 3");
    meet(30, 10, 10);
    let found = portway.backend("pool", "a");
    assert_eq!((found["weight"].as_u64(), found["by"].as_str()), (Some(3), Some("root")), "{found:#}");
    portway.order("weight pool/b 0");
    meet(30, 0, 10);
    portway.order("weight pool/a default");
    portway.order("weight pool/b default");
    meet(10, 10, 10);
    for words in ["weight pool/a 257", "weight pool/a many", "weight pool/a"] {
        portway.command(words).expect_err(words);
    }
    meet(10, 10, 10);
}

/// Orders survive reloads; restarts only with `--keep`, which outlives an orderly end and a crash.
pub fn survives(engine: Engine) {
    let (farm, mut portway) = start(engine, "");
    portway.order("drain pool/a");
    portway.order("weight pool/b 3 --keep");
    let orders_hold = |portway: &Portway| {
        assert_eq!(portway.state("a"), "draining");
        let met = tally(farm.net.client(), POOL, 40);
        assert_eq!(met, Tally::from([("b".into(), 30), ("c".into(), 10)]));
    };
    orders_hold(&portway);
    portway.reload(&Farm::pool(engine, &["", "", ""], "on-down = 'reset'"));
    orders_hold(&portway);
    // By its address it is the same backend.
    let target = portway.backend("pool", "a")["target"].as_str().expect("an address").to_owned();
    portway.order(&format!("undrain pool/{target}"));
    portway.order(&format!("drain pool/{target}"));
    portway.reload(&Farm::pool(engine, &["", "", ""], ""));
    orders_hold(&portway);
    portway.stop();
    portway.restart();
    assert_eq!(portway.state("a"), "up", "without --keep it ends with the daemon");
    let only_weight = || {
        let met = tally(farm.net.client(), POOL, 50);
        assert_eq!(met, Tally::from([("a".into(), 10), ("b".into(), 30), ("c".into(), 10)]));
    };
    only_weight();
    portway.order("disable pool/c --keep");
    portway.order("weight pool/c 2");
    portway.kill9();
    portway.restart();
    assert_eq!(portway.state("c"), "disabled");
    assert_eq!(portway.backend("pool", "c")["by"], "root", "who did it outlives the daemon too");
    assert!(portway.log().contains("pool/c is disabled"), "the start says it: {}", portway.log());
    portway.order("enable pool/c");
    portway.order("enable pool/c");
    portway.order("weight pool/c default");
    only_weight();
    portway.stop();
    portway.restart();
    assert_eq!(portway.state("c"), "up", "what was taken back stays so");
    portway.order("disable pool/c --keep");
    portway.reload(&Farm::pool(engine, &["", ""], ""));
    portway.reload(&Farm::pool(engine, &["", "", ""], ""));
    assert_eq!(portway.state("c"), "up", "it ended with its backend");
    portway.stop();
    portway.restart();
    assert_eq!(portway.state("c"), "up", "and stays so");
}

/// A rule or backend that is not there is refused, with those that are.
pub fn unknown(engine: Engine) {
    let (farm, portway) = start(engine, "");
    for verb in ["drain", "undrain", "disable", "enable"] {
        let complaint = portway.command(&format!("{verb} pond/a")).expect_err("no such rule");
        assert!(complaint.contains("pond") && complaint.contains("pool"), "{complaint}");
        let complaint = portway.command(&format!("{verb} pool/x")).expect_err("no such backend");
        assert!(["'x'", "\"x\"", "`x`", "/x", " x"].iter().any(|x| complaint.contains(x)), "{complaint}");
        assert!(["a", "b", "c"].iter().all(|known| mentions(&complaint, known)), "{complaint}");
    }
    let complaint = portway.command("weight pool/x 3").expect_err("no such backend");
    assert!(mentions(&complaint, "a"), "{complaint}");
    portway.command("drain pool").expect_err("a rule alone is no backend");
    assert_eq!(meet(&farm), "abc");
}

/// Whether a name stands in a text as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == name)
}
