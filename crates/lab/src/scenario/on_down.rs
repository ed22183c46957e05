//! What happens to the flows of a backend that goes down, and to no others: `keep`, `drain`, `reset`; UDP never waits.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::client::{Held, who_udp};
use crate::farm::{CHECKED, Farm, Kind};
use crate::{Engine, Portway};

/// Connections to both backends, and a UDP socket that met the first.
struct Clients {
    on_a: Vec<Held>,
    on_b: Vec<Held>,
    datagrams: UdpSocket,
}

/// Two backends behind this `on-down`; clients are with both, and the first goes down.
fn goes_down(engine: Engine, on_down: &str) -> (Farm, Portway, Clients) {
    const POOL: &str = crate::farm::POOL;
    let mut farm = Farm::new(Kind::Echo, 2);
    let settings = format!("{on_down}\n{CHECKED}");
    let portway = Portway::start(&farm.net.gateway, &Farm::pool(engine, &["", ""], &settings));
    portway.until("a", "up");
    let client = farm.net.client();
    let (on_a, on_b) =
        Held::open_many(client, POOL, 6).into_iter().partition(|held: &Held| held.backend == "a");
    let met_a = |socket: &UdpSocket| who_udp(socket).expect("a datagram is answered") == "a";
    let datagrams = (0..4).map(|_| client.dial(POOL)).find(met_a).expect("flows take turns");
    let clients = Clients { on_a, on_b, datagrams };
    assert_eq!((clients.on_a.len(), clients.on_b.len()), (3, 3));
    farm.ail(0);
    portway.until("a", "down");
    // The socket is the same, so is its port: without care it would be stuck.
    assert_eq!(who_udp(&clients.datagrams).expect("a datagram is answered"), "b", "UDP is let go at once");
    (farm, portway, clients)
}

fn others_live(clients: &mut Clients) {
    clients.on_b.iter_mut().for_each(|held| held.lives("when the other backend is down"));
}

/// `keep`, the default: its connections live as long as their ends let them.
pub fn keep(engine: Engine) {
    let (_farm, portway, mut clients) = goes_down(engine, "");
    others_live(&mut clients);
    std::thread::sleep(Duration::from_millis(500));
    clients.on_a.iter_mut().for_each(|held| held.lives("with a backend that is down, kept"));
    others_live(&mut clients);
    let flows = portway.conns("--protocol udp").0;
    let backends: Vec<_> = flows.iter().map(|flow| flow["backend"].as_str().unwrap_or_default()).collect();
    assert!(!backends.contains(&"10.2.0.10:7000"), "no datagram flow is left with it: {backends:?}");
}

/// `drain`: its connections have the drain time, then they are reset.
pub fn drain(engine: Engine) {
    let start = Instant::now();
    let (_farm, _portway, mut clients) = goes_down(engine, "on-down = 'drain'\ndrain-timeout = '1500ms'");
    let down = Instant::now();
    clients.on_a.iter_mut().for_each(|held| held.lives("with a backend that is down, drained"));
    for held in &mut clients.on_a {
        held.is_reset(Duration::from_secs(3));
        let (most, least) = (start.elapsed(), down.elapsed());
        assert!(most >= Duration::from_millis(1500), "reset after {most:?} at most");
        assert!(least <= Duration::from_millis(2300), "reset after {least:?} at least");
    }
    others_live(&mut clients);
}

/// `reset`: its connections are reset at once.
pub fn reset(engine: Engine) {
    let (_farm, _portway, mut clients) = goes_down(engine, "on-down = 'reset'");
    clients.on_a.iter_mut().for_each(|held| _ = held.is_reset(Duration::from_millis(500)));
    others_live(&mut clients);
}
