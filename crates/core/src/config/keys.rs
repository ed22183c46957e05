//! The known keys, in one table: the reader, the hints for unknown keys and `docs/configuration.md` come
//! from it.
//!
//! Deliberately absent: what a value means beyond its type and bounds, which is [`crate::build`]'s business.

use std::time::Duration;

use super::nearest::nearest;

/// A table of the file.
#[derive(Debug)]
pub struct Section {
    /// How its header is written: `[host]`, `[[rule]]`; empty for the top of the file.
    pub header: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// What may stand in it.
    pub keys: &'static [Key],
}

/// A key that may stand in a section.
#[derive(Debug)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// What holds when it is not there.
    pub default: &'static str,
    /// A value, as written.
    pub example: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Words that people use for it elsewhere, for hints only.
    pub elsewhere: &'static [&'static str],
}

/// The type of a value.
#[derive(Debug)]
pub enum Kind {
    /// A text.
    Text,
    /// A text or a list of texts.
    Texts,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A whole number from 1 to this.
    Count(u32),
    /// A duration.
    Duration(Bounds),
    /// A table.
    Table(&'static Section),
    /// A list of tables.
    Tables(&'static Section),
}

/// The durations that a key takes.
#[derive(Debug)]
pub struct Bounds {
    /// The shortest.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
    /// Whether only whole seconds are meant.
    pub whole_seconds: bool,
}

impl Kind {
    /// The type in words, for messages and the reference.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Texts => "a text or a list of texts",
            Self::Choice(_) => "a word",
            Self::Count(_) => "a whole number",
            Self::Duration(_) => "a duration",
            Self::Table(_) => "a table",
            Self::Tables(_) => "a list of tables",
        }
    }
}

/// The longest duration: 2^31 ms, which is what a kernel built with HZ=1000 takes for a conntrack timeout, and
/// what `epoll_wait` takes.
const MOST: Duration = Duration::from_secs(24 * 86_400);
const CLOCK: Kind =
    Kind::Duration(Bounds { least: Duration::from_millis(1), most: MOST, whole_seconds: false });
const KERNEL_CLOCK: Kind =
    Kind::Duration(Bounds { least: Duration::from_secs(1), most: MOST, whole_seconds: true });

/// A key that may be left out.
const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, kind, required: false, default, example, doc, elsewhere: &[] }
}

const fn also_called(key: Key, elsewhere: &'static [&'static str]) -> Key {
    Key { elsewhere, ..key }
}

const fn required(key: Key) -> Key {
    Key { required: true, ..key }
}

/// The top of the file.
pub static FILE: Section = Section {
    header: "",
    doc: "A file is a list of rules, and settings of the host and of the engines, all of which may be left out.",
    keys: &[
        key("host", Kind::Table(&HOST), "", "", ""),
        key("control", Kind::Table(&CONTROL), "", "", ""),
        key("proxy", Kind::Table(&PROXY), "", "", ""),
        also_called(
            key("rule", Kind::Tables(&RULE), "", "", ""),
            &["rules", "forward", "forwards", "service", "services"],
        ),
    ],
};

static HOST: Section = Section {
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
            Kind::Count(i32::MAX as u32),
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
    ],
};

static CONTROL: Section = Section {
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

static PROXY: Section = Section {
    header: "[proxy]",
    doc: "The `proxy` engine as a whole.",
    keys: &[
        key("workers", Kind::Count(1024), "one per core", "2", "Worker threads."),
        also_called(
            key(
                "max-connections",
                Kind::Count(10_000_000),
                "from the open-file limit",
                "9000",
                "The most TCP connections at a time, over all rules. At the limit new connections wait in the \
                 kernel's queue.",
            ),
            &["maxconn", "worker_connections"],
        ),
        key(
            "max-flows",
            Kind::Count(10_000_000),
            "from the open-file limit",
            "4000",
            "The most UDP flows at a time, over all rules. At the limit a datagram of a new flow is dropped.",
        ),
        key("timeouts", Kind::Table(&PROXY_TIMEOUTS), "", "", ""),
    ],
};

static PROXY_TIMEOUTS: Section = Section {
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

static RULE: Section = Section {
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
            required(key(
                "forward",
                Kind::Text,
                "",
                "\"192.168.1.100:80\"",
                "Where it goes. See *Backends*.",
            )),
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
            ],
        ),
        also_called(
            key(
                "engine",
                Kind::Choice(&["auto", "nftables", "proxy"]),
                "\"auto\"",
                "\"proxy\"",
                "Which engine carries it. `auto` is the cheapest that can do all the rule asks for on this host; \
                 `portway plan` says which and why.",
            ),
            &["mode", "type", "via"],
        ),
        also_called(
            key(
                "source",
                Kind::Texts,
                "\"masquerade\"",
                "[\"192.0.2.10\", \"192.0.2.11\"]",
                "Which source address the backend sees: `\"masquerade\"`, this host's address on the way there; \
                 `\"preserve\"`, the client's own (the backend must route its replies through this host; `nftables` \
                 only); or a list of this host's addresses, in the backend's family, that connections are spread over.",
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
                Kind::Count(10_000_000),
                "no limit of its own",
                "100",
                "The most TCP connections and UDP flows of this rule at a time. `proxy` only.",
            ),
            &["maxconn", "limit"],
        ),
        also_called(key("timeouts", Kind::Table(&RULE_TIMEOUTS), "", "", ""), &["timeout"]),
    ],
};

impl Section {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// This section and all below it, in the order of the reference.
    pub fn walk(&'static self) -> Vec<&'static Section> {
        let below = self.keys.iter().filter_map(|key| match key.kind {
            Kind::Table(section) | Kind::Tables(section) => Some(section),
            _ => None,
        });
        std::iter::once(self).chain(below.flat_map(Section::walk)).collect()
    }
}

/// The hint for a key that `section` does not have.
pub fn hint_for_unknown(section: &'static Section, unknown: &str) -> String {
    let names = || section.keys.iter().map(|key| key.name);
    if let Some(near) = nearest(unknown, names()) {
        return format!("did you mean `{near}`?");
    }
    let lower = unknown.to_ascii_lowercase();
    if let Some(key) = section.keys.iter().find(|key| key.elsewhere.contains(&lower.as_str())) {
        let example = match key.example {
            "" => String::new(),
            example => format!(": {} = {example}", key.name),
        };
        return format!("Portway calls it `{}`{example}", key.name);
    }
    let home = FILE.walk().into_iter().find(|other| other.key(&lower).is_some_and(|key| !key.doc.is_empty()));
    if let Some(home) = home {
        return format!("`{lower}` belongs in {}", home.header);
    }
    format!("known here: {}", names().collect::<Vec<_>>().join(", "))
}
