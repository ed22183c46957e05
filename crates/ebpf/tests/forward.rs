//! Traffic through the engine: connections carried, counted, listed, ended; over restarts and program replacements.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use portway_core::engine::Engine;
use portway_core::flow::FlowFilter;
use support::{Lab, apply, echo, plan, rule};

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
