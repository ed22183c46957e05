//! Choosing among members: what each policy gives, over many connections and flows.
//!
//! Policies without chance are asked for exact numbers; what chance decides is asked for with bounds that it passes
//! less than once in a million runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroU32;

use portway_core::address::Protocol;
use portway_core::balance::{client_hash, slot, table};
use portway_core::members::Member;
use portway_core::ruleset::{Balance, HashKey};
use support::*;

fn weighted(weights: &[u32]) -> Vec<Member> {
    let members = tellers(u8::try_from(weights.len()).unwrap());
    members.into_iter().zip(weights).map(|(member, weight)| Member { weight: *weight, ..member }).collect()
}

fn tcp(balance: Balance, hash: HashKey, members: &[Member]) -> (Proxy, SocketAddr) {
    Proxy::pool(Protocol::Tcp, members.to_vec(), |rule| {
        rule.pool.balance = balance;
        rule.pool.hash = hash;
    })
}

/// Clients of different addresses and ports.
fn clients(count: u16) -> impl Iterator<Item = SocketAddr> {
    (0..count).map(|nth| {
        let [high, low] = nth.to_be_bytes();
        SocketAddr::new(Ipv4Addr::new(127, 77, high, low).into(), 10_000 + nth % 7)
    })
}

#[test]
fn round_robin_is_exact() {
    let members = weighted(&[1, 2, 5]);
    let (mut proxy, address) = tcp(Balance::RoundRobin, HashKey::Source, &members);
    assert_eq!(spread(address, 10_000, 3), [1250, 2500, 6250]);
    assert_eq!(proxy.counters("rule").flows, 10_000);
    assert_eq!(proxy.member(&members[2]).flows, 6250);
    proxy.until("closed", |s| s.members["rule"].values().all(|member| member.live == 0));
}

#[test]
fn least_connections_are_shared_by_weight_and_go_where_room_was_made() {
    let members = weighted(&[1, 2, 3]);
    let (mut proxy, address) = tcp(Balance::LeastConnections, HashKey::Source, &members);
    let mut held: [Vec<TcpStream>; 3] = Default::default();
    for _ in 0..600 {
        let mut stream = connect(address);
        held[told_by(&mut stream)].push(stream);
    }
    assert_eq!(held.each_ref().map(Vec::len), [100, 200, 300]);
    held[1].drain(..30).for_each(reset);
    proxy.until("gone", |s| s.rules["rule"].live == 570);
    assert_eq!(held[1].len(), 170);
    for _ in 0..30 {
        let mut stream = connect(address);
        assert_eq!(told_by(&mut stream), 1);
        held[1].push(stream);
    }
}

#[test]
fn least_connections_take_turns_while_nobody_is_busy() {
    let (mut proxy, address) = tcp(Balance::LeastConnections, HashKey::Source, &weighted(&[1, 1, 1]));
    let mut counts = [0; 3];
    for _ in 0..30 {
        let mut stream = connect(address);
        counts[told_by(&mut stream)] += 1;
        reset(stream);
        proxy.until("idle", |s| s.members["rule"].values().all(|member| member.live == 0));
    }
    assert_eq!(counts, [10, 10, 10]);
}

#[test]
fn random_draws_by_weight() {
    let (mut proxy, address) = tcp(Balance::Random, HashKey::Source, &weighted(&[1, 3]));
    let mut counts = [0i32; 2];
    for _ in 0..4000 {
        let mut stream = connect(address);
        counts[told_by(&mut stream)] += 1;
        reset(stream);
        // With nothing live the less loaded of two is the first drawn.
        while proxy.snapshot().members["rule"].values().any(|member| member.live > 0) {}
    }
    // The standard deviation is 27.4; five of them.
    assert!((counts[0] - 1000).abs() < 137, "{counts:?}");
}

#[test]
fn the_less_loaded_of_two_keeps_loads_close() {
    let (_proxy, address) = tcp(Balance::Random, HashKey::Source, &weighted(&[1; 10]));
    let mut held = Vec::new();
    let mut counts = [0; 10];
    for _ in 0..1000 {
        let mut stream = connect(address);
        counts[told_by(&mut stream)] += 1;
        held.push(stream);
    }
    // Drawn once, the fullest would have about 115; twenty thousand simulations of this never passed 104.
    assert!(counts.iter().all(|count| *count <= 109), "{counts:?}");
}

