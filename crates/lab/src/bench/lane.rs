//! Lanes: one forwarder each, between a client and a server of its own, set up once for all rounds.
//!
//! Every lane forwards port 8888 to nginx (a page of 130 bytes) and port 5201 to iperf3. The lanes with
//! 10,000 rules hold 10,000 others before the one that is used.

use std::fmt::Write;

use portway_lab::{Engine, Portway, Process, Scratch, Topology, peer, process, wire};

/// Which forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Routing,
    /// Plain routing over wires that are set up as XDP needs them: what [`Self::PortwayXdp`] adds to.
    RoutingXdpWires,
    Iptables,
    Nft,
    Haproxy,
    HaproxySplice,
    NginxStream,
    PortwayNftables,
    PortwayEbpf,
    PortwayXdp,
    PortwayProxy,
    Iptables10k,
    Nft10k,
    PortwayNftables10k,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Routing,
        Self::RoutingXdpWires,
        Self::Iptables,
        Self::Nft,
        Self::PortwayNftables,
        Self::PortwayEbpf,
        Self::PortwayXdp,
        Self::Haproxy,
        Self::HaproxySplice,
        Self::NginxStream,
        Self::PortwayProxy,
        Self::Iptables10k,
        Self::Nft10k,
        Self::PortwayNftables10k,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::RoutingXdpWires => "routing-xdp-wires",
            Self::Iptables => "iptables",
            Self::Nft => "nft",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::NginxStream => "nginx-stream",
            Self::PortwayNftables => "portway-nftables",
            Self::PortwayEbpf => "portway-ebpf",
            Self::PortwayXdp => "portway-xdp",
            Self::PortwayProxy => "portway-proxy",
            Self::Iptables10k => "iptables-10k",
            Self::Nft10k => "nft-10k",
            Self::PortwayNftables10k => "portway-nftables-10k",
        }
    }

    /// Whether nothing is forwarded but by routes.
    pub const fn is_routing(self) -> bool {
        matches!(self, Self::Routing | Self::RoutingXdpWires)
    }

    /// The lane that tells what is added here: the same without a forwarder.
    pub const fn base(self) -> Self {
        if matches!(self, Self::PortwayXdp) { Self::RoutingXdpWires } else { Self::Routing }
    }

    /// Splicing is for bulk only.
    pub const fn takes_connections(self) -> bool {
        !matches!(self, Self::HaproxySplice)
    }

    /// The number of rules matters for new connections only.
    pub const fn takes_bulk(self) -> bool {
        !matches!(self, Self::Iptables10k | Self::Nft10k | Self::PortwayNftables10k)
    }
}

/// A forwarder in its place, ready for traffic.
pub struct Lane {
    pub kind: Kind,
    forwarder: Option<Forwarder>,
    /// nginx and the iperf3 server.
    pub peers: [Process; 2],
    _files: Scratch,
    // Dropped last: the processes live in it.
    pub net: Topology,
}

enum Forwarder {
    Portway(Portway),
    Other(Process),
}

impl Lane {
    pub fn set_up(kind: Kind) -> Self {
        let net = Topology::new();
        let files = Scratch::new();
        files.write("page", "x".repeat(130));
        let peers =
            [peer::nginx(net.server(), "10.2.0.10:80", files.path()), peer::iperf3(net.server(), 5201)];
        // Many short connections from one client address: give it all the ports there are.
        for host in [net.client(), &net.gateway] {
            host.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
        }
        let forwarder = install(kind, &net);
        Self { kind, forwarder, peers, _files: files, net }
    }

    /// The address that the client calls.
    pub fn address(&self) -> &'static str {
        if self.kind.is_routing() { "10.2.0.10" } else { "10.1.0.1" }
    }

    /// The port of nginx there.
    pub fn web_port(&self) -> u16 {
        if self.kind.is_routing() { 80 } else { 8888 }
    }

    /// The process that forwards, where there is one that touches packets.
    pub fn process(&self) -> Option<&Process> {
        match &self.forwarder {
            Some(Forwarder::Portway(portway)) if self.kind == Kind::PortwayProxy => Some(portway.process()),
            Some(Forwarder::Other(process)) => Some(process),
            _ => None,
        }
    }
}

