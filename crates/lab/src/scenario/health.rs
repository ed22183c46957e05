//! Active health checks against real servers that are stopped, frozen, cut off and brought back; where checks come from
//! and go to; slow start; how soon a verdict is in force. The types of checks are in [`super::check`], passive checks in
//! [`super::passive`].

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{names, share, tally};
use crate::farm::{CHECKED, Farm, Kind, POOL, name, v4};
use crate::traffic::Server;
use crate::{Engine, Portway, Process, Topology, peer};

const INTERVAL: Duration = Duration::from_millis(300);
const INTERVAL_DOWN: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_millis(250);
/// What a loaded machine with two cores may add to a verdict: scheduling, and the test's own look at the status.
const SLACK: Duration = Duration::from_millis(600);

/// Two failures in a row take a backend down, two successes bring it up.
const HTTP: &str = "check = { type = 'http', port = 7080, path = '/well', host = 'lab.test', expect = 'is well', \
                    interval = '300ms', interval-down = '100ms', timeout = '250ms', rise = 2, fall = 2 }";

/// The longest that a verdict may take: the rest of an interval until the first check that fails, the second one an
/// interval of the faster kind later (or when the first has timed out), and what each takes. Jitter is at most a tenth
/// of an interval.
fn stated(each: Duration) -> Duration {
    INTERVAL * 11 / 10 + (INTERVAL_DOWN * 11 / 10).max(each) + each
}

/// Three nginx on hosts of their own; the first fails and is mended. Within the stated times the verdict is there and
/// new flows go by it, without one failing.
fn fails_and_mends(
    engine: Engine,
    each: Duration,
    mut fail: impl FnMut(&Topology, &mut Process),
    mut mend: impl FnMut(&Topology, &mut Process),
) {
    let net = Topology::with(1, 3);
    let mut servers: Vec<Process> =
        (0..3).map(|nth| peer::nginx_named(&net.servers[usize::from(nth)], &v4(nth), &name(nth)).0).collect();
    let portway = Portway::start(&net.gateway, &Farm::pool(engine, &["", "", ""], HTTP));
    (0..3).for_each(|nth| _ = portway.until(&name(nth), "up"));
    assert_eq!(names(&tally(net.client(), POOL, 60)), "abc");
    let start = Instant::now();
    fail(&net, &mut servers[0]);
    portway.until("a", "down");
    let took = start.elapsed();
    assert_eq!(names(&tally(net.client(), POOL, 60)), "bc", "no flow meets it, and none fails");
    let bound = stated(each) + SLACK;
    assert!(took <= bound, "down after {took:?}, stated {bound:?}");
    let reason = portway.backend("pool", "a")["reason"].as_str().unwrap_or_default().to_owned();
    assert!(!reason.is_empty(), "the status says why");
    let start = Instant::now();
    mend(&net, &mut servers[0]);
    portway.until("a", "up");
    // A check that hangs when the server is mended takes its time out first; two more follow.
    let (took, bound) = (start.elapsed(), TIMEOUT + 2 * TIMEOUT + SLACK);
    assert!(took <= bound, "up after {took:?}, stated {bound:?}");
    let met = tally(net.client(), POOL, 60);
    assert_eq!(names(&met), "abc");
    assert!(share(&met, "a") > 0.3, "back with its whole share: {met:?}");
}

/// Killed: its port refuses.
pub fn stopped(engine: Engine) {
    let kill = |_: &Topology, server: &mut Process| {
        server.signal_group(Signal::KILL);
        server.wait(SLACK);
    };
    let start =
        |net: &Topology, server: &mut Process| *server = peer::nginx_named(net.server(), &v4(0), "a").0;
    fails_and_mends(engine, Duration::ZERO, kill, start);
}

/// Frozen: the kernel accepts, nobody answers.
pub fn frozen(engine: Engine) {
    let freeze = |_: &Topology, server: &mut Process| server.signal_group(Signal::STOP);
    let thaw = |_: &Topology, server: &mut Process| server.signal_group(Signal::CONT);
    fails_and_mends(engine, TIMEOUT, freeze, thaw);
}

/// Cut off: not a packet comes back.
pub fn cut_off(engine: Engine) {
    let cut = |net: &Topology, _: &mut Process| net.server().ip("link set eth0 down");
    let join = |net: &Topology, _: &mut Process| net.server().ip("link set eth0 up");
    fails_and_mends(engine, TIMEOUT, cut, join);
}

