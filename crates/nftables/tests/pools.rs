//! Pools under traffic: who serves which client, what clients of a pool without members meet, and what becomes of flows.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use portway_core::balance;
use portway_core::engine::Engine;
use portway_core::flow::FlowFilter;
use portway_core::members::Meets;
use portway_core::plan::nftables::{Ids, Plan};
use portway_core::ruleset::{Balance, HashKey, Rule, SourceMode, Target, TargetPorts, WhenEmpty};
use portway_nftables::NftablesEngine;
use support::lab::{self, Lab, PATIENCE};
use support::{Namespace, apply, nft, plan_met, pool, run, up, within};

/// Tells everybody its own address: at once on TCP, then echoes; for every datagram on UDP.
fn serve(namespace: &Namespace, address: &str) {
    let conversation = |mut stream: TcpStream, own| {
        let _ = writeln!(stream, "{own}");
        let mut echo = stream.try_clone().unwrap();
        let _ = io::copy(&mut stream, &mut echo);
    };
    lab::serve(namespace, address.parse().unwrap(), conversation, |own, _| own);
}

/// A connection, and who answered it.
fn connect(from: &Namespace, to: &str) -> io::Result<(TcpStream, SocketAddr)> {
    let to: SocketAddr = to.parse().unwrap();
    within(from, move || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut name = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte)?;
            name.push(byte[0]);
        }
        Ok((stream, String::from_utf8_lossy(&name).trim().parse().unwrap()))
    })
}

/// Whether the connection still carries bytes both ways.
fn echoes(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"still here?")?;
    stream.read_exact(&mut [0; 11])
}

/// Who answers a client that sends from this address; port 0 is any. Where the last socket of that address is not gone yet
/// (a program that another test is starting has its descriptor until it is executed), it tries again.
fn ask(from: SocketAddr, to: SocketAddr) -> io::Result<SocketAddr> {
    let start = Instant::now();
    let socket = loop {
        match UdpSocket::bind(from) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && start.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            bound => break bound?,
        }
    };
    socket.connect(to)?;
    ask_again(&socket)
}

fn ask_again(socket: &UdpSocket) -> io::Result<SocketAddr> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"who are you?")?;
    let mut answer = [0; 100];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).parse().unwrap())
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(12_000);

/// How often each backend answered, by its port, when so many new flows came from one client.
fn spread(from: &Namespace, to: &str, flows: usize) -> BTreeMap<u16, usize> {
    let to: SocketAddr = to.parse().unwrap();
    within(from, move || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let mut spread = BTreeMap::new();
        for _ in 0..flows {
            // Never a port twice: it would be a flow that conntrack knows.
            let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
            *spread.entry(ask((any, port).into(), to).unwrap().port()).or_default() += 1;
        }
        spread
    })
}

/// An engine that forwards one rule, whose facts change.
struct Running<'a> {
    engine: NftablesEngine,
    plan: Plan,
    ids: Ids,
    rule: &'a Rule,
}

impl<'a> Running<'a> {
    fn new(rule: &'a Rule, meets: Meets) -> Self {
        let mut engine = NftablesEngine::open().unwrap();
        let (plan, ids) = plan_met(&mut engine, &[(rule, meets)]);
        apply(&mut engine, &plan).unwrap();
        Self { engine, plan, ids, rule }
    }

    fn meets(&mut self, meets: Meets) {
        let change = self.plan.adjust(&[(self.rule, meets)], &self.ids);
        self.engine.adjust(&change).unwrap();
        assert_eq!(self.engine.verify(&self.plan).unwrap(), Vec::<String>::new());
    }
}

const BACKENDS: [&str; 3] = ["10.2.0.2:9001", "10.2.0.2:9002", "10.2.0.2:9003"];

fn three(lab: &Lab, settings: impl FnOnce(&mut portway_core::ruleset::Pool)) -> Rule {
    BACKENDS.iter().for_each(|backend| serve(&lab.server, backend));
    pool("web", &["tcp/0.0.0.0:8888", "udp/0.0.0.0:8888"], &BACKENDS, settings)
}

