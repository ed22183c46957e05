//! Any text as a listener, a backend, a resolver and a duration: a fault lies within the text, and what is read is read
//! back from its display.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_core::address::Family;
use portway_core::config::endpoint::{parse_forward, parse_listen, parse_server};
use portway_core::config::value::{format_duration, parse_duration};
use portway_core::ruleset::{Backend, BackendHost, Target, TargetPorts};

fuzz_target!(|text: &str| {
    match parse_listen(text) {
        Ok(listen) => {
            assert!(text.get(listen.ports_at.clone()).is_some());
            for family in [Family::V4, Family::V6] {
                for listener in listen.listeners(Some(family)).expect("the family is given") {
                    let again = parse_listen(&listener.to_string()).expect("what is displayed is valid");
                    let again: Vec<_> = again.listeners(Some(family)).expect("the family is given").collect();
                    assert_eq!(again, [listener]);
                }
            }
        }
        Err(fault) => assert!(text.get(fault.at.clone()).is_some(), "{fault:?}"),
    }
    match parse_forward(text) {
        Ok(forward) => {
            let ports = match forward.ports {
                None => TargetPorts::Same,
                Some(range) if range.is_single() => TargetPorts::One(range.first()),
                Some(range) => TargetPorts::Shifted(range),
            };
            assert!(ports == TargetPorts::Same || !matches!(forward.host, BackendHost::Service(_)));
            let plain = Backend::of(Target { address: [127, 0, 0, 1].into(), ports });
            let shown = Backend { host: forward.host.clone(), ..plain }.to_string();
            let again = parse_forward(&shown).expect("what is displayed is valid");
            assert_eq!((again.host, again.ports), (forward.host, forward.ports));
        }
        Err(fault) => assert!(text.get(fault.at.clone()).is_some(), "{fault:?}"),
    }
    match parse_server(text) {
        Ok(server) => assert_eq!(parse_server(&server.to_string()), Ok(server)),
        Err(fault) => assert!(text.get(fault.at.clone()).is_some(), "{fault:?}"),
    }
    if let Ok(duration) = parse_duration(text).as_ref().copied()
        && !duration.is_zero()
    {
        assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }
});
