//! What is counted: packets, bytes and flows of a known exchange, for the rule and for each of its backends, and what was
//! not carried, by its reason. An engine that does not count something says nothing of it, rather than 0.
//!
//! Exact over UDP: how many segments TCP makes of a connection is its own business, and how many of them a device hands
//! over as one packet the device's.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::{Tally, tally};
use crate::farm::{CHECKED, Farm, Kind, POOL};
use crate::netns::{PATIENCE, wait_for};
use crate::{Engine, Namespace, Portway};

/// Headers of a datagram: IPv4 and UDP.
const HEADERS: usize = 28;
/// What each flow asks, in bytes. A server answers by its name, one byte.
const QUESTIONS: [usize; 3] = [1, 500, 1200];

/// So many flows, one after the other, of all questions each; how many met whom.
fn ask(client: &Namespace, to: &str, flows: usize) -> Tally {
    let mut met = Tally::new();
    for _ in 0..flows {
        let socket = client.dial(to);
        socket.set_read_timeout(Some(PATIENCE)).expect("a positive time");
        let mut names = QUESTIONS.map(|length| {
            socket.send(&vec![b'?'; length]).expect("sent");
            let mut name = [0; 8];
            let length = socket.recv(&mut name).expect("an answer");
            String::from_utf8_lossy(&name[..length]).into_owned()
        });
        assert!(names.iter().all(|name| *name == names[0]), "one flow, one backend: {names:?}");
        *met.entry(std::mem::take(&mut names[0])).or_default() += 1;
    }
    met
}

/// The counters that so many flows make.
fn of(flows: usize, headers: usize) -> BTreeMap<&'static str, usize> {
    let packets = flows * QUESTIONS.len();
    BTreeMap::from([
        ("flows", flows),
        ("packets_in", packets),
        ("packets_out", packets),
        ("bytes_in", flows * QUESTIONS.iter().sum::<usize>() + packets * headers),
        ("bytes_out", packets * (1 + headers)),
    ])
}

/// Insists on these counters; where there are none, on nothing.
#[track_caller]
fn counts(row: &Value, expected: &BTreeMap<&'static str, usize>, only: &[&str]) {
    for (key, count) in expected {
        let expected = if only.contains(key) { json!(count) } else { Value::Null };
        assert_eq!(row[key], expected, "{key}: {row:#}");
    }
}

/// The rule of that name in the status.
fn rule(portway: &Portway, name: &str) -> Value {
    let status = portway.status();
    let found = status["rules"].as_array().and_then(|rules| rules.iter().find(|rule| rule["name"] == name));
    found.cloned().unwrap_or_else(|| panic!("no rule {name} in {status:#}"))
}

/// 40 flows of three questions each to a pool of weights 3 and 1, and 5 to a rule with one backend: every figure of the
/// rules and of the backends is what that makes.
pub fn exchange(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 2);
    let one = engine.rule("name = 'one'\nlisten = 'udp/0.0.0.0:8001'\nforward = '10.2.0.10:7000'");
    let portway = Portway::start(&farm.net.gateway, &(Farm::pool(engine, &["weight = 3", ""], "") + &one));
    let met = ask(farm.net.client(), POOL, 40);
    assert_eq!(met, Tally::from([("a".into(), 30), ("b".into(), 10)]));
    assert_eq!(ask(farm.net.client(), "10.1.0.1:8001", 5).get("a"), Some(&5));

    const ALL: [&str; 5] = ["flows", "packets_in", "packets_out", "bytes_in", "bytes_out"];
    let bytes = ["flows", "bytes_in", "bytes_out"];
    // The proxy meets no packets, and its bytes have no headers. The table counts flows of a pool's members, and no more.
    let (headers, of_rules, of_members): (_, &[&str], &[&str]) = match engine {
        Engine::Ebpf | Engine::Xdp | Engine::Clsact => (HEADERS, &ALL, &ALL),
        Engine::Nftables => (HEADERS, &ALL, &["flows"]),
        Engine::Proxy => (0, &bytes, &bytes),
    };
    counts(&rule(&portway, "pool"), &of(40, headers), of_rules);
    counts(&portway.backend("pool", "a"), &of(30, headers), of_members);
    counts(&portway.backend("pool", "b"), &of(10, headers), of_members);
    // A rule's only backend has what the rule has.
    counts(&rule(&portway, "one"), &of(5, headers), of_rules);
    counts(&portway.backends("one")[0], &of(5, headers), of_rules);
    for name in ["pool", "one"] {
        let (rule, backends) = (rule(&portway, name), portway.backends(name));
        let failed = if engine == Engine::Nftables { Value::Null } else { json!(0) };
        assert!(backends.iter().chain([&rule]).all(|row| row["failed"] == failed), "{rule:#}");
        assert!(backends.iter().chain([&rule]).all(|row| row["drops"] == json!({})), "{rule:#}");
    }

    // Of TCP the flows are known; and the members' counters make up the rule's.
    let met = tally(farm.net.client(), POOL, 40);
    let rule = rule(&portway, "pool");
    assert_eq!(rule["flows"], 80);
    for backend in ["a", "b"] {
        let row = portway.backend("pool", backend);
        assert_eq!(row["flows"], 10 + met[backend] + if backend == "a" { 20 } else { 0 }, "{row:#}");
    }
    let backends = portway.backends("pool");
    for key in of_members {
        let sum: u64 = backends.iter().filter_map(|row| row[key].as_u64()).sum();
        assert_eq!(rule[key], sum, "{key}: {rule:#}");
    }
    let shown = portway.command("status").unwrap_or_else(|complaint| panic!("{complaint}"));
    let packets = if engine == Engine::Proxy { " - " } else { " 15/15 " };
    let line = shown.lines().find(|line| line.trim_start().starts_with("one "));
    assert!(line.is_some_and(|line| line.contains(packets)), "{shown}");
}

