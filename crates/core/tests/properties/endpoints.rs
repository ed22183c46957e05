//! Endpoints and durations are read back from what is displayed of them.

use std::net::SocketAddr;
use std::time::Duration;

use portway_core::address::Protocol;
use portway_core::config::endpoint::{parse_forward, parse_listen, parse_server};
use portway_core::config::value::{format_duration, parse_duration};
use portway_core::ruleset::{Listener, TargetPorts};
use proptest::prelude::*;

use super::{address, backend, host, listener, ports, texts};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_listener_is_read_back_from_its_display(listener in listener()) {
        let listen = parse_listen(&listener.to_string());
        let family = Some(listener.scope.family());
        let listeners: Vec<Listener> = listen.expect("what is displayed is valid").listeners(family)
            .expect("the family is known").collect();
        prop_assert_eq!(listeners, vec![listener]);
    }

    #[test]
    fn both_protocols_are_two_listeners(listener in listener()) {
        let text = listener.to_string();
        let both = format!("tcp+{}", text.replacen("tcp/", "udp/", 1));
        let listen = parse_listen(&both).expect("valid");
        let found: Vec<Listener> = listen.listeners(Some(listener.scope.family())).expect("known").collect();
        let of = |protocol| Listener { protocol, ..listener.clone() };
        prop_assert_eq!(found, vec![of(Protocol::Tcp), of(Protocol::Udp)]);
    }

    #[test]
    fn a_backend_is_read_back_from_its_display(host in host(), range in proptest::option::of(ports())) {
        let written = backend(host.clone(), range);
        let forward = parse_forward(&written.to_string()).expect("what is displayed is valid");
        let range = range.filter(|_| written.ports != TargetPorts::Same);
        prop_assert_eq!((forward.host, forward.ports), (host, range));
    }

    #[test]
    fn a_resolver_is_read_back_from_its_display(address in address(), port in 1..=u16::MAX) {
        let server = SocketAddr::new(address, port);
        prop_assert_eq!(parse_server(&server.to_string()), Ok(server));
        let bare = if address.is_ipv4() { address.to_string() } else { format!("[{address}]") };
        prop_assert_eq!(parse_server(&bare), Ok(SocketAddr::new(address, 53)));
    }

    #[test]
    fn a_range_contains_what_it_iterates(range in ports(), port in any::<u16>()) {
        prop_assert_eq!(range.iter().count(), range.count() as usize);
        prop_assert_eq!(range.contains(port), range.iter().any(|one| one == port));
    }

    #[test]
    fn durations_are_read_back(millis in 1..=u64::MAX / 2) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    /// A fault lies within the text, on character boundaries.
    #[test]
    fn endpoints_never_panic(text in texts()) {
        let faults = [parse_listen(&text).err(), parse_forward(&text).err(), parse_server(&text).err()];
        for fault in faults.into_iter().flatten() {
            prop_assert!(text.get(fault.at.clone()).is_some(), "{fault:?}");
        }
        let _ = parse_duration(&text);
    }
}
