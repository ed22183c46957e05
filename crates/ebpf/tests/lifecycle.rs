//! The engine comes, is found again, and goes without a trace.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use portway_core::engine::Engine;
use support::{Lab, apply, attached, index, pins, plan, rule, wait_for};

fn web() -> String {
    rule("web", "tcp/10.1.0.1:80", "10.2.0.2:80")
}

#[test]
fn clear_leaves_no_trace() {
    let lab = Lab::new();
    let (mut engine, log) = lab.engine();
    let changed = apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    assert_eq!((changed.added, changed.removed, changed.adopted), (1, 0, false));
    assert_eq!((attached(&lab.gateway, "lan").len(), attached(&lab.gateway, "wan").len()), (1, 1));
    assert!(pins(&lab.gateway).join("maps/records").exists());
    lab.gateway.within(|| engine.clear()).unwrap();
    assert_eq!((attached(&lab.gateway, "lan").len(), attached(&lab.gateway, "wan").len()), (0, 0));
    assert!(!pins(&lab.gateway).exists());
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
}

#[test]
fn without_rules_and_after_an_abort_there_is_nothing() {
    let lab = Lab::new();
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan("")).unwrap();
    assert!(!pins(&lab.gateway).exists());
    lab.gateway.within(|| engine.prepare(&plan(&web()))).unwrap();
    assert!(attached(&lab.gateway, "lan").is_empty(), "prepare attaches nothing");
    engine.abort();
    assert!(!pins(&lab.gateway).exists());
}

/// Maps that cannot be taken over are another version's, and its programs carry on until a plan is committed.
#[test]
fn an_abort_leaves_what_another_version_attached() {
    let lab = Lab::new();
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    let before = attached(&lab.gateway, "lan");
    drop(engine);
    let map = std::fs::read_dir(pins(&lab.gateway).join("maps")).unwrap().next().unwrap().unwrap();
    std::fs::remove_file(map.path()).unwrap();
    let (mut engine, log) = lab.engine();
    lab.gateway.within(|| engine.prepare(&plan(&web()))).unwrap();
    engine.abort();
    assert_eq!(log.lock().unwrap().len(), 1, "{log:?}");
    assert_eq!(attached(&lab.gateway, "lan"), before);
    lab.gateway.within(|| engine.clear()).unwrap();
    assert!(attached(&lab.gateway, "lan").is_empty() && !pins(&lab.gateway).exists());
}

