//! Listing and ending flows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use portway_core::address::{Family, PortRange, Protocol};
use portway_core::engine::Engine;
use portway_core::flow::{Flow, FlowFilter, Network};
use portway_core::members::Meets;
use portway_core::plan::proxy::Socket;
use portway_core::ruleset::Scope;
use support::*;

fn flows(proxy: &mut Proxy, filter: &FlowFilter) -> Vec<Flow> {
    let flows = proxy.engine.observer().unwrap().flows(filter, 10_000).unwrap();
    assert_eq!(flows.total, flows.flows.len() as u64);
    flows.flows
}

#[test]
fn a_tcp_flow_says_all_that_is_known() {
    let members = tellers(1);
    let backend = members[0].target.socket(PortRange::single(1).unwrap(), 1);
    let (mut proxy, address) = Proxy::pool(Protocol::Tcp, members, |rule| {
        let (socket, ports) = rule.sockets.pop_first().unwrap();
        rule.sockets = [(Socket { scope: Scope::Any(Family::V4), ..socket }, ports)].into();
    });
    let asked = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 42).into(), address.port());
    let mut stream = connect(asked);
    told_by(&mut stream);
    assert_eq!(ask(&mut stream, b"12345"), b"12345");
    let expected = Flow {
        engine: "proxy".to_owned(),
        rule: "rule".to_owned(),
        protocol: "tcp".to_owned(),
        client: stream.local_addr().unwrap(),
        listener: asked,
        backend: Some(backend),
        state: "established".to_owned(),
        age_seconds: Some(0),
        bytes_in: Some(5),
        bytes_out: Some(6),
    };
    // An answer may be here before it has been counted.
    proxy.until("counted", |s| s.rules["rule"].bytes_out == 6);
    assert_eq!(flows(&mut proxy, &FlowFilter::default()), [expected]);
    thread::sleep(Duration::from_millis(1100));
    assert!(flows(&mut proxy, &FlowFilter::default())[0].age_seconds >= Some(1));
    let older =
        |seconds| FlowFilter { older_than: Some(Duration::from_secs(seconds)), ..FlowFilter::default() };
    assert_eq!(flows(&mut proxy, &older(1)).len(), 1);
    assert_eq!(flows(&mut proxy, &older(60)).len(), 0);

    stream.shutdown(Shutdown::Write).unwrap();
    proxy.until("ended", |s| s.rules["rule"].live == 0);
    assert!(flows(&mut proxy, &FlowFilter::default()).is_empty());
}

#[test]
fn states_of_tcp_flows() {
    // Reads the end and keeps its own direction open.
    let sink = server(|stream| {
        _ = (&stream).read(&mut [0; 16]);
        thread::sleep(SOON);
    });
    let (mut proxy, address) = Proxy::tcp(sink);
    let stream = connect(address);
    stream.shutdown(Shutdown::Write).unwrap();
    proxy.until("live", |s| s.rules["rule"].live == 1);
    let start = std::time::Instant::now();
    while flows(&mut proxy, &FlowFilter::default())[0].state != "closing" {
        assert!(start.elapsed() < SOON);
    }
    let (listener, _fill) = black_hole();
    let hole = listener.local_addr().unwrap();
    proxy.adjust(Meets::Members(vec![member(hole)]));
    let _waiting = connect(address);
    proxy.until("two", |s| s.rules["rule"].live == 2);
    let to_hole = FlowFilter { backend_port: Some(hole.port()), ..FlowFilter::default() };
    assert_eq!(flows(&mut proxy, &to_hole)[0].state, "connecting");
}

