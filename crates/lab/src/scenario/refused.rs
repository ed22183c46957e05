//! What an engine does not claim is refused before anything is applied, naming the engine.

use crate::{Engine, Namespace, Portway, portway};

/// `portway check` and `portway run` both refuse a rule with these keys, and name the engine.
fn refuses(engine: Engine, keys: &str) {
    let host = Namespace::new("gateway");
    let file = engine.rule(keys);
    let complaint = portway::check(&host, &file).expect_err("check must refuse");
    assert!(complaint.contains(&engine.to_string()), "names the engine: {complaint}");
    let complaint = Portway::try_start(&host, &file).map(|_| ()).expect_err("run must refuse");
    assert!(complaint.contains(&engine.to_string()), "names the engine: {complaint}");
    assert!(!host.run("nft list ruleset").contains("portway"), "nothing is left behind");
}

/// Listener and backend of different families.
pub fn crossing_families(engine: Engine) {
    refuses(engine, "listen = '[::]:8000'\nforward = '10.2.0.10:80'");
}

/// A backend on the IPv6 loopback, which the kernel delivers to local senders only.
pub fn loopback_v6(engine: Engine) {
    refuses(engine, "listen = '[::]:8000'\nforward = '[::1]:7000'");
}

/// A bound on connections.
pub fn connection_limit(engine: Engine) {
    refuses(engine, "listen = '0.0.0.0:8000'\nforward = '10.2.0.10:80'\nmax-connections = 3");
}

/// Clocks of the rule's own.
pub fn timeouts(engine: Engine) {
    refuses(engine, "listen = '0.0.0.0:8000'\nforward = '10.2.0.10:80'\ntimeouts = { idle = '5m' }");
}

/// The client's own address towards the backend.
pub fn preserve(engine: Engine) {
    refuses(engine, "listen = '0.0.0.0:8000'\nforward = '10.2.0.10:80'\nsource = 'preserve'");
}

/// Conntrack helpers.
pub fn helper(engine: Engine) {
    refuses(engine, "listen = '0.0.0.0:21'\nforward = '10.2.0.10:21'\nhelper = 'ftp'");
}