#[test]
fn when_the_last_rule_has_gone_nothing_stays_but_what_carries_flows() {
    let lab = Lab::new();
    let server = lab.server.within(|| std::net::TcpListener::bind("10.2.0.2:80")).unwrap();
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    let client = lab.client.within(|| std::net::TcpStream::connect("10.1.0.1:80")).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    apply(&lab.gateway, &mut engine, &plan("")).unwrap();
    assert!(!attached(&lab.gateway, "lan").is_empty(), "a connection is carried still");
    std::io::Write::write_all(&mut accepted, b"on").unwrap();
    let mut bytes = [0; 2];
    std::io::Read::read_exact(&mut &client, &mut bytes).unwrap();
    drop((client, accepted));
    wait_for("the end of the flow", || {
        apply(&lab.gateway, &mut engine, &plan("")).unwrap();
        !pins(&lab.gateway).exists()
    });
    assert!(attached(&lab.gateway, "lan").is_empty());
    // And from there it begins anew.
    let changed = apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    assert_eq!((changed.added, changed.adopted), (1, false));
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn a_restart_takes_over_and_replaces_the_programs() {
    let lab = Lab::new();
    let file = web() + &rule("dns", "udp/10.1.0.1:53-59", "10.2.0.2");
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
    let before = attached(&lab.gateway, "lan");
    drop(engine);
    assert_eq!(attached(&lab.gateway, "lan"), before, "programs outlive the daemon");

    let (mut engine, log) = lab.engine();
    let changed = apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
    assert_eq!((changed.added, changed.removed, changed.adopted), (0, 0, true));
    let after = attached(&lab.gateway, "lan");
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
    assert_eq!(lab.gateway.within(|| engine.verify(&plan(&file))).unwrap(), Vec::<String>::new());
    // Less than there was, and the difference goes.
    let changed = apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    assert_eq!((changed.added, changed.removed, changed.adopted), (0, 3, false));
    assert_eq!(lab.gateway.within(|| engine.verify(&plan(&web()))).unwrap(), Vec::<String>::new());
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn what_a_stopped_daemon_left_is_cleared_by_another() {
    let lab = Lab::new();
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    drop(engine);
    let (mut engine, _) = lab.engine();
    lab.gateway.within(|| engine.clear()).unwrap();
    assert!(attached(&lab.gateway, "lan").is_empty() && !pins(&lab.gateway).exists());
}

#[test]
fn interfaces_come_and_go() {
    let lab = Lab::new();
    let (mut engine, log) = lab.engine();
    let file = web() + &rule("late", "tcp/late:80", "10.2.0.2:80");
    apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
    lab.gateway.ip("link add late type veth peer name other");
    let late = index(&lab.gateway, "late");
    assert!(attached(&lab.gateway, "late").is_empty(), "it is down");
    lab.gateway.ip("link set late up");
    wait_for("a program on the new interface", || attached(&lab.gateway, "late").len() == 1);
    let pin = pins(&lab.gateway).join(format!("links/{late}-tcx"));
    wait_for("its pin", || pin.exists());
    wait_for("its listener", || lab.gateway.within(|| engine.verify(&plan(&file))).unwrap().is_empty());
    lab.gateway.ip("link set late down");
    wait_for("the program to go", || attached(&lab.gateway, "late").is_empty());
    lab.gateway.ip("link set late up");
    wait_for("the program to come again", || attached(&lab.gateway, "late").len() == 1);
    lab.gateway.ip("link del late");
    wait_for("the pin to go", || !pin.exists());
    // Ports of a bridge are the bridge's business.
    lab.gateway.ip("link add br0 type bridge");
    lab.gateway.ip("link add port0 type veth peer name other0");
    lab.gateway.ip("link set br0 up");
    lab.gateway.ip("link set port0 up");
    wait_for("both", || attached(&lab.gateway, "br0").len() + attached(&lab.gateway, "port0").len() == 2);
    lab.gateway.ip("link set port0 master br0");
    wait_for("the port to be left", || attached(&lab.gateway, "port0").is_empty());
    assert_eq!(attached(&lab.gateway, "br0").len(), 1);
    assert_eq!(lab.gateway.within(|| engine.verify(&plan(&file))).unwrap(), Vec::<String>::new());
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn programs_of_others_stay_where_they_are() {
    let lab = Lab::new();
    let lan = index(&lab.gateway, "lan");
    let _theirs = lab.gateway.within(|| portway_ebpf::trial::bystander(lan)).unwrap();
    let before = attached(&lab.gateway, "lan");
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web())).unwrap();
    let both = attached(&lab.gateway, "lan");
    assert_eq!((both.len(), both[0]), (2, before[0]), "ours runs behind what was there");
    let _later = lab.gateway.within(|| portway_ebpf::trial::bystander(lan)).unwrap();
    apply(&lab.gateway, &mut engine, &plan(&(web() + "[ebpf]\ninterfaces = ['wan']\n"))).unwrap();
    let left = attached(&lab.gateway, "lan");
    assert_eq!((left.len(), left[0]), (2, before[0]));
    lab.gateway.within(|| engine.clear()).unwrap();
    assert_eq!(attached(&lab.gateway, "lan"), left);
}

#[test]
fn clsact_that_is_not_ours_stays() {
    let clsact = |file: String| plan(&(file + "[ebpf]\nattach = 'clsact'\n"));
    let has_qdisc =
        |lab: &Lab, device: &str| lab.gateway.run(&format!("tc qdisc show dev {device}")).contains("clsact");
    let filters = |lab: &Lab, device: &str| lab.gateway.run(&format!("tc filter show dev {device} ingress"));
    let lab = Lab::new();
    // On `lan` there is one, with a filter; on `wan` ours gets a filter of somebody else's.
    let foreign = |device: &str| {
        // Classic BPF: one instruction, that nothing matches.
        let words =
            ["tc", "filter", "add", "dev", device, "ingress", "pref", "7", "bpf", "bytecode", "1,6 0 0 0,"];
        lab.gateway.run_words(&words);
    };
    lab.gateway.run("tc qdisc add dev lan clsact");
    foreign("lan");
    lab.gateway.ip("link add mine type veth peer name others");
    lab.gateway.ip("link set mine up");
    let (mut engine, log) = lab.engine();
    apply(&lab.gateway, &mut engine, &clsact(web())).unwrap();
    for device in ["lan", "wan", "mine"] {
        assert_eq!(filters(&lab, device).matches("portway").count(), 1, "{}", filters(&lab, device));
    }
    foreign("wan");
    drop(engine);
    let (mut engine, _) = lab.engine();
    assert!(apply(&lab.gateway, &mut engine, &clsact(web())).unwrap().adopted);
    assert_eq!(filters(&lab, "wan").matches("portway").count(), 1, "replaced, not added to");
    lab.gateway.within(|| engine.clear()).unwrap();
    for (device, stays) in [("lan", true), ("wan", true), ("mine", false)] {
        assert!(!filters(&lab, device).contains("portway"));
        assert_eq!(has_qdisc(&lab, device), stays, "{device}");
    }
    for device in ["lan", "wan"] {
        assert!(filters(&lab, device).contains("pref 7"), "{}", filters(&lab, device));
    }
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
}

#[test]
fn attach_changes_on_reload() {
    let lab = Lab::new();
    let (mut engine, _) = lab.engine();
    let filter = || lab.gateway.run("tc filter show dev lan ingress").matches("portway").count();
    for (attach, tcx, clsact) in [("tc", 1, 0), ("clsact", 0, 1), ("auto", 1, 0)] {
        apply(&lab.gateway, &mut engine, &plan(&(web() + &format!("[ebpf]\nattach = '{attach}'\n"))))
            .unwrap();
        assert_eq!((attached(&lab.gateway, "lan").len(), filter()), (tcx, clsact), "{attach}");
    }
    assert!(!lab.gateway.run("tc qdisc show dev lan").contains("clsact"));
    lab.gateway.within(|| engine.clear()).unwrap();
}
