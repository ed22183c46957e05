//! Backends found by name: answers that change, several addresses, services, clocks. Resolvers that fail are in
//! [`super::resolver`].

use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Held, Tally, names, tally, who, who_udp};
use crate::dns::{Dns, Srv};
use crate::farm::{CHECKED, Farm, Kind, POOL, name, v4, v6};
use crate::netns::wait_for;
use crate::traffic::{Server, refusal};
use crate::{Engine, Portway};

/// The lab's resolver, on the servers' host.
pub(super) const RESOLVER: &str = "10.2.0.10:53";

/// Answers live for a third of a second, whatever their time to live says.
pub(super) const DNS: &str =
    "[dns]\nservers = ['10.2.0.10']\ntimeout = '300ms'\nttl-min = '300ms'\nttl-max = '300ms'\n";

/// How long a changed answer takes to be met: what is left of the old one's time, the question, and a busy machine.
const FOLLOWED: Duration = Duration::from_millis(1500);

/// A rule named "pool" of one name, with further keys of the backend and settings of the pool.
pub(super) fn pool(engine: Engine, keys: &str, settings: &str) -> String {
    let comma = if keys.is_empty() { "" } else { ", " };
    let backend = format!("{{ address = 'app.test:7000', name = 'app'{comma}{keys} }}");
    engine.pool("tcp+udp/0.0.0.0:8000", &[backend], settings)
}

/// Waits until new connections meet these backends, and only these.
pub(super) fn until_met(farm: &Farm, backends: &str) {
    let start = Instant::now();
    while names(&tally(farm.net.client(), POOL, 12)) != backends {
        assert!(start.elapsed() < FOLLOWED, "{backends} is not met within {FOLLOWED:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A changed answer moves new flows, and open ones live on. An answer that there is no such name, which a zone gives
/// for a moment when it is reloaded, takes nothing away at once.
pub fn follows(engine: Engine) {
    let farm = Farm::new(Kind::Echo, 3);
    let dns = Dns::start(farm.net.server(), RESOLVER);
    dns.addresses("app.test", &[&v4(0)], 1);
    let _portway = Portway::start(&farm.net.gateway, &(DNS.to_owned() + &pool(engine, "", "")));
    until_met(&farm, "a");
    let mut held = Held::open(farm.net.client(), POOL);
    let socket = farm.net.client().dial(POOL);
    assert_eq!(who_udp(&socket).expect("a datagram is answered"), "a");
    dns.addresses("app.test", &[&v4(1)], 1);
    until_met(&farm, "b");
    held.lives("with an address that the name has lost");
    assert_eq!(who_udp(&socket).expect("a datagram is answered"), "a", "an open flow stays");
    assert_eq!(who_udp(&farm.net.client().dial(POOL)).expect("a datagram is answered"), "b");
    dns.addresses("app.test", &[&v4(1), &v4(2)], 1);
    until_met(&farm, "bc");
    let asked = dns.asked("app.test");
    dns.forget("app.test");
    wait_for("the question", || dns.asked("app.test") > asked);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(names(&tally(farm.net.client(), POOL, 12)), "bc", "what was good is kept for a while");
    held.lives("when the name is gone");
}

/// A name that never existed is no backend: the pool is empty, and filled when the name appears.
pub fn no_such_name(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 1);
    let dns = Dns::start(farm.net.server(), RESOLVER);
    let portway = Portway::start(&farm.net.gateway, &(DNS.to_owned() + &pool(engine, "", "init = 'wait'")));
    wait_for("the pool to be empty", || portway.word("pool", "state") == "empty");
    refusal(farm.net.client(), POOL);
    dns.addresses("app.test", &[&v4(0)], 1);
    wait_for("the name", || portway.word("pool", "state") == "forwarding");
    assert_eq!(who(farm.net.client(), POOL).expect("the name has appeared"), "a");
}

/// All addresses of a name take turns, or the first in numerical order takes all; ninety of them do not fit into a
/// datagram, and come over TCP.
pub fn several_addresses(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 3);
    let dns = Dns::start(farm.net.server(), RESOLVER);
    // Not in numerical order.
    dns.addresses("app.test", &[&v4(2), &v4(0), &v4(1)], 60);
    let file = |keys: &str| DNS.to_owned() + &pool(engine, keys, "");
    let portway = Portway::start(&farm.net.gateway, &file(""));
    until_met(&farm, "abc");
    let met = tally(farm.net.client(), POOL, 90);
    assert!(met.values().all(|count| *count == 30), "{met:?}");
    portway.reload(&file("resolve = 'first'"));
    until_met(&farm, "a");
    assert_eq!(dns.asked_by_tcp(), 0);
    let many: Vec<String> = (0..90).map(|nth| format!("10.2.0.{}", 200 - nth)).chain([v4(1)]).collect();
    dns.addresses("app.test", &many.iter().map(String::as_str).collect::<Vec<_>>(), 60);
    until_met(&farm, "b");
    assert!(dns.asked_by_tcp() > 0, "so many addresses come over TCP");
}

/// SRV: hosts with ports and weights; a worse priority is for when all better ones are down.
pub fn service(engine: Engine) {
    let mut farm = Farm::new(Kind::Sign, 3);
    let dns = Dns::start(farm.net.server(), RESOLVER);
    let _elsewhere = Server::tcp_sign(farm.net.server(), &format!("{}:7001", v4(1)), "b");
    for nth in 0..3 {
        dns.addresses(&format!("{}.test", name(nth)), &[&v4(nth)], 1);
    }
    let record = |priority, weight, port, host| Srv { priority, weight, port, host };
    let records =
        [record(1, 30, 7000, "a.test"), record(1, 10, 7001, "b.test"), record(2, 0, 7000, "c.test")];
    dns.service("_app._tcp.test", &records, 1);
    let backend = "{ address = 'srv/_app._tcp.test', name = 'app' }".to_owned();
    let file = DNS.to_owned() + &engine.pool("0.0.0.0:8000", &[backend], CHECKED);
    let portway = Portway::start(&farm.net.gateway, &file);
    until_met(&farm, "ab");
    assert_eq!(
        tally(farm.net.client(), POOL, 80),
        Tally::from([("a".into(), 60), ("b".into(), 20)]),
        "by the records' weights"
    );
    for nth in 0..2 {
        farm.ail(nth);
    }
    portway.until("10.2.0.10:7000", "down");
    portway.until("10.2.0.11:7001", "down");
    assert_eq!(names(&tally(farm.net.client(), POOL, 20)), "c", "the next priority");
    farm.revive(1);
    portway.until("10.2.0.11:7001", "up");
    assert_eq!(names(&tally(farm.net.client(), POOL, 20)), "b");
    // Back before the records say that it is the only one: an empty pool refuses.
    farm.revive(0);
    portway.until("10.2.0.10:7000", "up");
    dns.service("_app._tcp.test", &records[..1], 1);
    until_met(&farm, "a");
}

/// A name with addresses of both families: nftables uses those of the listener's, the others all of them.
pub fn families(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 2);
    let _twins = farm.with_v6();
    let dns = Dns::start(farm.net.server(), RESOLVER);
    dns.addresses("app.test", &[&v4(0), &v6(1)], 60);
    let _portway = Portway::start(&farm.net.gateway, &(DNS.to_owned() + &pool(engine, "", "")));
    until_met(&farm, if engine == Engine::Nftables { "a" } else { "ab" });
}

