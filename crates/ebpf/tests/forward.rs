//! Traffic through the engine: connections carried, counted, listed, ended; over restarts and program replacements.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use portway_core::engine::Engine;
use portway_core::flow::{Flow, FlowFilter};
use portway_core::plan::ebpf::{Change, Plan};
use portway_ebpf::EbpfEngine;
use support::{Lab, apply, attached, echo, plan, rule, wait_for};

fn web() -> String {
    rule("web", "tcp/10.1.0.1:80", "10.2.0.2:8080")
}

#[test]
fn tcp_is_carried_counted_and_listed() {
    let lab = Lab::new();
    lab.serve(8080);
    let (mut engine, log) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    let mut stream = lab.connect("10.1.0.1:80").unwrap();
    let answer = echo(&mut stream, "hello").unwrap();
    assert!(answer.contains("10.2.0.1"), "the server sees the gateway: {answer}");
    let mut observer = engine.observer().unwrap();
    let flows = observer.flows(&FlowFilter::default(), 10).unwrap();
    assert_eq!(flows.total, 1);
    let flow = &flows.flows[0];
    assert_eq!(
        (flow.rule.as_str(), flow.protocol.as_str(), flow.state.as_str()),
        ("web", "tcp", "established")
    );
    assert_eq!((flow.client, flow.listener), (stream.local_addr().unwrap(), "10.1.0.1:80".parse().unwrap()));
    assert_eq!(flow.backend, Some("10.2.0.2:8080".parse().unwrap()));
    let snapshot = observer.observe().unwrap();
    let counters = snapshot.rules["web"];
    assert_eq!((counters.live, counters.flows), (1, 1));
    assert!(counters.bytes_in > 100 && counters.bytes_out > 100, "{counters:?}");
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
    lab.gateway.within(|| engine.clear()).unwrap();
}

fn flows(engine: &mut EbpfEngine) -> Vec<Flow> {
    engine.observer().unwrap().flows(&FlowFilter::default(), 100).unwrap().flows
}

