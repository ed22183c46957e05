//! A flood of SYNs from clients that do not exist, beside clients that do. The flood is bounded, in number and in time, and
//! stays in the lab's namespaces.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::{Held, name_from, names, tally, who};
use crate::hook::Received;
use crate::load::Load;
use crate::raw::{Raw, Segment};
use crate::topology::CLIENT4;
use crate::traffic::{Server, refusal};
use crate::{Engine, Portway, Scratch, Topology, peer};

use super::http::there_and_back;

/// Spoofed SYNs a second, and how many at most.
const RATE: u64 = 20_000;
const MOST: u64 = 100_000;

/// A thread that sends SYNs from ever new addresses of 198.18.0.0/15 (RFC 2544: never a true client's).
struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(net: &Topology, to: SocketAddrV4) -> Self {
        // Answers go to the client's host, which has no such address and forwards nothing: they end there in silence.
        net.gateway.ip(&format!("route replace 198.18.0.0/15 via {CLIENT4} dev lan"));
        let raw = Raw::tcp(net.client());
        let (sent, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (sent, stop) = (sent.clone(), stop.clone());
            move || {
                let start = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let nth = sent.load(Ordering::Relaxed);
                    if nth >= MOST {
                        return;
                    }
                    if nth > RATE * start.elapsed().as_millis() as u64 / 1000 {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    let spoofed = Ipv4Addr::from_bits(u32::from_be_bytes([198, 18, 0, 1]) + nth as u32);
                    // A full queue of the interface loses some, as a flood's do.
                    let _ =
                        raw.send(&Segment::syn(SocketAddrV4::new(spoofed, 1024 + nth as u16 % 30_000), to));
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { sent, stop, thread: Some(thread) }
    }

    /// Waits until so many SYNs were sent.
    fn pass(&self, count: u64) {
        let goal = (self.sent.load(Ordering::Relaxed) + count).min(MOST);
        crate::netns::wait_for("the flood", || self.sent.load(Ordering::Relaxed) >= goal);
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn rule(engine: Engine, keys: &str) -> String {
    engine.rule(&format!("name = 'flooded'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'\n{keys}"))
        + &engine.rule("name = 'other'\nlisten = '0.0.0.0:8001'\nforward = '10.2.0.10:7000'")
}

/// Clients of the other rule.
fn other(net: &Topology) -> Load {
    Load::asking(net.client(), "10.1.0.1:8001", |stream| name_from(stream).map(|_| ()))
}

fn to() -> SocketAddrV4 {
    "10.1.0.1:8000".parse().expect("a socket address")
}

/// With cookies, spoofed SYNs make no flows, and the backend hears nothing of them; clients connect and talk as if nothing
/// happened, and the connections that were there do not notice. Programs at XDP answer there.
pub fn cookies(engine: Engine) {
    let net = Topology::new();
    let server = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let file = "[ebpf]\nmax-flows = 4096\n".to_owned() + &rule(engine, "syn-cookies = 100");
    let portway = Portway::start(&net.gateway, &file);
    let mut held = Held::open_many(net.client(), "10.1.0.1:8000", 3);
    let start = Instant::now();
    let flood = Flood::start(&net, to());
    flood.pass(2000);
    let load = other(&net);
    let before = server.peers().len();
    let mut during = Held::open_many(net.client(), "10.1.0.1:8000", 20);
    during.iter_mut().for_each(|held| held.lives("opened by a cookie"));
    assert_eq!(names(&tally(net.client(), "10.1.0.1:8000", 50)), "a");
    held.iter_mut().for_each(|held| held.lives("during the flood"));
    load.pass(50);
    flood.pass(10_000);
    let flows = portway.conns("--rule flooded --protocol tcp").1;
    // The hundred SYNs of each second that are below the rate are taken as they are, those at both ends included.
    let most = 100 * (start.elapsed().as_secs() + 2) + 100;
    assert!(flows < most, "{flows} flows, not {most} at most: spoofed SYNs make flows");
    drop(flood);
    load.stop_without_loss();
    assert!(server.peers().len() >= before + 70, "the clients were with the backend");
    during.iter_mut().chain(&mut held).for_each(|held| held.lives("after the flood"));
    assert_eq!(portway.drops("flooded", "flow table full"), 0, "no table was full");
    if engine == Engine::Xdp {
        let cookies = portway.status()["engines"]["ebpf"]["syn_cookies"].as_u64().unwrap_or_default();
        let received = Received::by(&net.gateway, "lan");
        assert!(
            cookies >= 5000 && received.sent_at_xdp * 10 >= cookies * 9,
            "{cookies} cookies, {received:?}"
        );
    }
}

/// `syn-cookies = 0`: every connection is opened by a cookie, and large transfers with shifted sequence numbers arrive.
pub fn cookies_always(engine: Engine) {
    let net = Topology::new();
    let file = engine.rule("listen = '0.0.0.0:8888'\nforward = '10.2.0.10:80'\nsyn-cookies = 0")
        + &engine.rule("listen = '[::]:8888'\nforward = '[fd02::10]:81'\nsyn-cookies = 0");
    there_and_back(&net, net.client(), net.server(), ["10.2.0.10:80", "[fd02::10]:81"], &file, 30_000_000);
    let files = Scratch::new();
    files.write("page", "short");
    let _nginx = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let portway = Portway::start(&net.gateway, &file);
    let report = net.client().run("ab -q -l -s 10 -n 1000 -c 10 http://10.1.0.1:8888/page");
    assert!(report.contains("Failed requests:        0"), "{report}");
    assert!(
        portway.status()["engines"]["ebpf"]["syn_cookies"].as_u64() >= Some(1000),
        "{:#}",
        portway.status()
    );
}

/// Cookies whose client and backend are of different families: the numbers are shifted and the headers exchanged.
pub fn cookies_across_families(engine: Engine) {
    let net = Topology::new();
    let file = engine.rule("listen = '0.0.0.0:8888'\nforward = '[fd02::10]:81'\nsyn-cookies = 0")
        + &engine.rule("listen = '[::]:8888'\nforward = '10.2.0.10:80'\nsyn-cookies = 0");
    there_and_back(&net, net.client(), net.server(), ["10.2.0.10:80", "[fd02::10]:81"], &file, 10_000_000);
}

/// Behind cookies a closed port is still a refusal, and a server that speaks first is heard at once.
pub fn cookies_and_the_ends(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_greeting(net.server(), "10.2.0.10:7000", "220 hello\r\n");
    let file = engine.rule("listen = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'\nsyn-cookies = 0")
        + &engine.rule("listen = '0.0.0.0:8001'\nforward = '10.2.0.10:7001'\nsyn-cookies = 0");
    let _portway = Portway::start(&net.gateway, &file);
    let mut waits = [(); 11].map(|()| {
        let start = Instant::now();
        let met = who(net.client(), "10.1.0.1:8000").expect("the server speaks first");
        assert_eq!(met.trim(), "220 hello");
        start.elapsed()
    });
    waits.sort();
    // The middle one: a busy machine holds up a few, and a timer that the greeting waits for would hold up all.
    assert!(waits[5] < Duration::from_millis(500), "the greeting took {waits:?}");
    net.none_waits("the refusal", || refusal(net.client(), "10.1.0.1:8001"));
}

/// With a rate of new flows, a flood makes no more flows than that, and is counted; other rules and open connections are not
/// touched by it.
pub fn rate(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let portway = Portway::start(&net.gateway, &rule(engine, "new-flow-rate = 100"));
    let mut held = Held::open_many(net.client(), "10.1.0.1:8000", 3);
    let start = Instant::now();
    let flood = Flood::start(&net, to());
    let load = other(&net);
    flood.pass(10_000);
    held.iter_mut().for_each(|held| held.lives("during the flood"));
    load.pass(50);
    drop(flood);
    // A second's allowance at both ends.
    let most = 100 * (start.elapsed().as_secs() + 2);
    let flows = portway.figure("flooded", "flows");
    assert!(flows <= most, "{flows} new flows, {most} were allowed");
    assert!(portway.drops("flooded", "new-flow rate") >= 5000, "{:#}", portway.status());
    load.stop_without_loss();
    held.iter_mut().for_each(|held| held.lives("after the flood"));
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(names(&tally(net.client(), "10.1.0.1:8000", 20)), "a", "the rule serves again");
}
