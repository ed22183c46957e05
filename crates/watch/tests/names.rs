//! Names against a DNS server that changes its answers, fails, is silent and says that there is no such name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portway_core::facts::{Lookup, Resolved};
use portway_core::ruleset::Dns;
use support::dns::{Data, DnsServer, Mood, NXDOMAIN, SERVFAIL};
use support::*;

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

fn dns(servers: impl IntoIterator<Item = SocketAddr>) -> Dns {
    Dns { servers: servers.into_iter().collect(), timeout: Duration::from_millis(600), ..Dns::default() }
}

fn addresses(name: &str) -> Lookup {
    Lookup::Addresses(name.to_owned())
}

fn service(name: &str) -> Lookup {
    Lookup::Service(name.to_owned())
}

fn plain(address: &str) -> Resolved {
    Resolved { address: ip(address), port: None, weight: 0, priority: 0 }
}

fn record(address: &str, port: u16, priority: u16, weight: u16) -> Resolved {
    Resolved { address: ip(address), port: Some(port), weight, priority }
}

fn watching(lookup: Lookup, dns: &Dns) -> Watching {
    let watching = Watching::start();
    watching.set_lookups([lookup], dns);
    watching
}

/// What went wrong last.
fn error(watching: &Watching, lookup: &Lookup) -> Option<String> {
    watching.watch.report().lookups.get(lookup).and_then(|report| report.error.clone())
}

#[test]
fn addresses_of_both_families_are_found() {
    let server = DnsServer::start();
    server.set("app.example", 60, [Data::a("10.0.0.2"), Data::a("10.0.0.1"), Data::aaaa("fd00::1")]);
    let lookup = addresses("app.example");
    let watching = watching(lookup.clone(), &dns([server.address]));
    assert_eq!(watching.answer(), [plain("10.0.0.1"), plain("10.0.0.2"), plain("fd00::1")]);
    eventually("the report", || watching.watch.report().lookups.contains_key(&lookup));
    let report = watching.watch.report().lookups[&lookup].clone();
    assert_eq!((report.asked, &report.error), (1, &None));
    let left = report.left(Instant::now());
    assert!(left > Duration::from_secs(55) && left <= Duration::from_secs(66), "{left:?}");
    watching.assert_quiet(Duration::from_millis(200));
    assert_eq!((server.count("app.example", A), server.count("app.example", AAAA)), (1, 1));
}

#[test]
fn aliases_are_followed_and_their_ttl_counts() {
    let server = DnsServer::start();
    server.set("app.example", 2, [Data::Cname("other.example")]);
    server.set("other.example", 600, [Data::a("10.0.0.1")]);
    let watching = watching(addresses("app.example"), &dns([server.address]));
    assert_eq!(watching.answer(), [plain("10.0.0.1")]);
    server.set("other.example", 600, [Data::a("10.0.0.2")]);
    let begun = Instant::now();
    assert_eq!(watching.answer(), [plain("10.0.0.2")]);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1800) && took < Duration::from_millis(2800), "{took:?}");
}

#[test]
fn addresses_that_lead_nowhere_are_left_out() {
    let server = DnsServer::start();
    let data = ["0.0.0.0", "224.0.0.1", "255.255.255.255", "10.0.0.1"].map(Data::a);
    server.set("app.example", 60, data.into_iter().chain(["::", "ff02::1"].map(Data::aaaa)));
    let watching = watching(addresses("app.example"), &dns([server.address]));
    assert_eq!(watching.answer(), [plain("10.0.0.1")]);
}

#[test]
fn a_long_answer_comes_over_tcp() {
    let server = DnsServer::start();
    let all = (1..=200).map(|nth| format!("10.0.1.{nth}"));
    server.set("many.example", 60, all.map(|address| Data::a(&address)));
    let watching = watching(addresses("many.example"), &dns([server.address]));
    assert_eq!(watching.answer().len(), 200);
    assert!(server.asked().iter().any(|(_, kind, tcp)| *kind == A && *tcp));
}

#[test]
fn a_change_is_seen_when_the_ttl_is_over_and_not_before() {
    let server = DnsServer::start();
    server.set("app.example", 2, [Data::a("10.0.0.1")]);
    let watching = watching(addresses("app.example"), &dns([server.address]));
    assert_eq!(watching.answer(), [plain("10.0.0.1")]);
    server.set("app.example", 2, [Data::a("10.0.0.2")]);
    watching.assert_quiet(Duration::from_millis(1700));
    assert_eq!(watching.answer(), [plain("10.0.0.2")]);
}

