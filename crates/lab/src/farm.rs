//! A farm: servers behind the gateway that say their names, each of which can be made to look dead to health checks while
//! it goes on serving.
//!
//! ```text
//! a 10.2.0.10, b 10.2.0.11, c 10.2.0.12 ...   port 7000: its name over TCP and UDP   port 7999: for health checks
//! ```
//!
//! All of them are addresses of one host, and threads of the test. Real programs that really die are in
//! [`crate::peer`].

use crate::client::{names, tally};
use crate::netns::wait_for;
use crate::traffic::Server;
use crate::{Engine, Portway, Topology, process};

/// The port that says the name.
pub const PORT: u16 = 7000;
/// The port for health checks, which is open while the server is "alive".
pub const CHECK_PORT: u16 = 7999;
/// The listener of [`Farm::pool`], as the client calls it.
pub const POOL: &str = "10.1.0.1:8000";
/// The same, IPv6.
pub const POOL6: &str = "[fd01::1]:8000";

/// How the servers behave once they have said their name over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They hang up: for connections by the ten thousand.
    Sign,
    /// They return every byte.
    Echo,
}

/// Named servers and the network around them.
#[derive(Debug)]
pub struct Farm {
    checks: Vec<Option<Server>>,
    servers: Vec<[Server; 2]>,
    /// One client, the gateway, one server host.
    pub net: Topology,
}

impl Farm {
    /// So many servers (at most 26), all alive.
    ///
    /// # Panics
    /// Without root or iproute2.
    pub fn new(kind: Kind, count: u8) -> Self {
        process::raise_descriptor_limit();
        let net = Topology::new();
        for nth in 1..count {
            net.server().ip(&format!(
                "address add {}/24 dev eth0\naddress add {}/64 dev eth0 nodad",
                v4(nth),
                v6(nth)
            ));
        }
        let mut farm = Self { checks: Vec::new(), servers: Vec::new(), net };
        for nth in 0..count {
            let (host, on, name) = (farm.net.server(), format!("{}:{PORT}", v4(nth)), name(nth));
            let tcp = match kind {
                Kind::Sign => Server::tcp_sign(host, &on, &name),
                Kind::Echo => Server::tcp_named(host, &on, &name),
            };
            let udp = Server::udp_named(host, &on, &name);
            farm.servers.push([tcp, udp]);
            farm.checks.push(None);
            farm.revive(nth);
        }
        farm
    }

    /// Gives every server its IPv6 twin, `[fd02::10]:7000` and on, TCP.
    #[must_use]
    pub fn with_v6(&self) -> Vec<Server> {
        let count = u8::try_from(self.servers.len()).expect("at most 26");
        let twin = |nth| Server::tcp_sign(self.net.server(), &format!("[{}]:{PORT}", v6(nth)), &name(nth));
        (0..count).map(twin).collect()
    }

    /// A server looks dead to health checks; it serves on.
    pub fn ail(&mut self, nth: u8) {
        self.checks[usize::from(nth)] = None;
    }

    /// It is well again.
    pub fn revive(&mut self, nth: u8) {
        let on = format!("{}:{CHECK_PORT}", v4(nth));
        self.checks[usize::from(nth)] = Some(Server::tcp_sign(self.net.server(), &on, "well"));
    }

    /// How long (ms) each verdict took to be in force while the first of the two servers of [`POOL`] died and came back
    /// some times: of its deaths and of its returns, the shortest first. The pool is [`CHECKED`]. A client sees that the
    /// verdict is there: reading the counters of 10,000 rules for the status is work of its own.
    ///
    /// # Panics
    /// When clients do not meet whom they should.
    pub fn verdicts(&mut self, portway: &Portway, rounds: usize) -> [Vec<f64>; 2] {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (well, met) in [(false, "b"), (true, "ab")] {
                if well {
                    self.revive(0)
                } else {
                    self.ail(0)
                }
                wait_for(met, || names(&tally(self.net.client(), POOL, 10)) == met);
                times[usize::from(well)].push(portway.fact("last_apply_us") as f64 / 1e3);
            }
        }
        times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
        times
    }

    /// How often a server was met, over TCP.
    pub fn met(&self, nth: u8) -> usize {
        self.servers[usize::from(nth)][0].peers().len()
    }

    /// Who checked a server's health.
    pub fn checkers(&self, nth: u8) -> Vec<std::net::IpAddr> {
        self.checks[usize::from(nth)].as_ref().map(Server::peers).unwrap_or_default()
    }

    /// A server as a backend of the file, with further keys ("weight = 5").
    pub fn backend(nth: u8, keys: &str) -> String {
        let comma = if keys.is_empty() { "" } else { ", " };
        format!("{{ address = '{}:{PORT}', name = '{}'{comma}{keys} }}", v4(nth), name(nth))
    }

    /// The same, IPv6.
    pub fn backend_v6(nth: u8, keys: &str) -> String {
        Self::backend(nth, keys).replace(&v4(nth), &format!("[{}]", v6(nth)))
    }

    /// A rule named "pool" on port 8000, TCP and UDP, of the first servers: one for each of `keys`.
    pub fn pool(engine: Engine, keys: &[&str], settings: &str) -> String {
        let backends: Vec<String> = (0..).zip(keys).map(|(nth, keys)| Self::backend(nth, keys)).collect();
        engine.pool("tcp+udp/0.0.0.0:8000", &backends, settings)
    }
}

/// "a", "b" ...
pub fn name(nth: u8) -> String {
    char::from(b'a' + nth).to_string()
}

/// The server's address.
pub fn v4(nth: u8) -> String {
    format!("10.2.0.{}", 10 + nth)
}

/// The server's IPv6 address.
pub fn v6(nth: u8) -> String {
    format!("fd02::{}", 10 + nth)
}

/// The settings of a health check of [`CHECK_PORT`]: quick enough for a test, and patient enough for a machine that is
/// busy with other tests. Two failures take a server down, one success brings it up.
pub const CHECKED: &str = "check = { type = 'tcp', port = 7999, interval = '250ms', interval-down = '100ms', timeout = '250ms', rise = 1, fall = 2 }";
