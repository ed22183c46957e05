//! Ends of the daemon, tidy and not: what stays, what goes, what the next start takes over.

use std::collections::BTreeSet;

use crate::load::Load;
use crate::traffic::{Server, echo, tcp_works, udp_works};
use crate::{Engine, Namespace, Portway, Topology, pins};

/// All of the host that Portway could touch.
pub(super) fn traces(host: &Namespace) -> BTreeSet<String> {
    let sysctls = host.shell("sysctl -a -r '^net[.]' 2>/dev/null");
    let rules = host.run("nft -s list ruleset");
    let links = host.run("ip -o address show")
        + &host.run("ip rule show")
        + &host.run("ip route show table all")
        // With XDP programs (link) and clsact (qdisc).
        + &host.run("ip -o link show")
        + &host.run("tc qdisc show");
    let pins = pins::of(host).join("\n");
    // Counts of what is alive, and the age of IPv6 addresses, are no settings.
    let settings = |line: &&str| !line.contains("nf_conntrack_count") && !line.contains("ra_defrtr_metric");
    [sysctls, rules, links, pins]
        .iter()
        .flat_map(|text| text.lines())
        .filter(settings)
        .map(str::to_owned)
        .collect()
}

pub(super) fn same(before: &BTreeSet<String>, after: &BTreeSet<String>) {
    let gone: Vec<_> = before.difference(after).collect();
    let new: Vec<_> = after.difference(before).collect();
    assert!(gone.is_empty() && new.is_empty(), "left behind:\nwas {gone:#?}\nis {new:#?}");
}

/// A firewall of the host's own, which must survive unharmed.
const OTHERS: &str = "table inet filter {
    counter seen { }
    chain forward { type filter hook forward priority 0; tcp dport 1 drop; }
}
table ip nat {
    chain PREROUTING { type nat hook prerouting priority -100; tcp dport 1 dnat to 192.0.2.1; }
}
";

/// Rules that need every host setting there is: forwarding in both families, loopback (beside `ebpf`, which does not reach
/// it, another engine's), UDP.
fn rules(engine: Engine) -> String {
    engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("[::]:8000", "[fd02::10]:7000")
        + &engine.for_loopback().forward("0.0.0.0:8001", "127.0.0.1:7001")
}

/// SIGTERM ends with status 0 and leaves no table, no sysctl, no socket, and others' tables as they were.
pub fn tidy_end(engine: Engine) {
    let net = Topology::new();
    net.gateway.nft(OTHERS);
    let before = traces(&net.gateway);
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _local = Server::tcp_echo(&net.gateway, "127.0.0.1:7001");
    let mut portway = Portway::start(&net.gateway, &rules(engine));
    tcp_works(net.client(), "10.1.0.1:8000");
    tcp_works(net.client(), "10.1.0.1:8001");
    let status = portway.stop();
    assert!(status.success(), "{status}\n{}", portway.log());
    same(&before, &traces(&net.gateway));
    assert!(net.client().connect("10.1.0.1:8000").is_err(), "nothing listens any more");
    let left = std::fs::read_dir(portway.state_dir()).map(|entries| entries.flatten().count()).unwrap_or(0);
    assert_eq!(left, 0, "the state directory is empty");
}

/// After kill -9, `portway clear` removes what was left, and only that.
pub fn clear_after_kill(engine: Engine) {
    let net = Topology::new();
    net.gateway.nft(OTHERS);
    let before = traces(&net.gateway);
    let mut portway = Portway::start(&net.gateway, &rules(engine));
    portway.kill9();
    portway.command("clear").unwrap_or_else(|complaint| panic!("{complaint}"));
    same(&before, &traces(&net.gateway));
}

