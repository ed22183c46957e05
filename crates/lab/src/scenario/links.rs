//! Links of other kinds than a plain Ethernet interface: a bridge whose ports are the wires, a second address on a wire
//! (macvlan), a tunnel without link header.

use crate::client::{Held, who};
use crate::traffic::{Server, tcp_works, udp_works};
use crate::{Engine, Portway, Process, Topology};

/// Both families and protocols, and a few megabytes.
fn carries(net: &Topology, engine: Engine) {
    let _v4 = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _v6 = Server::tcp_echo(net.server(), "[fd02::10]:7000");
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let rules = engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("[::]:8000", "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    tcp_works(net.client(), "10.1.0.1:8000");
    tcp_works(net.client(), "[fd01::1]:8000");
    udp_works(net.client(), "10.1.0.1:8000");
    let mut stream = net.client().connect("10.1.0.1:8000").expect("connects");
    for _ in 0..64 {
        crate::traffic::echo(&mut stream, &[b'm'; 50_000]).expect("echoes");
    }
}

/// The gateway's wires are ports of a bridge, which has the addresses: virtual machines and containers hang like this.
pub fn bridges(engine: Engine) {
    let net = Topology::new();
    for (wire, bridge, network) in [("lan", "br1", 1), ("wan", "br2", 2)] {
        net.gateway.ip(&format!(
            "link add name {bridge} type bridge
             link set {bridge} up
             address flush dev {wire}
             link set {wire} master {bridge}
             address add 10.{network}.0.1/24 dev {bridge}
             address add fd0{network}::1/64 dev {bridge} nodad"
        ));
    }
    carries(&net, engine);
}

/// The gateway's addresses are on devices on top of its wires.
pub fn macvlan(engine: Engine) {
    let net = Topology::new();
    for (wire, network) in [("lan", 1), ("wan", 2)] {
        net.gateway.ip(&format!(
            "address flush dev {wire}
             link add link {wire} name over{network} type macvlan mode bridge
             link set over{network} up
             address add 10.{network}.0.1/24 dev over{network}
             address add fd0{network}::1/64 dev over{network} nodad"
        ));
    }
    carries(&net, engine);
}

/// One end of a tunnel between client and gateway, in UDP over their wire.
fn tunnel_end(host: &crate::Namespace, inner: &str, outer: &str, far: &str) -> Process {
    let mut socat = host.command("socat");
    socat.arg(format!("TUN:{inner},tun-name=tunnel,iff-no-pi,up"));
    socat.arg(format!("UDP-DATAGRAM:{far}:5555,bind={outer}:5555"));
    Process::start(&mut socat)
}

/// A network with a tunnel between client and gateway, and its two ends.
fn tunneled() -> (Topology, [Process; 2]) {
    let net = Topology::new();
    let ends = [
        tunnel_end(&net.gateway, "10.6.0.1/24", "10.1.0.1", "10.1.0.10"),
        tunnel_end(net.client(), "10.6.0.10/24", "10.1.0.10", "10.1.0.1"),
    ];
    for host in [&net.gateway, net.client()] {
        crate::netns::wait_for("the tunnel", || {
            host.try_run("ip -4 address show dev tunnel up").is_ok_and(|shown| shown.contains("10.6.0."))
        });
        host.ip("link set tunnel mtu 1400");
    }
    (net, ends)
}

/// A tunnel device, whose packets begin with the IP header: clients come through it, and a backend is behind it.
pub fn tunnel(engine: Engine) {
    let (net, _ends) = tunneled();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _behind = Server::tcp_echo(net.client(), "10.6.0.10:7000");
    let rules = engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("0.0.0.0:8001", "10.6.0.10:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    tcp_works(net.client(), "10.6.0.1:8000");
    udp_works(net.client(), "10.6.0.1:8000");
    tcp_works(net.server(), "10.2.0.1:8001");
    for (host, to) in [(net.client(), "10.6.0.1:8000"), (net.server(), "10.2.0.1:8001")] {
        let mut stream = host.connect(to).expect("connects");
        for _ in 0..20 {
            crate::traffic::echo(&mut stream, &[b'm'; 50_000])
                .unwrap_or_else(|e| panic!("bytes by {to}: {e}"));
        }
    }
}

/// SYN cookies through the tunnel, in both directions, with option 254 appended (who reads it is another scenario's): packets
/// without a link header on the way in or on the way out, and servers that speak first.
pub fn tunnel_cookies(engine: Engine) {
    let (net, _ends) = tunneled();
    let _server = Server::tcp_named(net.server(), "10.2.0.10:7000", "server");
    let _behind = Server::tcp_named(net.client(), "10.6.0.10:7000", "behind");
    let rule = |listen: &str, forward: &str| {
        engine.rule(&format!(
            "listen = '{listen}'\nforward = '{forward}'\nsyn-cookies = 0\nclient-address = 'toa'"
        ))
    };
    let rules = rule("0.0.0.0:8000", "10.2.0.10:7000") + &rule("0.0.0.0:8001", "10.6.0.10:7000");
    let portway = Portway::start(&net.gateway, &rules);
    for (host, to, name) in
        [(net.client(), "10.6.0.1:8000", "server"), (net.server(), "10.2.0.1:8001", "behind")]
    {
        for _ in 0..5 {
            let mut held = Held::open(host, to);
            held.lives("opened by a cookie, through a tunnel");
            let met = who(host, to).unwrap_or_else(|e| panic!("{to}: {e}"));
            assert_eq!(met.trim(), name, "by {to}");
        }
    }
    assert_eq!(portway.status()["engines"]["ebpf"]["syn_cookies"], 20);
}
