//! What an engine does not claim is refused before anything is applied, naming the engine.

use crate::engine::pool_table;
use crate::{Engine, Namespace, Portway, Topology, pins, portway};

/// `portway check` and `portway run` both refuse a rule with these keys, and name the engine and what it cannot do.
fn refuses(engine: Engine, keys: &str, named: &str) {
    let said = complaint(engine, keys);
    assert!(said.contains(named), "names {named:?}: {said}");
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
    complaint_on(&Namespace::new("gateway"), engine, keys)
}

fn complaint_on(host: &Namespace, engine: Engine, keys: &str) -> String {
    let file = engine.rule(keys);
    let complaint = portway::check(host, &file).expect_err("check must refuse");
    assert!(complaint.contains(&engine.to_string()), "names the engine: {complaint}");
    let complaint = Portway::try_start(host, &file).map(|_| ()).expect_err("run must refuse");
    assert!(complaint.contains(&engine.to_string()), "names the engine: {complaint}");
    assert!(!host.run("nft list ruleset").contains("portway"), "nothing is left behind");
    assert_eq!(pins::of(host), [] as [String; 0], "nothing is left behind");
    complaint
}

/// Listener and backend of different families.
pub fn crossing_families(engine: Engine) {
    refuses(engine, "listen = '[::]:8000'\nforward = '10.2.0.10:80'", "IPv6");
}

/// A backend on the IPv6 loopback, which the kernel delivers to local senders only.
pub fn loopback_v6(engine: Engine) {
    refuses(engine, "listen = '[::]:8000'\nforward = '[::1]:7000'", "::1");
}

/// A bound on connections.
pub fn connection_limit(engine: Engine) {
    refuses(
        engine,
        "listen = '0.0.0.0:8000'\nforward = '10.2.0.10:80'\nmax-connections = 3",
        "max-connections",
    );
}

/// Clocks of the rule's own.
pub fn timeouts(engine: Engine) {
    refuses(
        engine,
        "listen = '0.0.0.0:8000'\nforward = '10.2.0.10:80'\ntimeouts = { idle = '5m' }",
        "timeouts",
    );
}

/// The client's own address towards the backend.
pub fn preserve(engine: Engine) {
    refuses(engine, "listen = '0.0.0.0:8000'\nforward = '10.2.0.10:80'\nsource = 'preserve'", "preserve");
}

/// Conntrack helpers.
pub fn helper(engine: Engine) {
    refuses(engine, "listen = '0.0.0.0:21'\nforward = '10.2.0.10:21'\nhelper = 'ftp'", "helper");
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

/// A listener on the loopback, where no packet passes an interface that `ebpf` serves.
pub fn loopback_listener(engine: Engine) {
    refuses(engine, "listen = '127.0.0.1:8000'\nforward = '10.2.0.10:80'", "loopback");
    refuses(engine, "listen = '[::1]:8000'\nforward = '[fd02::10]:80'", "loopback");
    refuses(engine, "listen = 'lo:8000'\nforward = '10.2.0.10:80'", "loopback");
}

/// A backend on the loopback.
pub fn loopback_backend(engine: Engine) {
    refuses(engine, "listen = '0.0.0.0:8000'\nforward = '127.0.0.1:7000'", "127.0.0.1");
    refuses(engine, "listen = '[::]:8000'\nforward = '[::1]:7000'", "::1");
}

/// A backend at an address of this host: what it answers would never arrive on an interface.
pub fn local_backend(engine: Engine) {
    let net = Topology::new();
    for keys in [
        "listen = '10.1.0.1:8000'\nforward = '10.2.0.1:7000'",
        "listen = '[fd01::1]:8000'\nforward = '[fd02::1]:7000'",
        "listen = '0.0.0.0:8000'\n[rule.pool]\nbackends = ['10.2.0.10:7000', '10.1.0.1:7000']",
    ] {
        let said = complaint_on(&net.gateway, engine, keys);
        assert!(said.contains("this host"), "{said}");
    }
}

/// The client's address in TCP option 254, which only `ebpf` adds.
pub fn client_address(engine: Engine) {
    let keys = "listen = '0.0.0.0:8000'\nforward = '10.2.0.10:80'\nclient-address = 'toa'";
    refuses(engine, keys, "client-address");
}

/// SYN cookies, which only `ebpf` answers with.
pub fn syn_cookies(engine: Engine) {
    refuses(engine, "listen = '0.0.0.0:8000'\nforward = '10.2.0.10:80'\nsyn-cookies = 500", "syn-cookies");
}

/// A rate of new flows, which only `ebpf` keeps.
pub fn new_flow_rate(engine: Engine) {
    refuses(
        engine,
        "listen = '0.0.0.0:8000'\nforward = '10.2.0.10:80'\nnew-flow-rate = 500",
        "new-flow-rate",
    );
}

/// Backends of both families.
pub fn both_families(engine: Engine) {
    let backends = ["'10.2.0.10:80'".to_owned(), "'[fd02::11]:80'".to_owned()];
    refuses_backends(engine, &backends, "", "both families");
}
