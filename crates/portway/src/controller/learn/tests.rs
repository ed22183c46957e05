//! What is learned, on engines that only write down what they were asked.

use std::rc::Rc;

use portway_core::facts::Admin;

use super::*;
use crate::controller::fake::{Fakes, Script, controller, of_file};

const FILE: &str = "
    [[rule]]
    name = 'web'
    listen = 'tcp+udp/192.0.2.1:80'
    [rule.pool]
    backends = ['10.0.0.1:80', '10.0.0.2:80']
    check = 'tcp'
    ON_DOWN
    [[rule]]
    name = 'mail'
    listen = '192.0.2.1:25'
    engine = 'proxy'
    [rule.pool]
    backends = ['10.0.0.1:80', '10.0.0.3:80']
    balance = 'least-connections'
    check = 'tcp'
    [[rule]]
    name = 'fast'
    listen = '192.0.2.1:443'
    engine = 'ebpf'
    [rule.pool]
    backends = ['10.0.0.4:80', '10.0.0.5:80']
    check = 'tcp'
    [[rule]]
    name = 'named'
    listen = '192.0.2.1:90'
    forward = 'app.example:90'
";

const SECOND: Moment = Moment::from_secs(1);

fn applied(on_down: &str) -> (Fakes, Rc<Script>) {
    let script = Rc::<Script>::default();
    let mut controller = controller(&script);
    controller.apply(of_file(&FILE.replace("ON_DOWN", on_down)), Moment::ZERO).unwrap();
    script.calls.borrow_mut().clear();
    (controller, script)
}

fn verdict(controller: &Fakes, address: &str, up: bool, since: Moment) -> News {
    let address = address.parse().unwrap();
    let probe = controller.concern().probes().into_iter().find(|probe| probe.address == address);
    let health = Health { up, since, recovered: false, reason: String::new() };
    News::Health(probe.expect("the address is checked"), health)
}

fn order(rule: &str, backend: &str, admin: Option<Admin>) -> News {
    let order = admin.map(|admin| Order { admin: Some(admin), ..Order::default() });
    News::Order(RuleName::new(rule).unwrap(), BackendName::new(backend).unwrap(), order)
}

fn calls(script: &Script) -> Vec<String> {
    std::mem::take(&mut script.calls.borrow_mut())
}

/// On every engine: a flow may be on any, for its rule may have moved.
fn ends(backend: &str) -> Vec<String> {
    ["nftables", "ebpf", "proxy"].map(|engine| format!("{engine} end {backend}")).to_vec()
}

/// Every engine is brought to the whole plan.
const WHOLE: [&str; 7] = [
    "nftables prepare",
    "nftables commit",
    "ebpf prepare",
    "ebpf commit",
    "proxy prepare",
    "proxy commit",
    "ebpf retire",
];

#[test]
fn a_verdict_reaches_the_engines_of_its_rules_and_then_ends_flows() {
    let (mut controller, script) = applied("");
    let down = verdict(&controller, "10.0.0.1:80", false, SECOND);
    controller.learn(vec![down.clone()], SECOND).unwrap();
    // One probe, two rules: each engine is changed before a flow is ended. Only one of the rules has UDP flows.
    let changed = ["nftables adjust", "proxy adjust"].map(str::to_owned);
    assert_eq!(calls(&script), [&changed[..], &ends("10.0.0.1:80 udp")].concat());
    // The same verdict again, and one that concerns one rule only.
    controller.learn(vec![down], SECOND).unwrap();
    assert_eq!(calls(&script), [""; 0]);
    let down = verdict(&controller, "10.0.0.3:80", false, SECOND);
    controller.learn(vec![down], SECOND).unwrap();
    assert_eq!(calls(&script), ["proxy adjust"]);
    let down = verdict(&controller, "10.0.0.5:80", false, SECOND);
    controller.learn(vec![down], SECOND).unwrap();
    assert_eq!(calls(&script), ["ebpf adjust"]);
}

#[test]
fn a_backend_that_comes_back_ends_nothing() {
    let (mut controller, script) = applied("on-down = 'reset'");
    let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
    controller.learn(vec![down], SECOND).unwrap();
    assert_eq!(calls(&script), [&["nftables adjust".to_owned()], &ends("10.0.0.2:80")[..]].concat());
    let up = verdict(&controller, "10.0.0.2:80", true, 2 * SECOND);
    controller.learn(vec![up], 2 * SECOND).unwrap();
    assert_eq!(calls(&script), ["nftables adjust"]);
}

