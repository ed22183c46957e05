//! `portway conns` and `portway kill`: the live flows of every engine in one form, and an end to those that a filter
//! means.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::client::{Held, who_udp};
use crate::farm::{Farm, Kind, POOL};
use crate::netns::wait_for;
use crate::{Engine, Portway};

/// Two rules with two backends each: "pool" by port 8000, TCP and UDP, "other" by 8001.
fn start(engine: Engine) -> (Farm, Portway) {
    let farm = Farm::new(Kind::Echo, 2);
    let pool = Farm::pool(engine, &["", ""], "");
    let other = pool.replace("'pool'", "'other'").replace(":8000", ":8001");
    let portway = Portway::start(&farm.net.gateway, &(pool + &other));
    (farm, portway)
}

const OTHER: &str = "10.1.0.1:8001";

fn met(farm: &Farm, to: &str) -> UdpSocket {
    let socket = farm.net.client().dial(to);
    who_udp(&socket).expect("a datagram is answered");
    socket
}

/// Every flow is listed with its rule, its ends, its state, its age and its bytes.
pub fn lists(engine: Engine) {
    let (farm, portway) = start(engine);
    let mut held = Held::open_many(farm.net.client(), POOL, 4);
    held.iter_mut().for_each(|held| held.lives("at once"));
    let socket = met(&farm, POOL);
    let datagrams = socket.local_addr().expect("it is bound");
    thread::sleep(Duration::from_millis(2100));
    let (flows, total) = portway.conns("");
    assert_eq!((flows.len(), total), (5, 5), "{flows:#?}");
    for held in &held {
        let client = held.client.to_string();
        let flow = flows.iter().find(|flow| flow["client"] == client.as_str() && flow["protocol"] == "tcp");
        let flow = flow.unwrap_or_else(|| panic!("{client} is not listed: {flows:#?}"));
        let backend = if held.backend == "a" { "10.2.0.10:7000" } else { "10.2.0.11:7000" };
        let wanted = [
            ("engine", engine.to_string()),
            ("rule", "pool".to_owned()),
            ("listener", POOL.to_owned()),
            ("backend", backend.to_owned()),
            ("state", "established".to_owned()),
        ];
        for (key, value) in wanted {
            assert_eq!(flow[key], value.as_str(), "{key} of {flow:#}");
        }
        known(engine, flow);
    }
    let flow = flows.iter().find(|flow| flow["protocol"] == "udp").expect("the UDP flow is listed");
    assert_eq!(flow["client"].as_str(), Some(&*format!("10.1.0.10:{}", datagrams.port())), "{flow:#}");
    assert_eq!((&flow["rule"], &flow["state"]), (&Value::from("pool"), &Value::from("answered")), "{flow:#}");
    let text = portway.order("conns");
    assert!(text.contains(&held[0].client.to_string()) && text.contains("established"), "{text}");
    drop(held);
    wait_for("the ended ones to be gone or ending", || {
        portway.conns("--protocol tcp").0.iter().all(|flow| flow["state"] != "established")
    });
}

/// The proxy knows age and bytes of all its flows, `ebpf` their age: it counts bytes by backend. The kernel knows both where
/// it keeps time stamps and counts (`nf_conntrack_timestamp`, `nf_conntrack_acct`), which Portway does not switch on for a
/// listing.
fn known(engine: Engine, flow: &Value) {
    let age = flow["age_seconds"].as_u64();
    let bytes = [flow["bytes_in"].as_u64(), flow["bytes_out"].as_u64()];
    match engine {
        Engine::Proxy => {
            assert!(age.is_some_and(|age| (2..10).contains(&age)), "{flow:#}");
            // What the client asked; the name with its newline, and the echo.
            assert_eq!(bytes, [Some(12), Some(14)], "{flow:#}");
        }
        Engine::Ebpf | Engine::Xdp | Engine::Clsact => {
            assert!(age.is_some_and(|age| (2..10).contains(&age)), "{flow:#}");
            assert_eq!(bytes, [None, None], "{flow:#}");
        }
        Engine::Nftables => {
            assert!(age.is_none_or(|age| (2..10).contains(&age)), "{flow:#}");
            assert!(bytes.iter().flatten().all(|bytes| *bytes >= 12), "{flow:#}");
        }
    }
}

/// Each filter means what it says, and several mean all of them.
pub fn filters(engine: Engine) {
    let (farm, portway) = start(engine);
    farm.net.client().ip("address add 10.1.0.11/24 dev eth0");
    let held = Held::open_many(farm.net.client(), POOL, 4);
    let _others = Held::open_many(farm.net.client(), OTHER, 2);
    let _datagrams = [met(&farm, POOL), met(&farm, OTHER)];
    let count = |filters: &str| portway.conns(filters).1;
    let port = held[0].client.port();
    let other_engine = engine.others()[0];
    let wanted = [
        (String::new(), 8),
        ("--rule pool".to_owned(), 5),
        ("--rule other".to_owned(), 3),
        ("--rule #16777215".to_owned(), 0),
        ("--protocol tcp".to_owned(), 6),
        ("--protocol udp --rule pool".to_owned(), 1),
        ("--client 10.1.0.10".to_owned(), 8),
        ("--client 10.1.0.0/24".to_owned(), 8),
        ("--client 10.1.0.11".to_owned(), 0),
        ("--client 10.9.0.0/16".to_owned(), 0),
        (format!("--client 10.1.0.10:{port} --protocol tcp"), 1),
        ("--backend 10.2.0.10 --protocol tcp".to_owned(), 3),
        ("--backend 10.2.0.11:7000 --protocol tcp --rule pool".to_owned(), 2),
        ("--backend 10.2.0.11:7001".to_owned(), 0),
        (format!("--engine {engine}"), 8),
        (format!("--engine {other_engine}"), 0),
        ("--older-than 10m".to_owned(), 0),
    ];
    for (filters, wanted) in wanted {
        assert_eq!(count(&filters), wanted, "conns {filters}");
    }
    let (flows, total) = portway.conns("--limit 3");
    assert_eq!((flows.len(), total), (3, 8), "a limit shows fewer and counts all");
    portway.command("conns --client nonsense").expect_err("that is no network");
}

