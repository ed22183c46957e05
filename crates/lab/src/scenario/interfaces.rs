//! Which interfaces the `ebpf` engine serves: those that come and go, those of the file, those where somebody else's programs
//! are; and the host's ports that it keeps for itself.

use std::time::Duration;

use crate::client::{Held, who};
use serde_json::Value;

use crate::engine::attached;
use crate::foreign::Foreign;
use crate::netns::wait_for;
use crate::portway::binary;
use crate::topology::LAN4;
use crate::traffic::{Server, echo, tcp_works, udp_works};
use crate::wire::{connect, prepare_for_xdp};
use crate::{Engine, Namespace, Portway, Scratch, Topology};

/// Gives the gateway a third network, 10.5.0.0/24, with one host.
fn third(net: &Topology, engine: Engine) -> Namespace {
    let host = Namespace::new("third");
    connect(&net.gateway, "third", &host, "eth0");
    net.gateway.ip("address add 10.5.0.1/24 dev third");
    host.ip("address add 10.5.0.10/24 dev eth0");
    if engine == Engine::Xdp {
        prepare_for_xdp(&net.gateway);
    }
    host
}

fn echoes(client: &Namespace, to: &str) -> bool {
    client.connect(to).and_then(|mut stream| echo(&mut stream, b"?")).is_ok()
}

fn names_itself(client: &Namespace, to: &str) -> bool {
    who(client, to).is_ok()
}

