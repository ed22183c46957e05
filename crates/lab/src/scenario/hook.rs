//! Which hook carries: what the programs at XDP do is done by those at TC as well, so that it works does not say where. The
//! driver does, which counts what a program at XDP has sent on.

use crate::hook::Received;
use crate::topology::{LAN4, LAN6};
use crate::traffic::Server;
use crate::{Engine, Portway, Scratch, Topology, peer};

/// So many there and back, one at a time: each is a packet.
const ROUNDS: u64 = 200;

/// Insists that at XDP nearly all packets were sent on there, in both directions, and elsewhere none.
fn check(engine: Engine, received: [Received; 2], least: u64, what: &str) {
    for received in received {
        if engine == Engine::Xdp {
            let Received { frames, sent_at_xdp } = received;
            assert!(frames >= least, "{what}: the driver saw {received:?}, not {least}");
            // Beside the flow there are neighbours that ask for each other.
            assert!(sent_at_xdp * 20 >= frames.max(least) * 19, "{what}: not carried at XDP: {received:?}");
        } else {
            assert_eq!(received.sent_at_xdp, 0, "{what}");
        }
    }
}

/// Established flows, TCP and UDP over both families: each of their packets is carried at XDP where the programs hang there.
pub fn flows(engine: Engine) {
    let net = Topology::new();
    let _servers = ["10.2.0.10:7000", "[fd02::10]:7000"]
        .map(|on| (Server::tcp_echo(net.server(), on), Server::udp_echo(net.server(), on)));
    let rules = engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("tcp+udp/[::]:8000", "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    for to in [format!("{LAN4}:8000"), format!("[{LAN6}]:8000")] {
        let mut stream = net.client().connect(&to).expect("connects");
        stream.set_nodelay(true).expect("a TCP socket");
        crate::traffic::echo(&mut stream, b"first").expect("echoes");
        let (received, ()) = net.received(|| {
            for _ in 0..ROUNDS {
                crate::traffic::echo(&mut stream, b"segment").expect("echoes");
            }
        });
        check(engine, received, ROUNDS, &format!("segments to {to}"));
        let socket = net.client().dial(&to);
        let echo = || {
            socket.send(b"datagram").expect("sent");
            socket.recv(&mut [0; 16]).expect("a datagram is answered");
        };
        echo();
        let (received, ()) = net.received(|| (0..ROUNDS).for_each(|_| echo()));
        check(engine, received, ROUNDS, &format!("datagrams to {to}"));
    }
}

/// Twenty megabytes each way.
pub fn transfers(engine: Engine) {
    const BYTES: usize = 20_000_000;
    let net = Topology::new();
    let files = Scratch::new();
    files.dir("up");
    let sum = peer::blob(&files.join("blob"), BYTES);
    let _nginx = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8888", "10.2.0.10:80"));
    let dir = files.path().display();
    let (received, ()) = net.received(|| {
        net.client().run(&format!("curl -sSf --max-time 60 -o {dir}/got http://{LAN4}:8888/blob"));
        net.client().run(&format!("curl -sSf --max-time 60 -T {dir}/blob http://{LAN4}:8888/up/put"));
    });
    assert_eq!(peer::sha256(&files.join("got")), sum, "the download arrived as sent");
    assert_eq!(peer::sha256(&files.join("up/put")), sum, "the upload arrived as sent");
    check(engine, received, BYTES as u64 / 1500, "transfers");
}