#[test]
fn a_ttl_is_kept_between_its_bounds() {
    let server = DnsServer::start();
    server.set("none.example", 0, [Data::a("10.0.0.1")]);
    server.set("long.example", 86_400, [Data::a("10.0.0.2")]);
    let settings = Dns {
        ttl_min: Duration::from_millis(300),
        ttl_max: Duration::from_millis(700),
        ..dns([server.address])
    };
    let watching = Watching::start();
    watching.set_lookups([addresses("none.example"), addresses("long.example")], &settings);
    std::thread::sleep(Duration::from_secs(3));
    let (none, long) = (server.count("none.example", A), server.count("long.example", A));
    assert!((8..=11).contains(&none), "{none} questions with a TTL of 0.3 s in 3 s");
    assert!((4..=6).contains(&long), "{long} questions with a TTL of 0.7 s in 3 s");
}

#[test]
fn the_last_good_answer_stays_while_the_resolver_is_down() {
    let server = DnsServer::start();
    server.set("app.example", 1, [Data::a("10.0.0.1")]);
    let lookup = addresses("app.example");
    let watching = watching(lookup.clone(), &dns([server.address]));
    assert_eq!(watching.answer(), [plain("10.0.0.1")]);
    let moods = [
        (Mood::Code(SERVFAIL), "Server Failure"),
        (Mood::Silent, "no answer in time"),
        (Mood::Code(NXDOMAIN), "no such name"),
    ];
    for (mood, words) in moods {
        server.mood(mood);
        eventually(words, || error(&watching, &lookup).is_some_and(|error| error.contains(words)));
        watching.assert_quiet(Duration::ZERO);
    }
    server.set("app.example", 1, [Data::a("10.0.0.2")]);
    server.mood(Mood::Well);
    assert_eq!(watching.answer(), [plain("10.0.0.2")]);
    eventually("the error is gone", || error(&watching, &lookup).is_none());
}

#[test]
fn a_name_that_is_not_there_is_an_empty_answer_and_appears() {
    let server = DnsServer::start();
    let watching = watching(addresses("app.example"), &dns([server.address]));
    // The test server gives no SOA and so no TTL for that: the longest there is.
    let settings = Dns { ttl_max: Duration::from_secs(1), ..dns([server.address]) };
    assert_eq!(watching.answer(), []);
    watching.set_lookups([addresses("app.example")], &settings);
    server.set("app.example", 60, [Data::a("10.0.0.1")]);
    assert_eq!(watching.answer(), [plain("10.0.0.1")]);
}

#[test]
fn a_resolver_that_is_down_at_the_start_says_nothing() {
    let server = DnsServer::start();
    server.set("app.example", 60, [Data::a("10.0.0.1")]);
    let lookup = addresses("app.example");
    for mood in [Mood::Silent, Mood::Code(SERVFAIL), Mood::Garbage] {
        server.mood(mood);
        let watching = watching(lookup.clone(), &dns([server.address]));
        eventually("a failure", || error(&watching, &lookup).is_some());
        watching.assert_quiet(Duration::ZERO);
        server.mood(Mood::Well);
        assert_eq!(watching.answer(), [plain("10.0.0.1")]);
    }
}

#[test]
fn a_question_that_fails_takes_nothing_away_from_the_others() {
    let server = DnsServer::start();
    let settings = Dns { ttl_max: Duration::from_secs(1), ..dns([server.address]) };
    let lookup = addresses("app.example");
    // A server that cannot say AAAA: what it says is enough.
    server.set("app.example", 1, [Data::a("10.0.0.1"), Data::aaaa("fd00::1")]);
    server.mood(Mood::CodeForAaaa(SERVFAIL));
    let watching = watching(lookup.clone(), &settings);
    assert_eq!(watching.answer(), [plain("10.0.0.1")]);
    eventually("it is told", || error(&watching, &lookup).is_some_and(|error| error.contains("AAAA")));
    server.mood(Mood::Well);
    assert_eq!(watching.answer(), [plain("10.0.0.1"), plain("fd00::1")]);
    // One that could keeps what it said, while the other family changes.
    server.mood(Mood::CodeForAaaa(SERVFAIL));
    server.set("app.example", 1, [Data::a("10.0.0.2"), Data::aaaa("fd00::2")]);
    assert_eq!(watching.answer(), [plain("10.0.0.2"), plain("fd00::1")]);
    server.mood(Mood::Well);
    assert_eq!(watching.answer(), [plain("10.0.0.2"), plain("fd00::2")]);
}

#[test]
fn the_next_server_is_asked_when_one_fails() {
    for mood in [Mood::Code(SERVFAIL), Mood::Silent, Mood::Garbage] {
        let (ill, well) = (DnsServer::start(), DnsServer::start());
        ill.mood(mood);
        well.set("app.example", 1, [Data::a("10.0.0.1")]);
        let settings = dns([ill.address, free_port(), well.address]);
        let watching = watching(addresses("app.example"), &settings);
        assert_eq!(watching.answer(), [plain("10.0.0.1")]);
        let before = ill.asked().len();
        // The one that answered is asked first from then on.
        well.set("app.example", 60, [Data::a("10.0.0.2")]);
        assert_eq!(watching.answer(), [plain("10.0.0.2")]);
        assert_eq!(ill.asked().len(), before, "{mood:?}");
    }
}

