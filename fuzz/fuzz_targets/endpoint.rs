//! Any text as a listener and as a backend: a fault lies within the text, and what is read is read back from
//! its display.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_core::address::Family;
use portway_core::config::endpoint::{parse_forward, parse_listen};
use portway_core::config::value::{format_duration, parse_duration};
use portway_core::ruleset::{Backend, TargetPorts};

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
            let shown = Backend { address: forward.address, ports }.to_string();
            let again = parse_forward(&shown).expect("what is displayed is valid");
            assert_eq!((again.address, again.ports), (forward.address, forward.ports));
        }
        Err(fault) => assert!(text.get(fault.at.clone()).is_some(), "{fault:?}"),
    }
    if let Ok(duration) = parse_duration(text).as_ref().copied()
        && !duration.is_zero()
    {
        assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }
});
