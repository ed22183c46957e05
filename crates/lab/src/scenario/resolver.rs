//! Resolvers that are down, dumb or dead: the last answer is kept, nothing waits for them at the start, and whose they
//! are.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::{name_from, who};
use crate::dns::{Dns, Mood};
use crate::farm::{Farm, Kind, POOL, v4};
use crate::netns::{PATIENCE, wait_for};
use crate::scenario::names::{DNS, RESOLVER, pool, until_met};
use crate::traffic::refusal;
use crate::{Engine, Portway, Scratch};

/// While the resolver fails, is silent or is gone, the last answer is used, far beyond its time to live; when it is
/// back, its answer is.
pub fn down(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 2);
    let mut dns = Dns::start(farm.net.server(), RESOLVER);
    dns.addresses("app.test", &[&v4(0)], 1);
    let _portway = Portway::start(&farm.net.gateway, &(DNS.to_owned() + &pool(engine, "", "")));
    until_met(&farm, "a");
    for mood in [Mood::ServFail, Mood::Silent] {
        dns.feel(mood);
        let before = dns.asked("app.test");
        wait_for("another question", || dns.asked("app.test") > before);
        thread::sleep(Duration::from_millis(400));
        for _ in 0..5 {
            assert_eq!(who(farm.net.client(), POOL).expect("the last answer is kept"), "a", "{mood:?}");
        }
    }
    drop(dns);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(who(farm.net.client(), POOL).expect("the last answer is kept"), "a");
    dns = Dns::start(farm.net.server(), RESOLVER);
    dns.addresses("app.test", &[&v4(1)], 1);
    let start = Instant::now();
    while who(farm.net.client(), POOL).expect("one or the other") != "b" {
        assert!(start.elapsed() < PATIENCE, "the new answer is not met");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Starting does not wait for a resolver that is silent, whatever `init` says. With `wait` clients wait
/// until it speaks, so they do with `last-known` when nothing is known; with `none` the pool is empty until then.
pub fn start_does_not_wait(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 1);
    let dns = Dns::start(farm.net.server(), RESOLVER);
    dns.addresses("app.test", &[&v4(0)], 1);
    dns.feel(Mood::Silent);
    let rules = ["wait", "last-known", "none"].iter().enumerate().map(|(nth, init)| {
        let rule = pool(engine, "", &format!("init = '{init}'"));
        rule.replace("'pool'", &format!("'{init}'")).replace(":8000", &format!(":{}", 8000 + nth))
    });
    let rules = rules.collect::<String>();
    // One that waited would wait for as long as the resolver may take.
    let start = Instant::now();
    drop(Portway::start(&farm.net.gateway, &(DNS.replace("'300ms'\nttl-min", "'1m'\nttl-min") + &rules)));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(30), "started and ended after {took:?}");
    let _portway = Portway::start(&farm.net.gateway, &(DNS.to_owned() + &rules));
    refusal(farm.net.client(), "10.1.0.1:8002");
    let client = farm.net.client().clone();
    let waiting = ["10.1.0.1:8000", "10.1.0.1:8001"].map(|to| {
        let client = client.clone();
        thread::spawn(move || client.connect(to).and_then(|mut stream| name_from(&mut stream)))
    });
    thread::sleep(Duration::from_millis(600));
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "clients wait");
    dns.feel(Mood::Well);
    for waiting in waiting {
        let met = waiting.join().expect("a client does not panic");
        assert_eq!(met.expect("served when the resolver speaks"), "a");
    }
    let start = Instant::now();
    while who(&client, "10.1.0.1:8002").is_err() {
        assert!(start.elapsed() < PATIENCE, "the empty pool is never filled");
        thread::sleep(Duration::from_millis(20));
    }
}

/// With `last-known`, a restart without a resolver forwards at once: after an orderly end and after a crash.
pub fn last_known(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 2);
    let dns = Dns::start(farm.net.server(), RESOLVER);
    dns.addresses("app.test", &[&v4(1)], 1);
    let known = DNS.to_owned() + &pool(engine, "", "init = 'last-known'");
    let mut portway = Portway::start(&farm.net.gateway, &known);
    until_met(&farm, "b");
    drop(dns);
    for crash in [false, true] {
        if crash {
            portway.kill9()
        } else {
            _ = portway.stop()
        }
        portway.restart();
        assert_eq!(who(farm.net.client(), POOL).expect("the last answer is known"), "b", "crash: {crash}");
    }
    // With `none`, nothing of an earlier run counts.
    portway.stop();
    portway.write(&(DNS.to_owned() + &pool(engine, "", "init = 'none'")));
    portway.restart();
    refusal(farm.net.client(), POOL);
}

/// The system's resolver, from /etc/resolv.conf, is the default; the file's own come before it, and the second of them
/// is asked where the first says nothing.
pub fn whose(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 2);
    let system = Dns::start(farm.net.server(), RESOLVER);
    let own = Dns::start(farm.net.server(), "10.2.0.11:5353");
    system.addresses("app.test", &[&v4(0)], 1);
    own.addresses("app.test", &[&v4(1)], 1);
    let files = Scratch::new();
    let resolv = files.write("resolv.conf", "nameserver 10.2.0.10\noptions timeout:1\n");
    // A mount of the daemon's own: nothing of it is left on the host, however the test ends.
    let mount = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolv.display());
    let start = |file: &str| {
        Portway::start_under(&farm.net.gateway, &["unshare", "--mount", "sh", "-c", &mount, "sh"], file)
            .unwrap_or_else(|log| panic!("portway did not start:\n{log}"))
    };
    let rule = pool(engine, "", "");
    let portway = start(&rule);
    until_met(&farm, "a");
    assert_eq!(own.asked("app.test"), 0);
    drop(portway);
    let asked = system.asked("app.test");
    let own_servers =
        "[dns]\nservers = ['10.2.0.12:5353', '10.2.0.11:5353']\ntimeout = '300ms'\nttl-min = '300ms'\nttl-max = '300ms'\n"
            .to_owned();
    let _portway = start(&(own_servers + &rule));
    until_met(&farm, "b");
    assert_eq!(system.asked("app.test"), asked, "the system's is left alone");
}
