//! Choosing by the server name of a ClientHello.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use portway_core::address::Protocol;
use portway_core::balance::{SEED, client_hash, jhash, slot, table};
use portway_core::members::{Meets, Member};
use portway_core::ruleset::{Balance, HashKey};
use portway_proxy::server_name_in;
use proptest::prelude::*;
use support::*;

/// Members whose servers answer a first byte with their place and then echo everything, the first byte too.
fn listeners(count: u8) -> Vec<Member> {
    let listener = |place| {
        member(server(move |mut stream| {
            let mut first = [0];
            if stream.read_exact(&mut first).is_ok() && stream.write_all(&[place, first[0]]).is_ok() {
                echo(stream);
            }
        }))
    };
    (0..count).map(listener).collect()
}

fn by_name(members: &[Member], connect: Duration) -> (Proxy, SocketAddr) {
    Proxy::pool(Protocol::Tcp, members.to_vec(), |rule| {
        rule.pool.balance = Balance::ConsistentHash;
        rule.pool.hash = HashKey::Sni;
        rule.timeouts.connect = connect;
    })
}

fn predicted(members: &[Member], hash: u32) -> usize {
    let table = table(Balance::ConsistentHash, members.len(), members);
    table[slot(hash, table.len())].into()
}

fn of_name(members: &[Member], name: &str) -> usize {
    predicted(members, jhash(name.as_bytes(), SEED))
}

fn of_client(members: &[Member], stream: &TcpStream) -> usize {
    predicted(members, client_hash(HashKey::Source, stream.local_addr().unwrap()))
}

/// Checks that the server got all that was sent.
fn echoed(stream: &mut TcpStream, sent: &[u8]) {
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == sent, "the hello reaches the server as it was sent");
}

const LONG: Duration = Duration::from_secs(30);

/// An address whose hash leads elsewhere than the name's.
fn client_unlike(members: &[Member], place: usize) -> SocketAddr {
    (1..=250)
        .map(|last| SocketAddr::new(Ipv4Addr::new(127, 55, 0, last).into(), 0))
        .find(|client| predicted(members, client_hash(HashKey::Source, *client)) != place)
        .unwrap()
}