fn install(kind: Kind, net: &Topology) -> Option<Forwarder> {
    let gateway = &net.gateway;
    if kind.is_routing() || matches!(kind, Kind::Iptables | Kind::Nft | Kind::Iptables10k | Kind::Nft10k) {
        gateway.sysctl("net.ipv4.ip_forward", "1");
    }
    let portway = |file: &str| Some(Forwarder::Portway(Portway::start(gateway, file)));
    match kind {
        Kind::Routing | Kind::RoutingXdpWires => {
            net.route_clients();
            net.route_servers_back();
            if kind == Kind::RoutingXdpWires {
                wire::prepare_for_xdp(gateway);
            }
            None
        }
        Kind::Iptables => iptables(net, 0),
        Kind::Iptables10k => iptables(net, 10_000),
        Kind::Nft => {
            gateway.nft(
                "table ip lab { chain pre { type nat hook prerouting priority -100;
                   ip daddr 10.1.0.1 tcp dport 8888 dnat to 10.2.0.10:80
                   ip daddr 10.1.0.1 tcp dport 5201 dnat to 10.2.0.10:5201; }
                 chain post { type nat hook postrouting priority 100; ip daddr 10.2.0.10 masquerade; }
}\n",
            );
            None
        }
        Kind::Nft10k => {
            let mut script = String::from(
                "table ip lab { map targets { type inet_service : ipv4_addr . inet_service; elements = {\n",
            );
            for port in other_ports(10_000) {
                let _ = writeln!(script, "{port} : 10.2.0.10 . 80,");
            }
            script += "8888 : 10.2.0.10 . 80 } }
                 chain pre { type nat hook prerouting priority -100;
                   ip daddr 10.1.0.1 dnat ip to tcp dport map @targets; }
                 chain post { type nat hook postrouting priority 100; ip daddr 10.2.0.10 masquerade; }
}\n";
            gateway.nft(&script);
            None
        }
        Kind::PortwayNftables => portway(&rules(Engine::Nftables, 0)),
        Kind::PortwayNftables10k => portway(&rules(Engine::Nftables, 10_000)),
        Kind::PortwayEbpf => portway(&(SOURCES.to_owned() + &rules(Engine::Ebpf, 0))),
        Kind::PortwayXdp => portway(&(SOURCES.to_owned() + &rules(Engine::Xdp, 0))),
        Kind::PortwayProxy => portway(&rules(Engine::Proxy, 0)),
        Kind::Haproxy => haproxy(net, ""),
        Kind::HaproxySplice => haproxy(net, "option splice-request\n option splice-response"),
        Kind::NginxStream => {
            let contexts = "load_module /usr/lib/nginx/modules/ngx_stream_module.so; worker_processes 2;
                 events { worker_connections 9000; }
                 stream { server { listen 10.1.0.1:8888 backlog=4096 reuseport; proxy_pass 10.2.0.10:80; }
                          server { listen 10.1.0.1:5201 reuseport; proxy_pass 10.2.0.10:5201; } }";
            Some(Forwarder::Other(peer::nginx_raw(gateway, contexts, 8888)))
        }
    }
}

/// The client has all the ports there are, and each waits a minute at the server before it may come again: the engine gets
/// nearly as many for its one address, as conntrack has. Some are left to the host itself.
const SOURCES: &str = "[ebpf]\nsource-ports = '1024-64000'\n";

/// Ports of rules that no traffic uses.
fn other_ports(count: u16) -> impl Iterator<Item = u16> {
    (0..count).map(|i| 10_000 + i)
}

fn rules(engine: Engine, others: u16) -> String {
    let others: String =
        other_ports(others).map(|port| engine.forward(&format!("10.1.0.1:{port}"), "10.2.0.10:80")).collect();
    others
        + &engine.forward("10.1.0.1:8888", "10.2.0.10:80")
        + &engine.forward("10.1.0.1:5201", "10.2.0.10:5201")
}

fn iptables(net: &Topology, others: u16) -> Option<Forwarder> {
    let mut script = String::from("*nat\n");
    for port in other_ports(others).chain([5201, 8888]) {
        let target = if port == 5201 { 5201 } else { 80 };
        let _ = writeln!(
            script,
            "-A PREROUTING -d 10.1.0.1 -p tcp --dport {port} -j DNAT --to-destination 10.2.0.10:{target}"
        );
    }
    script += "-A POSTROUTING -d 10.2.0.10 -p tcp -j SNAT --to-source 10.2.0.1\nCOMMIT\n";
    process::feed(&mut net.gateway.command("iptables-restore"), &script);
    None
}

fn haproxy(net: &Topology, option: &str) -> Option<Forwarder> {
    let files = Scratch::new();
    let config = files.write(
        "haproxy.cfg",
        format!(
            "global\n nbthread 2\n maxconn 4000\ndefaults\n mode tcp\n {option}\n timeout connect 5s\n \
             timeout client 1h\n timeout server 1h\n\
             listen web\n bind 10.1.0.1:8888 backlog 4096\n server s 10.2.0.10:80\n\
             listen bulk\n bind 10.1.0.1:5201\n server s 10.2.0.10:5201\n"
        ),
    );
    let process = Process::start(net.gateway.command("haproxy").args(["-db", "-f"]).arg(config));
    let process = process.until_tcp(&net.gateway, 8888);
    Some(Forwarder::Other(process.keep(files)))
}
