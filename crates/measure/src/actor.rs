//! Who acts in a lane: a client, a server, a flood. Each is a process of its own, this program started again in a host's
//! namespace, so that its CPU time and its limits are its own.
//!
//! Orders are an argument (JSON), what became of them is JSON on standard output. Deliberately absent: the loads themselves,
//! which are `portway-load`'s.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use portway_lab::netns::wait_for;
use portway_lab::raw::{Raw, Segment};
use portway_lab::topology::CLIENT4;
use portway_lab::{Namespace, Process, Topology, portway, process};
use portway_load::{Direction, Exchange, Length, Plan, ServeOptions, Server, Stop};
use serde::{Deserialize, Serialize};

use crate::flows;
use crate::load::PAGE;
use crate::record::Figures;

/// The words that make this program an actor; its part follows.
pub const WORDS: [&str; 2] = ["lab", "--act"];

/// What an actor is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Part {
    /// A server on some addresses, TCP and UDP.
    Serve(Vec<SocketAddr>),
    /// A client.
    Call(Call),
    /// SYNs from nobody.
    Flood(SocketAddr),
    /// So many flows that do nothing.
    Flows(SocketAddr, u64),
}

/// What a client is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Whom it calls.
    pub target: SocketAddr,
    /// From which of its addresses, in turn, if not from the one that routes choose.
    pub from: Vec<IpAddr>,
    /// What it asks.
    pub asked: Asked,
    /// How many at a time.
    pub concurrency: u32,
    /// How many a second, if not as fast as answers come.
    pub rate: Option<f64>,
    /// How many in all, if not as many as there is time for.
    pub count: Option<u64>,
    /// How many bytes of each stream, if not as many as there is time for.
    pub bytes: Option<u64>,
    /// How long.
    pub seconds: f64,
}

impl Default for Call {
    /// A new connection for every request, 64 at a time.
    fn default() -> Self {
        let target = (Ipv4Addr::UNSPECIFIED, 0).into();
        Self {
            target,
            from: Vec::new(),
            asked: Asked::Connections,
            concurrency: 64,
            rate: None,
            count: None,
            bytes: None,
            seconds: 1.0,
        }
    }
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// A page, on a connection of its own.
    Connections,
    /// Pages, on connections that stay.
    Keepalive,
    /// To take a stream.
    Up,
    /// For a stream.
    Down,
    /// To send datagrams back.
    Udp {
        /// Bytes of each.
        size: usize,
        /// Whether each comes from a port of its own.
        fresh: bool,
    },
    /// Nothing.
    Idle,
}

/// SYNs a second of a flood.
const FLOOD: u64 = 20_000;
/// How often it says how many there were.
const SAYS: Duration = Duration::from_millis(50);

/// A server on these addresses, which begins to be one. It dies with the thread that calls this.
///
/// # Panics
/// When it cannot be started.
pub fn serve(host: &Namespace, on: &[SocketAddr]) -> Process {
    Process::start(&mut command(host, &Part::Serve(on.to_vec())))
}

/// A client does what it is told: what became of it.
///
/// # Panics
/// When it could not do it at all, with what it said.
pub fn call(host: &Namespace, call: &Call) -> Figures {
    let said = process::run(&mut command(host, &Part::Call(call.clone())));
    serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("what the client said is no outcome ({error}): {said}"))
}

/// The same while SYNs from nobody arrive there; how many that were is one of the figures.
///
/// # Panics
/// When the flood does not begin, with what it said.
pub fn flooded(net: &Topology, on: SocketAddr, load: impl FnOnce() -> Figures) -> Figures {
    answers_end_at_the_client(net);
    let flood = Process::start(&mut command(net.client(), &Part::Flood(on)));
    wait_for("the flood", || !flood.log().is_empty());
    let figures = load();
    let said = flood.log();
    drop(flood);
    let rate = rate(&said).unwrap_or_else(|| panic!("the flood did not begin: {said}"));
    Figures { flood: Some(rate), ..figures }
}

/// How many there were in a second, by the last that a flood said; its very last line may be half of one.
fn rate(said: &str) -> Option<f64> {
    let whole = said.rsplit_once('\n')?.0;
    let (sent, seconds) = whole.lines().last()?.split_once(" in ")?;
    Some(sent.parse::<f64>().ok()? / seconds.parse::<f64>().ok()?)
}

/// Makes so many flows towards an address, or makes them live on: how many were answered.
///
/// # Panics
/// When that cannot be begun.
pub fn flows(net: &Topology, on: SocketAddr, count: u64) -> u64 {
    answers_end_at_the_client(net);
    let said = process::run(&mut command(net.client(), &Part::Flows(on, count)));
    said.trim().parse().unwrap_or_else(|_| panic!("what the client said is no number: {said}"))
}

/// Answers to addresses of nobody's go to the client's host, which has no such address and forwards nothing: they end there in
/// silence. If they found no way the gateway would not even begin to answer.
fn answers_end_at_the_client(net: &Topology) {
    net.gateway.ip(&format!("route replace {} via {CLIENT4} dev lan", flows::NETWORK));
}