#[test]
fn filters_pick_and_the_listing_is_bounded() {
    let members = tellers(2);
    let (mut proxy, address) = Proxy::pool(Protocol::Tcp, members.clone(), |_| {});
    let mut held = Vec::new();
    for last in 0..20u8 {
        let mut stream = connect_from(SocketAddr::new(Ipv4Addr::new(127, 66, 0, last).into(), 0), address);
        told_by(&mut stream);
        held.push(stream);
    }
    let all = FlowFilter::default();
    assert_eq!(flows(&mut proxy, &all).len(), 20);
    let few = proxy.engine.observer().unwrap().flows(&all, 3).unwrap();
    assert_eq!((few.flows.len(), few.total), (3, 20));
    let address_of = |nth: usize| members[nth].target.address;
    let port_of = |nth: usize| members[nth].target.ports.of(PortRange::single(1).unwrap(), 1);
    let rule = proxy.engine.plan().rules.keys().next().unwrap().clone();
    let of_backend = FlowFilter::of_backend(&rule, address_of(0), Some(port_of(0)), Some(Protocol::Tcp));
    assert_eq!(flows(&mut proxy, &of_backend).len(), 10);
    let network = Network { address: Ipv4Addr::new(127, 66, 0, 16).into(), prefix: 30 };
    let of_network = FlowFilter { client: Some(network), ..FlowFilter::default() };
    assert_eq!(flows(&mut proxy, &of_network).len(), 4);
    let port = held[7].local_addr().unwrap().port();
    let of_port = FlowFilter { client_port: Some(port), client: None, ..FlowFilter::default() };
    assert!(flows(&mut proxy, &of_port).iter().all(|flow| flow.client.port() == port));
    for nothing in [
        FlowFilter { rule: Some("other".to_owned()), ..FlowFilter::default() },
        FlowFilter { protocol: Some("udp".to_owned()), ..FlowFilter::default() },
        FlowFilter { backend: Some(Ipv4Addr::new(192, 0, 2, 1).into()), ..FlowFilter::default() },
    ] {
        assert_eq!(flows(&mut proxy, &nothing), []);
    }

    // Those of one backend end, by a reset, and nobody else's.
    assert_eq!(proxy.engine.end_flows(&of_backend).unwrap(), 10);
    let (mut ended, mut live) = (0, 0);
    for stream in &mut held {
        // The reset has come already, or this write meets it.
        match stream.write_all(b"x").and_then(|()| stream.read(&mut [0])) {
            Ok(length) => {
                assert_eq!(length, 1);
                live += 1;
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                    "{error}"
                );
                ended += 1;
            }
        }
    }
    assert_eq!((ended, live), (10, 10));
    assert_eq!(proxy.member(&members[0]).live, 0);
    assert_eq!(proxy.engine.end_flows(&FlowFilter::default()).unwrap(), 10);
    assert_eq!(proxy.gauge("connections"), 0);
}

#[test]
fn udp_flows_are_listed_and_let_go() {
    let tell = |place: u8| member(udp_server_on("127.0.0.1", move |_| vec![place]));
    let members = vec![tell(0), tell(1)];
    let (mut proxy, address) = Proxy::pool(Protocol::Udp, members.clone(), |_| {});
    let clients: Vec<_> = (0..4).map(|_| udp_client(address)).collect();
    let places: Vec<u8> = clients.iter().map(|client| udp_ask(client, b"four")[0]).collect();
    assert_eq!(places, [0, 1, 0, 1]);
    proxy.until("counted", |s| s.rules["rule"].bytes_out == 4);
    let listed = flows(&mut proxy, &FlowFilter::default());
    assert_eq!(listed.len(), 4);
    for flow in &listed {
        assert_eq!((flow.protocol.as_str(), flow.state.as_str()), ("udp", "answered"));
        assert_eq!((flow.listener, flow.bytes_in, flow.bytes_out), (address, Some(4), Some(1)));
        assert!(clients.iter().any(|client| client.local_addr().unwrap() == flow.client));
    }
    // The backend goes down: its flows are let go, and their next datagram finds another.
    proxy.adjust(Meets::Members(vec![members[1].clone()]));
    let rule = proxy.engine.plan().rules.keys().next().unwrap().clone();
    let target = members[0].target;
    let port = target.ports.of(PortRange::single(1).unwrap(), 1);
    let gone = FlowFilter::of_backend(&rule, target.address, Some(port), Some(Protocol::Udp));
    assert_eq!(proxy.engine.end_flows(&gone).unwrap(), 2);
    let places: Vec<u8> = clients.iter().map(|client| udp_ask(client, b"?")[0]).collect();
    assert_eq!(places, [1, 1, 1, 1]);
}
