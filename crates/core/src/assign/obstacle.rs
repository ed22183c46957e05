//! What keeps an engine from serving a rule. A new engine is one more list here.
//!
//! What an engine cannot do is refused here, by name, and never left to the engine to do in part. Deliberately absent:
//! which engine is tried first ([`super`]).

mod ebpf;

use std::net::{IpAddr, Ipv6Addr};

use crate::address::{Family, PortRange};
use crate::caps::Caps;
use crate::plan::proxy::MAX_PORTS_PER_RANGE;
use crate::ruleset::{
    Backend, BackendHost, Balance, ClientAddress, EbpfSettings, EngineKind, HashKey, Listener, Pool, Resolve,
    Rule, Scope, SourceMode, TargetPorts, WhenEmpty,
};

/// Something that keeps an engine from serving a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is, as a clause: "NAT cannot translate between families".
    pub why: String,
    /// What the user can do about it.
    pub remedy: Option<String>,
}

impl Obstacle {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: None }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Everything that keeps `engine` from serving `rule` on a host with `caps`; empty when it can.
pub fn obstacles(engine: EngineKind, rule: &Rule, settings: &EbpfSettings, caps: &Caps) -> Vec<Obstacle> {
    match engine {
        EngineKind::Ebpf => ebpf::obstacles(rule, settings, caps),
        EngineKind::Nftables => nftables(rule, caps),
        EngineKind::Proxy => proxy(rule, caps),
    }
}

fn nftables(rule: &Rule, caps: &Caps) -> Vec<Obstacle> {
    const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut found = Vec::new();
    found.extend(crossing(rule));
    // RFC 4291 2.5.3; the kernel drops a packet to ::1 that came over another interface (ip6_rcv_core), and
    // IPv6 has no counterpart of route_localnet.
    if rule.pool.targets().any(|target| target.address == LOOPBACK6) {
        found.push(Obstacle::new("the backend is [::1], which the kernel delivers only to local senders"));
    }
    if rule.listeners.iter().any(|listener| listener.scope == Scope::Address(LOOPBACK6)) {
        found.push(Obstacle::new("the listener is [::1], whose traffic the kernel does not route elsewhere"));
    }
    if rule.timeouts.is_some() {
        found.push(Obstacle::new("the rule sets timeouts, which need a socket in the middle"));
    }
    if rule.max_connections.is_some() {
        found.push(Obstacle::new("the rule sets max-connections, which needs a socket in the middle"));
    }
    found.extend(segments(rule));
    found.extend(policy(&rule.pool));
    found.extend(ports(rule));
    found.extend(source(rule));
    match &caps.nftables {
        Err(reason) => found.push(Obstacle::new(format!("nf_tables cannot be used here: {reason}"))),
        Ok(offered) => {
            if let Some(helper) = rule.helper.filter(|helper| !offered.helpers.contains(helper)) {
                found.push(
                    Obstacle::new(format!("this kernel has no conntrack helper for {helper}"))
                        .remedy(format!("load it (modprobe nf_nat_{helper})")),
                );
            }
        }
    }
    found
}

/// What takes an engine that meets and writes segments itself.
fn segments(rule: &Rule) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if let Some(how) = rule.client_address {
        let ClientAddress::Toa = how;
        found.push(Obstacle::new(format!(
            "client-address = \"{how}\" writes into segments, which the ebpf engine does"
        )));
    }
    if rule.new_flow_rate.is_some() {
        found.push(Obstacle::new("new-flow-rate is counted by the ebpf engine"));
    }
    if rule.syn_cookies.is_some() {
        found.push(Obstacle::new("syn-cookies are answered by the ebpf engine"));
    }
    found
}

/// Families: an address of one cannot be translated to one of the other. A name has addresses of both, and only those of
/// one family are used ([`crate::members::Reach`]).
fn crossing(rule: &Rule) -> Option<Obstacle> {
    let family = rule.listeners.first()?.scope.family();
    if rule.pool.has_names() && rule.listeners.iter().any(|listener| listener.scope.family() != family) {
        return Some(
            Obstacle::new(
                "listeners of both families to a name, whose addresses are those of one family here",
            )
            .remedy("write two rules, one for the listeners of each family"),
        );
    }
    let mut families = rule.pool.backends.iter().filter_map(Backend::target).map(|target| target.family());
    let first = families.next();
    if families.any(|family| Some(family) != first) {
        return Some(Obstacle::new("backends of both families, and NAT cannot translate between families"));
    }
    let (listener, backend) = rule.pool.targets().find_map(|target| {
        let crosses = |listener: &&Listener| listener.scope.family() != target.family();
        rule.listeners.iter().find(crosses).map(|listener| (listener.scope.family(), target.family()))
    })?;
    Some(Obstacle::new(format!(
        "{listener} listener to an {backend} backend, and NAT cannot translate between families"
    )))
}