#[test]
fn hashes_lead_where_the_core_says() {
    for balance in [Balance::SourceHash, Balance::ConsistentHash] {
        for key in [HashKey::Source, HashKey::SourcePort] {
            let members = weighted(&[2, 1, 1, 4]);
            let table = table(balance, members.len(), &members);
            let (_proxy, address) = tcp(balance, key, &members);
            let mut counts = [0usize; 4];
            for client in clients(2500) {
                let mut stream = connect_from(client, address);
                let predicted = table[slot(client_hash(key, client), table.len())];
                let place = told_by(&mut stream);
                assert_eq!(place, usize::from(predicted), "{balance}, {key}, {client}");
                counts[place] += 1;
                reset(stream);
            }
            assert!(counts.iter().all(|count| *count > 200), "{balance}, {key}: {counts:?}");
        }
    }
}

#[test]
fn a_full_member_hands_its_clients_to_the_next_slots() {
    let mut members = weighted(&[1, 1, 1]);
    members[0].max_connections = NonZeroU32::new(1);
    let table = table(Balance::ConsistentHash, members.len(), &members);
    let (mut proxy, address) = tcp(Balance::ConsistentHash, HashKey::Source, &members);
    let mut predicted: BTreeMap<usize, Vec<SocketAddr>> = BTreeMap::new();
    for client in clients(300) {
        let at = slot(client_hash(HashKey::Source, client), table.len());
        predicted.entry(usize::from(table[at])).or_default().push(client);
    }
    let mut first = connect_from(predicted[&0][0], address);
    assert_eq!(told_by(&mut first), 0);
    for client in &predicted[&0][1..] {
        let mut stream = connect_from(*client, address);
        let from = slot(client_hash(HashKey::Source, *client), table.len());
        let next = table[from..].iter().chain(&table[..from]).find(|place| **place != 0).unwrap();
        assert_eq!(told_by(&mut stream), usize::from(*next));
        reset(stream);
    }
    assert_eq!(proxy.member(&members[0]).live, 1);
}

#[test]
fn first_means_first_with_room() {
    let mut members = tellers(3);
    members[0].max_connections = NonZeroU32::new(2);
    members[1].max_connections = NonZeroU32::new(1);
    let (mut proxy, address) = tcp(Balance::First, HashKey::Source, &members);
    let mut held: Vec<TcpStream> = Vec::new();
    for place in [0, 0, 1, 2, 2] {
        let mut stream = connect(address);
        assert_eq!(told_by(&mut stream), place);
        held.push(stream);
    }
    reset(held.remove(0));
    proxy.until("left", |s| s.rules["rule"].live == 4);
    assert_eq!(told_by(&mut connect(address)), 0);
}

#[test]
fn udp_flows_are_spread_alike() {
    let tell = |place: u8| member(udp_server_on("127.0.0.1", move |_| vec![place]));
    let members: Vec<Member> = (0..3).map(tell).collect();
    let ask = |client: SocketAddr, address| {
        let socket = UdpSocket::bind(client).unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let first = udp_ask(&socket, b"?")[0];
        assert_eq!(udp_ask(&socket, b"?")[0], first, "a flow keeps its member");
        // Kept, so that the next one cannot get its port and be taken for it.
        (usize::from(first), socket)
    };
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let (mut proxy, address) = Proxy::pool(Protocol::Udp, members.clone(), |_| {});
    let mut counts = [0; 3];
    let asked: Vec<(usize, UdpSocket)> = (0..300).map(|_| ask(any, address)).collect();
    asked.iter().for_each(|(place, _)| counts[*place] += 1);
    assert_eq!(counts, [100; 3]);
    assert_eq!(proxy.member(&members[0]).live, 100);

    let (_proxy, address) =
        Proxy::pool(Protocol::Udp, members.clone(), |rule| rule.pool.balance = Balance::ConsistentHash);
    let table = table(Balance::ConsistentHash, members.len(), &members);
    for client in clients(300) {
        let predicted = table[slot(client_hash(HashKey::Source, client), table.len())];
        assert_eq!(ask(client, address).0, usize::from(predicted));
    }
}

#[test]
fn members_of_both_families_and_a_source_pool_of_both() {
    let seen = |ip| {
        member(server_on(ip, |mut stream| {
            let from: IpAddr = stream.peer_addr().unwrap().ip();
            std::io::Write::write_all(&mut stream, &[u8::from(from.is_ipv6())]).unwrap();
        }))
    };
    let (_proxy, address) = Proxy::pool(Protocol::Tcp, vec![seen("127.0.0.1"), seen("::1")], |rule| {
        let pool = vec!["127.0.0.9".parse().unwrap(), "::1".parse().unwrap()];
        rule.source = portway_core::plan::proxy::Source::Pool(pool);
    });
    assert_eq!(spread(address, 100, 2), [50, 50]);
}
