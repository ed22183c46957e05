//! A lane in its place: client, gateway and server in network namespaces, servers that answer, and the forwarder.
//!
//! Every forwarder has the same listeners at the gateway, and is set up once for all rounds. Deliberately absent: the text of
//! the configurations ([`super::files`]).

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use portway_lab::netns::wait_for;
use portway_lab::{Engine, Namespace, Portway, Process, Scratch, Topology, peer, process, wire};

use super::Scheme;
use super::files::{self, shortened};
use crate::actor;
use crate::flows;
use crate::record::{self, Kind};

/// Where Debian's nginx has its stream module.
pub const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The gateway's address towards the client, and the server's.
pub(super) const GATEWAY: &str = "10.1.0.1";
pub(super) const SERVER: &str = "10.2.0.10";
/// The gateway's address towards the server.
pub(super) const SOURCE: &str = "10.2.0.1";

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

/// Requests, streams and idle connections.
pub const TCP: Forward = Forward { listen: 8888, target: 80, udp: false };
/// Datagrams.
pub const UDP: Forward = Forward { listen: 8888, target: 80, udp: true };
/// The two that every lane has.
pub(super) const FORWARDS: [Forward; 2] = [TCP, UDP];
/// New connections to a pool of backends, where there is one.
pub const POOL: Forward = Forward { listen: 8889, target: 81, udp: false };

impl Forward {
    pub(super) fn protocol(self) -> &'static str {
        if self.udp { "udp" } else { "tcp" }
    }
}

/// What a lane has besides the two forwards that every load uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// So many rules that no traffic uses.
    pub rules: u32,
    /// A pool of so many backends.
    pub backends: u8,
    /// Whether the health of the pool is watched, by those who can.
    pub checked: bool,
    /// Room for so many flows, which are remembered for an hour.
    pub flows: u32,
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
    server: Process,
    /// Those of the pool, each a process where they are to die.
    backends: Mutex<Vec<Process>>,
    // Dropped last: the processes live in it.
    /// The hosts.
    pub net: Topology,
}

