//! Persistence: clients come back to their member.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use portway_core::address::Protocol;
use portway_core::members::{Meets, Member};
use support::*;

fn client(last: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(127, 88, 0, last).into(), 0)
}

fn persistent(members: &[Member], timeout: Duration) -> (Proxy, SocketAddr) {
    Proxy::pool(Protocol::Tcp, members.to_vec(), |rule| rule.pool.persist = Some(timeout))
}

fn place_of(client: SocketAddr, address: SocketAddr) -> usize {
    told_by(&mut connect_from(client, address))
}

#[test]
fn clients_come_back_whatever_the_policy_would_say() {
    let (_proxy, address) = persistent(&tellers(3), Duration::from_secs(60));
    let places: Vec<usize> = (1..=30).map(|last| place_of(client(last), address)).collect();
    assert!((0..3).all(|place| places.iter().filter(|other| **other == place).count() == 10));
    for _ in 0..5 {
        let again: Vec<usize> = (1..=30).map(|last| place_of(client(last), address)).collect();
        assert_eq!(again, places);
    }
}

#[test]
fn a_member_that_left_does_not_count() {
    let members = tellers(2);
    let (mut proxy, address) = persistent(&members, Duration::from_secs(60));
    let (one, other) = (place_of(client(1), address), place_of(client(2), address));
    assert_ne!(one, other);
    proxy.adjust(Meets::Members(vec![members[other].clone()]));
    assert_eq!(place_of(client(1), address), other);
    proxy.adjust(Meets::Members(members));
    assert_eq!(place_of(client(1), address), other, "it comes back to where it was last");
    assert_eq!(place_of(client(2), address), other, "and the others to where they were");
}

/// As nftables has it, whether the client has called meanwhile or not.
#[test]
fn a_member_that_comes_back_has_no_clients() {
    let members = tellers(2);
    let (mut proxy, address) = persistent(&members, Duration::from_secs(60));
    proxy.adjust(Meets::Members(vec![members[1].clone()]));
    let clients = 1..=10;
    assert!(clients.clone().all(|last| place_of(client(last), address) == 1));
    thread::sleep(Duration::from_millis(10));
    proxy.adjust(Meets::Members(vec![members[0].clone()]));
    proxy.adjust(Meets::Members(members));
    assert!(clients.map(|last| place_of(client(last), address)).any(|place| place == 0));
}

#[test]
fn new_flows_renew_it_and_time_ends_it() {
    let members = tellers(2);
    let timeout = Duration::from_millis(600);
    let (mut proxy, address) = persistent(&members, timeout);
    let place = place_of(client(1), address);
    for _ in 0..3 {
        // The turn of the other member would be next.
        thread::sleep(timeout / 2);
        assert_eq!(place_of(client(1), address), place);
    }
    thread::sleep(timeout + Duration::from_millis(100));
    assert_ne!(place_of(client(1), address), place, "round robin's next");
    proxy.until("closed", |s| s.rules["rule"].live == 0);
}

#[test]
fn a_datagram_after_its_flow_has_ended_leads_to_the_same_member() {
    let tell = |place: u8| member(udp_server_on("127.0.0.1", move |_| vec![place]));
    let (mut proxy, address) = Proxy::pool(Protocol::Udp, (0..3).map(tell).collect(), |rule| {
        rule.pool.persist = Some(Duration::from_secs(60));
        rule.timeouts.udp_idle = Duration::from_millis(100);
    });
    let sockets: Vec<UdpSocket> = (1..=6)
        .map(|last| {
            let socket = UdpSocket::bind(client(last)).unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket
        })
        .collect();
    let ask_all = || sockets.iter().map(|socket| udp_ask(socket, b"?")[0]).collect::<Vec<u8>>();
    let places = ask_all();
    assert_eq!(places, [0, 1, 2, 0, 1, 2]);
    for _ in 0..3 {
        proxy.until("idle", |s| s.rules["rule"].live == 0);
        // One more each time, so that turns alone would give other members.
        udp_ask(&udp_client(address), b"?");
        assert_eq!(ask_all(), places);
    }
}
