//! The keys of the sections that stand beside the rules: the host, the control socket, the proxy, resolving names.

use std::time::Duration;

use super::rule::PROXY_TIMEOUTS;
use super::{Bounds, KERNEL_CLOCK, Kind, Section, also_called, key};

/// How long an answer may be kept.
const TTL: Kind = Kind::Duration(Bounds {
    least: Duration::from_millis(100),
    most: Duration::from_secs(7 * 86_400),
    whole_seconds: false,
});

/// What may be changed on the host.
pub static HOST: Section = Section {
    header: "[host]",
    doc: "What Portway may change on the host, besides its own nf_tables table and its own sockets.",
    keys: &[
        key(
            "settings",
            Kind::Choice(&["set", "check"]),
            "\"set\"",
            "\"check\"",
            "Whether kernel settings that the rules need (`ip_forward`, IPv6 forwarding, `route_localnet`, the \
             conntrack limits below) are set, recorded and put back by `portway clear`, or only reported.",
        ),
        key("conntrack", Kind::Table(&CONNTRACK), "", "", ""),
    ],
};

static CONNTRACK: Section = Section {
    header: "[host.conntrack]",
    doc: "Limits of the kernel's connection tracking, which the `nftables` engine stands on. They hold for the whole \
          network namespace. What is left out is left as it is.",
    keys: &[
        key(
            "max",
            Kind::Number(1, i32::MAX as u32),
            "as it is",
            "262144",
            "The most tracked connections (`nf_conntrack_max`). A full table drops new connections.",
        ),
        key(
            "tcp-established",
            KERNEL_CLOCK,
            "as it is",
            "\"2h\"",
            "How long an idle TCP connection is remembered (`nf_conntrack_tcp_timeout_established`).",
        ),
        key(
            "udp",
            KERNEL_CLOCK,
            "as it is",
            "\"30s\"",
            "How long a UDP flow that had no answer is remembered (`nf_conntrack_udp_timeout`).",
        ),
        key(
            "udp-stream",
            KERNEL_CLOCK,
            "as it is",
            "\"2m\"",
            "How long a UDP flow with traffic both ways is remembered (`nf_conntrack_udp_timeout_stream`).",
        ),
        also_called(
            key(
                "accounting",
                Kind::Flag,
                "true",
                "false",
                "Whether the kernel keeps the age and the bytes of each flow, for `portway conns` (`nf_conntrack_acct`, \
                 `nf_conntrack_timestamp`). Only where a rule is served by `nftables`. `false` leaves both as they are.",
            ),
            &["acct", "timestamp", "bytes"],
        ),
    ],
};

/// The control socket.
pub static CONTROL: Section = Section {
    header: "[control]",
    doc: "The control socket of a running Portway, over which `status` and `reload` talk to it.",
    keys: &[key(
        "group",
        Kind::Text,
        "none",
        "\"adm\"",
        "A group whose members may use the socket. Otherwise only the owner of the process may.",
    )],
};

/// The proxy engine.
pub static PROXY: Section = Section {
    header: "[proxy]",
    doc: "The `proxy` engine as a whole.",
    keys: &[
        key("workers", Kind::Number(1, 1024), "one per core", "2", "Worker threads."),
        also_called(
            key(
                "max-connections",
                Kind::Number(1, 10_000_000),
                "from the open-file limit",
                "9000",
                "The most TCP connections at a time, over all rules. At the limit new connections wait in the \
                 kernel's queue.",
            ),
            &["maxconn", "worker_connections"],
        ),
        key(
            "max-flows",
            Kind::Number(1, 10_000_000),
            "from the open-file limit",
            "4000",
            "The most UDP flows at a time, over all rules. At the limit a datagram of a new flow is dropped.",
        ),
        key("timeouts", Kind::Table(&PROXY_TIMEOUTS), "", "", ""),
    ],
};

/// Resolving names.
pub static DNS: Section = Section {
    header: "[dns]",
    doc: "How backends that are names are resolved. An answer is kept for its TTL, within the bounds below, and the last \
          good one for as long as no resolver answers. A changed answer moves new connections only.",
    keys: &[
        also_called(
            key(
                "servers",
                Kind::Texts,
                "the system's",
                "[\"10.0.0.53\", \"[fd00::53]:53\"]",
                "The resolvers to ask, in turn: at most 8 addresses, port 53 where none is written. The system's are \
                 those of `/etc/resolv.conf`.",
            ),
            &["nameserver", "nameservers", "server", "resolver", "resolvers", "resolve-opts"],
        ),
        also_called(
            key(
                "timeout",
                Kind::Duration(Bounds {
                    least: Duration::from_millis(10),
                    most: Duration::from_secs(60),
                    whole_seconds: false,
                }),
                "\"2s\"",
                "\"500ms\"",
                "How long a resolver may take to answer.",
            ),
            &["resolver_timeout", "timeout-resolve", "timeout-retry", "retry"],
        ),
        also_called(
            key(
                "ttl-min",
                TTL,
                "\"1s\"",
                "\"10s\"",
                "The shortest time between two questions for a name, whatever its TTL.",
            ),
            &["min-ttl", "hold"],
        ),
        also_called(
            key("ttl-max", TTL, "\"5m\"", "\"1m\"", "The longest, whatever its TTL."),
            &["max-ttl", "valid"],
        ),
    ],
};
