//! `portway forward`: the command line alone, with root and without, and what it leaves.

use rustix::process::Signal;

use crate::netns::PATIENCE;
use crate::portway::{binary, until_ready};
use crate::traffic::{Server, tcp_works};
use crate::{Engine, Namespace, Process, Scratch, Topology};

/// Starts `portway forward` with these words under `prefix`.
fn start(ns: &Namespace, state: &Scratch, prefix: &[&str], words: &str) -> Process {
    let line: Vec<String> = prefix.iter().map(|&word| word.to_owned()).collect();
    let line = [line, vec![binary().display().to_string(), "forward".to_owned()]].concat();
    let mut command = ns.command(&line[0]);
    command.args(&line[1..]).args(words.split_whitespace()).arg("--state-dir").arg(state.join("state"));
    until_ready(Process::start(&mut command)).unwrap_or_else(|log| panic!("portway did not start:\n{log}"))
}

/// Two pairs; it says what listens where, where it goes and by which engine; Ctrl-C removes every trace.
pub fn forward(engine: Engine) {
    let (net, state) = (Topology::new(), Scratch::new());
    let _first = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _second = Server::tcp_echo(net.server(), "10.2.0.10:7001");
    let words = format!("0.0.0.0:8000 10.2.0.10:7000 10.1.0.1:8001 10.2.0.10:7001 --engine {engine}");
    let mut portway = start(&net.gateway, &state, &[], &words);
    tcp_works(net.client(), "10.1.0.1:8000");
    tcp_works(net.client(), "10.1.0.1:8001");
    let log = portway.log();
    for word in ["0.0.0.0:8000", "10.2.0.10:7000", "10.1.0.1:8001", "10.2.0.10:7001", &engine.to_string()] {
        assert!(log.contains(word), "says {word}: {log}");
    }
    portway.signal(Signal::INT);
    assert!(portway.wait(PATIENCE).success(), "{}", portway.log());
    assert_eq!(net.gateway.run("nft list ruleset"), "");
    assert!(net.client().connect("10.1.0.1:8000").is_err());
}

/// With root the same command picks nftables, and says why.
pub fn forward_picks(engine: Engine) {
    let (net, state) = (Topology::new(), Scratch::new());
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let portway = start(&net.gateway, &state, &[], "8000:10.2.0.10:7000");
    tcp_works(net.client(), "10.1.0.1:8000");
    assert!(portway.log().contains(&engine.to_string()), "{}", portway.log());
}

/// Without root the same command picks the proxy.
pub fn forward_without_root(engine: Engine) {
    let (net, state) = (Topology::new(), Scratch::new());
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    std::os::unix::fs::chown(state.path(), Some(65_534), Some(65_534)).expect("root may");
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    // The binary may lie where only root can go.
    let copy = state.join("portway");
    std::fs::copy(binary(), &copy).expect("a readable binary");
    let line =
        [&nobody[1..], &[copy.to_str().expect("an ASCII path"), "forward", "0.0.0.0:8000", "10.2.0.10:7000"]];
    let mut command = net.gateway.command(nobody[0]);
    command.args(line.concat()).arg("--state-dir").arg(state.join("state"));
    let portway =
        until_ready(Process::start(&mut command)).unwrap_or_else(|log| panic!("did not start:\n{log}"));
    tcp_works(net.client(), "10.1.0.1:8000");
    assert!(portway.log().contains(&engine.to_string()), "{}", portway.log());
}
