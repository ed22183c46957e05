//! Passive checks: what the proxy sees of a backend by carrying connections to it.

use std::io;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::client::{names, tally, who};
use crate::farm::{Farm, Kind, POOL, name, v4};
use crate::traffic::Server;
use crate::{Engine, Portway};

/// A pool of a backend on port 7001, where nobody listens unless a test sees to it, and two that are well. A failure
/// shows: nothing is tried again.
fn pool(engine: Engine, passive: &str) -> String {
    let backends = [nobody(0), Farm::backend(1, ""), Farm::backend(2, "")];
    engine.pool("0.0.0.0:8000", &backends, &format!("retries = 0\npassive = {passive}"))
}

fn nobody(nth: u8) -> String {
    Farm::backend(nth, "").replace(":7000", ":7001")
}

/// How many of so many connections meet nobody.
fn failures(farm: &Farm, count: usize) -> usize {
    (0..count).filter(|_| who(farm.net.client(), POOL).is_err()).count()
}

fn ejected(portway: &Portway) -> usize {
    portway.backends("pool").iter().filter(|backend| backend["state"] == "ejected").count()
}

/// Refused connections eject a backend for the time of `fail-timeout`, with exactly as many failures as stated; when
/// it is well it comes back.
pub fn refused_connections(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 3);
    let portway = Portway::start(&farm.net.gateway, &pool(engine, "{ max-fails = 3, fail-timeout = '1s' }"));
    assert_eq!(failures(&farm, 30), 3, "three fail, then it is left out");
    assert_eq!(portway.state("a"), "ejected");
    assert_eq!(names(&tally(farm.net.client(), POOL, 30)), "bc");
    let _well = Server::tcp_sign(farm.net.server(), &format!("{}:7001", v4(0)), "a");
    crate::netns::wait_for("the ejection to end", || {
        who(farm.net.client(), POOL).expect("nobody fails any more") == "a"
    });
    assert_ne!(portway.state("a"), "ejected");
}

/// Resets before the first byte count like refusals.
pub fn early_resets(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 3);
    let _resets = Server::tcp(farm.net.server(), &format!("{}:7001", v4(0)), |stream| {
        let _ = set_socket_linger(&stream, Some(Duration::ZERO)).map_err(io::Error::from);
    });
    let portway = Portway::start(&farm.net.gateway, &pool(engine, "{ max-fails = 2, fail-timeout = '60s' }"));
    assert_eq!(failures(&farm, 30), 2);
    assert_eq!(portway.state("a"), "ejected");
    assert_eq!(failures(&farm, 60), 0);
}

/// No more of a pool is left out than `max-ejected` allows: clients rather meet a bad backend than an empty pool's
/// refusal.
pub fn ejection_is_bounded(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 4);
    let backends = [nobody(0), nobody(1), nobody(2), Farm::backend(3, "")];
    let settings = "retries = 0\npassive = { max-fails = 1, fail-timeout = '60s', max-ejected = 50 }";
    let portway = Portway::start(&farm.net.gateway, &engine.pool("0.0.0.0:8000", &backends, settings));
    let failed = failures(&farm, 60);
    assert_eq!(ejected(&portway), 2, "half of four");
    // Of the two that are left, every second connection meets the bad one.
    assert!((20..=40).contains(&failed), "{failed} of 60 fail");
    // The last one never is, also when it was before it became the last; and it may be well by now.
    let out = (0..3).find(|nth| portway.state(&name(*nth)) == "ejected").expect("two of them");
    let _well = Server::tcp_sign(farm.net.server(), &format!("{}:7001", v4(out)), "well");
    portway.reload(&engine.pool("0.0.0.0:8000", &[nobody(out)], settings));
    assert_eq!(failures(&farm, 5), 0);
    assert_eq!(ejected(&portway), 0);
}