/// What a pool asks for that takes more than a table from client to backend.
fn policy(pool: &Pool) -> Vec<Obstacle> {
    let mut found = Vec::new();
    match pool.balance {
        Balance::LeastConnections => {
            found.push(Obstacle::new("least-connections needs to count live connections, which a relay does"));
        }
        Balance::Random => found.push(Obstacle::new(
            "random takes the less loaded of two backends, and needs to count live connections, which a relay does",
        )),
        Balance::RoundRobin | Balance::SourceHash | Balance::ConsistentHash | Balance::First => {}
    }
    // A rule that leads to the first that is live has no choice, and asks nobody's memory for one.
    if pool.balance == Balance::First && pool.persist.is_some() && pool.places() > 1 {
        found.push(Obstacle::new(
            "persist with balance = \"first\" keeps clients at a later backend when the first is back, which a relay does",
        ));
    }
    if pool.balance.hashes() && pool.hash == HashKey::Sni {
        found.push(Obstacle::new(
            "hash = \"sni\" needs to read a connection's first bytes, which a relay does",
        ));
    }
    if let Some(backend) = pool.backends.iter().find(|backend| backend.max_connections.is_some()) {
        found.push(Obstacle::new(format!(
            "backend {} sets max-connections, which needs a socket in the middle",
            backend.name
        )));
    }
    if pool.passive.is_some() {
        found.push(Obstacle::new("passive checks need to see how connections fail, which a relay does"));
    }
    if pool.retries.is_some() {
        found.push(Obstacle::new("the rule sets retries, and only a relay can connect a client again"));
    }
    found
}

/// Ports: a rule's backends stand in one map, so each port leads to the same port of all of them.
fn ports(rule: &Rule) -> Option<Obstacle> {
    let pool = &rule.pool;
    let sorry = match pool.when_empty {
        WhenEmpty::Sorry(target) => Some(target.ports),
        WhenEmpty::Refuse | WhenEmpty::Drop => None,
    };
    let service = |backend: &&Backend| matches!(backend.host, BackendHost::Service(_));
    let written = pool.backends.iter().filter(|backend| !service(backend)).map(|backend| backend.ports);
    let written: Vec<TargetPorts> = written.chain(sorry).collect();
    let many = |backend: &Backend| backend.target().is_none() && backend.resolve == Resolve::All;
    let several = pool.backends.len() > 1 || sorry.is_some() || pool.backends.iter().any(many);
    if several && written.iter().any(|ports| matches!(ports, TargetPorts::Shifted(_))) {
        return Some(Obstacle::new(
            "a range shifted to several backends, which only a relay can choose port by port",
        ));
    }
    let keep = written.contains(&TargetPorts::Same);
    // A service's records say one port each.
    let one = pool.backends.iter().any(|backend| service(&backend))
        || written.iter().any(|ports| matches!(ports, TargetPorts::One(_)));
    let first = rule.listeners.first()?.ports;
    let only = first.is_single() && rule.listeners.iter().all(|listener| listener.ports == first);
    (keep && one && !only).then(|| {
        Obstacle::new(
            "some backends keep the client's port and others have one port, which one NAT rule cannot do",
        )
    })
}

/// A name may have addresses of both families; the source address has the listener's, as the backend then has.
fn source(rule: &Rule) -> Option<Obstacle> {
    let SourceMode::Snat(pool) = &rule.source else { return None };
    let lacks = |family: &Family| !pool.iter().any(|address| Family::of(*address) == *family);
    let family = rule.listeners.iter().map(|listener| listener.scope.family()).find(lacks)?;
    (rule.pool.has_names()).then(|| {
        Obstacle::new(format!("no address of `source` is {family}, and NAT keeps to the listener's family"))
            .remedy(format!("add an {family} address of this host to `source`"))
    })
}

fn proxy(rule: &Rule, caps: &Caps) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if rule.source == SourceMode::Preserve {
        found.push(Obstacle::new("source = \"preserve\" needs NAT, a relay's connections are its own"));
    }
    if let Some(helper) = rule.helper {
        found.push(Obstacle::new(format!(
            "helper = \"{helper}\" is a conntrack helper, which a relay has not"
        )));
    }
    found.extend(segments(rule));
    let largest: Option<PortRange> =
        rule.listeners.iter().map(|listener| listener.ports).max_by_key(|ports| ports.count());
    if let Some(ports) = largest.filter(|ports| ports.count() > MAX_PORTS_PER_RANGE) {
        found.push(Obstacle::new(format!(
            "{} ports are one socket each, and the proxy takes at most {MAX_PORTS_PER_RANGE} in a listener",
            ports.count()
        )));
    }
    let lowest = rule.listeners.iter().map(|listener| listener.ports.first()).min();
    if let Some(port) = lowest.filter(|port| *port < caps.first_port) {
        found.push(
            Obstacle::new(format!("port {port} needs privileges (CAP_NET_BIND_SERVICE)"))
                .remedy(format!("run as root or listen on port {} or higher", caps.first_port)),
        );
    }
    let itself = |listener: &&Listener| {
        rule.pool.targets().any(|target| {
            target.address.is_loopback()
                && listener.scope == Scope::Any(target.family())
                && target.ports.meet(listener.ports)
        })
    };
    if let Some(listener) = rule.listeners.iter().find(itself) {
        found.push(
            Obstacle::new(format!(
                "{listener} answers for the backend as well, so a relay would call itself"
            ))
            .remedy("listen on the one address that clients use, or on another port"),
        );
    }
    found
}