#[test]
fn draining_flows_are_ended_when_their_time_is_over_unless_the_backend_is_back() {
    for back in [false, true] {
        let (mut controller, script) = applied("on-down = 'drain'\ndrain-timeout = '5s'");
        let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
        controller.learn(vec![down], SECOND).unwrap();
        assert_eq!(controller.due(), Some(6 * SECOND));
        if back {
            let up = verdict(&controller, "10.0.0.2:80", true, 3 * SECOND);
            controller.learn(vec![up], 3 * SECOND).unwrap();
        }
        calls(&script);
        controller.tick(5 * SECOND).unwrap();
        assert_eq!(calls(&script), [""; 0]);
        controller.tick(6 * SECOND).unwrap();
        let ended = ends("10.0.0.2:80 tcp");
        assert_eq!(calls(&script), if back { Vec::new() } else { ended });
        assert_eq!(controller.due(), None);
    }
}

#[test]
fn drain_ends_nothing_and_disable_is_down() {
    let (mut controller, script) = applied("on-down = 'reset'");
    controller.learn(vec![order("web", "10.0.0.1:80", Some(Admin::Drain))], SECOND).unwrap();
    assert_eq!(calls(&script), ["nftables adjust"]);
    controller.learn(vec![order("web", "10.0.0.1:80", Some(Admin::Disable))], SECOND).unwrap();
    // Drained before, so nothing of the plan changes; what is left of its flows goes.
    assert_eq!(calls(&script), ends("10.0.0.1:80"));
    controller.learn(vec![order("web", "10.0.0.1:80", None)], SECOND).unwrap();
    assert_eq!(calls(&script), ["nftables adjust"]);
}

#[test]
fn orders_outlive_a_reload_as_long_as_their_backend_does() {
    let (mut controller, _script) = applied("");
    controller.learn(vec![order("web", "10.0.0.1:80", Some(Admin::Drain))], SECOND).unwrap();
    controller.apply(of_file(&FILE.replace("ON_DOWN", "persist = '1m'")), SECOND).unwrap();
    assert_eq!(controller.facts().orders.len(), 1);
    let without = FILE.replace("ON_DOWN", "").replacen("'10.0.0.1:80', ", "", 1);
    controller.apply(of_file(&without), SECOND).unwrap();
    assert_eq!(controller.facts().orders.len(), 0);
}

#[test]
fn an_answer_is_put_in_force_and_what_it_names_is_watched() {
    let checked =
        FILE.replace("forward = 'app.example:90'", "forward = 'app.example:90'\n[rule.pool]\ncheck = 'tcp'");
    let script = Rc::<Script>::default();
    let mut controller = controller(&script);
    controller.apply(of_file(&checked.replace("ON_DOWN", "")), Moment::ZERO).unwrap();
    calls(&script);
    let lookup = Lookup::Addresses("app.example".to_owned());
    assert!(controller.concern().has_lookup(&lookup));
    let before = controller.concern().probes().len();
    let answer = ["10.9.0.1", "10.9.0.2"].map(|address| portway_core::facts::Resolved {
        address: address.parse().unwrap(),
        port: None,
        weight: 0,
        priority: 0,
    });
    controller.learn(vec![News::Names(lookup, answer.to_vec())], SECOND).unwrap();
    assert_eq!(calls(&script), ["nftables adjust"]);
    assert_eq!(controller.concern().probes().len(), before + 2);
    let down = verdict(&controller, "10.9.0.2:90", false, SECOND);
    controller.learn(vec![down], SECOND).unwrap();
    assert_eq!(calls(&script)[0], "nftables adjust");
}

#[test]
fn an_engine_that_cannot_gets_the_whole_plan_and_is_asked_again() {
    let (mut controller, script) = applied("");
    script.fails.replace(vec!["nftables adjust"]);
    let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
    controller.learn(vec![down], SECOND).unwrap();
    assert_eq!(calls(&script)[..8], [&["nftables adjust"], &WHOLE[..]].concat());
    assert_eq!(controller.due(), None);
}

