//! The words of the command line (clap). Shape only; what they mean is parsed with the file's own grammar.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};
use portway_core::config::value::parse_duration;
use portway_core::flow::{Network, Place};
use portway_core::ruleset::EngineKind;
use portway_measure::exact::USUAL;
use portway_measure::options::{Peer, Series};

use super::bench::words::Bench;
use crate::state_dir;

/// Forward ports: one rule, carried by the cheapest engine that can serve it.
#[derive(Debug, Parser)]
#[command(name = "portway", version, about, max_term_width = 100)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Forward now, in the foreground; Ctrl-C removes every trace
    #[command(after_help = "Examples:\n  \
        portway forward 0.0.0.0:8888 192.168.1.100:80\n  \
        portway forward 8888:192.168.1.100:80\n  \
        portway forward udp/0.0.0.0:53 10.0.0.2:53 '[::]:8443' '[fd00::2]:443'")]
    Forward {
        /// LISTEN BACKEND pairs, or one word each in the form PORT:HOST:PORT
        #[arg(required = true, value_name = "LISTEN BACKEND")]
        pairs: Vec<String>,
        /// auto, nftables, ebpf or proxy [default: auto, the cheapest that can serve the rules]
        #[arg(long)]
        engine: Option<String>,
        /// masquerade, preserve, or addresses separated by commas [default: masquerade]
        #[arg(long)]
        source: Option<String>,
        #[command(flatten)]
        state: State,
    },
    /// Run the rules of a file in the foreground; SIGHUP or `portway reload` applies a changed file
    Run {
        /// The file
        #[arg(short = 'c', long = "config", value_name = "FILE")]
        file: PathBuf,
        /// When stopped by SIGTERM or SIGINT, leave the kernel's rules forwarding for the next start to adopt
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        state: State,
    },
    /// Report every mistake in a file
    Check {
        #[command(flatten)]
        text: Text,
        /// Judge the file alone, as on a host that can do everything and whose ports are free
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        state: State,
    },
    /// Print what a file would apply: each rule's engine and why, and the plan of each engine
    Plan {
        #[command(flatten)]
        text: Text,
        /// As on a host that can do everything
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show what this host, and each of its interfaces, can do for the engines
    Probe {
        /// Choose for the interfaces by [ebpf] of this file
        #[arg(short = 'c', long = "config", value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Show what a changed file would change in the running daemon
    Diff {
        #[command(flatten)]
        text: Text,
        /// Compare with this file instead of the running daemon
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        state: State,
    },
    /// Show the rules of the running daemon and how they do
    Status {
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        state: State,
    },
    /// Send no new flows to a backend; the present ones end by themselves
    Drain {
        #[command(flatten)]
        backend: Backend,
        /// Wait until its last flow has ended, at most this long ("5m")
        #[arg(long, value_name = "TIME", value_parser = duration)]
        wait: Option<Duration>,
        #[command(flatten)]
        state: State,
    },
    /// Take a drain back
    Undrain {
        #[command(flatten)]
        backend: Backend,
        #[command(flatten)]
        state: State,
    },
    /// Treat a backend as if it were down
    Disable {
        #[command(flatten)]
        backend: Backend,
        #[command(flatten)]
        state: State,
    },
    /// Take a disable back
    Enable {
        #[command(flatten)]
        backend: Backend,
        #[command(flatten)]
        state: State,
    },
    /// Change the weight of a backend
    Weight {
        #[command(flatten)]
        backend: Backend,
        /// 0 to 256, or `default` for the file's
        #[arg(value_parser = weight)]
        weight: Weight,
        #[command(flatten)]
        state: State,
    },
    /// List live flows of every engine
    Conns {
        #[command(flatten)]
        filter: Filter,
        /// The most that are listed
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        state: State,
    },
    /// End live flows, TCP by reset
    Kill {
        #[command(flatten)]
        filter: Filter,
        /// End every flow
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        state: State,
    },
    /// Apply the changed file; a bad one changes nothing
    Reload {
        #[command(flatten)]
        state: State,
    },
    /// On a backend: show the servers of a cgroup their clients, as gateways tell them (TCP option 254)
    #[command(after_help = "Examples:\n  \
        portway toa --cgroup system.slice/nginx.service --trust 192.0.2.10 --trust fd00:10::/64\n  \
        portway toa --cgroup system.slice --trust 192.0.2.10 --detach\n  \
        portway toa --status\n  \
        portway toa --clear")]
    Toa(Toa),
    /// Compare ways to forward on this host: client, gateway and server in network namespaces, the same loads for all
    #[command(after_help = "Examples:\n  \
        sudo portway lab\n  \
        sudo portway lab --only nft,portway-nftables,connections --rounds 10\n  \
        sudo portway lab --peer 'mine=/usr/local/bin/relay {listen} {target}'\n\n\
        Killed at any point, it leaves nothing behind: all of it lives in namespaces that end with the command.")]
    Lab(Lab),
    /// Load a host, this one or another, and say what became of it; needs no privilege
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        portway bench http http://192.0.2.1/ --rate 5000 --concurrency 500\n  \
        portway bench http 192.0.2.1:80 --requests 100000 --concurrency 1000\n  \
        portway bench serve 192.0.2.1:9000\n  \
        portway bench tcp 192.0.2.1:9000 --keepalive\n  \
        portway bench udp 192.0.2.1:9000 --size 1200 --rate 20000\n  \
        portway bench bulk 192.0.2.1:9000 --down --streams 4\n  \
        portway bench idle 192.0.2.1:9000 --connections 10000"
    )]
    Bench(Bench),
    /// Remove what a killed daemon left: kernel rules, their flows, host settings, files
    Clear {
        #[command(flatten)]
        state: State,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct Text {
    /// The file, or - for standard input
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(super) file: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Output {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Toa {
    /// The cgroup of the servers: its directory, or its path in the hierarchy
    #[arg(long, value_name = "PATH", required_unless_present_any = ["status", "clear"])]
    pub(super) cgroup: Option<PathBuf>,
    /// Believe these gateways, and nobody else: 192.0.2.10, 192.0.2.0/24, fd00:10::/64 (may be given often)
    #[arg(long, value_name = "NETWORK", value_parser = network, value_delimiter = ',')]
    pub(super) trust: Vec<Network>,
    /// Attach and return; serves until `--clear`, or the next start takes over
    #[arg(long)]
    pub(super) detach: bool,
    /// Show what is attached where, and what was seen
    #[arg(long, conflicts_with_all = ["detach", "trust", "clear"])]
    pub(super) status: bool,
    /// Detach from the cgroup, or from all without --cgroup, and remove every trace
    #[arg(long, conflicts_with_all = ["detach", "trust"])]
    pub(super) clear: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Lab {
    #[command(subcommand)]
    pub(super) records: Option<Records>,
    /// Only these lanes, with what they are compared with, and only these loads (`--list` has the names)
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(super) only: Vec<String>,
    /// A forwarder of your own: {listen} and {target} are address:port; {listen_host}, {listen_port}, {target_host} and
    /// {target_port} are there too (may be given often)
    #[arg(long = "peer", value_name = "NAME=COMMAND")]
    pub(super) peers: Vec<Peer>,
    /// Series of new connections while something grows: rules, flows, concurrency, backends [default: all with --long]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(super) series: Vec<Series>,
    /// Half a minute: everything works, the figures are rough
    #[arg(long, conflicts_with = "long")]
    pub(super) quick: bool,
    /// All loads, long runs, the series: most of an hour
    #[arg(long)]
    pub(super) long: bool,
    /// Rounds; each runs every lane under every load once [default: 3, quick 1, long 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(super) rounds: Option<u32>,
    /// Count instructions in an emulated machine (qemu) rather than time on this one: the same on a busy machine
    #[arg(long)]
    pub(super) exact: bool,
    /// The kernel of that machine: the newest of a release of Debian's, which is fetched, or a directory with an unpacked one
    #[arg(long, value_name = "RELEASE|DIR", default_value = USUAL, requires = "exact")]
    pub(super) kernel: String,
    /// Where the reports go [default: portway-lab-DATE]
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Capture the packets of a short run of each lane under each load, apart from what is measured
    #[arg(long)]
    pub(super) pcap: bool,
    /// See where the work of each lane goes under each load, apart from what is measured: by part of the kernel and by program
    #[arg(long)]
    pub(super) profile: bool,
    /// Say which lanes, loads and series there are
    #[arg(long)]
    pub(super) list: bool,
    /// This process is the stage of a lab
    #[arg(long, hide = true)]
    pub(super) on_stage: bool,
    /// This process is the stage in an emulated machine
    #[arg(long, hide = true)]
    pub(super) in_machine: bool,
    /// This process is an actor on a stage
    #[arg(long, hide = true, value_name = "PART")]
    pub(super) act: Option<String>,
}

/// What is done with records of the lab: no root, nothing is measured.
#[derive(Debug, Subcommand)]
pub(super) enum Records {
    /// Say what got better or worse from one record to another, with the noise taken into account
    Compare {
        /// The first record: record.json, or the directory that a run wrote
        first: PathBuf,
        /// The second
        second: PathBuf,
        /// A difference counts from this size on, in percent [default: 5 of times, 2 of instructions]
        #[arg(long, value_name = "PERCENT", value_parser = percent)]
        least: Option<f64>,
        /// Exit with status 1 if a figure of one of Portway's own lanes is worse, or if that cannot be told: of times it takes
        /// four rounds in each record
        #[arg(long)]
        fail_on_regression: bool,
        /// Show what did not change as well
        #[arg(long)]
        all: bool,
    },
    /// Write the reports of a record again: page, Markdown, plots
    Report {
        /// The record: record.json, or the directory that a run wrote
        record: PathBuf,
        /// Where the reports go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Say which engine fits the host that was measured, and what a demand takes
    #[command(after_help = "Example:\n  portway lab advise --record portway-lab-2026-11-26T2200 \\\n    \
        --connections-per-second 20000 --gbit 4 --rules 500")]
    Advise {
        /// The record: record.json, or the directory that a run wrote [default: the last portway-lab-DATE here]
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
        /// New connections a second
        #[arg(long, value_name = "N", value_parser = amount)]
        connections_per_second: Option<f64>,
        /// Payload in 10^9 bit/s, both directions together
        #[arg(long, value_name = "N", value_parser = amount)]
        gbit: Option<f64>,
        /// How many rules
        #[arg(long, value_name = "N")]
        rules: Option<u64>,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct Backend {
    /// The rule's name and the backend's, or one address of a name: web/10.0.0.1:80
    #[arg(value_name = "RULE/BACKEND", value_parser = backend)]
    pub(super) backend: (String, String),
    /// The order outlives the daemon
    #[arg(long)]
    pub(super) keep: bool,
}

/// Which flows are meant: those that match everything that is given.
#[derive(Debug, ClapArgs)]
pub(super) struct Filter {
    /// Flows of this rule
    #[arg(long, value_name = "NAME")]
    pub(super) rule: Option<String>,
    /// tcp or udp
    #[arg(long, value_parser = ["tcp", "udp"])]
    pub(super) protocol: Option<String>,
    /// Flows of these clients: 192.0.2.7, 192.0.2.0/24, 192.0.2.7:40000, [fd00::7]:40000
    #[arg(long, value_name = "NET[:PORT]")]
    pub(super) client: Option<Place>,
    /// Flows to this backend: 10.0.0.1, 10.0.0.1:80, [fd00::1]:80
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub(super) backend: Option<Place>,
    /// Flows at least this old ("10m")
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) older_than: Option<Duration>,
    /// Flows of this engine
    #[arg(long, value_parser = engine)]
    pub(super) engine: Option<EngineKind>,
}

/// A weight as ordered; `None` for the file's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight(pub(super) Option<u16>);

fn weight(word: &str) -> Result<Weight, String> {
    if word == "default" {
        return Ok(Weight(None));
    }
    let number = word.parse().ok().filter(|number| *number <= portway_core::ruleset::Backend::MOST_WEIGHT);
    number.map(|number| Weight(Some(number))).ok_or_else(|| "0 to 256, or `default`".to_owned())
}

/// A rule's name may hold slashes (`tcp/0.0.0.0:80`), so the last one cuts; of backends only services have one in
/// their names (`srv/…`).
fn backend(word: &str) -> Result<(String, String), String> {
    let cut = match word.rfind("/srv/") {
        Some(cut) => Some((&word[..cut], &word[cut + 1..])),
        None => word.rsplit_once('/'),
    };
    match cut {
        Some((rule, backend)) if !rule.is_empty() && !backend.is_empty() => {
            Ok((rule.to_owned(), backend.to_owned()))
        }
        _ => Err("write RULE/BACKEND, for example web/10.0.0.1:80 (portway status has the names)".to_owned()),
    }
}

fn network(word: &str) -> Result<Network, String> {
    let place = word.parse::<Place>().ok().filter(|place| place.port.is_none());
    place.map(|place| place.network).ok_or_else(|| "write 192.0.2.10, 192.0.2.0/24 or fd00::/64".to_owned())
}

pub(super) fn duration(word: &str) -> Result<Duration, String> {
    parse_duration(word).map_err(|error| format!("{error}: a whole number and a unit, 500ms, 2s, 5m, 1h, 1d"))
}

fn engine(word: &str) -> Result<EngineKind, String> {
    let all = EngineKind::ALL.map(|engine| engine.to_string());
    let found = EngineKind::ALL.into_iter().find(|engine| engine.to_string() == word);
    found.ok_or_else(|| format!("there is {}", all.join(", ")))
}

#[derive(Debug, ClapArgs)]
pub(super) struct State {
    /// Where the control socket, the lock and the record of host settings live
    /// [default: /run/portway for root, else in the user's runtime directory]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl State {
    pub(super) fn dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(state_dir::default_path)
    }
}

/// A number that is not below zero.
fn amount(word: &str) -> Result<f64, String> {
    let amount: f64 = word.parse().map_err(|_| format!("{word:?} is no number"))?;
    if amount.is_finite() && amount >= 0.0 { Ok(amount) } else { Err(format!("{word} is out of range")) }
}

/// Percent, as a share of one.
fn percent(word: &str) -> Result<f64, String> {
    amount(word.trim_end_matches('%')).map(|percent| percent / 100.0)
}
