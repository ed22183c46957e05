//! Properties of the parsers, of what is built and of conflict detection, on generated input.

mod conflicts;
mod endpoints;
mod files;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portway_core::address::{Family, InterfaceName, PortRange, Protocol};
use portway_core::ruleset::{Backend, BackendHost, HostName, Listener, Scope, Target, TargetPorts};
use proptest::prelude::*;

fn ports() -> impl Strategy<Value = PortRange> {
    (1..=u16::MAX, 1..=u16::MAX)
        .prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).expect("1 or more, in order"))
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
    ]
    .prop_filter("an address that traffic can have", |address| match address {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => {
            !(v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some())
        }
    })
}

/// Names that a backend can have: those of services only stand behind `srv/`, `localhost` nowhere.
fn host_name() -> impl Strategy<Value = HostName> {
    proptest::collection::vec("[A-Za-z0-9_]([A-Za-z0-9_-]{0,12}[A-Za-z0-9_])?", 1..5).prop_filter_map(
        "a name",
        |labels| {
            let service = labels.len() > 2 && labels[0].starts_with('_') && labels[1].starts_with('_');
            let local = labels.last().is_some_and(|last| last.eq_ignore_ascii_case("localhost"));
            // Digits and hyphens alone read as ports.
            let letters =
                labels.iter().any(|label| label.bytes().any(|b| b.is_ascii_alphabetic() || b == b'_'));
            HostName::new(&labels.join(".")).filter(|_| !service && !local && letters)
        },
    )
}

fn service_name() -> impl Strategy<Value = HostName> {
    "_[a-z]{1,8}\\._(tcp|udp)\\.[a-z0-9]{1,8}(\\.[a-z]{2,5})?"
        .prop_filter_map("a name", |name| HostName::new(&name))
}

fn host() -> impl Strategy<Value = BackendHost> {
    prop_oneof![
        address().prop_map(BackendHost::Address),
        host_name().prop_map(BackendHost::Name),
        service_name().prop_map(BackendHost::Service),
    ]
}

/// A backend as written, for a listener whose ports are not `range`.
fn backend(host: BackendHost, range: Option<PortRange>) -> Backend {
    let ports = match range.filter(|_| !matches!(host, BackendHost::Service(_))) {
        None => TargetPorts::Same,
        Some(range) if range.is_single() => TargetPorts::One(range.first()),
        Some(range) => TargetPorts::Shifted(range),
    };
    let plain = Backend::of(Target { address: IpAddr::V4(Ipv4Addr::LOCALHOST), ports });
    Backend { host, ..plain }
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn listener() -> impl Strategy<Value = Listener> {
    let interface = "[a-z][a-z0-9_-]{0,13}(\\.[0-9])?"
        .prop_filter_map("a name that is not `localhost`", |name| {
            InterfaceName::new(&name).filter(|name| name.as_str() != "localhost")
        });
    let scope = prop_oneof![
        address().prop_map(Scope::Address),
        family().prop_map(Scope::Any),
        (interface, family()).prop_map(|(name, family)| Scope::Interface(name, family)),
    ];
    (protocol(), scope, ports()).prop_map(|(protocol, scope, ports)| Listener { protocol, scope, ports })
}

/// Texts that look a little like what the parsers read.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\\[\\]0-9a-f:./%*,+ -]{0,40}",
        "(tcp|udp|tcp\\+udp|x)?/?(\\[?[0-9a-f:.]{0,20}\\]?|eth0)?:?[0-9-]{0,12}",
        "(srv/|SRV/)?(_[a-z]{1,4}\\.)?[a-z0-9_.-]{0,12}(localhost)?:?[0-9-]{0,6}",
    ]
}
