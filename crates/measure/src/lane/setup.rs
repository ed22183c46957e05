//! A lane in its place: client, gateway and server in network namespaces, servers that answer, and the forwarder.
//!
//! Every forwarder has the same listeners at the gateway, one for each of [`FORWARDS`], and is set up once for all rounds.
//! Fairness is in the configurations, which the record shows: proxies have as many threads as the machine has CPUs, queues are
//! long enough for the loads, and no time limit ends a connection during a run.

use std::fmt::Write;
use std::path::Path;

use portway_lab::{Engine, Portway, Process, Scratch, Topology, peer, process, wire};

use super::Scheme;
use crate::record::{self, Kind};

/// Where Debian's nginx has its stream module.
pub const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The gateway's address towards the client, and the server's.
const GATEWAY: &str = "10.1.0.1";
const SERVER: &str = "10.2.0.10";
/// The gateway's address towards the server.
const SOURCE: &str = "10.2.0.1";

/// A listener at the gateway and where it leads at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The gateway's port.
    pub listen: u16,
    /// The server's port.
    pub target: u16,
    /// Whether it is UDP rather than TCP.
    pub udp: bool,
}

/// Requests.
pub const WEB: Forward = Forward { listen: 8888, target: 80, udp: false };
/// Streams.
pub const BULK: Forward = Forward { listen: 5201, target: 5201, udp: false };
/// All of them.
pub const FORWARDS: [Forward; 2] = [WEB, BULK];

impl Forward {
    fn protocol(self) -> &'static str {
        if self.udp { "udp" } else { "tcp" }
    }
}

/// A forwarder in its place, ready for traffic.
#[derive(Debug)]
pub struct Lane {
    /// Which one.
    pub scheme: Scheme,
    /// What it was configured with.
    configuration: String,
    portway: Option<Portway>,
    programs: Vec<Process>,
    servers: Vec<Process>,
    _files: Scratch,
    // Dropped last: the processes live in it.
    /// The hosts.
    pub net: Topology,
}

impl Lane {
    /// Sets it up, with so many rules besides those that are used.
    ///
    /// # Panics
    /// When something does not start, with what it printed.
    pub fn set_up(scheme: &Scheme, rules: u32) -> Self {
        let net = Topology::new();
        let files = Scratch::new();
        files.write("page", "x".repeat(130));
        let servers = vec![
            peer::nginx(net.server(), &format!("{SERVER}:{}", WEB.target), files.path()),
            peer::iperf3(net.server(), BULK.target),
        ];
        // Many short connections from one client address: give it all the ports there are.
        for host in [net.client(), &net.gateway] {
            host.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
        }
        let mut lane = Self {
            scheme: scheme.clone(),
            configuration: String::new(),
            portway: None,
            programs: Vec::new(),
            servers,
            _files: files,
            net,
        };
        lane.install(rules);
        lane
    }

    /// What the record says about it.
    pub fn described(&self) -> record::Lane {
        let base = self.scheme.base();
        record::Lane {
            name: self.scheme.name(),
            title: self.scheme.title(),
            kind: self.scheme.kind(),
            base: (base != self.scheme).then(|| base.name()),
            configuration: self.configuration.clone(),
        }
    }

    /// The address and port that the client calls.
    pub fn address(&self, forward: Forward) -> (&'static str, u16) {
        match self.scheme.kind() {
            Kind::Routing => (SERVER, forward.target),
            _ => (GATEWAY, forward.listen),
        }
    }

    /// The processes at the gateway, whether they touch the traffic or only see to it.
    pub fn forwarder(&self) -> impl Iterator<Item = &Process> {
        self.portway.iter().map(Portway::process).chain(&self.programs)
    }

    /// The processes at the server.
    pub fn servers(&self) -> &[Process] {
        &self.servers
    }

    /// The Portway that forwards, if one does.
    pub fn portway(&self) -> Option<&Portway> {
        self.portway.as_ref()
    }

