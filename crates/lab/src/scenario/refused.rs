//! What an engine does not claim is refused before anything is applied, naming the engine.

use crate::engine::pool_table;
use crate::{Engine, Namespace, Portway, portway};

/// `portway check` and `portway run` both refuse a rule with these keys, and name the engine.
fn refuses(engine: Engine, keys: &str) {
    let _ = complaint(engine, keys);
}

/// The same, and they name what the engine cannot do; `auto` takes the proxy for it, and names it as the reason.
fn refuses_pool(engine: Engine, settings: &str, named: &str) {
    let backends = ["'10.2.0.10:80'".to_owned(), "{ address = '10.2.0.11:80', weight = 2 }".to_owned()];
    refuses_backends(engine, &backends, settings, named);
}

fn refuses_backends(engine: Engine, backends: &[String], settings: &str, named: &str) {
    let keys = format!("name = 'pool'\nlisten = '0.0.0.0:8000'\n{}", pool_table(backends, settings));
    let said = complaint(engine, &keys);
    assert!(said.contains(named), "names {named:?}: {said}");
    let host = Namespace::new("gateway");
    let portway = Portway::start(&host, &format!("[[rule]]\n{keys}"));
    assert_eq!(portway.word("pool", "engine"), "proxy", "auto takes an engine that can");
    let reason = portway.word("pool", "reason");
    assert!(reason.contains(named), "names {named:?}: {reason}");
}

fn complaint(engine: Engine, keys: &str) -> String {
    let host = Namespace::new("gateway");
    let file = engine.rule(keys);
    let complaint = portway::check(&host, &file).expect_err("check must refuse");
    assert!(complaint.contains(&engine.to_string()), "names the engine: {complaint}");
    let complaint = Portway::try_start(&host, &file).map(|_| ()).expect_err("run must refuse");
    assert!(complaint.contains(&engine.to_string()), "names the engine: {complaint}");
    assert!(!host.run("nft list ruleset").contains("portway"), "nothing is left behind");
    complaint
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

/// Least connections: nf_tables counts no live flows of a backend.
pub fn least_connections(engine: Engine) {
    refuses_pool(engine, "balance = 'least-connections'", "least-connections");
}

/// Two random choices, which compare live flows too.
pub fn random(engine: Engine) {
    refuses_pool(engine, "balance = 'random'", "random");
}

/// The server name, which comes after the connection is made.
pub fn sni(engine: Engine) {
    refuses_pool(engine, "balance = 'consistent-hash'\nhash = 'sni'", "sni");
}

/// A backend's own bound on connections.
pub fn backend_limit(engine: Engine) {
    let backend = "{ address = '10.2.0.10:80', max-connections = 3 }".to_owned();
    refuses_backends(engine, &[backend], "", "max-connections");
}

/// Passive checks: nobody is in the middle to see a failure.
pub fn passive(engine: Engine) {
    refuses_pool(engine, "passive = { max-fails = 5 }", "passive");
}

/// Retries, where they are asked for.
pub fn retries(engine: Engine) {
    refuses_pool(engine, "retries = 1", "retries");
}

/// Backends of both families.
pub fn both_families(engine: Engine) {
    let backends = ["'10.2.0.10:80'".to_owned(), "'[fd02::11]:80'".to_owned()];
    refuses_backends(engine, &backends, "", "both families");
}