#[test]
fn names_lead_where_the_core_says_whoever_asks() {
    let members = listeners(4);
    let (_proxy, address) = by_name(&members, LONG);
    let mut seen = [0; 4];
    for nth in 0..60 {
        let name = format!("host-{nth}.example");
        let place = of_name(&members, &name);
        seen[place] += 1;
        // Upper case is the same name.
        for (name, client) in [
            (name.clone(), client_unlike(&members, place)),
            (name.to_uppercase(), "127.0.0.1:0".parse().unwrap()),
        ] {
            let hello = records(&client_hello(Some(&name), 0), 16384);
            let mut stream = connect_from(client, address);
            stream.write_all(&hello).unwrap();
            assert_eq!(told_by(&mut stream), place, "{name}");
            echoed(&mut stream, &hello);
            reset(stream);
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn a_hello_in_many_records_and_segments() {
    let members = listeners(4);
    let (_proxy, address) = by_name(&members, LONG);
    let place = of_name(&members, "many.example");
    let client = client_unlike(&members, place);
    for (record, padding) in [(1, 0), (7, 0), (16384, 5000), (100, 8000), (16384, 15_000)] {
        let hello = records(&client_hello(Some("many.example"), padding), record);
        assert!(hello.len() < 16 << 10);
        for part in [hello.len(), 1400, 97] {
            let mut stream = connect_from(client, address);
            stream.set_nodelay(true).unwrap();
            for part in hello.chunks(part) {
                stream.write_all(part).unwrap();
                thread::sleep(Duration::from_micros(200));
            }
            assert_eq!(
                told_by(&mut stream),
                place,
                "records of {record}, {padding} of padding, parts of {part}"
            );
            echoed(&mut stream, &hello);
        }
    }
}

#[test]
fn without_a_name_the_address_decides_at_once() {
    let members = listeners(4);
    let (mut proxy, address) = by_name(&members, LONG);
    let nameless = records(&client_hello(None, 0), 16384);
    let endless = records(&client_hello(Some("far.example"), 40_000), 16384);
    let broken = records(&[1, 0, 0, 4, 3, 3, 9, 9], 16384);
    for sent in [&nameless[..], &endless, &broken, b"GET / HTTP/1.1\r\n\r\n", b"\x16"] {
        let mut stream = connect_from("127.0.0.3:0".parse().unwrap(), address);
        let start = Instant::now();
        stream.write_all(sent).unwrap();
        if sent.len() == 1 {
            // No more will come.
            stream.shutdown(Shutdown::Write).unwrap();
        }
        assert_eq!(told_by(&mut stream), of_client(&members, &stream));
        assert!(start.elapsed() < Duration::from_secs(5));
        echoed(&mut stream, sent);
        reset(stream);
    }
    assert_eq!(proxy.counters("rule").failed, Some(0));
}

#[test]
fn a_server_that_speaks_first_is_asked_when_the_time_is_over() {
    let members = tellers(4);
    let wait = Duration::from_millis(400);
    let (_proxy, address) = by_name(&members, wait);
    let start = Instant::now();
    let mut stream = connect(address);
    assert_eq!(told_by(&mut stream), of_client(&members, &stream));
    assert!((400..1200).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(ask(&mut stream, b"then"), b"then");
}

#[test]
fn a_client_that_leaves_is_forgotten() {
    let (mut proxy, address) = by_name(&listeners(2), LONG);
    let mut stream = connect(address);
    stream.write_all(&records(&client_hello(Some("x.example"), 0), 16384)[..20]).unwrap();
    proxy.until("accepted", |s| s.rules["rule"].live == 1);
    reset(stream);
    proxy.until("gone", |s| s.rules["rule"].live == 0);
}

#[test]
fn a_name_stays_with_a_connection_that_is_begun_anew() {
    let mut members = listeners(3);
    members[2] = member(free(Protocol::Tcp, [127, 0, 0, 1].into()));
    let mut names = (0..).map(|nth| format!("host-{nth}.example"));
    let name = names.find(|name| of_name(&members, name) == 2).unwrap();
    let table = table(Balance::ConsistentHash, members.len(), &members);
    let from = slot(jhash(name.as_bytes(), SEED), table.len());
    let next = *table[from..].iter().chain(&table[..from]).find(|place| **place != 2).unwrap();
    let (mut proxy, address) = by_name(&members, LONG);
    for last in 1..=20 {
        let mut stream = connect_from(SocketAddr::new(Ipv4Addr::new(127, 54, 0, last).into(), 0), address);
        stream.write_all(&records(&client_hello(Some(&name), 0), 16384)).unwrap();
        assert_eq!(told_by(&mut stream), usize::from(next), "the name's next slot, whoever asks");
    }
    assert_eq!(proxy.gauge("retries"), 20);
}

#[test]
fn one_member_needs_no_name() {
    let members = tellers(2);
    let (mut proxy, address) = by_name(&members, LONG);
    proxy.adjust(Meets::Members(vec![members[1].clone()]));
    assert_eq!(told_by(&mut connect(address)), 1, "the client is not waited for");
}

proptest! {
    /// Whatever a client sends, in whatever parts: no panic, and the parts make no difference.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600), part in 1usize..50) {
        prop_assert_eq!(server_name_in(&bytes, part), server_name_in(&bytes, bytes.len()));
    }

    /// A hello that was damaged on the way.
    #[test]
    fn nearly_a_hello(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(), record in 1usize..300, part in 1usize..50) {
        let mut bytes = records(&client_hello(Some("name.example"), 30), record);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        prop_assert_eq!(server_name_in(&bytes, part), server_name_in(&bytes, bytes.len()));
    }

    /// In as many records as a client likes; of what needs more than 16 KiB, headers of records included, no name is taken.
    #[test]
    fn a_name_is_found(name in "[a-z][a-z0-9-]{0,20}[a-z0-9](\\.[a-z]{2,6}){1,3}", record in 1usize..300, padding in 0usize..3000, part in 1usize..50) {
        let bytes = records(&client_hello(Some(&name.to_uppercase()), padding), record);
        prop_assert_eq!(server_name_in(&bytes, part), (bytes.len() <= 16 << 10).then_some(name));
    }
}