/// An interface that is added while the daemon runs is served at once, for clients and for backends; so is one that is
/// removed and comes back, with another index and another link address. The other interfaces' flows do not notice.
pub fn come_and_go(engine: Engine) {
    let net = Topology::new();
    let _near = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let rules = engine.forward("0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("tcp+udp/0.0.0.0:8001", "10.5.0.10:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    let mut held = Held::open(net.client(), "10.1.0.1:8000");
    for round in 0..2 {
        let host = third(&net, engine);
        let server = Server::tcp_echo(&host, "10.5.0.10:7000");
        let datagrams = Server::udp_echo(&host, "10.5.0.10:7000");
        let start = std::time::Instant::now();
        wait_for("the new interface's clients", || names_itself(&host, "10.5.0.1:8000"));
        wait_for("the new interface's backend", || echoes(net.client(), "10.1.0.1:8001"));
        assert!(start.elapsed() < Duration::from_secs(3), "round {round}: after {:?}", start.elapsed());
        udp_works(net.client(), "10.1.0.1:8001");
        held.lives("when an interface came");
        drop((server, datagrams));
        net.gateway.ip("link delete third");
        held.lives("when an interface went");
        drop(host);
    }
}

/// A device that goes down and up again, and one that gets another link address, carry on.
pub fn change(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let mut held = Held::open(net.client(), "10.1.0.1:8000");
    net.gateway.ip("link set wan down\nlink set wan up");
    wait_for("the link", || names_itself(net.client(), "10.1.0.1:8000"));
    held.lives("when the servers' link was down for a moment");
    net.gateway.ip("link set wan down\nlink set wan address 02:00:00:00:00:07\nlink set wan up");
    wait_for("the link", || names_itself(net.client(), "10.1.0.1:8000"));
    held.lives("when the gateway's link address changed");
}

/// A neighbour's link address changes, and nobody says so: the server keeps silent but for answers, and never has to ask who
/// the gateway is. What the kernel knows is found wrong when it asks, which it does of neighbours that are in use.
pub fn silent_neighbour(engine: Engine) {
    let net = Topology::new();
    let _v4 = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let _v6 = Server::tcp_named(net.server(), "[fd02::10]:7000", "a");
    for family in ["ipv4", "ipv6"] {
        // Half of the first at least, which has to be more than the second, or it would never stop asking.
        for (key, value) in
            [("base_reachable_time_ms", "2500"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "100")]
        {
            net.gateway.sysctl(&format!("net/{family}/neigh/wan/{key}"), value);
        }
    }
    let rules =
        engine.forward("0.0.0.0:8000", "10.2.0.10:7000") + &engine.forward("[::]:8000", "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    let shown = net.gateway.run("ip -o link show dev wan");
    let gateway = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    let gateway = gateway.expect("an Ethernet address");
    let keep = || {
        for address in ["10.2.0.1", "fd02::1"] {
            net.server().ip(&format!("neighbour replace {address} lladdr {gateway} dev eth0 nud permanent"));
        }
    };
    keep();
    let listeners = ["10.1.0.1:8000", "[fd01::1]:8000"];
    let mut held = listeners.map(|to| Held::open(net.client(), to));
    // The kernel asks by itself while it has used the neighbour lately, to find it.
    std::thread::sleep(Duration::from_secs(5));
    net.server().ip("link set eth0 address 02:00:00:00:00:08");
    keep();
    for (to, held) in listeners.iter().zip(&mut held) {
        wait_for("the neighbour", || names_itself(net.client(), to));
        held.lives("when the server's link address changed");
    }
}

/// `interfaces` of the file: traffic is served where it says, and left to the host elsewhere.
pub fn chosen(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let rule = engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    let portway = Portway::start(&net.gateway, &("[ebpf]\ninterfaces = ['lan', 'wan']\n".to_owned() + &rule));
    let host = third(&net, engine);
    tcp_works(net.client(), "10.1.0.1:8000");
    std::thread::sleep(Duration::from_millis(500));
    assert!(host.connect("10.5.0.1:8000").is_err(), "an interface that the file does not name");
    portway.reload(&rule);
    wait_for("all interfaces", || echoes(&host, "10.5.0.1:8000"));
    portway.reload(&("[ebpf]\ninterfaces = ['lan', 'wan']\n".to_owned() + &rule));
    assert!(host.connect("10.5.0.1:8000").is_err(), "and no longer");
    tcp_works(net.client(), "10.1.0.1:8000");
}

/// `portway probe` says of each interface what it can do and what is chosen, with the reason, and touches nothing.
pub fn probed(engine: Engine) {
    let net = Topology::new();
    net.gateway.ip("link add name br0 type bridge\nlink set br0 up");
    let host = third(&net, engine);
    net.gateway.ip("link set third master br0");
    let file = Scratch::new();
    let path =
        file.write("portway.toml", attached(&engine.forward("0.0.0.0:8000", "10.2.0.10:7000")).as_bytes());
    prepare_for_xdp(&net.gateway);
    // The kernel says by itself, and late, that a bridge with a port is up.
    wait_for("the bridge", || net.gateway.run("ip -o link show br0").contains("state UP"));
    let before = net.gateway.run("ip -o link show");
    let said = net.gateway.run(&format!("{} probe --json -c {}", binary().display(), path.display()));
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("not JSON: {e}\n{said}"));
    assert_eq!(said["ebpf"]["available"], true, "{said:#}");
    let of = |name: &str| {
        let interfaces = said["interfaces"].as_array().cloned().unwrap_or_default();
        let found = interfaces.into_iter().find(|interface| interface["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not listed: {said:#}"))
    };
    let served = ["lan", "wan", "br0", "lo", "third"].map(|name| of(name)["served"] == true);
    assert_eq!(served, [true, true, true, false, false], "{said:#}");
    for name in ["lan", "br0", "lo", "third"] {
        assert!(of(name)["why"].as_str().is_some_and(|why| !why.is_empty()), "says why: {said:#}");
    }
    let (lan, bridge) = (of("lan"), of("br0"));
    let can = ["driver", "tcx", "xdp", "takes_xdp"].map(|what| lan[what].clone());
    assert_eq!(can, [Value::from("veth"), true.into(), true.into(), true.into()], "{said:#}");
    assert_eq!(bridge["xdp"], false, "{said:#}");
    let chosen = lan["why"].as_str().unwrap_or_default();
    assert_eq!(chosen.contains("no XDP"), engine == Engine::Ebpf, "{chosen}");
    assert_eq!(net.gateway.run("ip -o link show"), before);
    drop(host);
}

/// The place for kernels without tcx, clsact, works too, beside a filter of somebody else's; the filter stays, and so does
/// the qdisc that was there.
pub fn clsact(_: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _own = Server::tcp_echo(&net.gateway, "10.1.0.1:8002");
    net.gateway.run("tc qdisc add dev lan clsact");
    net.gateway.run(
        "tc filter add dev lan ingress protocol ip pref 100 u32 match ip dport 8002 0xffff \
         action mirred egress redirect dev wan",
    );
    let before = net.gateway.run("tc qdisc show") + &net.gateway.run("tc filter show dev lan ingress");
    let file = "[[rule]]\nengine = 'ebpf'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'\n\
                [ebpf]\nattach = 'clsact'\n";
    let mut portway = Portway::start(&net.gateway, file);
    tcp_works(net.client(), &format!("{LAN4}:8000"));
    let shown = net.gateway.run("tc filter show dev wan ingress");
    assert!(shown.contains("bpf"), "the programs hang at clsact: {shown}");
    let blocked = net.client().enter(|| {
        let to = format!("{LAN4}:8002").parse().expect("a socket address");
        std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300))
    });
    assert!(blocked.is_err(), "the other's filter still leads astray");
    portway.kill9();
    tcp_works(net.client(), &format!("{LAN4}:8000"));
    portway.restart();
    tcp_works(net.client(), &format!("{LAN4}:8000"));
    assert!(portway.stop().success(), "{}", portway.log());
    let after = net.gateway.run("tc qdisc show") + &net.gateway.run("tc filter show dev lan ingress");
    assert_eq!(after, before);
}

