//! The engine comes, is found again, and goes without a trace.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use portway_core::engine::Engine;
use support::{Lab, apply, attached, pins, plan, rule};

#[test]
fn clear_leaves_no_trace() {
    let lab = Lab::new();
    let (mut engine, log) = lab.engine();
    let changed =
        apply(&lab.gateway, &mut engine, &plan(&rule("web", "tcp/10.1.0.1:80", "10.2.0.2:80"))).unwrap();
    assert_eq!((changed.added, changed.removed, changed.adopted), (1, 0, false));
    assert_eq!((attached(&lab.gateway, "lan").len(), attached(&lab.gateway, "wan").len()), (1, 1));
    assert!(pins(&lab.gateway).join("maps/records").exists());
    lab.gateway.within(|| engine.clear()).unwrap();
    assert_eq!((attached(&lab.gateway, "lan").len(), attached(&lab.gateway, "wan").len()), (0, 0));
    assert!(!pins(&lab.gateway).exists());
    assert!(log.lock().unwrap().is_empty(), "{log:?}");
}
