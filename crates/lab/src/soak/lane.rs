//! A lane: one network with one daemon, traffic through it, and a place in the round of troubles.
//!
//! ```text
//! held, short, bulk, datagrams ── gateway ── 10.2.0.10 fd02::10, which nothing is done to (v4, v6, and across)
//!                                        └── a, b, c: a pool, which much is done to
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portway_lab::traffic::Server;
use portway_lab::{Engine, Portway, Topology, pins, process};

use crate::leak::{Objects, Share, flows};
use crate::log::{Done, Error, Kind, Log};
use crate::traffic::Traffic;
use crate::trouble::{Backend, CHECKED, PORT, Patient};

/// A network under soak.
pub struct Lane {
    engine: Engine,
    killed: bool,
    short: bool,
    log: Arc<Log>,
    traffic: Traffic,
    backends: Vec<Backend>,
    portway: Portway,
    turn: u32,
    troubles: BTreeMap<&'static str, u64>,
    shares: Vec<Share>,
    objects: Objects,
    reserved: String,
    _servers: Vec<Server>,
    net: Topology,
}

/// What came of it.
pub struct End {
    /// Whether its daemon was killed over and over.
    pub killed: bool,
    pub done: BTreeMap<Kind, Done>,
    /// Explained, and not.
    pub errors: [Vec<Error>; 2],
    pub troubles: BTreeMap<&'static str, u64>,
    /// After the first round of troubles, and after the last.
    pub shares: [Share; 2],
    /// Faults that are not errors of the traffic, in words.
    pub faults: Vec<String>,
}

/// How many troubles make a round.
const ROUND: u32 = 9;
/// So many rules more do not fit in the maps that a small file begins with.
const MANY: u32 = 3000;

impl Lane {
    pub fn start(engine: Engine, killed: bool, short: bool) -> Self {
        process::raise_descriptor_limit();
        let net = Topology::new();
        let host = net.server();
        let backends: Vec<Backend> = [("a", "10.2.0.11"), ("b", "10.2.0.12"), ("c", "10.2.0.13")]
            .map(|(name, address)| Backend::new(host, name, address))
            .into();
        let mut servers = vec![Server::tcp_sign(host, "10.2.0.10:7001", "sign")];
        for on in ["10.2.0.10", "[fd02::10]"].map(|address| format!("{address}:{PORT}")) {
            servers.extend([Server::tcp_named(host, &on, "steady"), Server::udp_echo(host, &on)]);
        }
        let reserved = reserved(&net);
        let portway = Portway::start(&net.gateway, &file(engine, &backends, short, 0));
        let log = Arc::new(Log::new());
        let traffic = traffic(&net, &log);
        let (turn, troubles, shares) = (0, BTreeMap::new(), Vec::new());
        let objects = Objects::of(&net.gateway);
        Self {
            engine,
            killed,
            short,
            log,
            traffic,
            backends,
            portway,
            turn,
            troubles,
            shares,
            objects,
            reserved,
            _servers: servers,
            net,
        }
    }

    /// Does the next thing. Every round ends as it began.
    pub fn trouble(&mut self) {
        let step = self.turn % ROUND;
        self.turn += 1;
        let Self { log, portway, net, .. } = self;
        let mut patient = Patient { portway, host: net.server(), log, backends: &mut self.backends };
        let word = match step {
            1 => {
                patient.ails(0);
                "backend that only its check misses"
            }
            3 | 6 => {
                patient.is_well(if step == 3 { 0 } else { 1 });
                "backend that returned"
            }
            4 => {
                patient.dies(1);
                "backend that died"
            }
            2 | 5 | 7 if self.killed => {
                patient.is_replaced();
                "daemon killed, programs replaced"
            }
            8 => {
                let many = (0..MANY).map(|nth| format!("tcp/10.1.0.1:{}", 10_000 + nth));
                let many: String = many.map(|on| self.engine.forward(&on, "10.2.0.10:7000")).collect();
                self.portway.reload(&(file(self.engine, &self.backends, self.short, 0) + &many));
                "reload with thousands of rules"
            }
            _ => {
                let state = if step == 7 { 0 } else { self.turn };
                self.portway.reload(&file(self.engine, &self.backends, self.short, state));
                "reload"
            }
        };
        *self.troubles.entry(word).or_default() += 1;
        if self.turn.is_multiple_of(ROUND) {
            // Rules that a killed daemon was told of are the file's, which is as at first only after a reload.
            self.portway.reload(&file(self.engine, &self.backends, self.short, 0));
            let objects = Objects::of(&self.net.gateway);
            self.shares.push(Share::of(&self.portway, &self.net.gateway, &objects));
            self.objects.add(objects);
        }
    }