#[test]
fn turns_are_exact_and_a_change_leaves_connections_alone() {
    let lab = Lab::new();
    let rule = three(&lab, |pool| {
        for (backend, weight) in pool.backends.iter_mut().zip([3, 2, 1]) {
            backend.weight = weight;
        }
    });
    let mut running = Running::new(&rule, up(&rule, &[0, 1, 2]));
    assert_eq!(spread(&lab.client, "10.1.0.1:8888", 600), [(9001, 300), (9002, 200), (9003, 100)].into());
    // Of any few in a row as well, and for clients on the host itself.
    assert_eq!(spread(&lab.gateway, "127.0.0.1:8888", 6), [(9001, 3), (9002, 2), (9003, 1)].into());
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut by_port: BTreeMap<u16, usize> = BTreeMap::new();
    for _ in 0..12 {
        let (stream, by) = connect(&lab.client, "10.1.0.1:8888").unwrap();
        *by_port.entry(by.port()).or_default() += 1;
        streams.push(stream);
    }
    assert_eq!(by_port, [(9001, 6), (9002, 4), (9003, 2)].into());
    let members = running.engine.observer().unwrap().observe().unwrap().members["web"].clone();
    let counted = |nth: usize| (members[BACKENDS[nth]].flows, members[BACKENDS[nth]].live);
    assert_eq!([0, 1, 2].map(counted), [(309, 309), (206, 206), (103, 103)]);
    for (live, expected) in [
        (&[0, 1][..], vec![(9001, 30), (9002, 20)]),
        (&[1, 2], vec![(9002, 40), (9003, 20)]),
        (&[2], vec![(9003, 5)]),
        (&[0, 2], vec![(9001, 30), (9003, 10)]),
        (&[0, 1, 2], vec![(9001, 30), (9002, 20), (9003, 10)]),
    ] {
        running.meets(up(&rule, live));
        let flows = expected.iter().map(|(_, flows)| *flows).sum();
        assert_eq!(spread(&lab.client, "10.1.0.1:8888", flows), expected.into_iter().collect(), "{live:?}");
        streams.iter_mut().for_each(|stream| echoes(stream).unwrap());
    }
}

/// This proves that core computes the kernel's hash: engines agree on the backend of every client.
#[test]
fn hashes_lead_each_client_where_core_says() {
    let lab = Lab::new();
    // The client answers for whole networks.
    for (family, net, near) in [("-4", "10.1.128.0/17", "10.1.0.2"), ("-6", "fd01:0:0:1::/64", "fd01::2")] {
        run("ip", &["-n", lab.client.name(), family, "route", "add", "local", net, "dev", "lo"]);
        run("ip", &[family, "route", "add", net, "via", near]);
    }
    run("ip", &["netns", "exec", lab.client.name(), "sysctl", "-qw", "net.ipv6.ip_nonlocal_bind=1"]);
    let v6 = ["[fd02::2]:9001", "[fd02::2]:9002", "[fd02::2]:9003"];
    v6.iter().for_each(|backend| serve(&lab.server, backend));
    three(&lab, |_| {});
    for (balance, hash) in [
        (Balance::SourceHash, HashKey::Source),
        (Balance::SourceHash, HashKey::SourcePort),
        (Balance::ConsistentHash, HashKey::Source),
        (Balance::ConsistentHash, HashKey::SourcePort),
    ] {
        for (listen, backends) in [("0.0.0.0", BACKENDS), ("[::]", v6)] {
            let rule = pool("web", &[&format!("udp/{listen}:8888")], &backends, |pool| {
                (pool.balance, pool.hash) = (balance, hash);
                pool.backends[1].weight = 2;
            });
            let mut running = Running::new(&rule, up(&rule, &[0, 1, 2]));
            for live in [&[0, 1, 2][..], &[0, 1], &[1, 2], &[0, 1, 2]] {
                running.meets(up(&rule, live));
                let Meets::Members(members) = up(&rule, live) else { unreachable!() };
                let table = balance::table(balance, rule.pool.places(), &members);
                let clients: Vec<SocketAddr> = (0..150_u16)
                    .map(|n| {
                        let [high, low] = (n * 211).to_be_bytes();
                        let address: IpAddr = match listen {
                            "[::]" => format!("fd01:0:0:1:{n:x}::{:x}", n * 7).parse().unwrap(),
                            _ => [10, 1, 128 | high, low].into(),
                        };
                        SocketAddr::new(address, 20_000 + n * 13)
                    })
                    .collect();
                let expected: Vec<SocketAddr> = clients
                    .iter()
                    .map(|client| {
                        let slot = balance::slot(balance::client_hash(hash, *client), table.len());
                        let target = members[usize::from(table[slot])].target;
                        let TargetPorts::One(port) = target.ports else { unreachable!() };
                        SocketAddr::new(target.address, port)
                    })
                    .collect();
                let to = if listen == "[::]" { "[fd01::1]:8888" } else { "10.1.0.1:8888" };
                let to: SocketAddr = to.parse().unwrap();
                let found: Vec<SocketAddr> = within(&lab.client, move || {
                    clients.into_iter().map(|client| ask(client, to).unwrap()).collect()
                });
                assert_eq!(found, expected, "{balance} by {hash} among {live:?}");
                // The same clients come again, as new flows.
                running.engine.end_flows(&FlowFilter::default()).unwrap();
            }
            running.engine.clear().unwrap();
        }
    }
}

