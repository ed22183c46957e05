//! The keys of `[ebpf]`: the engine as a whole. What a rule asks of it stands with the rule's keys.

use std::time::Duration;

use super::{Bounds, Key, Kind, MOST, Section, also_called, key, too_large, words, words_also_called};
use crate::ruleset::{Attach, EbpfSettings};

static ATTACH: [&str; Attach::WORDS.len()] = words(&Attach::WORDS);

/// The ebpf engine.
pub static EBPF: Section = Section {
    header: "[ebpf]",
    doc: "The `ebpf` engine as a whole: programs on the network interfaces that rewrite both addresses of what the rules \
          ask for. It serves what arrives on an interface, not clients on this host itself, and needs Linux 6.6.",
    keys: &[
        words_also_called(
            key(
                "attach",
                Kind::Choice(&ATTACH),
                "\"auto\"",
                "\"tc\"",
                "Where the programs meet packets. `auto`: TC on every interface, and before it XDP where the driver of a \
                 physical device has it natively. `tc`: TC only. `clsact`: TC only, attached as before Linux 6.6. `xdp`: \
                 XDP also on virtual devices. `portway probe` says what an interface can do and what was chosen.",
            ),
            &[("tcx", "tc"), ("native", "xdp"), ("xdpdrv", "xdp"), ("drv", "xdp")],
        ),
        also_called(
            key(
                "interfaces",
                Kind::Texts,
                "all",
                "[\"eth0\", \"eth1\"]",
                "The interfaces that clients and backends are behind. By default all that are up, are not loopback and \
                 belong to no bridge or bond; those that come later as well.",
            ),
            &["interface", "devices", "device", "dev", "ifaces"],
        ),
        too_large(
            also_called(
                key(
                    "max-flows",
                    Kind::Number(EbpfSettings::FLOWS.0, EbpfSettings::FLOWS.1),
                    "262144",
                    "1048576",
                    "The most flows at a time, over all rules; their memory is taken at the start. With a full table new \
                     flows are dropped and counted, and the present ones stay. A change takes effect after `portway clear`.",
                ),
                &["max-connections", "maxconn", "table-size", "conntrack-max"],
            ),
            "more flows need a second gateway",
        ),
        also_called(
            key(
                "source-ports",
                Kind::Text,
                "\"40000-65535\"",
                "\"32768-65535\"",
                "The ports that a source port is searched in when the client's own is taken, from 1024 on. The host's \
                 sockets are kept out of them (`ip_local_reserved_ports`).",
            ),
            &["port-range", "ports", "ip_local_port_range"],
        ),
        key("timeouts", Kind::Table(&TIMEOUTS), "", "", ""),
    ],
};

static TIMEOUTS: Section = Section {
    header: "[ebpf.timeouts]",
    doc: "How long a flow of the `ebpf` engine is remembered without a packet.",
    keys: &[
        clock("opening", "\"30s\"", "\"10s\"", "TCP: until the handshake is over."),
        also_called(
            clock("established", "\"2h\"", "\"30m\"", "TCP: an established connection."),
            &["idle", "tcp", "timeout", "tcp-established"],
        ),
        also_called(
            clock("closing", "\"1m\"", "\"30s\"", "TCP: after one side has ended its direction."),
            &["half-closed", "fin", "tcpfin"],
        ),
        clock(
            "time-wait",
            "\"1m\"",
            "\"2m\"",
            "TCP: after the backend has ended the connection first, and holds the port (RFC 9293, 3.6.1). Not shorter \
             than the backend's own.",
        ),
        clock("udp", "\"30s\"", "\"10s\"", "UDP: without an answer."),
        also_called(
            clock("udp-stream", "\"2m\"", "\"5m\"", "UDP: with traffic both ways."),
            &["udp-idle", "udp-answered"],
        ),
    ],
};

const fn clock(name: &'static str, default: &'static str, example: &'static str, doc: &'static str) -> Key {
    let bounds = Bounds { least: Duration::from_secs(1), most: MOST, whole_seconds: false };
    key(name, Kind::Duration(bounds), default, example, doc)
}