    fn install(&mut self, rules: u32) {
        let gateway = &self.net.gateway;
        if matches!(self.scheme.kind(), Kind::Routing | Kind::Kernel) {
            gateway.sysctl("net.ipv4.ip_forward", "1");
            self.configuration = "sysctl net.ipv4.ip_forward=1\n".to_owned();
        }
        match &self.scheme {
            Scheme::Routing | Scheme::RoutingXdpWires => {
                self.net.route_clients();
                self.net.route_servers_back();
                if self.scheme == Scheme::RoutingXdpWires {
                    wire::prepare_for_xdp(gateway);
                    self.configuration += "ethtool -K eth0 gro on tx off    # client and server\n";
                }
            }
            Scheme::Iptables => {
                let script = iptables(rules);
                process::feed(&mut gateway.command("iptables-restore"), &script);
                self.configuration += &shortened(&script);
            }
            Scheme::Nft => {
                let script = if rules == 0 { nft() } else { nft_map(rules) };
                gateway.nft(&script);
                self.configuration += &shortened(&script);
            }
            Scheme::Ipvs => {
                let script = ipvs();
                gateway.shell(&script);
                self.configuration += &script;
            }
            Scheme::Haproxy => self.haproxy(""),
            Scheme::HaproxySplice => self.haproxy(" option splice-request\n option splice-response\n"),
            Scheme::NginxStream => {
                let contexts = nginx_stream();
                self.programs.push(peer::nginx_raw(gateway, &contexts, WEB.listen));
                self.configuration = contexts;
            }
            Scheme::Realm => self.each(true, |forward| {
                let udp = if forward.udp { " -u -t" } else { "" };
                format!("realm -l {GATEWAY}:{} -r {SERVER}:{}{udp}", forward.listen, forward.target)
            }),
            Scheme::Socat => self.each(false, |forward| {
                format!(
                    "socat TCP-LISTEN:{},bind={GATEWAY},backlog=4096,reuseaddr,fork TCP:{SERVER}:{}",
                    forward.listen, forward.target
                )
            }),
            Scheme::Peer(peer) => {
                let peer = peer.clone();
                self.each(false, |forward| {
                    peer.words((GATEWAY, forward.listen), (SERVER, forward.target)).join(" ")
                });
            }
            Scheme::Portway(engine) => {
                let file = portway(*engine, rules);
                self.portway = Some(Portway::start(gateway, &file));
                self.configuration = shortened(&portway_lab::engine::attached(&file));
            }
        }
    }

    /// A program for each forward.
    fn each(&mut self, udp: bool, line: impl Fn(Forward) -> String) {
        for forward in FORWARDS.into_iter().filter(|forward| udp || !forward.udp) {
            let line = line(forward);
            let mut words = line.split_whitespace();
            let mut command = self.net.gateway.command(Path::new(words.next().unwrap_or_default()));
            let process = Process::start(command.args(words));
            self.programs.push(match forward.udp {
                true => process.until_udp(&self.net.gateway, forward.listen),
                false => process.until_tcp(&self.net.gateway, forward.listen),
            });
            self.configuration += &(line + "\n");
        }
    }