/// What met no backend is the rule's alone, what was on its way to one is the backend's as well, each by its reason; and
/// what is not carried is no flow.
pub fn refused(engine: Engine) {
    let mut farm = Farm::new(Kind::Sign, 2);
    let settings = format!("when-empty = 'drop'\n{CHECKED}");
    let others = engine.rule("name = 'nowhere'\nlisten = 'udp/0.0.0.0:8001'\nforward = '10.77.0.1:7000'")
        + &engine.rule(
            "name = 'slow'\nlisten = 'udp/0.0.0.0:8002'\nforward = '10.2.0.10:7000'\nnew-flow-rate = 1",
        );
    let portway = Portway::start(&farm.net.gateway, &(Farm::pool(engine, &["", ""], &settings) + &others));
    portway.until("b", "up");
    assert_eq!(tally(farm.net.client(), POOL, 4), Tally::from([("a".into(), 2), ("b".into(), 2)]));
    for (nth, backend) in [(0, "a"), (1, "b")] {
        farm.ail(nth);
        portway.until(backend, "down");
    }
    let send = |to: &str, count: usize| {
        for _ in 0..count {
            farm.net.client().dial(to).send(b"anybody?").expect("sent");
        }
    };
    send(POOL, 5);
    wait_for("the drops", || portway.drops("pool", "no backend") == 5);
    let pool = rule(&portway, "pool");
    assert_eq!((&pool["failed"], &pool["flows"]), (&json!(5), &json!(4)), "what is not carried is no flow");
    assert_eq!(pool["drops"], json!({ "no backend": 5 }));
    for row in portway.backends("pool") {
        assert_eq!((&row["failed"], &row["drops"]), (&json!(0), &json!({})), "nobody was chosen: {row:#}");
    }

    send("10.1.0.1:8001", 7);
    wait_for("the drops", || portway.drops("nowhere", "no route") == 7);
    let (nowhere, backend) = (rule(&portway, "nowhere"), &portway.backends("nowhere")[0]);
    for row in [&nowhere, backend] {
        assert_eq!((&row["failed"], &row["flows"]), (&json!(7), &json!(0)), "{row:#}");
        assert_eq!(row["drops"], json!({ "no route": 7 }), "{row:#}");
    }

    // One in each second that has begun: of twenty within a second or two most are too many, and each is one or the other.
    send("10.1.0.1:8002", 20);
    let slow = || rule(&portway, "slow");
    let sum = |row: &Value| row["flows"].as_u64().zip(row["drops"]["new-flow rate"].as_u64());
    wait_for("twenty", || sum(&slow()).is_some_and(|(flows, refused)| flows + refused == 20));
    let (slow, backend) = (slow(), &portway.backends("slow")[0]);
    assert_eq!((&slow["failed"], &slow["packets_in"]), (&slow["drops"]["new-flow rate"], &slow["flows"]));
    assert_eq!((&backend["flows"], &backend["failed"]), (&slow["flows"], &json!(0)), "{backend:#}");
    let shown = portway.command("status").unwrap_or_else(|complaint| panic!("{complaint}"));
    assert!(shown.contains("pool: packets not carried: no backend 5\n"), "{shown}");
}
