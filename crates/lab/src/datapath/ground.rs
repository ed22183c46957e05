//! Where a measurement happens: a gateway with the engine's rules, whose next hops are known, and whose counters tell
//! whether every packet of a walk was carried.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use aya::maps::MapInfo;
use portway_lab::{Engine, Namespace, Portway, Topology, pins};
use serde_json::Value;

use crate::flows::{self, Direction, RULES};
use crate::walk::{Arrival, Hook, Walk};

/// The gateway and its engine.
pub struct Ground {
    /// With programs at this hook.
    pub hook: Hook,
    arrivals: [Arrival; 2],
    portway: Portway,
    net: Topology,
}

/// What all rules together have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Flows alive.
    pub live: u64,
    /// Flows begun.
    pub flows: u64,
    /// Bytes in both directions.
    pub bytes: u64,
    /// Flows that could not be carried.
    pub failed: u64,
}

impl Ground {
    /// With a table for so many flows.
    pub fn new(hook: Hook, flows: u32) -> Self {
        let net = Topology::new();
        let engine = match hook {
            Hook::Tc => Engine::Ebpf,
            Hook::Xdp => Engine::Xdp,
        };
        for (host, interface, addresses) in [
            (net.client(), "lan", vec![[10, 1, 0, 10].into()]),
            (net.server(), "wan", (0..RULES).map(flows::backend).collect()),
        ] {
            let link = link(host, "eth0");
            let known = addresses
                .iter()
                .map(|a| format!("neigh replace {a} lladdr {link} dev {interface} nud permanent"));
            net.gateway.ip(&known.collect::<Vec<_>>().join("\n"));
        }
        let file = format!("[ebpf]\nmax-flows = {flows}\n{}", flows::rules(engine));
        let portway = Portway::start(&net.gateway, &file);
        let arrivals = [("lan", flows::backend(0)), ("wan", flows::CLIENT)]
            .map(|(interface, to)| arrival(&net.gateway, interface, to));
        Self { hook, arrivals, portway, net }
    }

    /// A walk in front of the engine's program at a hook, with room for so many steps. Programs at TC are always there.
    pub fn walk(&self, hook: Hook, room: u32) -> Walk {
        Walk::load(hook, &self.maps(), room)
    }

    /// Where the engine's maps are pinned.
    fn maps(&self) -> PathBuf {
        pins::directory(&self.net.gateway).join("maps")
    }

    /// Does what a test run needs, which takes interfaces for those of the namespace it is started in.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.net.gateway.enter(work)
    }

    /// Where packets of a direction arrive.
    pub fn arrival(&self, direction: Direction) -> Arrival {
        self.arrivals[usize::from(direction == Direction::Back)]
    }

    /// What has been counted until now.
    pub fn counted(&self) -> Counted {
        let status = self.portway.status();
        let rules = status["rules"].as_array().cloned().unwrap_or_default();
        assert_eq!(rules.len(), RULES as usize, "rules in the status");
        let sum = |key: &str| rules.iter().map(|rule| figure(rule, key)).sum();
        Counted {
            live: sum("live"),
            flows: sum("flows"),
            bytes: sum("bytes_in") + sum("bytes_out"),
            failed: sum("failed"),
        }
    }

    /// The kernel's memory for a pinned map, in bytes (`memlock` of the descriptor, proc(5)).
    pub fn memory(&self, map: &str) -> u64 {
        let path = self.maps().join(map);
        let opened = MapInfo::from_pin(&path).and_then(|info| info.fd());
        let fd = opened.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()));
        let info = info.expect("our own descriptor");
        let memory = info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
        memory.unwrap_or_else(|| panic!("no memlock of {map}: {info}"))
    }
}

/// A figure anywhere below a rule of the status.
fn figure(rule: &Value, key: &str) -> u64 {
    match rule {
        Value::Object(map) => match map.get(key).and_then(Value::as_u64) {
            Some(figure) => figure,
            None => map.values().map(|value| figure(value, key)).max().unwrap_or(0),
        },
        _ => 0,
    }
}

fn link(host: &Namespace, interface: &str) -> String {
    let shown = host.run(&format!("ip -o link show {interface}"));
    let link = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    link.unwrap_or_else(|| panic!("no link address in {shown}")).to_owned()
}

fn arrival(host: &Namespace, interface: &str, to: Ipv4Addr) -> Arrival {
    let shown = host.run(&format!("ip -o link show {interface}"));
    let index = shown.split(':').next().and_then(|index| index.trim().parse().ok());
    let text = link(host, interface);
    let bytes: Vec<u8> = text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    Arrival {
        interface: index.unwrap_or_else(|| panic!("no index in {shown}")),
        link: bytes.try_into().unwrap_or_else(|_| panic!("{text} is no Ethernet address")),
        to,
    }
}