#[test]
fn a_client_comes_back_to_its_backend() {
    let lab = Lab::new();
    for last in 10..20 {
        let address = format!("10.1.0.{last}/24");
        run("ip", &["-n", lab.client.name(), "address", "add", &address, "dev", "eth0"]);
    }
    let rule = three(&lab, |pool| pool.persist = Some(Duration::from_secs(5)));
    let mut running = Running::new(&rule, up(&rule, &[0, 1, 2]));
    let served = |last: u8| {
        within(&lab.client, move || {
            ask(([10, 1, 0, last], 0).into(), ([10, 1, 0, 1], 8888).into()).unwrap().port()
        })
    };
    let all = || (10..20).map(served).collect::<Vec<_>>();
    let first = all();
    assert_eq!(first, [9001, 9002, 9003, 9001, 9002, 9003, 9001, 9002, 9003, 9001]);
    // Clients that are known do not take turns from others, and each flow starts the time again.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(1400));
        assert_eq!(all(), first);
    }
    assert_eq!(served(2), 9002);
    // Members that stay keep their clients; those of one that goes are given to others, and stay there.
    running.meets(up(&rule, &[0, 2]));
    let second = all();
    for (before, after) in first.iter().zip(&second) {
        assert!(if *before == 9002 { *after != 9002 } else { before == after }, "{first:?} {second:?}");
    }
    running.meets(up(&rule, &[0, 1, 2]));
    assert_eq!(all(), second);
    // Down to one and up again: who came meanwhile stays with that one.
    running.meets(up(&rule, &[1]));
    assert_eq!(all(), [9002; 10]);
    running.meets(up(&rule, &[0, 1, 2]));
    assert_eq!(all(), [9002; 10]);
    // An engine of a later run adopts the memory; one that remembers no longer forgets it.
    let mut engine = NftablesEngine::open().unwrap();
    let (plan, _) = plan_met(&mut engine, &[(&rule, up(&rule, &[0, 1, 2]))]);
    assert!(apply(&mut engine, &plan).unwrap().adopted);
    assert_eq!(all(), [9002; 10]);
    assert!(nft(&["list", "map", "inet", "portway", "persist4"]).contains("10.1.0.12"));
    let mut forgetful = rule.clone();
    forgetful.pool.persist = None;
    let (plan, _) = plan_met(&mut engine, &[(&forgetful, up(&rule, &[0, 1, 2]))]);
    apply(&mut engine, &plan).unwrap();
    assert!(!nft(&["list", "map", "inet", "portway", "persist4"]).contains("elements"));
    // The time runs out.
    let (plan, _) = plan_met(&mut engine, &[(&rule, up(&rule, &[0, 1, 2]))]);
    apply(&mut engine, &plan).unwrap();
    let before = served(10);
    std::thread::sleep(Duration::from_secs(6));
    assert_ne!(served(10), before);
}

