//! XDP: attached where it is asked for, beside TC, and given up where somebody else's program is.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use portway_core::engine::Engine;
use portway_datapath::abi::port_flags;
use support::{Lab, apply, attached, echo, index, pins, plan, rule, wait_for};

fn web(attach: &str) -> String {
    rule("web", "tcp/10.1.0.1:80", "10.2.0.2:8080") + &format!("[ebpf]\nattach = '{attach}'\n")
}

/// The kernel's number of an interface's XDP program.
fn xdp(lab: &Lab, interface: &str) -> Option<u32> {
    let line = lab.gateway.ip(&format!("-o -d link show dev {interface}"));
    let (_, rest) = line.split_once("prog/xdp id ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Checksums that are left to the hardware are not finished when XDP sends a packet on.
fn finish_checksums(lab: &Lab) {
    for end in [&lab.client, &lab.server] {
        end.run("ethtool -K eth0 tx off");
    }
}

#[test]
fn xdp_is_attached_beside_tc_and_goes_again() {
    let lab = Lab::new();
    lab.serve(8080);
    finish_checksums(&lab);
    let (mut engine, log) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web("auto"))).unwrap();
    assert_eq!(xdp(&lab, "lan"), None, "of a virtual device it would take away offloads");
    apply(&lab.gateway, &mut engine, &plan(&web("xdp"))).unwrap();
    let before = (xdp(&lab, "lan").unwrap(), attached(&lab.gateway, "lan"));
    assert_eq!(before.1.len(), 1);
    echo(&mut lab.connect("10.1.0.1:80").unwrap(), "x").unwrap();
    drop(engine);
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web("xdp"))).unwrap();
    assert_ne!(xdp(&lab, "lan").unwrap(), before.0, "replaced");
    echo(&mut lab.connect("10.1.0.1:80").unwrap(), "x").unwrap();
    apply(&lab.gateway, &mut engine, &plan(&web("tc"))).unwrap();
    assert_eq!(xdp(&lab, "lan"), None);
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
    apply(&lab.gateway, &mut engine, &plan(&web("xdp"))).unwrap();
    lab.gateway.within(|| engine.clear()).unwrap();
    assert_eq!((xdp(&lab, "lan"), attached(&lab.gateway, "lan").len()), (None, 0));
}

#[test]
fn what_the_other_end_of_a_veth_takes_is_followed() {
    let lab = Lab::new();
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web("xdp"))).unwrap();
    let wan = index(&lab.gateway, "wan");
    let flags = || lab.gateway.within(|| portway_ebpf::trial::port(wan)).unwrap().unwrap().flags;
    assert_eq!(flags() & port_flags::ETHERNET, port_flags::ETHERNET);
    for (state, takes) in [("on", port_flags::XDP), ("off", 0), ("on", port_flags::XDP)] {
        lab.server.run(&format!("ethtool -K eth0 gro {state}"));
        wait_for("the flag", || flags() & port_flags::XDP == takes);
    }
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn an_xdp_program_of_somebody_else_stays_and_tc_does_all_of_it() {
    let lab = Lab::new();
    lab.serve(8080);
    finish_checksums(&lab);
    let lan = index(&lab.gateway, "lan");
    let _theirs = lab.gateway.within(|| portway_ebpf::trial::xdp_bystander(lan)).unwrap();
    let before = xdp(&lab, "lan").unwrap();
    let (mut engine, log) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&web("xdp"))).unwrap();
    assert_eq!(xdp(&lab, "lan"), Some(before));
    assert!(xdp(&lab, "wan").is_some());
    assert!(log.lock().unwrap().iter().any(|line| line.contains("lan") && line.contains("XDP")), "{log:?}");
    echo(&mut lab.connect("10.1.0.1:80").unwrap(), "x").unwrap();
    lab.gateway.within(|| engine.clear()).unwrap();
    assert_eq!(xdp(&lab, "lan"), Some(before));
}

