//! The keys of `[[rule]]`, and the clocks that a rule shares with `[proxy]`.

use super::pool::POOL;
use super::{CLOCK, Key, Kind, Section, also_called, key, required, words_also_called};

/// A rule.
pub static RULE: Section = Section {
    header: "[[rule]]",
    doc: "One forwarding intent: where traffic comes in, and where it goes. There may be any number of rules.",
    keys: &[
        also_called(
            key(
                "name",
                Kind::Text,
                "the first `listen` entry",
                "\"web\"",
                "Unique. 1 to 64 printable ASCII characters without white space, quotes and backslashes. Counters \
                 and established connections follow the name when the file changes.",
            ),
            &["id", "title", "label"],
        ),
        also_called(
            required(key(
                "listen",
                Kind::Texts,
                "",
                "\"0.0.0.0:8888\"",
                "Where traffic comes in, or a list of places. See *Listeners*.",
            )),
            &["bind", "from", "port", "ports", "local", "frontend", "protocol", "address", "interface"],
        ),
        also_called(
            key(
                "forward",
                Kind::Texts,
                "**required**, or `backends` in `[rule.pool]`",
                "\"192.168.1.100:80\"",
                "Where it goes, or a list of such backends. See *Backends*.",
            ),
            &[
                "backend",
                "backends",
                "to",
                "target",
                "remote",
                "server",
                "destination",
                "upstream",
                "proxy_pass",
                "connect",
                "servers",
            ],
        ),
        also_called(
            key(
                "pool",
                Kind::Table(&POOL),
                "",
                "{ balance = \"first\" }",
                "How traffic is spread over the backends, and what happens when some fail.",
            ),
            &["lb", "balancer", "load-balance", "upstream"],
        ),
        words_also_called(
            also_called(
                key(
                    "engine",
                    Kind::Choice(&["auto", "nftables", "ebpf", "proxy"]),
                    "\"auto\"",
                    "\"proxy\"",
                    "Which engine carries it. `auto` is the first of `nftables` and `proxy` that can do all the rule asks for \
                 on this host, and `ebpf` for what only that can; `portway plan` says which and why.",
                ),
                &["type", "via"],
            ),
            &[
                ("xdp", "ebpf"),
                ("tc", "ebpf"),
                ("bpf", "ebpf"),
                ("nat", "nftables"),
                ("nft", "nftables"),
                ("relay", "proxy"),
            ],
        ),
        also_called(
            key(
                "source",
                Kind::Texts,
                "\"masquerade\"",
                "[\"192.0.2.10\", \"192.0.2.11\"]",
                "Which source address the backend sees: `\"masquerade\"`, this host's address on the way there; \
                 `\"preserve\"`, the client's own (the backend must route its replies through this host; `nftables` \
                 only); or a list of this host's addresses, in the backends' families, that connections are spread over.",
            ),
            &["snat", "masquerade", "transparent", "nat"],
        ),
        key(
            "helper",
            Kind::Choice(&["ftp", "tftp", "sip"]),
            "none",
            "\"ftp\"",
            "A kernel conntrack helper, for a protocol that opens further connections: `ftp` (TCP), `tftp` (UDP), \
             `sip` (both). `nftables` only.",
        ),
        also_called(
            key(
                "max-connections",
                Kind::Number(1, 10_000_000),
                "no limit of its own",
                "100",
                "The most TCP connections and UDP flows of this rule at a time. `proxy` only.",
            ),
            &["maxconn", "limit"],
        ),
        also_called(
            key(
                "client-address",
                Kind::Choice(&["toa"]),
                "none",
                "\"toa\"",
                "How the backend learns who the client is: `toa` is TCP option 254 with the client's address and port on \
                 the segments that open a connection, as LVS's `toa` module reads it; `portway toa` on the backend reads \
                 it as well. TCP only. `ebpf` only.",
            ),
            &["toa", "send-proxy", "proxy-protocol", "real-ip"],
        ),
        also_called(
            key(
                "new-flow-rate",
                Kind::Number(1, 100_000_000),
                "no limit",
                "1000",
                "The most new flows a second; more are dropped and counted. `ebpf` only.",
            ),
            &["rate-limit", "rate", "maxconnrate", "rate-limit-sessions"],
        ),
        also_called(
            key(
                "syn-cookies",
                Kind::Number(0, 100_000_000),
                "none",
                "500",
                "The TCP connection requests a second above which they are answered by SYN cookies (RFC 4987, 3.6), which \
                 take no memory; 0 for always. A connection that is opened so has no window scaling, selective \
                 acknowledgements or timestamps. `ebpf` only.",
            ),
            &["syncookies", "tcp_syncookies", "syn-proxy", "synproxy"],
        ),
        also_called(key("timeouts", Kind::Table(&RULE_TIMEOUTS), "", "", ""), &["timeout"]),
    ],
};

/// The clocks of every rule.
pub static PROXY_TIMEOUTS: Section = Section {
    header: "[proxy.timeouts]",
    doc: "How long a proxied connection or flow may stay in a state, for every rule that does not say otherwise.",
    keys: TIMEOUT_KEYS,
};

static RULE_TIMEOUTS: Section = Section {
    header: "[rule.timeouts]",
    doc: "The same for one rule; what is left out is as in `[proxy.timeouts]`. Usually written in one line: \
          `timeouts = { idle = \"5m\" }`. A rule that sets any of them needs the `proxy` engine.",
    keys: TIMEOUT_KEYS,
};

const TIMEOUT_KEYS: &[Key] = &[
    key("connect", CLOCK, "\"5s\"", "\"2s\"", "TCP: from the attempt to the backend's answer."),
    also_called(
        key("idle", CLOCK, "\"1h\"", "\"5m\"", "TCP: without a byte in either direction."),
        &["timeout", "client", "server", "proxy_timeout", "read", "tcp"],
    ),
    key(
        "half-closed",
        CLOCK,
        "\"1m\"",
        "\"30s\"",
        "TCP: without a byte after one side has ended its direction.",
    ),
    also_called(
        key("udp-idle", CLOCK, "\"1m\"", "\"30s\"", "UDP: without a datagram in either direction."),
        &["udp"],
    ),
];