impl Lane {
    /// Sets it up.
    ///
    /// # Panics
    /// When something does not start, with what it printed.
    pub fn set_up(scheme: &Scheme, setting: Setting) -> Self {
        let net = Topology::new();
        // Many short connections from one client address: give it all the ports there are.
        for host in [net.client(), &net.gateway] {
            host.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
        }
        for nth in 1..setting.backends {
            net.server().ip(&format!("address add {}/24 dev eth0", backend(nth)));
        }
        // Rules of other addresses are only rules if the addresses are the gateway's.
        for nth in 0..setting.rules.div_ceil(files::RULES_EACH) {
            net.gateway.ip(&format!("address add {}/32 dev lan", files::other_address(nth)));
        }
        if setting.flows > 0 {
            flows::give_addresses(&net.gateway);
        }
        let server = actor::serve(net.server(), &[address(SERVER, TCP.target)]);
        let all: Vec<SocketAddr> =
            (0..setting.backends).map(|nth| address(&backend(nth), POOL.target)).collect();
        let apart = if setting.checked { 1 } else { all.len().max(1) };
        let backends: Vec<Process> = all.chunks(apart).map(|some| actor::serve(net.server(), some)).collect();
        let server = server.until_tcp(net.server(), TCP.target);
        let pool = (!backends.is_empty()).then_some(POOL.target);
        wait_for("the backends", || pool.is_none_or(|port| net.server().has_tcp(port)));
        let mut lane = Self {
            scheme: scheme.clone(),
            configuration: String::new(),
            portway: None,
            programs: Vec::new(),
            server,
            backends: Mutex::new(backends),
            net,
        };
        lane.install(setting);
        if setting.flows > 0 && scheme.has_conntrack() {
            // After conntrack has come, with the rules.
            flows::remember(&lane.net.gateway);
        }
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

    /// The process groups at the server.
    pub fn servers(&self) -> Vec<u32> {
        let backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        [self.server.id()].into_iter().chain(backends.iter().map(Process::id)).collect()
    }

    /// The Portway that forwards, if one does.
    pub fn portway(&self) -> Option<&Portway> {
        self.portway.as_ref()
    }

    /// Runs a load of that length during whose second third the first backend of the pool is dead.
    ///
    /// # Panics
    /// When the load does.
    pub fn with_churn<T: Send>(&self, length: Duration, load: impl FnOnce() -> T + Send) -> T {
        let backends = || self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        thread::scope(|scope| {
            let load = scope.spawn(load);
            thread::sleep(length / 3);
            drop(backends().remove(0));
            thread::sleep(length / 3);
            // On this thread, with which it dies, and which lives on.
            backends().insert(0, actor::serve(self.net.server(), &[address(SERVER, POOL.target)]));
            load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs something with a setting of all three hosts, and puts it back.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn with_sysctl<T>(&self, key: &str, value: &str, work: impl FnOnce() -> T) -> T {
        let hosts = [self.net.client(), &self.net.gateway, self.net.server()];
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        let before = hosts.map(|host| host.enter(|| fs::read_to_string(&path).unwrap_or_default()));
        hosts.iter().for_each(|host| host.sysctl(key, value));
        let done = work();
        hosts.iter().zip(before).for_each(|(host, before)| host.sysctl(key, before.trim()));
        done
    }

    fn install(&mut self, setting: Setting) {
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
                    self.configuration += &queued(gateway);
                }
            }
            Scheme::Iptables => {
                let script = files::iptables(setting);
                process::feed(&mut gateway.command("iptables-restore"), &script);
                self.configuration += &shortened(&script);
            }
            Scheme::Nft => {
                let script = files::nft(setting);
                gateway.nft(&script);
                self.configuration += &shortened(&script);
            }
            Scheme::Ipvs => {
                let script = files::ipvs(setting);
                gateway.shell(&script);
                self.configuration += &shortened(&script);
            }
            Scheme::Haproxy => self.haproxy(setting, ""),
            Scheme::HaproxySplice => {
                self.haproxy(setting, " option splice-request\n option splice-response\n");
            }
            Scheme::NginxStream => {
                let contexts = files::nginx_stream(setting);
                self.programs.push(peer::nginx_raw(gateway, &contexts, TCP.listen));
                self.configuration = shortened(&contexts);
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
                let file = files::portway(*engine, setting);
                self.portway = Some(Portway::start(gateway, &file));
                self.configuration = shortened(&portway_lab::engine::attached(&file));
                if *engine == Engine::Xdp {
                    self.configuration += &queued(gateway);
                }
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

    fn haproxy(&mut self, setting: Setting, options: &str) {
        let files = Scratch::new();
        let text = files::haproxy(setting, options);
        let file = files.write("haproxy.cfg", &text);
        let process = Process::start(self.net.gateway.command("haproxy").args(["-db", "-f"]).arg(file));
        self.programs.push(process.until_tcp(&self.net.gateway, TCP.listen).keep(files));
        self.configuration = shortened(&text);
    }
}

/// Has the wires of a lane for XDP lose no more than a NIC's would, and says how. On kernels whose veth loses frames all the same
/// a queue would be work for nothing.
fn queued(gateway: &Namespace) -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.trim().parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(16)) {
        return String::new();
    }
    wire::queue_before_rings(gateway);
    format!("# client and server: tc qdisc replace dev eth0 root {}\n", wire::QUEUE)
}

/// A backend's address.
pub(super) fn backend(nth: u8) -> String {
    format!("10.2.0.{}", 10 + nth)
}

/// A socket address.
///
/// # Panics
/// When it is none.
pub fn address(host: &str, port: u16) -> SocketAddr {
    let host: IpAddr = host.parse().unwrap_or_else(|_| panic!("{host} is no address"));
    (host, port).into()
}
