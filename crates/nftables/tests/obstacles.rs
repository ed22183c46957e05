//! Other tables that would drop forwarded traffic are found, named, and gone when the hint is followed.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use portway_core::engine::Engine;
use portway_nftables::{NftablesEngine, forward_obstacles};
use support::{Namespace, apply, nft, plan, rule, run};

/// What stands in the way, as family, table and chain.
fn found() -> Vec<(String, String, String)> {
    let obstacles = forward_obstacles().unwrap();
    obstacles.iter().for_each(|obstacle| println!("{obstacle}"));
    obstacles.into_iter().map(|found| (found.family.to_owned(), found.table, found.chain)).collect()
}

fn triple(family: &str, table: &str, chain: &str) -> (String, String, String) {
    (family.to_owned(), table.to_owned(), chain.to_owned())
}

/// Runs the command that a hint gives, as a person would.
fn follow_hints() {
    forward_obstacles().unwrap().iter().for_each(|obstacle| drop(run("sh", &["-c", &obstacle.hint])));
}

#[test]
fn a_quiet_host_has_no_obstacles() {
    let namespace = Namespace::new();
    namespace.enter();
    assert_eq!(found(), []);
    let mut engine = NftablesEngine::open().unwrap();
    let plan = plan(&mut engine, &[rule("web", &["tcp/0.0.0.0:80"], "10.0.0.1:80")]);
    apply(&mut engine, &plan).unwrap();
    nft(&["add", "table", "inet", "open"]);
    nft(&[
        "add",
        "chain",
        "inet",
        "open",
        "forward",
        "{ type filter hook forward priority 0; policy accept; }",
    ]);
    nft(&["add", "rule", "inet", "open", "forward", "ip", "saddr", "192.0.2.0/24", "drop"]);
    nft(&["add", "chain", "inet", "open", "input", "{ type filter hook input priority 0; policy drop; }"]);
    assert_eq!(found(), []);
    engine.clear().unwrap();
}

#[test]
fn an_iptables_policy_is_found() {
    let namespace = Namespace::new();
    namespace.enter();
    run("iptables-nft", &["-P", "FORWARD", "DROP"]);
    run("ip6tables-nft", &["-A", "FORWARD", "-j", "REJECT"]);
    assert_eq!(found(), [triple("ip", "filter", "FORWARD"), triple("ip6", "filter", "FORWARD")]);
    // Another mark or another mask does not help.
    run("iptables-nft", &["-I", "FORWARD", "-m", "connmark", "--mark", "0x50000000", "-j", "ACCEPT"]);
    run(
        "iptables-nft",
        &["-I", "FORWARD", "-m", "connmark", "!", "--mark", "0x50000000/0xff000000", "-j", "ACCEPT"],
    );
    assert_eq!(found().len(), 2);
    follow_hints();
    assert_eq!(found(), []);
}

#[test]
fn docker_has_a_chain_for_it() {
    let namespace = Namespace::new();
    namespace.enter();
    run("iptables-nft", &["-P", "FORWARD", "DROP"]);
    run("iptables-nft", &["-N", "DOCKER-USER"]);
    run("iptables-nft", &["-A", "FORWARD", "-j", "DOCKER-USER"]);
    assert!(forward_obstacles().unwrap()[0].hint.contains("-I DOCKER-USER "));
    follow_hints();
    assert_eq!(found(), []);
}

#[test]
fn a_firewalld_like_table_is_found() {
    let namespace = Namespace::new();
    namespace.enter();
    let chain = ["inet", "firewalld", "filter_FORWARD"];
    let rule = |words: &[&str]| drop(nft(&[&["add", "rule"], &chain[..], words].concat()));
    nft(&["add", "table", "inet", "firewalld"]);
    let hook = "{ type filter hook forward priority 10; policy accept; }";
    nft(&[&["add", "chain"], &chain[..], &[hook]].concat());
    rule(&["ct", "state", "{ established, related }", "accept"]);
    rule(&["counter", "reject", "with", "icmpx", "admin-prohibited"]);
    assert_eq!(found(), [triple("inet", "firewalld", "filter_FORWARD")]);
    follow_hints();
    assert_eq!(found(), []);
    // firewalld's own way to let forwarded ports pass.
    nft(&[&["flush", "chain"], &chain[..]].concat());
    rule(&["ct", "status", "dnat", "accept"]);
    rule(&["reject"]);
    assert_eq!(found(), []);
}