/// After kill -9, traffic flows on: established connections, new ones, UDP, counters.
pub fn forwards_when_killed(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let mut portway = Portway::start(&net.gateway, &engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000"));
    let mut held = net.client().connect("10.1.0.1:8000").expect("connects");
    portway.kill9();
    echo(&mut held, b"still").expect("the connection lives on");
    tcp_works(net.client(), "10.1.0.1:8000");
    udp_works(net.client(), "10.1.0.1:8000");
}

/// The next start after kill -9 takes the rules over: not one connection is lost, the counters go on.
pub fn restart_adopts(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let file = engine.rule("name = 'kept'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'");
    let mut portway = Portway::start(&net.gateway, &file);
    let load = Load::start(net.client(), "10.1.0.1:8000");
    let mut held = net.client().connect("10.1.0.1:8000").expect("connects");
    for _ in 0..3 {
        load.pass(50);
        let counted = portway.figure("kept", "flows");
        portway.kill9();
        load.pass(50);
        portway.restart();
        let now = portway.figure("kept", "flows");
        assert!(now >= counted + 50, "the counter goes on: {counted}, then {now}");
    }
    echo(&mut held, b"still").expect("the connection lives on");
    load.stop_without_loss();
}

/// A restart with another file leaves nothing of the old one.
pub fn restart_with_another_file(engine: Engine) {
    let net = Topology::new();
    let before = traces(&net.gateway);
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let mut portway = Portway::start(&net.gateway, &rules(engine));
    portway.kill9();
    portway.write(&engine.forward("0.0.0.0:8005", "10.2.0.10:7000"));
    portway.restart();
    tcp_works(net.client(), "10.1.0.1:8005");
    assert!(net.client().connect("10.1.0.1:8000").is_err(), "the old rule is gone");
    portway.stop();
    same(&before, &traces(&net.gateway));
}

/// A second daemon with the same state directory is refused, and the first goes on.
pub fn second_is_refused(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let file = engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    let portway = Portway::start(&net.gateway, &file);
    let config = portway.config();
    let complaint = portway.command(&format!("run -c {}", config.display())).expect_err("one is running");
    assert!(complaint.contains("running"), "{complaint}");
    tcp_works(net.client(), "10.1.0.1:8000");
}

/// A FORWARD policy of another table that would drop the traffic is named on start.
pub fn foreign_drop_is_named(engine: Engine) {
    let net = Topology::new();
    net.gateway
        .nft("table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }\n}\n");
    let portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let log = portway.log();
    assert!(log.contains("FORWARD") && log.contains("filter") && log.contains("drop"), "{log}");
}

/// `settings = "check"` sets nothing: it refuses to start and names what is missing.
pub fn settings_only_checked(engine: Engine) {
    let net = Topology::new();
    net.gateway.sysctl("net.ipv4.ip_forward", "0");
    let before = traces(&net.gateway);
    let file = "[host]\nsettings = 'check'\n".to_owned() + &engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    let log = match Portway::try_start(&net.gateway, &file) {
        Ok(mut portway) => {
            portway.stop();
            portway.log()
        }
        Err(log) => log,
    };
    assert!(log.contains("ip_forward"), "what is missing is named: {log}");
    same(&before, &traces(&net.gateway));
}

/// Conntrack timeouts of the file are set, and put back at the end.
pub fn conntrack_timeouts(engine: Engine) {
    let net = Topology::new();
    let before = traces(&net.gateway);
    let file = "[host.conntrack]\ntcp-established = '2h'\nudp = '25s'\nudp-stream = '77s'\n".to_owned()
        + &engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    let mut portway = Portway::start(&net.gateway, &file);
    for (key, value) in
        [("tcp_timeout_established", "7200"), ("udp_timeout", "25"), ("udp_timeout_stream", "77")]
    {
        let now = net.gateway.run(&format!("sysctl -n net.netfilter.nf_conntrack_{key}"));
        assert_eq!(now.trim(), value, "{key}");
    }
    portway.stop();
    same(&before, &traces(&net.gateway));
}

/// The control socket is its owner's alone, unless the file names a group.
pub fn control_socket_is_private(engine: Engine) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let net = Topology::new();
    let portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let entries = std::fs::read_dir(portway.state_dir()).expect("the state directory").flatten();
    let sockets: Vec<_> =
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket())).collect();
    assert_eq!(sockets.len(), 1, "one control socket");
    let mode = sockets[0].metadata().expect("it is there").mode();
    assert_eq!(mode & 0o077, 0, "mode {mode:o} lets others in");
}

/// Rules of the proxy alone leave the kernel's packet path alone: a NAT table would switch conntrack on for
/// all of the host's traffic, which costs the proxy more than its own work per short connection.
pub fn no_table_without_need(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    tcp_works(net.client(), "10.1.0.1:8000");
    assert_eq!(net.gateway.run("nft list tables"), "", "no rule needs a table");
}

/// The maps that `ebpf` has pinned have one owner, whatever the state directory; the first goes on.
pub fn one_owner_of_the_pins(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let mut first = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let other = engine.forward("0.0.0.0:8001", "10.2.0.10:7000");
    let said = Portway::try_start(&net.gateway, &other).expect_err("a second owner is refused");
    assert!(said.contains("another portway"), "{said}");
    tcp_works(net.client(), "10.1.0.1:8000");
    first.stop();
    let _second = Portway::start(&net.gateway, &other);
    tcp_works(net.client(), "10.1.0.1:8001");
}

/// The table has one owner, whatever the state directory; a daemon that needs no table runs beside it.
pub fn one_owner_of_the_table(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _first = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8000", "10.2.0.10:7000"));
    let refused = Portway::try_start(&net.gateway, &engine.forward("0.0.0.0:8001", "10.2.0.10:7000"));
    let said = refused.expect_err("a second owner is refused");
    assert!(said.contains("another portway owns table inet portway"), "{said}");
    let mut beside = Portway::start(&net.gateway, &Engine::Proxy.forward("0.0.0.0:8002", "10.2.0.10:7000"));
    tcp_works(net.client(), "10.1.0.1:8002");
    // Nor by a reload: the engine that the daemon does not own is none that it may count on.
    let refused = beside.try_reload(&engine.forward("0.0.0.0:8002", "10.2.0.10:7000"));
    let said = refused.expect_err("a reload does not take the table over");
    assert!(said.contains("another portway owns table inet portway"), "{said}");
    tcp_works(net.client(), "10.1.0.1:8002");
    beside.stop();
    tcp_works(net.client(), "10.1.0.1:8000");
}
