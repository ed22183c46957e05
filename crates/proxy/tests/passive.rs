//! Passive checks: members that fail connections are left out for a while, and come back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use portway_core::address::Protocol;
use portway_core::members::{Meets, Member};
use portway_core::ruleset::{Balance, Passive};
use support::*;

/// A member that resets connections while it is told to, and else answers as a teller. And how many it had.
fn moody(place: u8) -> (Member, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (bad, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (mood, counter) = (bad.clone(), count.clone());
    let address = server(move |mut stream| {
        counter.fetch_add(1, SeqCst);
        if mood.load(SeqCst) {
            reset(stream);
        } else if stream.write_all(&[place]).is_ok() {
            echo(stream);
        }
    });
    (member(address), bad, count)
}

fn watched(
    members: &[Member],
    max_fails: u32,
    fail_timeout: Duration,
    max_ejected: u8,
) -> (Proxy, SocketAddr) {
    Proxy::pool(Protocol::Tcp, members.to_vec(), |rule| {
        rule.pool.passive = Some(Passive { max_fails, fail_timeout, max_ejected });
    })
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_member_that_fails_is_left_out_and_comes_back() {
    let ([one, two], time) = ([moody(0), moody(1)], Duration::from_millis(600));
    let (mut proxy, address) = watched(&[one.0.clone(), two.0.clone()], 3, time, 50);
    one.1.store(true, SeqCst);
    // Every second one would be its: three of them reach it, and are begun anew.
    for _ in 0..20 {
        assert_eq!(told_by(&mut connect(address)), 1);
    }
    assert_eq!(one.2.load(SeqCst), 3);
    let start = Instant::now();
    assert!(proxy.member(&one.0).ejected && !proxy.member(&two.0).ejected);
    assert_eq!(proxy.told("fails and is left out for 600ms"), 1);
    assert_eq!(proxy.told("gets new flows again"), 0);
    one.1.store(false, SeqCst);
    proxy.until("back", |s| !s.members["rule"][&one.0.target.to_string()].ejected);
    assert!(start.elapsed() < time + Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(spread(address, 20, 2), [10, 10]);
    assert_eq!(proxy.told("gets new flows again"), 1);
    assert_eq!(proxy.counters("rule").failed, Some(0));
}

#[test]
fn each_time_in_a_row_is_longer_until_it_answers() {
    let ([one, two], time) = ([moody(0), moody(1)], Duration::from_millis(200));
    let (mut proxy, address) = watched(&[one.0.clone(), two.0.clone()], 1, time, 50);
    one.1.store(true, SeqCst);
    for times in 1..=3u32 {
        assert!((0..2).all(|_| told_by(&mut connect(address)) == 1));
        let expected = format!("left out for {:?}", time * (1 << (times - 1)));
        assert_eq!(proxy.told(&expected), 1, "{expected}");
        proxy.until("back", |s| !s.members["rule"][&one.0.target.to_string()].ejected);
    }
    one.1.store(false, SeqCst);
    assert_eq!(spread(address, 10, 2), [5, 5]);
    one.1.store(true, SeqCst);
    assert!((0..2).all(|_| told_by(&mut connect(address)) == 1));
    assert_eq!(proxy.told("left out for 200ms"), 2, "it has answered in between");
}

#[test]
fn never_more_than_the_bound_and_never_the_last() {
    let members: Vec<_> = (0..4).map(moody).collect();
    let pool: Vec<Member> = members.iter().map(|(member, ..)| member.clone()).collect();
    let (mut proxy, address) = watched(&pool, 1, HOUR, 50);
    members.iter().for_each(|(_, bad, _)| bad.store(true, SeqCst));
    for _ in 0..20 {
        assert_eq!(connect(address).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let ejected = |proxy: &mut Proxy| proxy.snapshot().members["rule"].values().filter(|m| m.ejected).count();
    assert_eq!(ejected(&mut proxy), 2);
    // The two that are not left out serve as soon as they can.
    members.iter().for_each(|(_, bad, _)| bad.store(false, SeqCst));
    let served = spread(address, 20, 4);
    assert_eq!(served.iter().filter(|count| **count == 10).count(), 2, "{served:?}");

    // A changed pool keeps what is held against those who stay, and its bound.
    let out: Vec<usize> = (0..4).filter(|place| served[*place] == 0).collect();
    let stay = |place: usize| pool[place].clone();
    let other = (0..4).find(|place| !out.contains(place)).unwrap();
    proxy.adjust(Meets::Members(vec![stay(out[0]), stay(other)]));
    assert_eq!(spread(address, 4, 4)[other], 4);
    members[other].1.store(true, SeqCst);
    // It cannot be left out as well; the one that is left out serves those that it fails.
    assert!((0..4).all(|_| told_by(&mut connect(address)) == out[0]));
    assert_eq!(proxy.told("left out"), 2);
}

#[test]
fn a_smaller_pool_takes_back_whom_it_cannot_do_without() {
    let members: Vec<_> = (0..4).map(moody).collect();
    let pool: Vec<Member> = members.iter().map(|(member, ..)| member.clone()).collect();
    let (mut proxy, address) = watched(&pool, 1, HOUR, 50);
    members[..2].iter().for_each(|(_, bad, _)| bad.store(true, SeqCst));
    (0..8).for_each(|_| assert!(told_by(&mut connect(address)) >= 2));
    let ejected = |proxy: &mut Proxy| proxy.snapshot().members["rule"].values().filter(|m| m.ejected).count();
    assert_eq!(ejected(&mut proxy), 2);
    members[..2].iter().for_each(|(_, bad, _)| bad.store(false, SeqCst));
    proxy.adjust(Meets::Members(pool[..2].to_vec()));
    assert_eq!(ejected(&mut proxy), 1);
    let served = spread(address, 10, 4);
    assert!(served[..2] == [10, 0] || served[..2] == [0, 10], "{served:?}");

    // One that went and comes back begins anew, and so does everybody when nothing is checked any more.
    let out = usize::from(served[0] == 10);
    proxy.adjust(Meets::Members(pool[2..].to_vec()));
    proxy.adjust(Meets::Members(vec![pool[2].clone(), pool[out].clone()]));
    assert_eq!(spread(address, 10, 4)[out], 5);
    members[out].1.store(true, SeqCst);
    (0..4).for_each(|_| assert_eq!(told_by(&mut connect(address)), 2));
    members[out].1.store(false, SeqCst);
    proxy.rule().pool.passive = None;
    proxy.apply().unwrap();
    assert_eq!(spread(address, 10, 4)[out], 5);
}

#[test]
fn refused_and_timed_out_connections_count() {
    let closed = member(free(Protocol::Tcp, [127, 0, 0, 1].into()));
    let (hole, _fill) = black_hole();
    let hole = member(hole.local_addr().unwrap());
    for bad in [closed, hole] {
        let members = [bad.clone(), tellers(1).remove(0)];
        let (mut proxy, address) = Proxy::pool(Protocol::Tcp, members.to_vec(), |rule| {
            rule.pool.passive = Some(Passive { max_fails: 2, fail_timeout: HOUR, max_ejected: 50 });
            rule.timeouts.connect = Duration::from_millis(200);
        });
        for _ in 0..12 {
            assert_eq!(told_by(&mut connect(address)), 0);
        }
        assert_eq!(proxy.member(&bad).failed, Some(2));
        assert!(proxy.member(&bad).ejected);
    }
}

#[test]
fn clients_that_reset_are_not_the_members_fault() {
    // Never answers.
    let silent = member(server(|mut stream| _ = stream.read_to_end(&mut Vec::new())));
    let (mut proxy, address) = watched(&[silent.clone(), tellers(1).remove(0)], 1, HOUR, 50);
    for _ in 0..10 {
        let mut stream = connect(address);
        stream.write_all(b"x").unwrap();
        proxy.until("connected", |s| s.members["rule"].values().map(|member| member.live).sum::<u64>() == 1);
        reset(stream);
        proxy.until("gone", |s| s.rules["rule"].live == 0);
    }
    assert_eq!((proxy.member(&silent).failed, proxy.member(&silent).ejected), (Some(0), false));
}

#[test]
fn hashes_and_persistence_pass_by_those_left_out() {
    for (balance, persist) in [(Balance::ConsistentHash, None), (Balance::RoundRobin, Some(HOUR))] {
        let moods = [moody(0), moody(1)];
        let members: Vec<Member> = moods.iter().map(|(member, ..)| member.clone()).collect();
        let (mut proxy, address) = Proxy::pool(Protocol::Tcp, members, |rule| {
            rule.pool.balance = balance;
            rule.pool.persist = persist;
            rule.pool.passive = Some(Passive { max_fails: 2, fail_timeout: HOUR, max_ejected: 50 });
        });
        let mine = told_by(&mut connect(address));
        moods[mine].1.store(true, SeqCst);
        assert!((0..10).all(|_| told_by(&mut connect(address)) != mine), "{balance}");
        // Persistence forgets a member that failed once; a hash comes back to it until it is left out.
        let failed = proxy.member(&moods[mine].0).failed;
        assert_eq!(failed, Some(if persist.is_some() { 1 } else { 2 }), "{balance}");
    }
}

#[test]
fn udp_refusals_count() {
    let closed = member(free(Protocol::Udp, [127, 0, 0, 1].into()));
    let good = member(udp_server_on("127.0.0.1", <[u8]>::to_vec));
    let (mut proxy, address) = Proxy::pool(Protocol::Udp, vec![closed.clone(), good], |rule| {
        rule.pool.passive = Some(Passive { max_fails: 2, fail_timeout: HOUR, max_ejected: 50 });
    });
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let client = udp_client(address);
            client.send(b"?").unwrap();
            client
        })
        .collect();
    proxy.until("ejected", |s| s.members["rule"][&closed.target.to_string()].ejected);
    // The first ones are kept, so that no other gets their ports and is taken for them.
    for _ in 0..10 {
        assert_eq!(udp_ask(&udp_client(address), b"all"), b"all");
    }
    drop(clients);
    assert_eq!(proxy.member(&closed).failed, Some(2));
}

#[test]
fn a_backend_that_was_gone_is_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address_of_it = listener.local_addr().unwrap();
    drop(listener);
    let members = [member(address_of_it), tellers(1).remove(0)];
    let (mut proxy, address) = watched(&members, 1, Duration::from_millis(300), 50);
    assert!((0..4).all(|_| told_by(&mut connect(address)) == 0));
    assert!(proxy.member(&members[0]).ejected);
    let listener = TcpListener::bind(address_of_it).unwrap();
    serve(listener, |mut stream: TcpStream| {
        _ = stream.write_all(&[1]);
        echo(stream);
    });
    let start = Instant::now();
    while told_by(&mut connect(address)) == 0 {
        assert!(start.elapsed() < Duration::from_secs(2));
    }
    assert!(start.elapsed() >= Duration::from_millis(100), "it was left out for its time");
}
