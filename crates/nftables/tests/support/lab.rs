//! A client, a gateway, a server. The client has no route to the server's network, so only forwarding can answer.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part; tests may fail loudly")]

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::{Namespace, run, within};

/// How long anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Waits until something is so.
fn wait_for(what: &str, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Lab {
    pub client: Namespace,
    pub gateway: Namespace,
    pub server: Namespace,
}

impl Lab {
    /// Builds the lab and moves the calling thread to the gateway.
    pub fn new() -> Self {
        let lab = Self { client: Namespace::new(), gateway: Namespace::new(), server: Namespace::new() };
        // No search for duplicates on a network with two ends (it takes up to two seconds).
        for namespace in [&lab.client, &lab.gateway, &lab.server] {
            within(namespace, || std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap());
        }
        let link = |host: &Namespace, near: &str, net: u8| {
            let (host, gateway) = (host.name(), lab.gateway.name());
            run(
                "ip",
                &["-n", gateway, "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", host],
            );
            for (namespace, device, last) in [(gateway, near, 1), (host, "eth0", 2)] {
                let (v4, v6) = (format!("10.{net}.0.{last}/24"), format!("fd0{net}::{last}/64"));
                run("ip", &["-n", namespace, "address", "add", &v4, "dev", device]);
                run("ip", &["-n", namespace, "address", "add", &v6, "dev", device, "nodad"]);
                run("ip", &["-n", namespace, "link", "set", device, "up"]);
            }
        };
        link(&lab.client, "toclient", 1);
        link(&lab.server, "toserver", 2);
        // The kernel notices up to a second later that a link is up, and only then gives it the link-local address. A host
        // that sends from an address of a route (`ip route add local`) solicits its neighbours from that one, and while it
        // has none it does not solicit at all: three times in vain, and the datagram is lost (ndisc_solicit, net/ipv6/ndisc.c).
        for (namespace, device) in [
            (&lab.client, "eth0"),
            (&lab.gateway, "toclient"),
            (&lab.gateway, "toserver"),
            (&lab.server, "eth0"),
        ] {
            wait_for("a link-local address", || {
                let shown = run(
                    "ip",
                    &["-n", namespace.name(), "-6", "address", "show", "dev", device, "-tentative"],
                );
                shown.contains("inet6 fe80:")
            });
        }
        lab.gateway.enter();
        for setting in
            ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.route_localnet=1"]
        {
            run("sysctl", &["-qw", setting]);
        }
        lab
    }
}

/// Serves `address` on TCP, each connection in a thread of its own by `conversation`, and on UDP, where every datagram
/// is answered with the address that `told` makes of the server's own and the sender's.
pub fn serve(
    namespace: &Namespace,
    address: SocketAddr,
    conversation: fn(TcpStream, SocketAddr),
    told: fn(SocketAddr, SocketAddr) -> SocketAddr,
) {
    within(namespace, move || {
        let tcp = TcpListener::bind(address).unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let stream = stream.unwrap();
                std::thread::spawn(move || conversation(stream, address));
            }
        });
        std::thread::spawn(move || {
            let mut asked = [0; 100];
            while let Ok((_, from)) = udp.recv_from(&mut asked) {
                let _ = udp.send_to(told(address, from).to_string().as_bytes(), from);
            }
        });
    });
}