#[test]
fn a_service_has_ports_priorities_and_weights() {
    let server = DnsServer::start();
    server.set(
        "_pg._tcp.example",
        1,
        [
            Data::Srv(10, 60, 5432, "a.example"),
            Data::Srv(10, 40, 5433, "b.example"),
            Data::Srv(20, 0, 5432, "c.example"),
            Data::Srv(30, 0, 5432, "gone.example"),
        ],
    );
    server.set("a.example", 60, [Data::a("10.0.0.1"), Data::aaaa("fd00::1")]);
    server.set("b.example", 60, [Data::a("10.0.0.2")]);
    server.set("c.example", 60, [Data::a("10.0.0.3")]);
    let watching = watching(service("_pg._tcp.example"), &dns([server.address]));
    let both = [
        record("10.0.0.1", 5432, 10, 60),
        record("10.0.0.2", 5433, 10, 40),
        record("10.0.0.3", 5432, 20, 0),
        record("fd00::1", 5432, 10, 60),
    ];
    assert_eq!(watching.answer(), both);
    // The lowest TTL of all that it is made of: that of the records.
    server.set("_pg._tcp.example", 60, [Data::Srv(10, 60, 5432, "c.example")]);
    assert_eq!(watching.answer(), [record("10.0.0.3", 5432, 10, 60)]);
    assert!(server.count("_pg._tcp.example", SRV) >= 2);
}

#[test]
fn a_service_that_is_not_offered_is_an_empty_answer() {
    let server = DnsServer::start();
    server.set("_pg._tcp.example", 60, [Data::Srv(0, 0, 0, ".")]);
    let watching = watching(service("_pg._tcp.example"), &dns([server.address]));
    assert_eq!(watching.answer(), []);
}

#[test]
fn other_settings_ask_anew_and_keep_the_answer() {
    let (old, new) = (DnsServer::start(), DnsServer::start());
    old.set("app.example", 3600, [Data::a("10.0.0.1")]);
    new.set("app.example", 3600, [Data::a("10.0.0.1")]);
    let lookup = addresses("app.example");
    let watching = watching(lookup.clone(), &dns([old.address]));
    assert_eq!(watching.answer(), [plain("10.0.0.1")]);
    // The same settings: nothing is asked.
    watching.set_lookups([lookup.clone()], &dns([old.address]));
    watching.set_lookups([lookup.clone()], &dns([new.address]));
    eventually("the new server is asked", || new.count("app.example", A) == 1);
    // The same answer is no event.
    watching.assert_quiet(Duration::from_millis(200));
    assert_eq!(old.count("app.example", A), 1);
    new.set("app.example", 3600, [Data::a("10.0.0.2")]);
    let settings = Dns { ttl_min: Duration::from_secs(2), ..dns([new.address]) };
    watching.set_lookups([lookup], &settings);
    assert_eq!(watching.answer(), [plain("10.0.0.2")]);
}

#[test]
fn names_that_are_gone_are_forgotten() {
    let server = DnsServer::start();
    let settings = Dns { ttl_max: Duration::from_secs(1), ..dns([server.address]) };
    server.set("app.example", 1, [Data::a("10.0.0.1")]);
    let watching = watching(addresses("app.example"), &settings);
    watching.answer();
    watching.set_lookups([], &settings);
    eventually("the report forgets", || watching.watch.report().lookups.is_empty());
    let asked = server.asked().len();
    server.set("app.example", 1, [Data::a("10.0.0.2")]);
    watching.assert_quiet(Duration::from_millis(1500));
    assert_eq!(server.asked().len(), asked);
}

/// Names are no hostage of the time that a silent server takes: a thousand are resolved while one is not.
#[test]
fn many_names_are_resolved_at_the_same_time() {
    let server = DnsServer::start();
    let names: Vec<&'static str> =
        (0..1000).map(|nth| &*Box::leak(format!("host{nth}.example").into_boxed_str())).collect();
    for name in &names {
        server.set(name, 60, [Data::a("10.0.0.1")]);
    }
    let watching = Watching::start();
    let begun = Instant::now();
    watching.set_lookups(names.iter().map(|name| addresses(name)), &dns([server.address]));
    for _ in &names {
        assert_eq!(watching.answer(), [plain("10.0.0.1")]);
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// The system's own resolver, whatever it is here: `localhost` is in /etc/hosts everywhere.
#[test]
fn the_systems_names_are_known() {
    let watching = watching(addresses("localhost"), &Dns::default());
    assert!(watching.answer().contains(&plain("127.0.0.1")));
}
