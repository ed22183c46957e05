//! Which engine `auto` takes where `ebpf` is one of them: it is asked for what no other engine does, and for nothing else.

use crate::traffic::{Server, tcp_works};
use crate::{Engine, Portway, Topology};

/// What only `ebpf` does is done by it, without a word about engines; a plain rule beside stays with nftables.
pub fn takes_ebpf_for_what_no_other_does(_: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let only = ["client-address = 'toa'", "syn-cookies = 500", "new-flow-rate = 500"];
    let rule = |nth: usize, key: &str| {
        format!(
            "[[rule]]\nname = 'r{nth}'\nlisten = '0.0.0.0:{}'\nforward = '10.2.0.10:7000'\n{key}\n",
            8000 + nth
        )
    };
    let file: String = only.iter().chain(&[""]).enumerate().map(|(nth, key)| rule(nth, key)).collect();
    let portway = Portway::start(&net.gateway, &file);
    for (nth, key) in only.iter().enumerate() {
        tcp_works(net.client(), &format!("10.1.0.1:{}", 8000 + nth));
        let name = format!("r{nth}");
        assert_eq!(portway.word(&name, "engine"), "ebpf", "{key}");
        let key = key.split(' ').next().expect("a key");
        let reason = portway.word(&name, "reason");
        assert!(reason.contains(key), "names {key}: {reason}");
    }
    tcp_works(net.client(), "10.1.0.1:8003");
    assert_eq!(portway.word("r3", "engine"), "nftables");
}