    /// How it is, in a line.
    pub fn words(&self) -> String {
        let answers: u64 = self.log.done().values().map(|done| done.answers).sum();
        let [explained, others] = self.log.judged();
        let last = others.last().map(|error| format!(" (last: {} {})", error.kind.words(), error.what));
        let memory = self.shares.last().map(|share| share.memory).unwrap_or_default();
        format!(
            "{answers} answers, {} errors explained, {} not{}, {memory} KiB",
            explained.len(),
            others.len(),
            last.unwrap_or_default()
        )
    }

    /// Ends it, and insists that nothing is left.
    pub fn end(mut self) -> End {
        while !self.turn.is_multiple_of(ROUND) {
            self.trouble();
        }
        self.traffic.stop();
        let mut faults = Vec::new();
        // Held connections end now, by FIN of the client; the last to go are those in TIME_WAIT.
        let (start, limit) = (Instant::now(), Duration::from_secs(if self.short { 15 } else { 90 }));
        let mut alive = u64::MAX;
        while alive > 0 && start.elapsed() < limit {
            thread::sleep(Duration::from_millis(500));
            alive = flows(&self.portway);
        }
        if alive > 0 {
            faults.push(format!("{alive} flows are still alive {limit:?} after the last packet"));
        }
        let first = self.shares.first().copied().unwrap_or_default();
        let last = self.shares.last().copied().unwrap_or_default();
        faults.extend(first.grown(&last));
        self.portway.stop();
        self.portway.command("clear").unwrap_or_else(|complaint| panic!("{complaint}"));
        let left = pins::of(&self.net.gateway);
        if !left.is_empty() {
            faults.push(format!("pins that `clear` has left: {left:?}"));
        }
        if let Some(left) = self.objects.left() {
            faults.push(format!("what the kernel still has after `clear`: {left}"));
        }
        let now = reserved(&self.net);
        if now != self.reserved {
            faults.push(format!("reserved ports are {now:?} after `clear`, {:?} before", self.reserved));
        }
        let Self { killed, log, troubles, .. } = self;
        End { killed, done: log.done(), errors: log.judged(), troubles, shares: [first, last], faults }
    }
}

fn reserved(net: &Topology) -> String {
    net.gateway.run("sysctl -n net.ipv4.ip_local_reserved_ports").trim().to_owned()
}

fn traffic(net: &Topology, log: &Arc<Log>) -> Traffic {
    const V4: &str = "10.1.0.1";
    const V6: &str = "[fd01::1]";
    let mut traffic = Traffic::new(net.client(), log);
    // 8001 stays within the family, 8002 crosses to the other one.
    for (to, fragmented) in [(V4, 8001), (V6, 8001), (V4, 8002), (V6, 8002)]
        .map(|(host, port)| (format!("{host}:{port}"), port == 8001))
    {
        traffic.held(Kind::Held, &to, 10);
        traffic.short(Kind::Short, &to);
        traffic.bulk(&to);
        traffic.datagrams(Kind::Datagrams, &to, fragmented);
    }
    traffic.short_by_server(&format!("{V4}:8003"));
    let pool = format!("{V4}:8000");
    traffic.held(Kind::HeldByPool, &pool, 10);
    traffic.short(Kind::ShortByPool, &pool);
    traffic.datagrams(Kind::DatagramsByPool, &pool, true);
    traffic
}

/// The file: the same for state 0, and otherwise with other weights and another rule.
fn file(engine: Engine, backends: &[Backend], short: bool, state: u32) -> String {
    let wait = if short { 5 } else { 60 };
    let mut file = format!(
        "[ebpf]\nmax-flows = 65536\n\
         timeouts = {{ established = '60s', closing = '3s', time-wait = '{wait}s', udp = '2s', udp-stream = '5s' }}\n"
    );
    for (name, listen, forward) in [
        ("held4", "tcp+udp/10.1.0.1:8001", "10.2.0.10:7000"),
        ("held6", "tcp+udp/[fd01::1]:8001", "[fd02::10]:7000"),
        ("to6", "tcp+udp/10.1.0.1:8002", "[fd02::10]:7000"),
        ("to4", "tcp+udp/[fd01::1]:8002", "10.2.0.10:7000"),
        ("sign", "tcp/10.1.0.1:8003", "10.2.0.10:7001"),
    ] {
        file += &engine.rule(&format!("name = '{name}'\nlisten = '{listen}'\nforward = '{forward}'"));
    }
    let weights = (1..).map(|nth| 1 + (state * nth) % 3);
    let tables: Vec<String> =
        backends.iter().zip(weights).map(|(backend, weight)| backend.table(weight)).collect();
    file += &engine.pool("tcp+udp/10.1.0.1:8000", &tables, CHECKED);
    if state != 0 {
        file += &engine.forward(&format!("tcp+udp/0.0.0.0:{}", 9000 + state % 500), "10.2.0.10:7000");
    }
    file
}