/// What a change asks for is not lost with an engine that cannot carry it out.
#[test]
fn flows_are_ended_once_the_engine_has_followed() {
    let (mut controller, script) = applied("on-down = 'reset'");
    script.fails.replace(vec!["nftables adjust", "nftables prepare"]);
    let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
    controller.learn(vec![down], SECOND).unwrap_err();
    assert_eq!(calls(&script), ["nftables adjust", "nftables prepare"]);
    assert_eq!(controller.due(), Some(2 * SECOND));
    controller.tick(2 * SECOND).unwrap();
    assert_eq!(calls(&script), [&WHOLE.map(str::to_owned)[..], &ends("10.0.0.2:80")].concat());
    assert_eq!(controller.due(), None);
}

#[test]
fn flows_that_could_not_be_ended_are_tried_again_until_their_backend_is_back() {
    for back in [false, true] {
        let (mut controller, script) = applied("on-down = 'reset'");
        script.fails.replace(vec!["nftables end 10.0.0.2:80"]);
        let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
        controller.learn(vec![down], SECOND).unwrap_err();
        assert_eq!(controller.due(), Some(2 * SECOND));
        if back {
            let up = verdict(&controller, "10.0.0.2:80", true, SECOND);
            controller.learn(vec![up], SECOND).unwrap();
        }
        calls(&script);
        controller.tick(2 * SECOND).unwrap();
        assert_eq!(calls(&script), if back { Vec::new() } else { ends("10.0.0.2:80") });
        assert_eq!(controller.due(), None);
    }
}

/// Its verdict was the old check's. Without one it counts as up, and its clients may not be cut off.
#[test]
fn a_drain_is_over_when_a_reload_makes_its_backend_count_as_up() {
    for (file, ends_left) in [("check = 'tcp'", true), ("check = { type = 'tcp', fall = 5 }", false)] {
        let on_down = "on-down = 'drain'\ndrain-timeout = '5s'";
        let (mut controller, script) = applied(on_down);
        let down = verdict(&controller, "10.0.0.2:80", false, SECOND);
        controller.learn(vec![down], SECOND).unwrap();
        let text = FILE.replacen("check = 'tcp'", file, 1).replace("ON_DOWN", on_down);
        controller.apply(of_file(&text), 2 * SECOND).unwrap();
        calls(&script);
        controller.tick(6 * SECOND).unwrap();
        let ended = ends("10.0.0.2:80 tcp");
        assert_eq!(calls(&script), if ends_left { ended } else { Vec::new() }, "{file}");
    }
}

/// What is planned is what the facts say: an order whose backend has gone holds nowhere.
#[test]
fn an_order_that_a_reload_forgets_is_not_planned() {
    let (mut controller, _script) = applied("");
    controller.learn(vec![order("web", "10.0.0.1:80", Some(Admin::Drain))], SECOND).unwrap();
    let renamed =
        FILE.replacen("['10.0.0.1:80'", "[{ address = '10.0.0.1:80', name = 'a' }", 1).replace("ON_DOWN", "");
    controller.apply(of_file(&renamed), SECOND).unwrap();
    assert_eq!(controller.facts().orders.len(), 0);
    let applied = controller.applied().unwrap();
    let world = Applied::world(&applied.candidate, controller.facts(), SECOND);
    assert_eq!(applied.plans, portway_core::plan::Plans::new(world, &applied.plans.ids));
}

#[test]
fn verdicts_on_addresses_that_a_name_has_left_are_forgotten() {
    let file = FILE
        .replace("forward = 'app.example:90'", "forward = 'app.example:90'\n[rule.pool]\ncheck = 'tcp'")
        .replace("ON_DOWN", "");
    let script = Rc::<Script>::default();
    let mut controller = controller(&script);
    controller.apply(of_file(&file), Moment::ZERO).unwrap();
    for nth in 1..=5 {
        let address = format!("10.9.0.{nth}");
        let answer = portway_core::facts::Resolved {
            address: address.parse().unwrap(),
            port: None,
            weight: 0,
            priority: 0,
        };
        let lookup = Lookup::Addresses("app.example".to_owned());
        controller.learn(vec![News::Names(lookup, vec![answer])], SECOND).unwrap();
        let down = verdict(&controller, &format!("{address}:90"), false, SECOND);
        controller.learn(vec![down], SECOND).unwrap();
        assert_eq!(controller.facts().health.len(), 1, "{address}");
    }
}