/// A check of another address and port, from the configured source; without one, from the rule's own source.
pub fn where_from_and_where_to(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 2);
    farm.net.gateway.ip("address add 10.2.0.5/24 dev wan\naddress add 10.2.0.6/24 dev wan");
    // The other address is well although no backend listens there on the pool's port.
    farm.net.server().ip("address add 10.2.0.40/24 dev eth0");
    let elsewhere = Server::tcp_sign(farm.net.server(), "10.2.0.40:7998", "well");
    let rule = |name: &str, port: u16, keys: &str, settings: &str| {
        let listen = format!("0.0.0.0:{port}");
        let rule = engine.pool(&listen, &[Farm::backend(0, "")], settings);
        rule.replace("name = 'pool'", &format!("name = '{name}'\n{keys}"))
    };
    let file = rule(
        "pool",
        8000,
        "",
        "check = { type = 'tcp', address = '10.2.0.40', port = 7998, source = '10.2.0.5', interval = '250ms' }",
    ) + &rule("pooled", 8001, "source = ['10.2.0.6']", CHECKED);
    let portway = Portway::start(&farm.net.gateway, &file);
    portway.until("a", "up");
    portway.until_in("pooled", "a", "up");
    let all = |peers: Vec<std::net::IpAddr>, wanted: &str| {
        assert!(!peers.is_empty() && peers.iter().all(|peer| peer.to_string() == wanted), "{peers:?}");
    };
    all(elsewhere.peers(), "10.2.0.5");
    all(farm.checkers(0), "10.2.0.6");
    drop(elsewhere);
    portway.until("a", "down");
    assert_eq!(portway.backend("pooled", "a")["state"], "up", "the other check is another check");
}

/// A backend that comes back takes its share step by step; one that was never down has it at once.
pub fn slow_start(engine: Engine) {
    const WHOLE: f64 = 3.0;
    let mut farm = Farm::new(Kind::Sign, 2);
    let settings = format!("slow-start = '3s'\n{CHECKED}");
    let portway = Portway::start(&farm.net.gateway, &Farm::pool(engine, &["", ""], &settings));
    portway.until("a", "up");
    let client = farm.net.client().clone();
    let half = |when: &str| {
        let share = share(&tally(&client, POOL, 200), "a");
        assert!((share - 0.5).abs() <= 0.02, "{when} it has {share} of the flows");
    };
    half("at the start");
    farm.ail(0);
    portway.until("a", "down");
    let before = Instant::now();
    farm.revive(0);
    portway.until("a", "up");
    let seen = Instant::now();
    let mut last = 0.0;
    for nth in 0..6 {
        let sampled = Instant::now();
        let found = share(&tally(&client, POOL, 100), "a");
        // It came up between `before` and `seen`; a step is a sixteenth.
        let of = |seconds: f64| {
            let weight = (seconds / WHOLE).clamp(0.0, 1.0);
            weight / (1.0 + weight)
        };
        let most = of(before.elapsed().as_secs_f64() + WHOLE / 16.0 + 0.1) + 0.04;
        let least = of((sampled - seen).as_secs_f64() - WHOLE / 16.0 - 0.1) - 0.04;
        assert!((least..=most).contains(&found), "sample {nth}: {found}, not within {least}..{most}");
        assert!(nth > 0 || found < 0.3, "it starts with {found} of the flows");
        assert!(found + 0.06 >= last, "from {last} to {found}");
        last = found;
        thread::sleep(Duration::from_millis(300));
    }
    thread::sleep(Duration::from_secs_f64(WHOLE).saturating_sub(seen.elapsed()) + Duration::from_millis(300));
    half("at the end");
}

/// At 10,000 rules a verdict is in force in the data path within 50 ms: the third of ten, because other tests have the CPUs
/// too, and work that grew with the rules would make all of them late. The `facts` command holds the slowest, on a machine of its own.
pub fn ten_thousand_rules(engine: Engine) {
    let mut farm = Farm::new(Kind::Sign, 2);
    let others: String = (10_000..19_999_u16)
        .map(|port| engine.forward(&format!("0.0.0.0:{port}"), "10.2.0.10:7000"))
        .collect();
    let portway = Portway::start(&farm.net.gateway, &(others + &Farm::pool(engine, &["", ""], CHECKED)));
    portway.until("a", "up");
    let applied = portway.fact("applied");
    let mut times = farm.verdicts(&portway, 5).concat();
    times.sort_by(f64::total_cmp);
    assert_eq!(portway.fact("applied"), applied + 10, "each verdict was applied, and nothing else");
    eprintln!("{engine}, 10,000 rules, from a verdict to its being in force: {times:?} ms");
    assert!(times[2] < 50.0, "{times:?} ms from a verdict to its being in force");
}