/// Larger maps are in force on all interfaces or on none: here one refuses the program at XDP, where somebody else's hangs by
/// now, after another has got its new ones.
#[test]
fn a_growth_that_an_interface_refuses_changes_nothing() {
    let lab = Lab::new();
    let _server = lab.serve(8080);
    finish_checksums(&lab);
    let (lan, wan) = (index(&lab.gateway, "lan"), index(&lab.gateway, "wan"));
    assert!(lan < wan, "interfaces are gone through by their indices");
    let many = |count: usize| {
        let each = |nth| rule(&format!("r{nth}"), &format!("tcp/10.1.0.1:{}", 1000 + nth), "10.2.0.2:8080");
        plan(&((0..count).map(each).collect::<String>() + "[ebpf]\nattach = 'xdp'\n"))
    };
    let (mut engine, log) = lab.engine();
    apply(&lab.gateway, &mut engine, &many(1)).unwrap();
    let mut held = lab.connect("10.1.0.1:1000").unwrap();
    echo(&mut held, "x").unwrap();
    std::fs::remove_file(pins(&lab.gateway).join(format!("links/{wan}-xdp"))).unwrap();
    wait_for("the program to go", || xdp(&lab, "wan").is_none());
    let theirs = lab.gateway.within(|| portway_ebpf::trial::xdp_bystander(wan)).unwrap();
    let programs = || {
        let at_tc = ["lan", "wan"].map(|device| attached(&lab.gateway, device));
        (at_tc, xdp(&lab, "lan"), xdp(&lab, "wan"))
    };
    let before = programs();
    let refused = apply(&lab.gateway, &mut engine, &many(10_000)).unwrap_err();
    assert!(refused.to_string().contains("XDP"), "{refused}");
    assert_eq!(programs(), before);
    assert!(!pins(&lab.gateway).join("next").exists() && log.lock().unwrap().len() == 1, "{log:?}");
    assert_eq!(lab.gateway.within(|| engine.verify(&many(1))).unwrap(), Vec::<String>::new());
    // The old flow and a new one go on, and both are counted where they were.
    echo(&mut held, "x").unwrap();
    echo(&mut lab.connect("10.1.0.1:1000").unwrap(), "x").unwrap();
    let snapshot = lab.gateway.within(|| engine.observer().unwrap().observe().unwrap());
    assert_eq!(snapshot.rules["r0"].flows, 2);
    drop(theirs);
    apply(&lab.gateway, &mut engine, &many(10_000)).unwrap();
    echo(&mut held, "x").unwrap();
    assert!(programs().0 != before.0 && xdp(&lab, "wan").is_some());
    lab.gateway.within(|| engine.clear()).unwrap();
}

/// A switch that does not know where somebody is floods his frames, and who listens to everything gets them: the gateway must not
/// be a second one that carries them.
#[test]
fn frames_to_other_link_addresses_are_not_carried() {
    for attach in ["tc", "xdp"] {
        let lab = Lab::new();
        let _server = lab.serve(5353);
        finish_checksums(&lab);
        for end in [&lab.client, &lab.server] {
            end.run("ethtool -K eth0 gro on");
        }
        lab.gateway.ip("link set lan promisc on");
        let (mut engine, _) = lab.engine();
        let file =
            rule("dns", "udp/10.1.0.1:53", "10.2.0.2:5353") + &format!("[ebpf]\nattach = '{attach}'\n");
        apply(&lab.gateway, &mut engine, &plan(&file)).unwrap();
        let mut figures = || {
            let snapshot = lab.gateway.within(|| engine.observer().unwrap().observe().unwrap());
            snapshot.rules["dns"]
        };
        let socket = lab.bind("10.1.0.2:0", "10.1.0.1:53");
        let ask = |word: &[u8]| {
            socket.send(word).unwrap();
            let mut bytes = [0; 100];
            socket.recv(&mut bytes).map(|length| bytes[..length].to_vec())
        };
        for _ in 0..3 {
            assert_eq!(ask(b"here").unwrap(), b"here");
        }
        let before = figures();
        let right = lab.gateway.run("cat /sys/class/net/lan/address");
        let neighbour = |link: &str| {
            lab.client.ip(&format!("neighbour replace 10.1.0.1 lladdr {link} dev eth0 nud permanent"));
        };
        neighbour("02:09:09:09:09:09");
        socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        let answer = ask(b"elsewhere");
        assert!(answer.is_err(), "{attach}: answered: {answer:?}");
        assert_eq!(figures(), before, "{attach}: counted");
        neighbour(right.trim());
        socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
        assert_eq!(ask(b"here").unwrap(), b"here", "{attach}");
        lab.gateway.within(|| engine.clear()).unwrap();
    }
}
