//! The daemon dies, and another one replaces the programs, while bytes flow: what the data path holds outlives it.

use std::thread;
use std::time::Duration;

use crate::client::{Held, name_from};
use crate::load::Load;
use crate::traffic::{Server, echo, tcp_works, udp_works};
use crate::wire::prepare_for_xdp;
use crate::{Engine, Portway, Scratch, Topology, peer, pins};

/// A download and an upload of some seconds, connections that come and go, and one that is quiet, over three deaths and four
/// daemons: the content arrives, no connection is lost, the counters go on.
pub fn under_transfers(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    files.dir("up");
    let sum = peer::blob(&files.join("blob"), 40_000_000);
    let _nginx = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let _server = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let file = engine.rule("name = 'web'\nlisten = '0.0.0.0:8888'\nforward = '10.2.0.10:80'")
        + &engine.rule("name = 'a'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'");
    let mut portway = Portway::start(&net.gateway, &file);
    let mut held = Held::open(net.client(), "10.1.0.1:8000");
    let load = Load::asking(net.client(), "10.1.0.1:8000", |stream| name_from(stream).map(|_| ()));
    let dir = files.path().display();
    let transfers = [
        format!("-o {dir}/got http://10.1.0.1:8888/blob"),
        format!("-T {dir}/blob http://10.1.0.1:8888/up/put"),
    ]
    .map(|words| {
        let client = net.client().clone();
        thread::spawn(move || client.run(&format!("curl -sSf --limit-rate 20m --max-time 20 {words}")))
    });
    for _ in 0..3 {
        let counted = portway.figure("a", "flows");
        load.pass(50);
        portway.kill9();
        load.pass(50);
        held.lives("while no daemon runs");
        portway.restart();
        load.pass(20);
        let now = portway.figure("a", "flows");
        assert!(now >= counted + 120, "the counter goes on: {counted}, then {now}");
    }
    for transfer in transfers {
        transfer.join().expect("curl succeeds");
    }
    assert_eq!(peer::sha256(&files.join("got")), sum, "the download arrived as sent");
    assert_eq!(peer::sha256(&files.join("up/put")), sum, "the upload arrived as sent");
    held.lives("at the end");
    load.stop_without_loss();
}

/// A daemon that starts while another one's flows are there finds them: it lists them, by their rule, and ends them.
pub fn flows_are_found(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let file = engine.rule("name = 'kept'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'");
    let mut portway = Portway::start(&net.gateway, &file);
    let mut held = Held::open_many(net.client(), "10.1.0.1:8000", 5);
    portway.kill9();
    let mut born_without = Held::open_many(net.client(), "10.1.0.1:8000", 5);
    portway.restart();
    assert_eq!(portway.conns("--rule kept").1, 10);
    assert_eq!(portway.figure("kept", "live"), 10);
    held.iter_mut().chain(&mut born_without).for_each(|held| held.lives("with the new daemon"));
    assert_eq!(portway.kill_flows("--rule kept"), 10);
    held.into_iter().chain(born_without).for_each(|mut held| _ = held.is_reset(Duration::from_millis(500)));
}

/// The file may say other bounds when it is read again, by a reload or by the next daemon. Flows live through other ports and
/// clocks. Another size of the table waits for `clear`: then old connections are told that they are gone, and new ones work.
pub fn other_bounds(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_named(net.server(), "10.2.0.10:7000", "a");
    let rule = engine.rule("name = 'kept'\nlisten = '0.0.0.0:8000'\nforward = '10.2.0.10:7000'");
    let file = |keys: &str| format!("[ebpf]\n{keys}\n{rule}");
    let size = |portway: &Portway| portway.status()["flow_table"]["of"].clone();
    let mut portway = Portway::start(&net.gateway, &file("max-flows = 2048"));
    assert_eq!(size(&portway), 2048);
    let others = "source-ports = '42000-52000'\ntimeouts = { established = '1h' }";
    let mut held = Held::open(net.client(), "10.1.0.1:8000");
    portway.reload(&file(&format!("max-flows = 2048\n{others}")));
    held.lives("with other ports and clocks in the file");
    let said = portway.try_reload(&file("max-flows = 4096")).expect("reloads");
    assert!(
        said.contains("warning: ebpf: max-flows: the flow table stays at 2048"),
        "the reload says so: {said}"
    );
    assert!(portway.status()["warnings"].to_string().contains("stays at 2048"), "and so does status");
    held.lives("with another size in the file");
    portway.kill9();
    portway.restart();
    held.lives("with another size in the file, and the next daemon");
    assert_eq!(size(&portway), 2048);
    assert!(portway.log().contains("flow table stays at 2048"), "says what waits: {}", portway.log());
    portway.stop();
    portway.restart();
    assert_eq!(size(&portway), 4096);
    held.is_reset(Duration::from_secs(2));
    Held::open(net.client(), "10.1.0.1:8000").lives("in the new table");
}

/// Nothing is left behind by daemons that end as they should, however often.
pub fn leaves_nothing(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let mut portway = Portway::start(&net.gateway, &engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000"));
    for _ in 0..3 {
        tcp_works(net.client(), "10.1.0.1:8000");
        udp_works(net.client(), "10.1.0.1:8000");
        assert!(!pins::of(&net.gateway).is_empty(), "something is pinned while it runs");
        assert!(portway.stop().success(), "{}", portway.log());
        assert_eq!(pins::of(&net.gateway), [] as [String; 0], "after an orderly end");
        assert!(!pins::directory(&net.gateway).exists(), "the directory is gone too");
        portway.restart();
    }
    portway.kill9();
    assert!(!pins::of(&net.gateway).is_empty(), "what is pinned outlives a kill");
    portway.command("clear").unwrap_or_else(|complaint| panic!("{complaint}"));
    assert!(!pins::directory(&net.gateway).exists(), "clear removes it");
    assert!(net.client().connect("10.1.0.1:8000").is_err());
}

/// A reload moves the programs from one hook to the other and back, under load.
pub fn moves_between_hooks(_: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let rule = |engine: Engine| engine.forward("0.0.0.0:8000", "10.2.0.10:7000");
    // What XDP asks of the wires is there from the start: setting it would lose packets by itself.
    prepare_for_xdp(&net.gateway);
    let portway = Portway::start(&net.gateway, &rule(Engine::Ebpf));
    let load = Load::start(net.client(), "10.1.0.1:8000");
    let mut held = net.client().connect("10.1.0.1:8000").expect("connects");
    for to in [Engine::Xdp, Engine::Ebpf, Engine::Xdp, Engine::Ebpf] {
        load.pass(50);
        portway.reload(&rule(to));
        echo(&mut held, b"still").expect("the connection lives on");
        let shown = net.gateway.run("ip -d -o link show lan");
        assert_eq!(shown.contains("prog/xdp"), to == Engine::Xdp, "{shown}");
    }
    load.pass(50);
    load.stop_without_loss();
}