/// A time to live of 0 does not make Portway ask without end, and one of an hour does not make it deaf: both are
/// clamped.
pub fn ttl_is_clamped(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 1);
    let dns = Dns::start(farm.net.server(), RESOLVER);
    let names = [("app.test", 0.3), ("hour.test", 0.6)];
    dns.addresses("app.test", &[&v4(0)], 0);
    dns.addresses("hour.test", &[&v4(0)], 3600);
    let hour = pool(engine, "", "").replace("app.test", "hour.test").replace("'pool'", "'hour'");
    let dns_table = "[dns]\nservers = ['10.2.0.10']\nttl-min = '300ms'\nttl-max = '600ms'\n".to_owned();
    let file = dns_table + &pool(engine, "", "") + &hour.replace(":8000", ":8001");
    let _portway = Portway::start(&farm.net.gateway, &file);
    until_met(&farm, "a");
    let (start, before) = (Instant::now(), names.map(|(name, _)| dns.asked(name)));
    thread::sleep(Duration::from_secs(3));
    for ((name, clamped), before) in names.into_iter().zip(before) {
        let (asked, seconds) = ((dns.asked(name) - before) as f64, start.elapsed().as_secs_f64());
        // A round is one question, or two where both families are asked for. Rounds may come a tenth early.
        let most = 2.0 * (seconds / clamped / 0.9 + 1.0);
        let least = 3.0 / clamped / 2.0;
        assert!((least..=most).contains(&asked), "{asked} questions for {name}, not {least} to {most}");
    }
}

/// The state of every address of a name is the operator's to see, and each can be drained by itself.
pub fn one_address_of_a_name(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 2);
    let dns = Dns::start(farm.net.server(), RESOLVER);
    dns.addresses("app.test", &[&v4(0), &v4(1)], 1);
    let portway = Portway::start(&farm.net.gateway, &(DNS.to_owned() + &pool(engine, "", "")));
    until_met(&farm, "ab");
    portway.order("drain pool/10.2.0.10:7000");
    assert_eq!(portway.state("10.2.0.10:7000"), "draining");
    assert_eq!(portway.state("10.2.0.11:7000"), "up");
    assert_eq!(names(&tally(farm.net.client(), POOL, 20)), "b");
    portway.order("undrain pool/10.2.0.10:7000");
    assert_eq!(names(&tally(farm.net.client(), POOL, 20)), "ab");
    portway.order("drain pool/app");
    assert_eq!(who(farm.net.client(), POOL).ok(), None, "the name is all of its addresses");
}
