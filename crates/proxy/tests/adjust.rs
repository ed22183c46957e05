//! Changed members without prepare and commit: at once, under load, without a listener's notice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use portway_core::address::Protocol;
use portway_core::engine::Engine;
use portway_core::members::{Meets, Member};
use portway_core::plan::proxy::Plan;
use portway_core::ruleset::Balance;
use rustix::time::{ClockId, clock_gettime};
use support::*;

#[test]
fn the_next_connection_meets_the_new_members() {
    let members = tellers(3);
    let (mut proxy, address) = Proxy::pool(Protocol::Tcp, members.clone(), |_| {});
    for _ in 0..200 {
        for (place, member) in members.iter().enumerate() {
            proxy.adjust(Meets::Members(vec![member.clone()]));
            assert_eq!(told_by(&mut connect(address)), place);
        }
    }
}

#[test]
fn connections_keep_their_member_and_numbers_go_on() {
    let members = tellers(2);
    let (mut proxy, address) = Proxy::pool(Protocol::Tcp, members.clone(), |_| {});
    let mut held: Vec<(usize, TcpStream)> = (0..10)
        .map(|_| {
            let mut stream = connect(address);
            (told_by(&mut stream), stream)
        })
        .collect();
    proxy.adjust(Meets::Members(vec![members[1].clone()]));
    assert!((0..10).all(|_| told_by(&mut connect(address)) == 1));
    held.iter_mut().for_each(|(_, stream)| assert_eq!(ask(stream, b"mine"), b"mine"));
    assert_eq!(proxy.member(&members[0]).live, 5, "a member that left has its flows still");
    proxy.adjust(Meets::Members(members.clone()));
    assert_eq!((proxy.member(&members[0]).live, proxy.member(&members[0]).flows), (5, 5));
    assert_eq!(proxy.member(&members[1]).flows, 15);
    drop(held);
    proxy.until("gone", |s| s.members["rule"].values().all(|member| member.live == 0));
}

#[test]
fn under_load_nobody_is_lost_or_sent_astray() {
    let members = tellers(4);
    let (mut proxy, address) =
        Proxy::pool(Protocol::Tcp, members.clone(), |rule| rule.pool.balance = Balance::LeastConnections);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..400 {
                    let mut stream = connect(address);
                    told_by(&mut stream);
                    assert_eq!(ask(&mut stream, b"whole"), b"whole");
                    reset(stream);
                }
            })
        })
        .collect();
    let mut rounds = 0usize;
    while !clients.iter().all(thread::JoinHandle::is_finished) {
        rounds += 1;
        let weigh = |(nth, member): (usize, &Member)| Member {
            weight: u32::try_from((nth + rounds) % 5 + 1).unwrap(),
            ..member.clone()
        };
        let now: Vec<Member> = members.iter().enumerate().map(weigh).skip(rounds % 4).collect();
        proxy.adjust(Meets::Members(now));
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(rounds > 100, "{rounds}");
    let counters = proxy.counters("rule");
    assert_eq!((counters.flows, counters.failed), (1600, Some(0)));
    let flows: u64 = proxy.snapshot().members["rule"].values().map(|member| member.flows).sum();
    assert_eq!(flows, 1600);
}

#[test]
fn a_thousand_rules_are_adjusted_in_no_time() {
    let members = tellers(2);
    let mut proxy = Proxy::new();
    for nth in 0..1000u16 {
        let listen = free(Protocol::Udp, [127, 99, 0, 1].into());
        let rule = proxy.set(&format!("r{nth}"), Protocol::Udp, listen, listen);
        rule.pool.meets = Meets::Members(members.clone());
    }
    // All of a rule's members; sockets are not what is measured here.
    for (nth, rule) in proxy.plan.rules.values_mut().enumerate().skip(20) {
        rule.sockets.clear();
        rule.pool.retries = u8::try_from(nth % 10).unwrap();
    }
    proxy.apply().unwrap();
    for rule in proxy.plan.rules.values_mut() {
        rule.pool.meets = Meets::Members(members[1..].to_vec());
    }
    let change = Plan::diff(proxy.engine.plan(), &proxy.plan);
    let before = clock_gettime(ClockId::ThreadCPUTime);
    proxy.engine.adjust(&change).unwrap();
    let took = clock_gettime(ClockId::ThreadCPUTime) - before;
    assert!((took.tv_sec, took.tv_nsec) < (0, 200_000_000), "{took:?} of a processor");
}

#[test]
fn what_is_more_than_members_is_refused_and_changes_nothing() {
    let members = tellers(2);
    let (mut proxy, address) = Proxy::pool(Protocol::Tcp, vec![members[0].clone()], |_| {});
    let running = proxy.plan.clone();
    let mut wanted = running.clone();
    let rule = wanted.rules.values_mut().next().unwrap();
    rule.pool.meets = Meets::Members(vec![members[1].clone()]);
    rule.timeouts.idle += Duration::from_secs(1);
    let error = proxy.engine.adjust(&Plan::diff(&running, &wanted)).unwrap_err();
    assert!(error.to_string().contains("more than the members"), "{error}");
    proxy.engine.adjust(&Plan::diff(&running, &Plan::default())).unwrap_err();
    assert_eq!(*proxy.engine.plan(), running);
    assert_eq!(told_by(&mut connect(address)), 0);
}

#[test]
fn what_was_prepared_before_is_gone() {
    let members = tellers(2);
    let (mut proxy, address) = Proxy::pool(Protocol::Tcp, vec![members[0].clone()], |_| {});
    proxy.engine.prepare(&proxy.plan).unwrap();
    proxy.adjust(Meets::Members(vec![members[1].clone()]));
    assert_eq!(proxy.engine.commit().unwrap().added, 0);
    assert_eq!(told_by(&mut connect(address)), 1);
}