/// The memory is bounded: when it is full, clients that are known stay, and others are served by turns.
#[test]
fn a_full_memory_serves_on() {
    let lab = Lab::new();
    run("ip", &["-n", lab.client.name(), "address", "add", "10.1.0.3/24", "dev", "eth0"]);
    let rule = three(&lab, |pool| pool.persist = Some(Duration::from_secs(60)));
    let _running = Running::new(&rule, up(&rule, &[0, 1, 2]));
    let served = |last: u8| {
        within(&lab.client, move || {
            let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
            ask(([10, 1, 0, last], port).into(), ([10, 1, 0, 1], 8888).into()).unwrap().port()
        })
    };
    assert_eq!(served(2), 9001);
    let elements: Vec<String> = (1..65_536_u32)
        .map(|n| format!("0x50ffffff . {} timeout 1h : 10.2.0.2 . 9001", std::net::Ipv4Addr::from(n)))
        .collect();
    let file = std::env::temp_dir().join(format!("portway-full-{}.nft", std::process::id()));
    let elements = elements.join(", ");
    std::fs::write(&file, format!("add element inet portway persist4 {{ {elements} }}")).unwrap();
    nft(&["-f", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!([served(3), served(3), served(3)], [9002, 9003, 9001]);
    assert_eq!([served(2), served(2)], [9001, 9001]);
}

/// Backends that are this host: the kernel never asks postrouting about them.
#[test]
fn backends_on_this_host_are_counted_and_remembered() {
    let lab = Lab::new();
    let backends = ["127.0.0.1:9001", "10.2.0.1:9002"];
    backends.iter().for_each(|backend| serve(&lab.gateway, backend));
    let mut rule = pool("own", &["tcp/0.0.0.0:8888", "udp/0.0.0.0:8888"], &backends, |pool| {
        pool.persist = Some(Duration::from_secs(60));
    });
    let mut running = Running::new(&rule, up(&rule, &[0, 1]));
    let from_outside = spread(&lab.client, "10.1.0.1:8888", 5);
    let from_here = spread(&lab.gateway, "127.0.0.1:8888", 5);
    assert_eq!((from_outside.len(), from_here.len()), (1, 1), "{from_outside:?} {from_here:?}");
    let members = running.engine.observer().unwrap().observe().unwrap().members["own"].clone();
    assert_eq!(members.values().map(|member| member.flows).collect::<Vec<_>>(), [5, 5]);
    running.engine.clear().unwrap();
    rule.pool.persist = None;
    let _running = Running::new(&rule, up(&rule, &[0, 1]));
    assert_eq!(spread(&lab.client, "10.1.0.1:8888", 6), [(9001, 3), (9002, 3)].into());
}

#[test]
fn a_pool_without_members_refuses_or_is_silent() {
    let lab = Lab::new();
    serve(&lab.server, "[fd02::2]:9001");
    serve(&lab.server, "10.2.0.2:9009");
    let v4 = three(&lab, |_| {});
    let v6 = pool("six", &["tcp/[::]:8888", "udp/[::]:8888"], &["[fd02::2]:9001", "[fd02::2]:9002"], |_| {});
    for (rule, to, member) in [(&v4, "10.1.0.1:8888", 2), (&v6, "[fd01::1]:8888", 0)] {
        let mut running = Running::new(rule, Meets::Refuse);
        let refused = |from: &Namespace| {
            let to: SocketAddr = to.parse().unwrap();
            let tcp = within(from, move || TcpStream::connect_timeout(&to, PATIENCE).err());
            let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let udp = within(from, move || ask((any, 0).into(), to).err());
            [tcp, udp].map(|error| error.map(|error| error.kind()))
        };
        let [tcp, udp] = refused(&lab.client);
        let no = Some(io::ErrorKind::ConnectionRefused);
        assert_eq!([tcp, udp], [no; 2], "from outside to {to}");
        // The kernel tells a sender on the host itself that its datagram was not let through (EPERM), before the ICMP
        // message can.
        let [tcp, udp] = refused(&lab.gateway);
        assert_eq!([tcp, udp], [no, Some(io::ErrorKind::PermissionDenied)], "from the host itself to {to}");
        // A member comes, for one flow, and all go again, now in silence.
        running.meets(up(rule, &[member]));
        connect(&lab.client, to).unwrap();
        running.meets(Meets::Drop);
        assert_eq!(
            refused(&lab.client).map(|error| error != Some(io::ErrorKind::ConnectionRefused)),
            [true; 2]
        );
        // A client that waits is served when a member is back (it tries again after a second).
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| connect(&lab.client, to));
            std::thread::sleep(Duration::from_millis(300));
            running.meets(up(rule, &[member]));
            waiting.join().unwrap()
        });
        waiting.unwrap();
        running.engine.clear().unwrap();
    }
    // A sorry backend is nobody's backend for longer than needed.
    let sorry = Target { address: [10, 2, 0, 2].into(), ports: TargetPorts::One(9009) };
    let rule = pool("web", &["udp/0.0.0.0:8888"], &BACKENDS, |pool| {
        pool.when_empty = WhenEmpty::Sorry(sorry);
        pool.persist = Some(Duration::from_secs(60));
    });
    let apology = || portway_core::members::Member {
        backend: portway_core::ruleset::BackendName::new("sorry").unwrap(),
        target: sorry,
        weight: 1,
        max_connections: None,
    };
    let mut running = Running::new(&rule, Meets::Members(vec![apology()]));
    assert_eq!(spread(&lab.client, "10.1.0.1:8888", 3), [(9009, 3)].into());
    running.meets(up(&rule, &[1]));
    assert_eq!(spread(&lab.client, "10.1.0.1:8888", 3), [(9002, 3)].into());
    let members = running.engine.observer().unwrap().observe().unwrap().members["web"].clone();
    assert_eq!((members["10.2.0.2:9009"].flows, members["10.2.0.2:9002"].flows), (3, 3));
}

