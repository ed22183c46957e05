//! Datagrams by the train, as QUIC sends them: the sender hands over many in one call (UDP_SEGMENT), and as far as devices allow
//! they travel as one packet, which is cut at the end. Devices that receive make such trains themselves (GRO). Each datagram
//! must arrive whole and by itself, wherever the train is cut.

use std::net::UdpSocket;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::{Engine, Namespace, Portway, Topology, sys};

/// Bytes in a datagram, and how many datagrams: more than Ethernet's least, what QUIC begins with, and what just fits through
/// when the header grows by the difference between the families.
const TRAINS: [(usize, usize); 3] = [(100, 60), (1200, 40), (1432, 40)];

/// Datagrams of a train: all of one length but the last, and no two alike.
fn train(length: usize, count: usize) -> Vec<Vec<u8>> {
    let byte = |nth: usize, at: usize| (nth * 7 + at) as u8;
    let datagram = |nth: usize, length: usize| (0..length).map(|at| byte(nth, at)).collect();
    (0..count).map(|nth| datagram(nth, if nth + 1 < count { length } else { length - 9 })).collect()
}

/// Takes as many datagrams, in whatever order.
fn arrive(at: &UdpSocket, mut sent: Vec<Vec<u8>>, what: &str) {
    let mut buffer = vec![0; 65_536];
    let mut came: Vec<Vec<u8>> = Vec::new();
    while came.len() < sent.len() {
        let length = at.recv(&mut buffer).unwrap_or_else(|e| {
            panic!("{what}: {} datagrams of {} arrived, then {e}", came.len(), sent.len())
        });
        came.push(buffer[..length].to_vec());
    }
    came.sort();
    sent.sort();
    assert!(came == sent, "{what}: other datagrams than were sent");
}

fn set(hosts: &[(&Namespace, &str)], features: &str) {
    for (host, interface) in hosts {
        host.run(&format!("ethtool -K {interface} {features}"));
    }
}

/// Trains there and back by each listener, whose backend is beside it. Each is a flow of its own, which begins by a train.
fn exchange(net: &Topology, rules: &[(&str, &str)], setting: &str) {
    for (to, backend) in rules {
        let server = net.server().bind(backend);
        set_socket_recv_buffer_size_force(&server, 4 << 20).expect("root may have any buffer");
        for (length, count) in TRAINS {
            let what = format!("{count} times {length} bytes by {to}, {setting}");
            let size = u16::try_from(length).expect("a packet");
            let client = net.client().dial(to);
            set_socket_recv_buffer_size_force(&client, 4 << 20).expect("root may have any buffer");
            sys::send_in_segments(&client, size).expect("Linux has it since 4.18");
            let sent = train(length, count);
            client.send(&sent.concat()).unwrap_or_else(|e| panic!("{what}: {e}"));
            let (_, peer) = server.peek_from(&mut [0; 1]).unwrap_or_else(|e| panic!("{what}: {e}"));
            arrive(&server, sent, &format!("{what}, to the server"));
            sys::send_in_segments(&server, size).expect("Linux has it since 4.18");
            let sent = train(length, count);
            server.send_to(&sent.concat(), peer).unwrap_or_else(|e| panic!("{what}: {e}"));
            arrive(&client, sent, &format!("{what}, to the client"));
        }
    }
}

/// Packets that the gateway has sent to the servers, trains counted once.
fn sent(net: &Topology) -> u64 {
    let shown = net.gateway.run("cat /proc/net/dev");
    let line = shown.lines().find_map(|line| line.trim().strip_prefix("wan:"));
    let figure =
        line.and_then(|figures| figures.split_whitespace().nth(9)).and_then(|word| word.parse().ok());
    figure.unwrap_or_else(|| panic!("no wan in {shown}"))
}

/// The rules' trains under every setting of who cuts and who merges.
fn trains(engine: Engine, rules: &[(&str, &str)]) {
    let net = Topology::new();
    let file: String = rules.iter().map(|(to, at)| engine.forward(&format!("udp/{to}"), at)).collect();
    let _portway = Portway::start(&net.gateway, &file);
    let ends = [(net.client(), "eth0"), (net.server(), "eth0")];
    let gateway = [(&net.gateway, "lan"), (&net.gateway, "wan")];
    // For XDP the ends compute their checksums, and so cut; a proxy sends what it has received, which is cut.
    let stay = |setting: &str| {
        let before = sent(&net);
        exchange(&net, rules, setting);
        let datagrams: usize = TRAINS.iter().map(|(_, count)| count * rules.len()).sum();
        let packets = sent(&net) - before;
        if !matches!(engine, Engine::Xdp | Engine::Proxy) {
            assert!(packets < datagrams as u64 / 2, "{setting}: {packets} packets, so none were trains");
        }
    };
    stay("as it is");
    set(&gateway, "tx-udp-segmentation off");
    exchange(&net, rules, "cut when the gateway sends");
    set(&ends, "tx-udp-segmentation off");
    exchange(&net, rules, "cut by the ends");
    set(&gateway, "gro on rx-udp-gro-forwarding on");
    exchange(&net, rules, "cut by the ends, merged by the gateway, cut when it sends");
    set(&gateway, "tx-udp-segmentation on");
    stay("cut by the ends, merged by the gateway");
    set(&gateway, "rx-udp-gro-forwarding off rx-gro-list on");
    exchange(&net, rules, "cut by the ends, merged to lists by the gateway");
    if engine != Engine::Xdp {
        set(&ends, "tx off");
        exchange(&net, rules, "cut by the ends, which compute checksums, merged to lists by the gateway");
    }
}

/// Within a family.
pub fn whole(engine: Engine) {
    trains(engine, &[("10.1.0.1:8000", "10.2.0.10:7000"), ("[fd01::1]:8000", "[fd02::10]:7000")]);
}

/// From one family to the other.
pub fn across_families(engine: Engine) {
    trains(engine, &[("10.1.0.1:8000", "[fd02::10]:7000"), ("[fd01::1]:8000", "10.2.0.10:7000")]);
}