/// Somebody else's programs at both hooks stay where they are, before, while and after Portway runs. XDP has room for one:
/// there the interface is served by TC.
pub fn foreign_programs(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _tcx = Foreign::tcx(&net.gateway, "lan");
    let _xdp = Foreign::xdp(&net.gateway, "lan");
    let id = || {
        let shown = net.gateway.run("ip -d -o link show lan");
        shown.split("prog/xdp id ").nth(1).and_then(|rest| rest.split_whitespace().next()).map(str::to_owned)
    };
    let before = id().expect("the foreign program is there");
    let mut portway = Portway::start(&net.gateway, &engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000"));
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    tcp_works(net.client(), "10.1.0.1:8000");
    udp_works(net.client(), "10.1.0.1:8000");
    assert_eq!(id().as_deref(), Some(before.as_str()));
    portway.stop();
    assert_eq!(id().as_deref(), Some(before.as_str()));
}

/// The ports that sources are taken from are the engine's while it runs: the host's own sockets get others. What an
/// administrator had reserved stays reserved, and is all that is reserved at the end, orderly or not.
pub fn reserved_ports(engine: Engine) {
    const KEY: &str = "net.ipv4.ip_local_reserved_ports";
    let net = Topology::new();
    net.gateway.sysctl(KEY, "8080,45000-45010");
    let reserved = || net.gateway.run(&format!("sysctl -n {KEY}")).trim().to_owned();
    let before = reserved();
    let file = "[ebpf]\nsource-ports = '40000-49999'\n".to_owned()
        + &engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    let mut portway = Portway::start(&net.gateway, &file);
    assert_eq!(reserved(), "8080,40000-49999");
    portway.kill9();
    portway.restart();
    assert_eq!(reserved(), "8080,40000-49999", "flows are there while the daemon is not");
    portway.stop();
    assert_eq!(reserved(), before);
    portway.restart();
    portway.kill9();
    portway.command("clear").unwrap_or_else(|complaint| panic!("{complaint}"));
    assert_eq!(reserved(), before, "clear puts them back too");
}