#[test]
fn flows_are_listed_and_ended() {
    let lab = Lab::new();
    run("sysctl", &["-qw", "net.netfilter.nf_conntrack_acct=1", "net.netfilter.nf_conntrack_timestamp=1"]);
    run("ip", &["-n", lab.server.name(), "route", "add", "10.1.0.0/24", "via", "10.2.0.1"]);
    for source in [SourceMode::Masquerade, SourceMode::Preserve] {
        let mut rule = pool("web", &["tcp/0.0.0.0:8888", "udp/0.0.0.0:8888"], &BACKENDS, |_| {});
        rule.source = source;
        if rule.source == SourceMode::Masquerade {
            three(&lab, |_| {});
        }
        let mut running = Running::new(&rule, up(&rule, &[0, 1, 2]));
        let mut streams: Vec<(TcpStream, SocketAddr)> =
            (0..6).map(|_| connect(&lab.client, "10.1.0.1:8888").unwrap()).collect();
        spread(&lab.client, "10.1.0.1:8888", 3);
        let engine = &mut running.engine;
        let flows = engine.observer().unwrap().flows(&FlowFilter::default(), 4).unwrap();
        assert_eq!((flows.flows.len(), flows.total), (4, 9));
        let second: IpAddr = [10, 2, 0, 2].into();
        let of_second = |protocol: Option<&str>, rule: Option<&str>| FlowFilter {
            rule: rule.map(str::to_owned),
            protocol: protocol.map(str::to_owned),
            backend: Some(second),
            backend_port: Some(9002),
            ..FlowFilter::default()
        };
        let listed = engine.observer().unwrap().flows(&of_second(Some("tcp"), Some("web")), 100).unwrap();
        assert_eq!(listed.total, 2);
        for flow in &listed.flows {
            let (stream, _) = streams
                .iter()
                .find(|(stream, _)| stream.local_addr().unwrap() == flow.client)
                .expect("a client that is known");
            assert_eq!(
                (flow.engine.as_str(), flow.rule.as_str(), flow.state.as_str()),
                ("nftables", "web", "established")
            );
            assert_eq!(flow.listener, stream.peer_addr().unwrap());
            assert_eq!(flow.backend.unwrap().to_string(), BACKENDS[1]);
            assert!(
                flow.age_seconds.unwrap() < 10
                    && flow.bytes_in.unwrap() > 100
                    && flow.bytes_out.unwrap() > 100
            );
        }
        let udp = engine
            .observer()
            .unwrap()
            .flows(&FlowFilter { protocol: Some("udp".into()), ..FlowFilter::default() }, 100)
            .unwrap();
        assert!(udp.flows.iter().all(|flow| flow.state == "answered") && udp.total == 3, "{udp:?}");
        let none = FlowFilter { rule: Some("other".into()), ..FlowFilter::default() };
        assert_eq!(engine.observer().unwrap().flows(&none, 100).unwrap().total, 0);
        assert_eq!(engine.end_flows(&none).unwrap(), 0);
        // A backend goes down, then its flows end, and only its.
        running.meets(up(&rule, &[0, 2]));
        assert_eq!(running.engine.end_flows(&of_second(Some("tcp"), None)).unwrap(), 2);
        assert_eq!(running.engine.end_flows(&of_second(None, Some("web"))).unwrap(), 1);
        let mut reset = 0;
        for (stream, by) in &mut streams {
            if by.port() == 9002 {
                let error = echoes(stream).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{:?}", rule.source);
                reset += 1;
            } else {
                echoes(stream).unwrap();
            }
        }
        assert_eq!(reset, 2);
        drop(streams);
        running.engine.clear().unwrap();
    }
}

/// The other side: a backend whose flow has ended learns it from its next segment.
#[test]
fn a_backend_learns_that_its_flow_has_ended() {
    let lab = Lab::new();
    let listener = within(&lab.server, || TcpListener::bind("10.2.0.2:9001").unwrap());
    let rule = pool("web", &["tcp/0.0.0.0:8888"], &BACKENDS, |_| {});
    let mut running = Running::new(&rule, up(&rule, &[0]));
    let client = within(&lab.client, || TcpStream::connect("10.1.0.1:8888").unwrap());
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(running.engine.end_flows(&FlowFilter::default()).unwrap(), 1);
    server.write_all(b"hello?").unwrap();
    let error = server.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    drop(client);
}
