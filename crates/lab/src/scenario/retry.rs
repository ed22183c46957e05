//! Retries: a connection that no backend has heard a byte of goes to another one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{name_from, names, tally, who};
use crate::farm::{Farm, Kind, POOL, name, v4};
use crate::load::Load;
use crate::netns::PATIENCE;
use crate::traffic::{Server, echo, refusal};
use crate::{Engine, Portway, Process, Topology, peer};

/// One of three real servers is killed under the load of eight clients: nobody notices who had not sent a byte.
pub fn killed_under_load(engine: Engine) {
    let net = Topology::with(1, 3);
    let start = |nth: usize| {
        let index = u8::try_from(nth).expect("three");
        peer::nginx_named(&net.servers[nth], &v4(index), &name(index)).0
    };
    let mut servers: Vec<Process> = (0..3).map(start).collect();
    let file = Farm::pool(engine, &["", "", ""], "retries = 2");
    let portway = Portway::start(&net.gateway, &file);
    assert_eq!(names(&tally(net.client(), POOL, 30)), "abc");
    let silent = |stream: &mut _| name_from(stream).map(|_| ());
    let loads: Vec<Load> = (0..8).map(|_| Load::asking(net.client(), POOL, silent)).collect();
    for nth in 0..2 {
        loads.iter().for_each(|load| load.pass(20));
        servers[nth].signal_group(Signal::KILL);
        servers[nth].wait(PATIENCE);
        loads.iter().for_each(|load| load.pass(20));
        let two = names(&tally(net.client(), POOL, 30));
        assert_eq!(two, ["bc", "ac"][nth]);
        servers[nth] = start(nth);
    }
    loads.into_iter().for_each(Load::stop_without_loss);
    // Without retries the same would be noticed, so the test can fail.
    portway.reload(&file.replace("retries = 2", "retries = 0"));
    servers[0].signal_group(Signal::KILL);
    servers[0].wait(PATIENCE);
    let lost = (0..9).filter(|_| who(net.client(), POOL).is_err()).count();
    assert_eq!(lost, 3, "every third meets the dead one");
}

/// A client that speaks at once: what it said before any backend was reached arrives, whole and once.
pub fn early_words(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 2);
    let _echo = Server::tcp_echo(farm.net.server(), "10.2.0.11:7002");
    let backends = [0, 1].map(|nth| Farm::backend(nth, "").replace(":7000", ":7002"));
    let _portway = Portway::start(&farm.net.gateway, &engine.pool("0.0.0.0:8000", &backends, "retries = 1"));
    let words: Vec<u8> = (0..40_000_u32).map(|i| (i % 251) as u8).collect();
    let done = Arc::<AtomicU64>::default();
    let counted = done.clone();
    let load = Load::asking(farm.net.client(), POOL, move |stream| {
        echo(stream, &words)?;
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    load.pass(60);
    load.stop_without_loss();
    assert!(done.load(Ordering::Relaxed) >= 60);
}

/// A backend that swallows the connection costs its connect timeout, then the next one serves.
pub fn cut_off(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 2);
    farm.net.server().nft(
        "table ip filter { chain input { type filter hook input priority 0; ip daddr 10.2.0.10 tcp dport 7000 drop; }\n}\n",
    );
    let rule = Farm::pool(engine, &["", ""], "balance = 'first'\nretries = 1");
    let rule = rule.replace("[rule.pool]", "timeouts = { connect = '300ms' }\n[rule.pool]");
    let portway = Portway::start(&farm.net.gateway, &rule);
    let start = Instant::now();
    assert_eq!(who(farm.net.client(), POOL).expect("the next one serves"), "b");
    let took = start.elapsed();
    assert!((290..1000).contains(&took.as_millis()), "served after {took:?}");
    portway.reload(&rule.replace("retries = 1", "retries = 0"));
    assert!(refusal(farm.net.client(), POOL) < Duration::from_secs(1));
}

/// When no backend takes it, the client is told, after as many tries as stated and no more.
pub fn nobody_is_left(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 4);
    let backends = [0, 1, 2, 3].map(|nth| Farm::backend(nth, "").replace(":7000", ":7001"));
    let portway = Portway::start(&farm.net.gateway, &engine.pool("0.0.0.0:8000", &backends, "retries = 2"));
    assert!(refusal(farm.net.client(), POOL) < Duration::from_secs(1));
    let failed: u64 = portway.backends("pool").iter().filter_map(|backend| backend["failed"].as_u64()).sum();
    assert_eq!(failed, 3, "one try and two more");
    let error = who(farm.net.client(), POOL).expect_err("nobody is there");
    assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused));
}