fn command(host: &Namespace, part: &Part) -> std::process::Command {
    let mut command = host.command(portway::binary());
    command.args(WORDS).arg(serde_json::to_string(part).unwrap_or_default());
    command
}

/// An actor, from its part to its end; what became of it is on standard output.
///
/// # Errors
/// Why it could not act.
pub fn main(part: &str) -> Result<(), String> {
    let part = serde_json::from_str::<Part>(part).map_err(|error| error.to_string())?;
    let said = act(part)?;
    writeln!(io::stdout(), "{said}").map_err(|error| error.to_string())
}

fn act(part: Part) -> Result<String, String> {
    match part {
        Part::Serve(on) => {
            let options = ServeOptions { listen: on, page: PAGE, threads: 1 };
            let _server = Server::start(&options).map_err(|error| error.to_string())?;
            // Until it is killed.
            loop {
                thread::park();
            }
        }
        Part::Call(call) => {
            let outcome =
                portway_load::run(&call.plan(), &Stop::new(), |_| ()).map_err(|error| error.to_string())?;
            serde_json::to_string(&figures(outcome)).map_err(|error| error.to_string())
        }
        Part::Flood(on) => match on {
            SocketAddr::V4(on) => flood(on).map_err(|error| format!("flood {on}: {error}")),
            SocketAddr::V6(_) => Err("a flood is IPv4".to_owned()),
        },
        Part::Flows(on, count) => match on {
            SocketAddr::V4(on) => flows::make(on, count)
                .map(|made| made.to_string())
                .map_err(|error| format!("flows to {on}: {error}")),
            SocketAddr::V6(_) => Err("these flows are IPv4".to_owned()),
        },
    }
}

impl Call {
    fn plan(&self) -> Plan {
        let page = || Exchange::get(self.target.ip().to_string(), "/");
        let load = match self.asked {
            Asked::Connections => portway_load::Load::Connections(page()),
            Asked::Keepalive => portway_load::Load::Keepalive(page()),
            Asked::Up => portway_load::Load::Bulk(Direction::Up),
            Asked::Down => portway_load::Load::Bulk(Direction::Down),
            Asked::Udp { size, fresh } => portway_load::Load::Udp { size, fresh },
            Asked::Idle => portway_load::Load::Idle,
        };
        let length = match (self.count, self.bytes) {
            (Some(count), _) => Length::Count(count),
            (None, Some(bytes)) => Length::Bytes(bytes),
            (None, None) => Length::Time(Duration::from_secs_f64(self.seconds)),
        };
        // Warming up is a run of its own: CPU time is that of a whole process.
        let plan = Plan {
            from: self.from.clone(),
            concurrency: self.concurrency,
            rate: self.rate,
            length,
            warm_up: Duration::ZERO,
            ..Plan::new(self.target, load)
        };
        // What waits for a dead backend must not outlive the run by much.
        if self.rate.is_some() {
            Plan { timeout: Duration::from_secs(1), connect_timeout: Duration::from_secs(1), ..plan }
        } else {
            plan
        }
    }
}

fn figures(outcome: portway_load::Outcome) -> Figures {
    Figures {
        seconds: outcome.seconds,
        done: outcome.done,
        bytes: outcome.sent + outcome.received,
        errors: outcome.errors.iter().map(|(kind, count)| (kind.to_string(), count)).collect(),
        latency: outcome.latency,
        ..Figures::default()
    }
}

/// SYNs from ever new addresses of 198.18.0.0/15 (RFC 2544: never a true client's), until it is killed. Now and then it says how
/// many the interface has taken, and in how many seconds.
fn flood(on: std::net::SocketAddrV4) -> io::Result<String> {
    let raw = Raw::open()?;
    let start = Instant::now();
    let (mut sent, mut says) = (0_u64, SAYS);
    for nth in 0_u64.. {
        let passed = start.elapsed();
        if passed >= says {
            writeln!(io::stdout(), "{sent} in {}", passed.as_secs_f64())?;
            says = passed + SAYS;
        }
        while nth > FLOOD * start.elapsed().as_millis() as u64 / 1000 {
            thread::sleep(Duration::from_millis(1));
        }
        let from = Ipv4Addr::from_bits(u32::from_be_bytes([198, 18, 0, 1]) + (nth % 100_000) as u32);
        let source = std::net::SocketAddrV4::new(from, 1024 + (nth % 30_000) as u16);
        // A full queue of the interface loses some, as a flood's do.
        sent += u64::from(raw.send(&Segment::syn(source, on)).is_ok());
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_as_strong_as_it_said_last() {
        assert_eq!(rate("900 in 0.05\n3000 in 0.2\n40"), Some(15_000.0));
        assert_eq!(rate("900 in"), None);
        assert_eq!(rate("portway: flood 10.1.0.1:8888: Operation not permitted\n"), None);
    }
}