#[test]
fn udp_and_ipv6_are_carried() {
    let lab = Lab::new();
    lab.serve(8080);
    let (mut engine, _) = lab.engine();
    let file =
        rule("dns", "udp/10.1.0.1:53", "10.2.0.2:8080") + &rule("six", "tcp/[fd01::1]:80", "[fd02::2]:8080");
    apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
    let socket = lab.bind("0.0.0.0:0", "10.1.0.1:53");
    socket.send(b"question").unwrap();
    let mut answer = [0; 100];
    assert_eq!(socket.recv(&mut answer).unwrap(), 8);
    let mut stream = lab.connect("[fd01::1]:80").unwrap();
    assert!(echo(&mut stream, "six").unwrap().contains("fd02::1"));
    let mut seen: Vec<_> = flows(&mut engine).into_iter().map(|flow| (flow.rule, flow.state)).collect();
    seen.sort();
    let word = |rule: &str, state: &str| (rule.to_owned(), state.to_owned());
    assert_eq!(seen, [word("dns", "answered"), word("six", "established")]);
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn flows_and_counters_live_over_a_restart() {
    let lab = Lab::new();
    lab.serve(8080);
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    let mut stream = lab.connect("10.1.0.1:80").unwrap();
    echo(&mut stream, "before").unwrap();
    drop(engine);
    echo(&mut stream, "meanwhile").unwrap();
    let mut other = lab.connect("10.1.0.1:80").unwrap();
    echo(&mut other, "without a daemon").unwrap();

    // Another rule stands before it in the file now: ids do not follow from places.
    let (mut engine, _) = lab.engine();
    let file = rule("a", "tcp/10.1.0.1:81", "10.2.0.2:8081") + &web();
    let changed = apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
    assert_eq!((changed.added, changed.adopted), (1, true));
    echo(&mut stream, "after").unwrap();
    let snapshot = engine.observer().unwrap().observe().unwrap();
    assert_eq!((snapshot.rules["web"].live, snapshot.rules["web"].flows), (2, 2));
    assert_eq!((snapshot.rules["a"].live, snapshot.rules["a"].flows), (0, 0));
    assert!(flows(&mut engine).iter().all(|flow| flow.rule == "web"));

    // A rule that goes lets its flows end by themselves, and they keep its name; one that comes back has them again.
    apply(&lab.gateway, &mut engine, &plan(&rule("a", "tcp/10.1.0.1:81", "10.2.0.2:8081"))).unwrap();
    echo(&mut stream, "without a rule").unwrap();
    assert_eq!(flows(&mut engine).iter().filter(|flow| flow.rule == "web").count(), 2);
    assert!(lab.connect("10.1.0.1:80").is_err(), "nothing listens there");
    apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
    echo(&mut stream, "again").unwrap();
    assert_eq!(engine.observer().unwrap().observe().unwrap().rules["web"].flows, 2);
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn programs_are_replaced_under_traffic() {
    let lab = Lab::new();
    lab.serve(8080);
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut long = lab.connect("10.1.0.1:80").unwrap();
            while !done.load(SeqCst) {
                let mut short = lab.connect("10.1.0.1:80").expect("a new connection");
                echo(&mut short, "short").expect("a new connection is served");
                echo(&mut long, "long").expect("an old connection goes on");
                count.fetch_add(1, SeqCst);
            }
        });
        let mut last = attached(&lab.gateway, "lan");
        for attach in ["tc", "clsact", "tc", "tc", "clsact", "tc"] {
            drop(std::mem::replace(&mut engine, lab.engine().0));
            let file = web() + &format!("[ebpf]\nattach = '{attach}'\n");
            apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
            let now = attached(&lab.gateway, "lan");
            assert_ne!(now, last);
            last = now;
            let before = count.load(SeqCst);
            wait_for("traffic", || count.load(SeqCst) > before + 1);
        }
        done.store(true, SeqCst);
    });
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn flows_are_ended() {
    let lab = Lab::new();
    lab.serve(8080);
    let (mut engine, _) = lab.engine();
    let file = web() + &rule("dns", "udp/10.1.0.1:53", "10.2.0.2:8080");
    apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
    let mut kept = lab.connect("10.1.0.1:80").unwrap();
    let mut killed = lab.connect("10.1.0.1:80").unwrap();
    echo(&mut kept, "kept").unwrap();
    echo(&mut killed, "killed").unwrap();
    let port = killed.local_addr().unwrap().port();
    let filter =
        FlowFilter { rule: Some("web".to_owned()), client_port: Some(port), ..FlowFilter::default() };
    assert_eq!(engine.end_flows(&filter).unwrap(), 1);
    assert_eq!(engine.end_flows(&filter).unwrap(), 0, "it has ended");
    assert!(echo(&mut killed, "more").is_err());
    echo(&mut kept, "more").unwrap();
    assert_eq!(engine.observer().unwrap().observe().unwrap().rules["web"].live, 1);

    // UDP begins anew with the next datagram.
    let socket = lab.bind("0.0.0.0:0", "10.1.0.1:53");
    let mut answer = [0; 100];
    for _ in 0..2 {
        socket.send(b"question").unwrap();
        assert_eq!(socket.recv(&mut answer).unwrap(), 8);
        let udp = FlowFilter { protocol: Some("udp".to_owned()), ..FlowFilter::default() };
        assert_eq!(engine.end_flows(&udp).unwrap(), 1);
    }
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn a_pool_is_spread_and_adjusted() {
    let lab = Lab::new();
    lab.server.ip("address add 10.2.0.3/24 dev eth0");
    lab.serve(8080);
    let (mut engine, _) = lab.engine();
    let pool = |backends: &str| {
        plan(&format!(
            "[[rule]]\nname = 'web'\nengine = 'ebpf'\nlisten = '10.1.0.1:80'\n[rule.pool]\nbackends = [{backends}]\n"
        ))
    };
    let both = pool("'10.2.0.2:8080', '10.2.0.3:8080'");
    apply(&lab.gateway, &mut engine, &both).unwrap();
    let connect = |times: usize| {
        for _ in 0..times {
            echo(&mut lab.connect("10.1.0.1:80").unwrap(), "x").unwrap();
        }
    };
    connect(6);
    let members = |engine: &mut EbpfEngine| {
        let snapshot = engine.observer().unwrap().observe().unwrap();
        let flows = |target: &str| snapshot.members["web"][target].flows;
        (flows("10.2.0.2:8080"), flows("10.2.0.3:8080"))
    };
    assert_eq!(members(&mut engine), (3, 3));
    // The first goes down: it stays in the file, and so in the plan's targets.
    let mut one = both.clone();
    let rule = one.rules.values_mut().next().unwrap();
    rule.members.remove(0);
    rule.slots = vec![0];
    lab.gateway.within(|| engine.adjust(&Plan::diff(&both, &one))).unwrap();
    connect(4);
    assert_eq!(members(&mut engine), (3, 7));
    // None is left.
    let mut none = one.clone();
    let rule = none.rules.values_mut().next().unwrap();
    (rule.members, rule.slots) = (Vec::new(), Vec::new());
    lab.gateway.within(|| engine.adjust(&Plan::diff(&one, &none))).unwrap();
    assert!(lab.connect("10.1.0.1:80").is_err());
    lab.gateway.within(|| engine.adjust(&Plan::diff(&none, &both))).unwrap();
    connect(2);
    let (first, second) = members(&mut engine);
    assert_eq!(first + second, 12);
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn listeners_on_an_interface_and_on_all_addresses() {
    let lab = Lab::new();
    lab.serve(8080);
    let (mut engine, _) = lab.engine();
    let file =
        rule("lan", "tcp/lan:80", "10.2.0.2:8080") + &rule("any", "tcp/0.0.0.0:8000-8099", "10.2.0.2:8080");
    apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
    echo(&mut lab.connect("10.1.0.1:80").unwrap(), "x").unwrap();
    echo(&mut lab.connect("10.1.0.1:8050").unwrap(), "x").unwrap();
    // An address that comes later is this host's, too.
    lab.gateway.ip("address add 10.1.0.7/24 dev lan");
    wait_for("the new address", || lab.connect("10.1.0.7:80").is_ok());
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn all_ephemeral_ports_may_be_the_engines() {
    let lab = Lab::new();
    lab.serve(8080);
    lab.gateway.run("sysctl -qw net.ipv4.ip_local_reserved_ports=1024-65535");
    let (mut engine, log) = lab.engine();
    let file =
        web() + &rule("six", "tcp/[fd01::1]:80", "[fd02::2]:8080") + "[ebpf]\nsource-ports = '1024-65535'\n";
    apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
    echo(&mut lab.connect("10.1.0.1:80").unwrap(), "x").unwrap();
    echo(&mut lab.connect("[fd01::1]:80").unwrap(), "x").unwrap();
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn the_source_address_follows_the_route() {
    let lab = Lab::new();
    lab.serve(8080);
    let (mut engine, log) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    let source = || echo(&mut lab.connect("10.1.0.1:80").unwrap(), "x").unwrap();
    assert!(source().contains("10.2.0.1]:"));
    lab.gateway.ip("address add 10.2.0.9/24 dev wan");
    lab.gateway.ip("route replace 10.2.0.2/32 dev wan src 10.2.0.9");
    wait_for("the preferred address", || source().contains("10.2.0.9]:"));
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
    lab.gateway.ip("route replace unreachable 10.2.0.2/32");
    wait_for("the report", || log.lock().unwrap().iter().any(|line| line.contains("no route to 10.2.0.2")));
    lab.gateway.ip("route del unreachable 10.2.0.2/32");
    wait_for("the way back", || {
        log.lock().unwrap().iter().any(|line| line.contains("a route to 10.2.0.2 again"))
    });
    source();
    lab.gateway.within(|| engine.clear()).unwrap();
}

/// Validation refuses an address of this host, but a name may become one later, and the host may get one.
#[test]
fn a_backend_that_is_this_host_is_told_of() {
    let lab = Lab::new();
    lab.serve(8080);
    let (mut engine, log) = lab.engine();
    let here = "rule web: the backend 10.2.0.2 is this host";
    let said = |text: &str| log.lock().unwrap().iter().any(|line| line.contains(text));
    apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    assert_eq!(engine.notes(), [""; 0]);
    lab.gateway.ip("address add 10.2.0.2/32 dev lan");
    wait_for("the report", || said(here));
    assert!(engine.notes()[0].starts_with(&format!("ebpf: {here}")), "{:?}", engine.notes());
    lab.gateway.ip("address del 10.2.0.2/32 dev lan");
    wait_for("the way back", || said("10.2.0.2 is no longer this host"));
    assert_eq!(engine.notes(), [""; 0]);

    // As a name does: the members change, the host does not.
    let other = "rule web: the backend 10.2.0.1 is this host";
    assert!(!said(other));
    let before = plan(&web());
    let after = plan(&rule("web", "tcp/10.1.0.1:80", "10.2.0.1:8080"));
    let change = Change { changed: after.rules, ..Change::default() };
    assert_ne!(change.changed, before.rules);
    lab.gateway.within(|| engine.adjust(&change)).unwrap();
    assert!(said(other), "{log:?}");
    assert_eq!(engine.notes().len(), 1, "{:?}", engine.notes());
    lab.gateway.within(|| engine.clear()).unwrap();
}
