//! A pool without a live backend: clients are refused, wait, or meet the sorry backend.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{names, tally, who, who_udp};
use crate::farm::{CHECKED, Farm, Kind, POOL};
use crate::traffic::{Server, refusal};
use crate::{Engine, Portway};

/// The backend that says sorry.
const SORRY: &str = "10.2.0.40:7000";

/// Both backends of a pool with these settings are down.
fn empty(engine: Engine, settings: &str) -> (Farm, Portway) {
    let mut farm = Farm::new(Kind::Sign, 2);
    let settings = format!("{settings}\n{CHECKED}");
    let portway = Portway::start(&farm.net.gateway, &Farm::pool(engine, &["", ""], &settings));
    portway.until("b", "up");
    assert_eq!(names(&tally(farm.net.client(), POOL, 20)), "ab");
    for (nth, backend) in [(0, "a"), (1, "b")] {
        farm.ail(nth);
        portway.until(backend, "down");
    }
    let state = if settings.contains(SORRY) { "sorry" } else { "empty" };
    assert_eq!(portway.word("pool", "state"), state);
    assert!(portway.log().contains("rule pool: no backend is live"), "{}", portway.log());
    (farm, portway)
}

/// One backend is well again, and the pool serves.
fn serves_again(farm: &mut Farm, portway: &Portway) {
    farm.revive(1);
    portway.until("b", "up");
    assert_eq!(portway.word("pool", "state"), "forwarding");
    assert!(portway.log().contains("rule pool: a backend is live again"), "{}", portway.log());
    assert_eq!(names(&tally(farm.net.client(), POOL, 20)), "b");
    assert_eq!(who_udp(&farm.net.client().dial(POOL)).expect("a datagram is answered"), "b");
}

/// The default: a TCP reset and an ICMP port unreachable, at once, as if nobody listened.
pub fn refuse(engine: Engine) {
    let (mut farm, portway) = empty(engine, "");
    for _ in 0..10 {
        farm.net.none_waits("a refusal", || refusal(farm.net.client(), POOL));
    }
    let socket = farm.net.client().dial(POOL);
    socket.send(b"anybody?").expect("sent");
    let error = socket.recv(&mut [0; 8]).expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    serves_again(&mut farm, &portway);
}

/// `drop`: silence; a client that waits is served when a backend is back.
pub fn wait(engine: Engine) {
    let (mut farm, portway) = empty(engine, "when-empty = 'drop'");
    let socket = farm.net.client().dial(POOL);
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a positive time");
    socket.send(b"anybody?").expect("sent");
    let error = socket.recv(&mut [0; 8]).expect_err("nobody answers");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "silence, no refusal");
    let client = farm.net.client().clone();
    let waiting = thread::spawn(move || {
        let start = Instant::now();
        (who(&client, POOL), start.elapsed())
    });
    thread::sleep(Duration::from_millis(400));
    assert!(!waiting.is_finished(), "the client waits");
    serves_again(&mut farm, &portway);
    // On nftables it is the client that tries again: after 1 s, then 3 s (RFC 6298).
    let (met, took) = waiting.join().expect("the client does not panic");
    assert_eq!(met.expect("it is served in the end"), "b");
    assert!(took < Duration::from_secs(4), "after {took:?}");
}

/// Another address: the sorry backend, which is no part of the pool and met only now.
pub fn sorry(engine: Engine) {
    let (mut farm, portway) = empty(engine, &format!("when-empty = '{SORRY}'"));
    farm.net.server().ip("address add 10.2.0.40/24 dev eth0");
    let server = Server::tcp_sign(farm.net.server(), SORRY, "sorry");
    let _datagrams = Server::udp_named(farm.net.server(), SORRY, "sorry");
    assert_eq!(names(&tally(farm.net.client(), POOL, 20)), "sorry");
    let row = portway.backend("pool", "sorry");
    assert_eq!((&row["state"], &row["flows"]), (&"up".into(), &20.into()), "{row:#}");
    assert_eq!(who_udp(&farm.net.client().dial(POOL)).expect("a datagram is answered"), "sorry");
    serves_again(&mut farm, &portway);
    assert_eq!(server.peers().len(), 20, "met only while the pool was empty");
}