/// `kill` ends what the filter means, by reset, and nothing else; it says how many.
pub fn kill(engine: Engine) {
    let (farm, portway) = start(engine);
    let mut held = Held::open_many(farm.net.client(), POOL, 6);
    let mut others = Held::open_many(farm.net.client(), OTHER, 2);
    let all_live = |held: &mut [Held]| held.iter_mut().for_each(|held| held.lives("when others were killed"));
    portway.command("kill").expect_err("nothing given is not everything");
    all_live(&mut held);
    let gone = |mut held: Held| _ = held.is_reset(Duration::from_millis(500));
    // One by its client.
    let one = held.remove(0);
    assert_eq!(portway.kill_flows(&format!("--protocol tcp --client {}", one.client)), 1);
    gone(one);
    all_live(&mut held);
    // All of a rule that are with one backend.
    let of_a = held.iter().filter(|held| held.backend == "a").count();
    assert_eq!(portway.kill_flows("--rule pool --protocol tcp --backend 10.2.0.10:7000"), of_a as u64);
    let (of_a, mut of_b): (Vec<_>, Vec<_>) = held.into_iter().partition(|held| held.backend == "a");
    of_a.into_iter().for_each(gone);
    all_live(&mut of_b);
    all_live(&mut others);
    // A UDP flow: the next datagram begins another.
    let socket = met(&farm, POOL);
    assert_eq!(portway.kill_flows("--protocol udp"), 1);
    assert_eq!(portway.conns("--protocol udp").1, 0);
    who_udp(&socket).expect("a killed flow's client is not shut out");
    for verb in ["conns", "kill"] {
        let complaint = portway.command(&format!("{verb} --rule none")).expect_err("there is no such rule");
        assert!(complaint.contains("pool"), "the rules there are: {complaint}");
    }
    portway.kill_flows("--all");
    of_b.into_iter().chain(others).for_each(gone);
    assert_eq!(portway.conns("--protocol udp").1, 0);
}

/// Flows of a rule that has gone are listed and ended by its name, and are its own again when it comes back.
pub fn of_a_rule_that_has_gone(engine: Engine) {
    let farm = Farm::new(Kind::Echo, 1);
    let kept = Farm::pool(engine, &[""], "");
    let both = kept.clone() + &kept.replace("'pool'", "'other'").replace(":8000", ":8001");
    let portway = Portway::start(&farm.net.gateway, &both);
    let mut held = Held::open_many(farm.net.client(), OTHER, 2);
    portway.reload(&kept);
    assert_eq!(portway.conns("--rule other").1, 2);
    portway.reload(&both);
    assert_eq!(portway.conns("--rule other").1, 2);
    assert_eq!(portway.figure("other", "live"), 2);
    held.iter_mut().for_each(|held| held.lives("through the reloads"));
    portway.reload(&kept);
    assert_eq!(portway.kill_flows("--rule other"), 2);
    held.into_iter().for_each(|mut held| _ = held.is_reset(Duration::from_millis(500)));
}

/// One list for two engines, whichever they are.
pub fn both_engines(engine: Engine) {
    engine.others().iter().for_each(|other| listed_beside(engine, *other));
}

fn listed_beside(engine: Engine, other: Engine) {
    let farm = Farm::new(Kind::Echo, 2);
    let mine = Farm::pool(engine, &["", ""], "");
    let others = Farm::pool(other, &["", ""], "").replace("'pool'", "'other'").replace(":8000", ":8001");
    let portway = Portway::start(&farm.net.gateway, &(mine + &others));
    let mut held = Held::open(farm.net.client(), POOL);
    let mut kept = Held::open(farm.net.client(), OTHER);
    let (flows, total) = portway.conns("");
    let of = |rule: &str| flows.iter().find(|flow| flow["rule"] == rule).expect("it is listed");
    assert_eq!(total, 2);
    assert_eq!(of("pool")["engine"], engine.to_string().as_str());
    assert_eq!(of("other")["engine"], other.to_string().as_str());
    let keys =
        |flow: &Value| -> Vec<String> { flow.as_object().expect("an object").keys().cloned().collect() };
    assert_eq!(keys(of("pool")), keys(of("other")), "in one form");
    assert_eq!(portway.kill_flows(&format!("--engine {engine}")), 1);
    held.is_reset(Duration::from_millis(500));
    kept.lives("when the other engine's flows were killed");
}
