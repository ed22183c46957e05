//! Network namespaces and rules for the tests. Needs root, `ip` and `nft`, and fails without them.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part; tests may fail loudly")]

pub mod lab;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use portway_core::address::{Family, PortRange, Protocol};
use portway_core::engine::{Changed, Engine, EngineError};
use portway_core::facts::Facts;
use portway_core::members::{Meets, Member, Reach, meets};
use portway_core::plan::nftables::{Ids, Plan};
use portway_core::ruleset::{Backend, Listener, Pool, Rule, RuleName, Scope, Target, TargetPorts};
use portway_nftables::NftablesEngine;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, clock_gettime};

/// A network namespace that goes away with the value.
pub struct Namespace(String);

impl Namespace {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pwnft-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        let namespace = Self(name);
        run("ip", &["-n", &namespace.0, "link", "set", "lo", "up"]);
        namespace
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Moves the calling thread there, for good: the test harness has a thread for each test.
    pub fn enter(&self) {
        let file = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Runs a program to its end and returns what it printed; panics when it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn nft(arguments: &[&str]) -> String {
    run("nft", arguments)
}

/// A rule from `tcp/1.2.3.4:80`-like listeners and a backend such as `10.0.0.1:80`, `10.0.0.1:80-89` or
/// `10.0.0.1`.
pub fn rule(name: &str, listeners: &[&str], backend: &str) -> Rule {
    let listeners = listeners.iter().map(|text| listener(text)).collect();
    Rule::new(RuleName::new(name).unwrap(), listeners, self::backend(backend))
}

/// A rule with several backends, and settings.
pub fn pool(name: &str, listeners: &[&str], backends: &[&str], settings: impl FnOnce(&mut Pool)) -> Rule {
    let mut rule = rule(name, listeners, backends[0]);
    rule.pool = Pool::new(backends.iter().map(|text| Backend::of(backend(text))).collect());
    settings(&mut rule.pool);
    rule
}

/// What a rule meets while of its backends only these are up, by their places in the file.
pub fn up(rule: &Rule, backends: &[usize]) -> Meets {
    let member = |nth: &usize| {
        let backend = &rule.pool.backends[*nth];
        Member {
            backend: backend.name.clone(),
            target: backend.target().unwrap(),
            weight: backend.weight.into(),
            max_connections: None,
        }
    };
    Meets::Members(backends.iter().map(member).collect())
}

fn listener(text: &str) -> Listener {
    let (protocol, rest) = text.split_once('/').unwrap();
    let (host, ports) = rest.rsplit_once(':').unwrap();
    let scope = match host.trim_matches(['[', ']']) {
        "0.0.0.0" => Scope::Any(Family::V4),
        "::" => Scope::Any(Family::V6),
        host => match host.parse() {
            Ok(address) => Scope::Address(address),
            Err(_) => {
                let (name, family) =
                    host.split_once('%').map_or((host, Family::V4), |(name, _)| (name, Family::V6));
                Scope::Interface(portway_core::address::InterfaceName::new(name).unwrap(), family)
            }
        },
    };
    let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
    Listener { protocol, scope, ports: range(ports) }
}

fn backend(text: &str) -> Target {
    if let Ok(address) = text.parse() {
        return Target { address, ports: TargetPorts::Same };
    }
    let (host, ports) = text.rsplit_once(':').unwrap();
    let ports = range(ports);
    let ports = if ports.is_single() { TargetPorts::One(ports.first()) } else { TargetPorts::Shifted(ports) };
    Target { address: host.trim_matches(['[', ']']).parse().unwrap(), ports }
}

fn range(text: &str) -> PortRange {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    PortRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
}

/// The plan of rules whose ids follow from what the engine holds.
pub fn plan(engine: &mut NftablesEngine, rules: &[Rule]) -> Plan {
    let ids = Ids::allocate(&engine.previous_ids().unwrap(), rules.iter().map(|rule| &rule.name));
    Plan::new(&met(rules), &ids)
}

/// The plan of rules with what they meet, and their ids.
pub fn plan_met(engine: &mut NftablesEngine, rules: &[(&Rule, Meets)]) -> (Plan, Ids) {
    let ids = Ids::allocate(&engine.previous_ids().unwrap(), rules.iter().map(|(rule, _)| &rule.name));
    (Plan::new(rules, &ids), ids)
}

/// The rules with what they meet while nothing is known of the world.
pub fn met(rules: &[Rule]) -> Vec<(&Rule, Meets)> {
    rules.iter().map(|rule| (rule, meets(rule, &Facts::default(), Duration::ZERO, Reach::ANY))).collect()
}

pub fn apply(engine: &mut NftablesEngine, plan: &Plan) -> Result<Changed, EngineError> {
    engine.prepare(plan)?;
    engine.commit()
}

/// Does something, and says how much of a processor's time that took, the kernel's work on its messages included, whoever else
/// had the processors.
pub fn timed<T>(action: impl FnOnce() -> T) -> (T, Duration) {
    let cpu = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    };
    let before = cpu();
    let value = action();
    (value, cpu() - before)
}

/// A listing with the elements of each set on lines of their own and in order: the kernel's order is that of
/// its hash tables, and nft breaks lines as it sees fit. The order of sets and chains is left as it is.
pub fn normalised(listing: &str) -> String {
    let mut lines = Vec::new();
    let mut rest = listing;
    while let Some((before, after)) = rest.split_once("elements = {") {
        let (elements, after) = after.split_once('}').unwrap();
        let mut elements: Vec<String> = elements
            .split(',')
            .map(|element| element.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        elements.sort_unstable();
        lines.push(format!("{before}elements = {{\n{}\n}}", elements.join("\n")));
        rest = after;
    }
    lines.push(rest.to_owned());
    // Objects and chains stand in the order in which they were made.
    let listing = lines.concat().replacen("\n\tct helper", "\n\n\tct helper", 1);
    let mut paragraphs: Vec<&str> = listing.strip_suffix("}\n").unwrap().trim_end().split("\n\n").collect();
    paragraphs.sort_by_key(|paragraph| match paragraph {
        header if header.starts_with("table") => (0, ""),
        object if object.starts_with("\tct helper") => (1, *object),
        chain if chain.starts_with("\tchain") => (3, *chain),
        _ => (2, ""),
    });
    paragraphs.join("\n\n")
}

/// Does something in a namespace, on a thread of its own.
pub fn within<T: Send + 'static>(namespace: &Namespace, action: impl FnOnce() -> T + Send + 'static) -> T {
    let file = std::fs::File::open(format!("/run/netns/{}", namespace.0)).unwrap();
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
        action()
    });
    thread.join().unwrap()
}