    fn haproxy(&mut self, options: &str) {
        let files = Scratch::new();
        let mut text = format!(
            "global\n nbthread {}\n maxconn 9000\ndefaults\n mode tcp\n{options} timeout connect 5s\n timeout client 1h\n \
             timeout server 1h\n",
            cpus()
        );
        for forward in FORWARDS.into_iter().filter(|forward| !forward.udp) {
            let (listen, target) = (forward.listen, forward.target);
            let _ = writeln!(
                text,
                "listen port{listen}\n bind {GATEWAY}:{listen} backlog 4096\n server s {SERVER}:{target}"
            );
        }
        let file = files.write("haproxy.cfg", &text);
        let process = Process::start(self.net.gateway.command("haproxy").args(["-db", "-f"]).arg(file));
        self.programs.push(process.until_tcp(&self.net.gateway, WEB.listen).keep(files));
        self.configuration = text;
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Addresses and ports of rules that no traffic uses: other addresses of the gateway's network, a full range of ports each.
fn others(count: u32) -> impl Iterator<Item = (String, u16)> {
    (0..count).map(|nth| (format!("10.1.{}.1", 1 + nth / 50_000), 10_000 + (nth % 50_000) as u16))
}

fn iptables(rules: u32) -> String {
    let mut script = String::from("*nat\n");
    for (address, port) in others(rules) {
        let _ = writeln!(
            script,
            "-A PREROUTING -d {address} -p tcp --dport {port} -j DNAT --to-destination {SERVER}:80"
        );
    }
    for forward in FORWARDS {
        let (protocol, listen, target) = (forward.protocol(), forward.listen, forward.target);
        let _ = writeln!(
            script,
            "-A PREROUTING -d {GATEWAY} -p {protocol} --dport {listen} -j DNAT --to-destination {SERVER}:{target}"
        );
    }
    for protocol in ["tcp", "udp"] {
        let _ = writeln!(script, "-A POSTROUTING -d {SERVER} -p {protocol} -j SNAT --to-source {SOURCE}");
    }
    script + "COMMIT\n"
}

fn nft() -> String {
    let mut script =
        String::from("table ip lab {\n chain pre {\n  type nat hook prerouting priority -100;\n");
    for forward in FORWARDS {
        let (protocol, listen, target) = (forward.protocol(), forward.listen, forward.target);
        let _ = writeln!(script, "  ip daddr {GATEWAY} {protocol} dport {listen} dnat to {SERVER}:{target}");
    }
    script + &nft_end()
}

/// One rule and a map, as one writes many rules by hand.
fn nft_map(rules: u32) -> String {
    let mut script = String::from(
        "table ip lab {\n map targets {\n  type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service\n  elements = {\n",
    );
    for (address, port) in others(rules) {
        let _ = writeln!(script, "   {address} . tcp . {port} : {SERVER} . 80,");
    }
    for forward in FORWARDS {
        let (protocol, listen, target) = (forward.protocol(), forward.listen, forward.target);
        let _ = writeln!(script, "   {GATEWAY} . {protocol} . {listen} : {SERVER} . {target},");
    }
    script += "  }\n }\n chain pre {\n  type nat hook prerouting priority -100;\n  \
               dnat ip to ip daddr . meta l4proto . th dport map @targets\n";
    script + &nft_end()
}

fn nft_end() -> String {
    format!(
        " }}\n chain post {{\n  type nat hook postrouting priority 100;\n  ip daddr {SERVER} masquerade\n }}\n}}\n"
    )
}

/// IPVS translates the destination (`-m`); the source is SNAT's, which sees packets of IPVS only if they are in conntrack.
fn ipvs() -> String {
    let mut script = String::from("sysctl -qw net.ipv4.vs.conntrack=1\n");
    for forward in FORWARDS {
        let flag = if forward.udp { 'u' } else { 't' };
        let _ = writeln!(script, "ipvsadm -A -{flag} {GATEWAY}:{} -s rr", forward.listen);
        let _ = writeln!(
            script,
            "ipvsadm -a -{flag} {GATEWAY}:{} -r {SERVER}:{} -m",
            forward.listen, forward.target
        );
    }
    script
        + &format!(
            "iptables -t nat -A POSTROUTING -m ipvs --vaddr {GATEWAY}/32 -j SNAT --to-source {SOURCE}\n"
        )
}

fn nginx_stream() -> String {
    let mut text = format!(
        "load_module {STREAM_MODULE};\nworker_processes {};\nevents {{ worker_connections 19000; }}\nstream {{\n",
        cpus()
    );
    for forward in FORWARDS {
        let kind = if forward.udp { "udp reuseport" } else { "backlog=4096 reuseport" };
        let (listen, target) = (forward.listen, forward.target);
        let _ = writeln!(
            text,
            " server {{ listen {GATEWAY}:{listen} {kind}; proxy_pass {SERVER}:{target}; proxy_timeout 1h; }}"
        );
    }
    text + "}\n"
}

fn portway(engine: Engine, rules: u32) -> String {
    // The client has all the ports there are, and each waits a minute at the server before it may come again: the engine gets
    // nearly as many for its one address, as conntrack has. Some are left to the host itself.
    let mut file =
        if engine.is_ebpf() { "[ebpf]\nsource-ports = '1024-64000'\n".to_owned() } else { String::new() };
    for (address, port) in others(rules) {
        file += &engine.forward(&format!("{address}:{port}"), &format!("{SERVER}:80"));
    }
    for forward in FORWARDS {
        let listen = format!("{}/{GATEWAY}:{}", forward.protocol(), forward.listen);
        file += &engine.forward(&listen, &format!("{SERVER}:{}", forward.target));
    }
    file
}

/// A configuration for the reader: of very many lines the first and the last.
fn shortened(text: &str) -> String {
    const EACH: usize = 20;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= 3 * EACH {
        return text.to_owned();
    }
    let left_out = format!("... {} lines more ...", lines.len() - 2 * EACH);
    [&lines[..EACH], &[left_out.as_str()], &lines[lines.len() - EACH..]].concat().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_configuration_keeps_its_ends() {
        let text = shortened(&iptables(1000));
        assert!(text.starts_with("*nat\n") && text.ends_with("COMMIT\n"), "{text}");
        assert!(text.lines().count() == 41, "{text}");
    }

    #[test]
    fn unused_rules_are_all_different() {
        let all: std::collections::BTreeSet<_> = others(100_000).collect();
        assert_eq!(all.len(), 100_000);
    }
}
