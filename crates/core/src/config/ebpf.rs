//! The shape of `[ebpf]`. Names of interfaces and the range of ports are still text here, with their places.

use std::time::Duration;

use super::read::Fields;
use super::{Text, only};
use crate::diagnostic::Span;
use crate::ruleset::{Attach, FlowTimeouts};

/// `[ebpf]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EbpfConfig {
    /// `attach`.
    pub attach: Option<Attach>,
    /// `interfaces`, and the place of the list.
    pub interfaces: Option<(Vec<Text>, Span)>,
    /// `max-flows`.
    pub max_flows: Option<u32>,
    /// `source-ports`.
    pub source_ports: Option<Text>,
    /// `timeouts`; what is left out has the default.
    pub timeouts: FlowTimeouts,
}

/// The settings of the section.
pub(super) fn section(mut fields: Fields) -> EbpfConfig {
    let word = |word: &str| Attach::WORDS.iter().find(|(known, _)| *known == word).map(|(_, attach)| *attach);
    let config = EbpfConfig {
        attach: fields.choice("attach").and_then(|(written, _)| word(written)),
        interfaces: fields.texts("interfaces").map(|(texts, _, span)| (texts, span)),
        max_flows: fields.number("max-flows").map(only),
        source_ports: fields.text("source-ports"),
        timeouts: fields.table("timeouts").map(timeouts).unwrap_or_default(),
    };
    fields.finish();
    config
}

fn timeouts(mut fields: Fields) -> FlowTimeouts {
    let default = FlowTimeouts::default();
    let mut clock =
        |key: &'static str, default: Duration| fields.duration(key).map_or(default, |(time, _)| time);
    let timeouts = FlowTimeouts {
        opening: clock("opening", default.opening),
        established: clock("established", default.established),
        closing: clock("closing", default.closing),
        time_wait: clock("time-wait", default.time_wait),
        udp: clock("udp", default.udp),
        udp_stream: clock("udp-stream", default.udp_stream),
    };
    fields.finish();
    timeouts
}
